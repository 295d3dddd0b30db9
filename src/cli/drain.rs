//! `doorward drain`: asks the proxy of this machine, over its operations port, to begin its drain.

use super::{FAILED, operations_port};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The port is of this machine and answers at once, or is in trouble.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn drain(paths: &[PathBuf]) -> ExitCode {
    let operations = match operations_port::address(paths) {
        Ok(address) => address,
        Err(code) => return code,
    };
    let error = match operations_port::post(operations, "/drain", b"", PATIENCE) {
        Ok(answer) if (200..300).contains(&answer.status) => {
            println!("the drain has begun");
            return ExitCode::SUCCESS;
        }
        Ok(answer) => format!("{operations}: it answered with status {}; is it Doorward's operations port?", answer.status),
        Err(error) => error.to_string(),
    };
    eprintln!("error: no drain was begun: {error}");
    ExitCode::from(FAILED)
}
