//! `doorward run`.

use super::{FAILED, Ready, load};
use crate::app;
use crate::telemetry::Diagnostics;
use std::path::PathBuf;
use std::process::ExitCode;

pub(super) fn run(paths: &[PathBuf]) -> ExitCode {
    let Ready { config, assembly, sources, .. } = match load(paths) {
        Ok(ready) => ready,
        Err(code) => return code,
    };
    let diagnostics = Diagnostics::install(config.log.level);
    match app::Ports::bind(&config).and_then(|ports| app::run(ports, config, assembly, sources, diagnostics)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}
