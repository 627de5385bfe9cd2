//! Detects changes of a file during its import: it may still grow, or be replaced.

use std::io;

use super::file_state::State;
use super::identity::{Known, sketch_of};

/// What happened to a file during the read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// No change, or removed after the read.
    None,
    /// The file grew. Its beginning is unchanged.
    Grew,
    /// Another file has its name.
    Replaced,
    /// The file is shorter than before.
    Cut,
    /// The beginning of the file changed.
    Overwritten,
}

impl Change {
    /// A description that follows the file's name. None if the change is harmless.
    pub(super) fn harm(self) -> Option<&'static str> {
        match self {
            Change::None | Change::Grew => None,
            Change::Replaced => Some("was replaced by another file"),
            Change::Cut => Some("was truncated"),
            Change::Overwritten => Some("was overwritten"),
        }
    }
}

/// Checks a file after `read` bytes of it were read.
///
/// # Errors
/// The file's metadata cannot be read, or it was removed before its end was read.
pub(super) fn look(known: &Known, read: u64) -> io::Result<Change> {
    let now = match std::fs::metadata(&known.path) {
        Ok(about) => State::of(&about),
        Err(error) if error.kind() == io::ErrorKind::NotFound && read >= known.state.bytes => {
            return Ok(Change::None);
        }
        Err(error) => return Err(error),
    };
    let change = between(known.state, now, read);
    // Compares only the samples: reading the whole file again would cost as much as the import.
    let may_differ = matches!(change, Change::None | Change::Grew) && now != known.state;
    if may_differ && sketch_of(&known.path, known.bytes)? != known.sketch {
        return Ok(Change::Overwritten);
    }
    Ok(change)
}

/// Compares the file states before and after reading `read` bytes. Pure.
fn between(before: State, now: State, read: u64) -> Change {
    if now.file != before.file {
        Change::Replaced
    } else if now.bytes < before.bytes || now.bytes < read {
        Change::Cut
    } else if now.bytes > before.bytes {
        Change::Grew
    } else {
        Change::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_tell_what_happened() {
        let state =
            |inode, bytes, modified| State { file: (1, inode), bytes, modified: (modified, 0) };
        let before = state(7, 100, 5);
        for (now, read, expected) in [
            (before, 100, Change::None),
            (before, 50, Change::None),
            (state(7, 100, 6), 100, Change::None),
            (state(7, 101, 6), 100, Change::Grew),
            (state(7, 150, 6), 150, Change::Grew),
            (state(7, 150, 6), 151, Change::Cut),
            (state(7, 99, 6), 99, Change::Cut),
            (state(7, 0, 5), 0, Change::Cut),
            (state(8, 100, 5), 100, Change::Replaced),
            (state(8, 500, 6), 100, Change::Replaced),
        ] {
            assert_eq!(between(before, now, read), expected, "{now:?} {read}");
        }
    }
}
