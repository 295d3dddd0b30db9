//! Problems: every error and warning of one load, each with its place, none of them the first and last.
//!
//! A problem never quotes a secret: who reports one about a secret value says what is wrong with it, not what it is.

use std::fmt;
use std::sync::Arc;

/// Where something stands in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Position {
    /// The file as it was named on the command line or in the configuration.
    pub file: Arc<str>,
    /// From 1; 0 when the whole file is meant.
    pub line: usize,
    /// From 1; 0 when the whole file is meant.
    pub column: usize,
    /// The path of the key: `authentication.jwt[0].issuer`; empty for the whole file.
    pub key: String,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        Ok(())
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is accepted and the operator told at every start.
    Warning,
}

/// One thing that is wrong with the configuration or a file it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Where.
    pub at: Position,
    /// What was found, what was expected, what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}: {}", self.at, self.message)
    }
}

/// The problems found so far. Rooms that read files the configuration names add theirs to the same list.
#[derive(Clone, Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Records an error.
    pub fn error(&mut self, at: &Position, message: impl Into<String>) {
        self.0.push(Problem { severity: Severity::Error, at: at.clone(), message: message.into() });
    }

    /// Records a warning.
    pub fn warning(&mut self, at: &Position, message: impl Into<String>) {
        self.0.push(Problem { severity: Severity::Warning, at: at.clone(), message: message.into() });
    }

    /// Adds what another list has.
    pub fn extend(&mut self, more: Problems) {
        self.0.extend(more.0);
    }

    /// Whether anything refuses the configuration.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Puts them into the order of the files, each from top to bottom.
    pub(super) fn sort_by_file(&mut self, files: &[Arc<str>]) {
        let place = |at: &Position| (files.iter().position(|file| *file == at.file), at.line, at.column);
        self.0.sort_by_key(|problem| place(&problem.at));
    }

    /// All of them, in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}
