//! `doorward run`.

use super::{FAILED, Ready, load};
use crate::app;
use crate::telemetry::install_diagnostics;
use std::path::PathBuf;
use std::process::ExitCode;

pub(super) fn run(paths: &[PathBuf]) -> ExitCode {
    let Ready { config, assembly, .. } = match load(paths) {
        Ok(ready) => ready,
        Err(code) => return code,
    };
    install_diagnostics(config.log.level);
    match app::run(config, assembly) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}
