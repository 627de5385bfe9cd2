//! The state of a file, as far as it tells whether the file changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// A file's state at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// Device and inode.
    pub(super) file: (u64, u64),
    pub(super) bytes: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
}

impl State {
    pub(super) fn of(about: &Metadata) -> State {
        State {
            file: (about.dev(), about.ino()),
            bytes: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
        }
    }
}
