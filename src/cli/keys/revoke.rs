//! `doorward keys revoke`.

use super::key_file::NotChanged;
use super::{FAILED, Failure, Files, configuration, key_file, meanwhile, record, to_the_second};
use clap::Args;
use jiff::Timestamp;
use std::time::SystemTime;

#[derive(Args, Debug)]
pub(in crate::cli) struct Revoke {
    #[command(flatten)]
    pub(super) files: Files,
    /// The id of the key's record
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// Who reads exit code 0 may rely on it: where the file cannot be changed this fails, and says what to write.
pub(super) fn revoke(arguments: &Revoke) -> Result<(), Failure> {
    let config = configuration(&arguments.files.config)?;
    let file = key_file(&config)?;
    let record = record(&file, &arguments.id)?;
    let now = Timestamp::now();
    if let Some(revoked) = record.revoked_at.filter(|revoked| *revoked <= SystemTime::from(now)) {
        let since = Timestamp::try_from(revoked).map(|since| since.to_string()).unwrap_or_default();
        eprintln!("{} is revoked since {since} already", record.id);
        return Ok(());
    }
    let at = to_the_second(now).unwrap_or(now);
    match file.revoke(record, at) {
        Ok(()) => {
            eprintln!("{} is revoked in {} from {at} on", record.id, file.path().display());
            Ok(())
        }
        Err(NotChanged::Meanwhile) => Err(meanwhile(&file)),
        Err(NotChanged::Cannot(reason)) => {
            let path = file.path().display();
            let message = format!(
                "{path} is left as it is: {reason}. Nothing is revoked; write into the record of {}\n\n    revoked_at: {at}\n",
                record.id
            );
            Err(Failure(FAILED, message))
        }
    }
}
