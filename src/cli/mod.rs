//! The command line. Exit codes: 0 fine, 1 failed while running or a test that differs, 2 `explain` refused, 64 wrong usage, 78 bad configuration.
//! Diagnostics go to stderr; stdout is for results and the access log.

mod check;
mod demo;
mod descriptors;
mod drain;
mod explain;
mod keys;
mod operations_port;
mod run;
mod test;

use crate::app::{self, Assembly, Sources};
use crate::config::{Config, Problems, Severity};
use crate::grpc::Services;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// Failed while running; a test differs.
const FAILED: u8 = 1;
/// `explain`: the call would be refused.
const REFUSED: u8 = 2;
/// EX_USAGE of sysexits.h.
const USAGE: u8 = 64;
/// EX_CONFIG of sysexits.h.
const BAD_CONFIGURATION: u8 = 78;

/// The authenticating sidecar for gRPC: terminates TLS and HTTP/2, checks who is calling and what they may call, tells the
/// upstream who it was, and forwards.
#[derive(Parser)]
#[command(name = "doorward", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy; the container's entry point
    Run(Files),
    /// Load the configuration as `run` does; print every error, or a summary of what is enforced, with warnings
    Check(check::Arguments),
    /// The decision for one call, in words
    Explain(explain::Arguments),
    /// Compare what the configuration decides with a table of expectations: who, method, allowed or the reason of the refusal
    Test(test::Arguments),
    /// API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Begin the drain of the proxy that runs on this machine with this configuration; for a preStop hook
    Drain(Files),
    /// A sample service, a certificate, a key, a token and the proxy in front, with calls to paste; needs no file
    Demo {
        /// Make the calls, print the answers and end
        #[arg(long)]
        exit: bool,
    },
}

/// Where the configuration is.
#[derive(Args, Debug)]
struct Files {
    /// A YAML file; `-` reads standard input. Repeated: the files together are one configuration
    #[arg(long = "config", value_name = "FILE", required = true)]
    config: Vec<PathBuf>,
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Writing help or a usage error fails only when nobody reads it.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match cli.command {
        Command::Run(files) => run::run(&files.config),
        Command::Check(arguments) => check::check(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Test(arguments) => test::test(&arguments),
        Command::Keys(command) => keys::keys(command),
        Command::Drain(files) => drain::drain(&files.config),
        Command::Demo { exit } => demo::demo(exit),
    }
}

/// A configuration that may be run, with every room made.
struct Ready {
    config: Config,
    assembly: Assembly,
    problems: Problems,
    sources: Sources,
}

/// Loads and assembles with the one code that `run`, `check` and `explain` share, and prints every problem to stderr.
fn load(paths: &[PathBuf]) -> Result<Ready, ExitCode> {
    load_beside(paths, None)
}

/// The same beside what the upstream has, where that is known.
fn load_beside(paths: &[PathBuf], services: Option<&Services>) -> Result<Ready, ExitCode> {
    let app::Loaded { ready, problems, files } = app::load(paths, services);
    tell(&problems)?;
    let (config, assembly) = ready.expect("what has no errors is ready");
    Ok(Ready { config, assembly, problems, sources: Sources { paths: paths.to_vec(), files } })
}

/// Prints every problem to stderr; errors refuse the configuration.
fn tell(problems: &Problems) -> Result<(), ExitCode> {
    for problem in problems.iter() {
        eprintln!("{problem}");
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    if errors > 0 {
        eprintln!("the configuration is refused: {errors} error{}", if errors == 1 { "" } else { "s" });
        return Err(ExitCode::from(BAD_CONFIGURATION));
    }
    Ok(())
}

/// For the commands that ask somebody something.
fn runtime() -> Result<Runtime, ExitCode> {
    Builder::new_current_thread().enable_all().build().map_err(|error| {
        eprintln!("error: {error}");
        ExitCode::from(FAILED)
    })
}
