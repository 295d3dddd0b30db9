//! A YAML file of its own beside the configuration (revocations, expectations), read with the configuration's reader, so
//! that whatever is wrong in it has its place.

use super::merge::merge;
use super::section::{Field, Origin, Reader};
use super::{Position, Problems, node};
use std::cell::RefCell;
use std::path::PathBuf;

/// What `understand` makes of the document; `None` when it is no YAML. Everything that is wrong is added to `problems`.
pub(super) fn read_document<T>(name: &str, bytes: &[u8], problems: &mut Problems, understand: impl FnOnce(&Field) -> T) -> Option<T> {
    let whole = Position { file: name.into(), ..Position::default() };
    let Ok(text) = std::str::from_utf8(bytes) else {
        problems.error(&whole, "it is not UTF-8");
        return None;
    };
    let root = match node::parse(text, 0) {
        Ok(root) => root,
        Err(error) => {
            problems.error(&Position { line: error.line, column: error.column, ..whole }, error.message);
            return None;
        }
    };
    let origins = [Origin { name: name.into(), base: PathBuf::new() }];
    // One problem, one list: what the reader finds joins the caller's problems at the end.
    let reader = Reader { origins: &origins, env: &|_| None, problems: RefCell::new(std::mem::take(problems)), files: RefCell::default() };
    let understood = merge(&reader, [root]).map(|root| understand(&Field::root(&reader, &root)));
    *problems = reader.problems.into_inner();
    understood
}
