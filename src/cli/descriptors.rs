//! `--descriptors` and `--reflection`: what the upstream has, for the commands that look at a configuration.

use super::{BAD_CONFIGURATION, FAILED, Files, Ready, load_beside, runtime};
use crate::app;
use crate::config::Problems;
use crate::grpc::Services;
use clap::Args;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Far above the descriptors of any server with all that they import.
const LARGEST: u64 = 64 << 20;

#[derive(Args)]
pub(super) struct Described {
    /// What the upstream has: a descriptor set as `protoc --descriptor_set_out=FILE` or `buf build -o FILE` writes it. A rule
    /// of a method that is not in it is an error
    #[arg(long, value_name = "FILE")]
    descriptors: Option<PathBuf>,
    /// Likewise, and the upstream itself is asked, by its gRPC server reflection (v1 or v1alpha)
    #[arg(long, conflicts_with = "descriptors")]
    reflection: bool,
}

/// Loads the configuration, beside what the upstream has if it was said where to learn that.
pub(super) fn load(files: &Files, described: &Described) -> Result<(Ready, Option<Services>), ExitCode> {
    if described.reflection {
        return beside_reflection(super::load(&files.config)?).map(|(ready, services)| (ready, Some(services)));
    }
    let services = described.descriptors.as_deref().map(read).transpose();
    // The configuration's own errors are told in the same run.
    let ready = load_beside(&files.config, services.as_ref().ok().and_then(Option::as_ref));
    let services = services.map_err(|words| {
        eprintln!("error: {words}");
        ExitCode::from(BAD_CONFIGURATION)
    });
    Ok((ready?, services?))
}

fn read(path: &Path) -> Result<Services, String> {
    let wrong = |words: String| format!("--descriptors {}: {words}", path.display());
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > LARGEST {
        return Err(wrong("it is larger than 64 MiB".to_owned()));
    }
    let services = Services::of_set(&bytes).map_err(|why| wrong(why.to_string()))?;
    if services.method_count() == 0 { Err(wrong("it describes no method of a service".to_owned())) } else { Ok(services) }
}

fn beside_reflection(mut ready: Ready) -> Result<(Ready, Services), ExitCode> {
    let services = runtime()?.block_on(ready.assembly.reflect()).map_err(|why| {
        eprintln!("error: --reflection: the upstream {} does not tell what it has: {why}", ready.config.upstream.address);
        ExitCode::from(FAILED)
    })?;
    let mut problems = Problems::default();
    app::refuse_unknown_methods(&ready.config, &services, &mut problems);
    super::tell(&problems)?;
    ready.problems.extend(problems);
    Ok((ready, services))
}
