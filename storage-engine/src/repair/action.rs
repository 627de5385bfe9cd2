//! The request, the actions and the report of a repair.

use std::fmt;

use capstan_model::GenerationId;
use capstan_model::words::{agree, count};

use super::adopt::Why;
use crate::catalog::TimeSlot;
use crate::catalog::names;

/// The options of a repair.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only report what would be done.
    pub dry_run: bool,
    /// No process writes into the store: also judge segments that are less than a day old.
    pub nobody_writes: bool,
    /// Remove useless segments: interrupted uploads and imports, and duplicates of existing packets.
    pub remove_waste: bool,
    /// The machine that repairs, shown to operators.
    pub host: String,
}

/// An action that was taken, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A boundary was written again.
    Boundary(u64),
    /// A checkpoint of a truncated log was written again.
    Checkpoint(GenerationId),
    /// The content of a checkpoint is lost.
    NoCheckpoint(GenerationId),
    /// An ended generation was rebuilt from its log.
    Generation(GenerationId),
    /// A root was written.
    Root {
        /// Its version.
        version: u64,
        /// The root that it continues from; 0 = none is readable.
        from: u64,
        /// Logs that were missing in it; they are rolled up from the positions in manifests.
        logs: u64,
    },
    /// A manifest was written.
    Manifest {
        /// The slot.
        slot: TimeSlot,
        /// Commits added to it.
        commits: u64,
        /// Commits with facts about it that are unreadable too.
        lost: u64,
    },
    /// A damaged object was removed; another one replaces it.
    Removed(String),
    /// A damaged commit was removed, because manifests have its facts.
    Needless(String),
    /// A writer object was written again.
    Writer(GenerationId),
    /// The content of a writer object is lost.
    NoWriter(GenerationId),
    /// An unreadable or changed commit no longer counts, or the loss of a manifest with facts of removed commits:
    /// every segment that it may have named, and that still exists, is named again.
    Replaced(String),
    /// Such a commit still hides facts: segments that it may have named were left alone.
    Unresolved(String),
    /// Some layers of a named segment are missing, or have another length than the committed one.
    Incomplete {
        /// Its name.
        segment: String,
        /// The affected layers.
        missing: Vec<&'static str>,
    },
    /// An orphan segment was named.
    Adopted {
        /// Its name.
        segment: String,
        /// Its packets.
        packets: u64,
        /// Layers that are missing for an unknown reason.
        absent: Vec<&'static str>,
    },
    /// An orphan segment was left alone.
    Left {
        /// Its name.
        segment: String,
        /// Its bytes.
        bytes: u64,
        /// The reason.
        why: Why,
    },
    /// A useless segment was removed.
    Waste {
        /// Its name.
        segment: String,
        /// Its bytes.
        bytes: u64,
        /// Why it is useless.
        why: Why,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Boundary(number) => write!(f, "{}: written again", names::boundary(*number)),
            Action::Checkpoint(of) => {
                write!(f, "{}: written again", names::checkpoints_of(*of))
            }
            Action::NoCheckpoint(of) => write!(
                f,
                "{}: cannot be written again: the last commit that it covers is unreadable",
                names::checkpoints_of(*of)
            ),
            Action::Generation(of) => {
                write!(f, "{}: written again from its log", names::ended_generation(*of))
            }
            Action::Root { version, from: 0, logs } => write!(
                f,
                "{}: written, because no root is readable; {} {} added again",
                names::root(*version),
                count(*logs, "log"),
                agree(*logs, "is", "are")
            ),
            Action::Root { version, from, logs } => write!(
                f,
                "{}: written from version {from}; {} {} named again",
                names::root(*version),
                count(*logs, "log"),
                agree(*logs, "is", "are")
            ),
            Action::Manifest { slot, commits, lost } => {
                write!(
                    f,
                    "catalog/{}: written again with {}",
                    slot.path(),
                    count(*commits, "commit")
                )?;
                match lost {
                    0 => Ok(()),
                    lost => write!(f, "; {lost} more cannot be read"),
                }
            }
            Action::Removed(object) => {
                write!(f, "{object}: removed, because its replacement exists")
            }
            Action::Needless(commit) => {
                write!(f, "{commit}: damaged commit removed: its facts are rolled up")
            }
            Action::Writer(of) => {
                write!(f, "{}: written again", names::writer(*of))
            }
            Action::NoWriter(of) => write!(
                f,
                "{}: cannot be written again: the description of the writer is lost",
                names::writer(*of)
            ),
            Action::Replaced(commit) => {
                write!(f, "{commit}: no longer counts, because its segments are named again")
            }
            Action::Unresolved(commit) => write!(
                f,
                "{commit}: unreadable, and segments that it may have named were left alone; \
                 repair again when these are usable or removed"
            ),
            Action::Incomplete { segment, missing } => write!(
                f,
                "segment {segment}: layers missing or of another length than committed, and \
                 cannot be restored: {}",
                missing.join(", ")
            ),
            Action::Adopted { segment, packets, absent } => {
                write!(f, "segment {segment}: named again, {}", count(*packets, "packet"))?;
                match absent.as_slice() {
                    [] => Ok(()),
                    absent => write!(f, "; without {}, cause unknown", absent.join(", ")),
                }
            }
            Action::Left { segment, bytes, why } => {
                write!(f, "segment {segment}: left, {}: {why}", count(*bytes, "byte"))
            }
            Action::Waste { segment, bytes, why } => {
                write!(f, "segment {segment}: removed, {}: {why}", count(*bytes, "byte"))
            }
        }
    }
}

/// Receives progress.
pub trait Watch: Sync {
    /// A phase begins, with that many steps; 0 = unknown.
    fn begin(&self, _what: &'static str, _steps: u64) {}
    /// One step is done.
    fn step(&self) {}
    /// An action was taken.
    fn did(&self, _action: &Action) {}
    /// Whether to stop.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// The report of a repair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects that were written again or removed.
    pub repaired: u64,
    /// Segments that were named again, and their packets.
    pub adopted: (u64, u64),
    /// Segments that were left alone, and their bytes.
    pub left: (u64, u64),
    /// Segments that were removed, and their bytes.
    pub removed: (u64, u64),
    /// Faults that cannot be repaired: unusable segments, possible duplicates, unreadable commits and writers.
    pub beyond: u64,
    /// It was stopped before its end.
    pub stopped: bool,
}
