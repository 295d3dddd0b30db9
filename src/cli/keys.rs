//! STUB
#[derive(clap::Subcommand)]
pub(super) enum Command {}
pub(super) fn keys(c: Command) -> std::process::ExitCode {
    match c {}
}
