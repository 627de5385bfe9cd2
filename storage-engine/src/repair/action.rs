//! What a repair is asked to do, what it does, and what that comes to.

use std::fmt;

use capstan_model::GenerationId;
use capstan_model::words::{agree, count};

use super::adopt::Why;
use crate::catalog::TimeSlot;
use crate::store::names;

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Nobody writes into the store: segments that were put there less than a day ago are judged, too.
    pub nobody_writes: bool,
    /// Remove segments that nobody needs: uploads that were broken off, packets that are there already.
    pub remove_waste: bool,
    /// The machine that repairs, for people.
    pub host: String,
}

/// Something that was done, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A boundary was put anew.
    Boundary(u64),
    /// An ended generation was put anew from its log.
    Generation(GenerationId),
    /// A root was put.
    Root {
        /// Its version.
        version: u64,
        /// The one it goes on from; 0 = none can be read.
        from: u64,
        /// Logs that it had not, and that are rolled up on from where manifests have them.
        logs: u64,
    },
    /// A manifest was put.
    Manifest {
        /// Of what.
        slot: TimeSlot,
        /// Commits that were put into it.
        commits: u64,
        /// Commits that say something of it and cannot be read either.
        lost: u64,
    },
    /// A damaged object was removed, in whose place another one is.
    Removed(String),
    /// A damaged commit was removed, as manifests have what it said.
    Needless(String),
    /// What a writer says of itself was put anew.
    Writer(GenerationId),
    /// What a writer said of itself is lost.
    NoWriter(GenerationId),
    /// A commit that cannot be read, or is not what was written, counts no more: all that it may have named
    /// and that can be had is named again.
    Replaced(String),
    /// Such a commit still hides something: segments that it may have named were left.
    Unresolved(String),
    /// Of a segment that the catalog names some layers are gone, or have another length than was committed.
    Incomplete {
        /// Its name.
        segment: String,
        /// These layers.
        missing: Vec<&'static str>,
    },
    /// A segment that nobody named was named.
    Adopted {
        /// Its name.
        segment: String,
        /// Its packets.
        packets: u64,
        /// Layers that are not there, nobody knows why.
        absent: Vec<&'static str>,
    },
    /// A segment that nobody names was left as it is.
    Left {
        /// Its name.
        segment: String,
        /// Its bytes.
        bytes: u64,
        /// Why.
        why: Why,
    },
    /// A segment that nobody needs was removed.
    Waste {
        /// Its name.
        segment: String,
        /// Its bytes.
        bytes: u64,
        /// Why nobody needs it.
        why: Why,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Boundary(number) => write!(f, "{}: written again", names::boundary(*number)),
            Action::Generation(of) => {
                write!(f, "{}: written again from its log", names::ended_generation(*of))
            }
            Action::Root { version, from: 0, logs } => write!(
                f,
                "{}: written, as no root can be read; {} {} named again",
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
                write!(f, "{object}: removed, as another one is in its place")
            }
            Action::Needless(commit) => {
                write!(f, "{commit}: removed: it is damaged, and what it said is rolled up")
            }
            Action::Writer(of) => {
                write!(f, "{}: written again", names::writer(*of))
            }
            Action::NoWriter(of) => write!(
                f,
                "{}: cannot be written again: who recorded what its log says is not known any more",
                names::writer(*of)
            ),
            Action::Replaced(commit) => {
                write!(f, "{commit}: counts no more, as what it named is named again")
            }
            Action::Unresolved(commit) => write!(
                f,
                "{commit}: cannot be read, and segments that it may have named were left; when these can be used \
                 or are removed, repair again"
            ),
            Action::Incomplete { segment, missing } => write!(
                f,
                "segment {segment}: not what was committed, and nobody can write it again: {}",
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

/// Hears how it goes on.
pub trait Watch: Sync {
    /// It goes on with something that has so many steps; 0 = nobody knows.
    fn begin(&self, _what: &'static str, _steps: u64) {}
    /// One of them is done.
    fn step(&self) {}
    /// Something was done.
    fn did(&self, _action: &Action) {}
    /// Whether to stop.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// What a repair came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Things that were put anew or removed.
    pub repaired: u64,
    /// Segments that were named again, and their packets.
    pub adopted: (u64, u64),
    /// Segments that were left as they are, and their bytes.
    pub left: (u64, u64),
    /// Segments that were removed, and their bytes.
    pub removed: (u64, u64),
    /// What can be repaired no more: segments that cannot be used or may be doubles, commits and writers that cannot
    /// be read.
    pub beyond: u64,
    /// It was stopped before its end.
    pub stopped: bool,
}
