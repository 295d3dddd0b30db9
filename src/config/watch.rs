//! Tells when files have changed, however that is done: in place, by a rename, by the swap of a link somewhere in their
//! path as in a mounted ConfigMap or Secret.
//!
//! Polled: a file's own inode may never change, and no notification is certain on every file system. A look is one `stat`
//! a file. What is half-written is not taken for the whole: a change is told only once it has been still for one look.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Looks at files that change all the time until they are read nevertheless.
const MOST_WAITS: u8 = 2;

/// Some files, as they were when they were last judged.
#[derive(Debug)]
pub struct FileWatch {
    paths: Vec<PathBuf>,
    /// `None` before the first judgement.
    judged: Option<Change>,
    /// At the last look, and for how many looks they have differed from what was judged.
    last: Option<Change>,
    waits: u8,
}

/// The files as they were at the look that found them changed: to be judged after they have been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change(Vec<Option<Fingerprint>>);

/// Changes with every write, rename and swap of a link: device, inode, size, modification and change. `None` in its place:
/// the file is not there, or cannot be looked at.
type Fingerprint = (u64, u64, u64, (i64, i64), (i64, i64));

impl FileWatch {
    /// How many looks a change takes to be told, at most.
    pub const MOST_LOOKS: u8 = MOST_WAITS + 1;

    /// Of these files. The first look tells of a change in any case: they may have changed since they were read.
    pub fn new(paths: Vec<PathBuf>) -> FileWatch {
        FileWatch { paths, judged: None, last: None, waits: 0 }
    }

    /// Follows these from now on; others than before are told of at the next look, whatever they hold.
    pub fn follow(&mut self, paths: Vec<PathBuf>) {
        if paths != self.paths {
            *self = FileWatch::new(paths);
        }
    }

    /// Looks; `Some` when the files are to be read.
    pub fn look(&mut self) -> Option<Change> {
        let seen = self.fingerprints();
        if self.judged.as_ref() == Some(&seen) {
            self.waits = 0;
            return None;
        }
        let still = self.judged.is_none() || self.last.as_ref() == Some(&seen);
        self.last = Some(seen.clone());
        if !still && self.waits < MOST_WAITS {
            self.waits += 1;
            return None;
        }
        Some(seen)
    }

    /// The files have been read, and were in order or not. `false`: that says nothing, and the next look tells again. What
    /// changed while it was read may have been read in halves; if it is in order nevertheless, it may count.
    pub fn judge(&mut self, change: Change, in_order: bool) -> bool {
        if !in_order && self.fingerprints() != change {
            return false;
        }
        (self.judged, self.waits) = (Some(change), 0);
        true
    }

    fn fingerprints(&self) -> Change {
        Change(self.paths.iter().map(|path| fingerprint(path)).collect())
    }
}

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    // Follows links, wherever in the path.
    let metadata = fs::metadata(path).ok()?;
    let (modified, changed) = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
    Some((metadata.dev(), metadata.ino(), metadata.len(), modified, changed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// Two files, watched and judged once.
    struct Desk {
        folder: TempDir,
        watch: FileWatch,
    }

    impl Desk {
        fn new() -> Desk {
            let folder = tempfile::tempdir().unwrap();
            let paths = ["a", "b"].map(|name| folder.path().join(name)).to_vec();
            paths.iter().for_each(|path| fs::write(path, "1").unwrap());
            let mut desk = Desk { folder, watch: FileWatch::new(paths) };
            assert_eq!(desk.looks(), 1, "the first look tells: they may have changed since they were read");
            assert!(desk.watch.look().is_none());
            desk
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.folder.path().join(name), content).unwrap();
        }

        /// After how many looks the change was told, and judged in order.
        fn looks(&mut self) -> u8 {
            let (looks, change) = (1..10).find_map(|looks| Some((looks, self.watch.look()?))).expect("a change is told");
            assert!(self.watch.judge(change, true));
            looks
        }
    }

    #[test]
    fn a_change_of_any_file_is_told_once_it_is_still() {
        let mut desk = Desk::new();
        for name in ["a", "b"] {
            desk.write(name, "22");
            assert_eq!(desk.looks(), 2);
            assert!((0..3).all(|_| desk.watch.look().is_none()), "told once");
        }
    }

    #[test]
    fn files_that_never_rest_are_read_all_the_same() {
        let mut desk = Desk::new();
        let mut told = Vec::new();
        for step in 1..=9 {
            desk.write("a", &"x".repeat(step + 1));
            let change = desk.watch.look();
            told.push(change.is_some());
            change.map(|change| desk.watch.judge(change, true));
        }
        assert_eq!(told, [false, false, true].repeat(3));
        assert_eq!(FileWatch::MOST_LOOKS, 3);
    }

    #[test]
    fn what_changes_while_it_is_read_is_read_again_unless_it_was_in_order() {
        let mut desk = Desk::new();
        desk.write("a", "22");
        let changes: Vec<_> = (0..2).filter_map(|_| desk.watch.look()).collect();
        desk.write("a", "333");
        assert!(!desk.watch.judge(changes[0].clone(), false), "half of it may have been read");
        assert_eq!(desk.looks(), 2);
        desk.write("a", "4444");
        let changes: Vec<_> = (0..2).filter_map(|_| desk.watch.look()).collect();
        desk.write("a", "55555");
        assert!(desk.watch.judge(changes[0].clone(), true));
        assert_eq!(desk.looks(), 2, "and what came after it is told too");
    }

    #[test]
    fn a_file_may_go_and_come_back() {
        let mut desk = Desk::new();
        fs::rename(desk.folder.path().join("a"), desk.folder.path().join("a~")).unwrap();
        assert!(desk.watch.look().is_none(), "an editor may be renaming");
        desk.write("a", "22");
        assert_eq!(desk.looks(), 2);
        fs::remove_file(desk.folder.path().join("a")).unwrap();
        assert_eq!(desk.looks(), 2);
        assert!(desk.watch.look().is_none());
        desk.write("a", "22");
        assert_eq!(desk.looks(), 2);
    }

    #[test]
    fn the_swap_of_a_mounted_volume_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let version = |name: &str| {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("a"), name).unwrap();
        };
        version("..1");
        symlink("..1", folder.path().join("..data")).unwrap();
        symlink("..data/a", folder.path().join("a")).unwrap();
        let mut watch = FileWatch::new(vec![folder.path().join("a")]);
        let change = watch.look().unwrap();
        assert!(watch.judge(change, true) && watch.look().is_none());
        version("..2");
        symlink("..2", folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
        fs::remove_dir_all(folder.path().join("..1")).unwrap();
        assert!(watch.look().is_none());
        assert!(watch.look().is_some());
    }
}
