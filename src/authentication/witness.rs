//! Who is told of every check while it is made: the check that decides also hands over its words, what was found and what is
//! expected, so that an explanation cannot say anything else than what decided.
//!
//! A call has [`NoWitness`]: the words of a check that passes are never rendered, and nothing of the rest is left in the
//! compiled code. A [`Transcript`] writes everything down, and lets checks go on after a failed one to see what else is wrong.

use super::failure::{Failure, FailureKind};

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A check that passed.
    Passed,
    /// A check that failed.
    Failed,
    /// Something that was read and decides nothing by itself.
    Noted,
}

/// Is told of every step of an authentication, in order.
pub(super) trait Witness {
    /// Whether every check is to be seen: then nothing is taken from the cache, and those that need nothing of a failed check
    /// are made all the same.
    const THOROUGH: bool;

    /// A step. `words` are for the operator: values that a client chose are quoted, credentials are not in them.
    fn tell(&mut self, outcome: Outcome, words: impl FnOnce() -> String);

    /// A check whose words are the same whether it passes or fails: what was found, and what is expected.
    fn check(&mut self, kind: FailureKind, passed: bool, words: impl FnOnce() -> String) -> Result<(), Failure> {
        self.found(kind, passed.then_some(()), |_| words())
    }

    /// A check that passes when something was found.
    fn found<T>(&mut self, kind: FailureKind, found: Option<T>, words: impl FnOnce(Option<&T>) -> String) -> Result<T, Failure> {
        match found {
            Some(found) => {
                self.tell(Outcome::Passed, || words(Some(&found)));
                Ok(found)
            }
            None => Err(self.fail(Failure::new(kind, words(None)))),
        }
    }

    /// A check that brings its own words when it fails.
    fn judged<T>(&mut self, judged: Result<T, Failure>, words: impl FnOnce(&T) -> String) -> Result<T, Failure> {
        let value = judged.map_err(|failure| self.fail(failure))?;
        self.tell(Outcome::Passed, || words(&value));
        Ok(value)
    }

    /// A check that has failed.
    fn fail(&mut self, failure: Failure) -> Failure {
        self.tell(Outcome::Failed, || failure.detail.clone());
        failure
    }

    /// See [`Outcome::Noted`].
    fn note(&mut self, words: impl FnOnce() -> String) {
        self.tell(Outcome::Noted, words);
    }
}

/// Keeps the failure of one group of checks for later when the witness is thorough, so that the next group is looked at too: its
/// value cannot be had but through that failure. Whoever takes values out in the order of the checks answers with the first.
pub(super) fn hold<T, W: Witness>(outcome: Result<T, Failure>, _: &mut W) -> Result<Result<T, Failure>, Failure> {
    if W::THOROUGH { Ok(outcome) } else { outcome.map(Ok) }
}

/// Nobody: what calls have.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoWitness;

impl Witness for NoWitness {
    const THOROUGH: bool = false;

    fn tell(&mut self, _: Outcome, _: impl FnOnce() -> String) {}
}

/// Every step in words.
#[derive(Debug, Default)]
pub struct Transcript(Vec<(Outcome, String)>);

impl Transcript {
    /// The steps so far.
    pub fn steps(&self) -> impl Iterator<Item = (Outcome, &str)> {
        self.0.iter().map(|(outcome, words)| (*outcome, words.as_str()))
    }
}

impl Witness for Transcript {
    const THOROUGH: bool = true;

    fn tell(&mut self, outcome: Outcome, words: impl FnOnce() -> String) {
        self.0.push((outcome, words()));
    }
}
