//! Follows one log and checks that each entry continues the previous one.

use capstan_model::GenerationId;
use capstan_model::failure::with_causes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::commit_id::CommitId;
use super::entry::{Commit, EntryError, Writer, read, sha256_hex};
use super::gap::{About, Gap, GapKind};
use super::invariants::check_fact;
use super::names;
use crate::store::checked;

/// A fault of the catalog that readers report. Everything else stays readable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Problem {
    /// An unusable object.
    #[error("{object} is damaged")]
    Damaged {
        /// Its name.
        object: String,
        /// The fault.
        source: EntryError,
    },
    /// An object written by a newer version.
    #[error("{object} was written by a newer version; what it says is left out")]
    TooNew {
        /// Its name.
        object: String,
        /// The format of the object.
        source: EntryError,
    },
    /// A usable object with a changed byte: its content may be wrong.
    #[error("{object} is not what was written: something in it is wrong")]
    Changed {
        /// Its name.
        object: String,
    },
    /// A missing number in a log that continues after it.
    #[error("{object} is missing, though later commits of its log are there")]
    Missing {
        /// Its name.
        object: String,
    },
    /// An entry whose hash of the previous entry does not match the stored bytes.
    #[error("{before} or {object} was changed: the hash of the first is not the one in the second")]
    Broken {
        /// The later entry.
        object: String,
        /// The previous entry.
        before: String,
    },
    /// A log whose writer is not registered.
    #[error("{object} has no writer object: its log is readable, its writer is unknown")]
    NoWriter {
        /// The log's first commit.
        object: String,
    },
    /// An unusable checkpoint. Its name has the number of commits that it covers, and manifests have their facts.
    #[error("{object} cannot be used: {why}")]
    Checkpoint {
        /// Its name.
        object: String,
        /// The fault, as text.
        why: String,
        /// A newer version may be able to use it.
        is_newer: bool,
    },
}

impl Problem {
    /// The name of the affected object.
    pub fn object(&self) -> &str {
        match self {
            Problem::Damaged { object, .. }
            | Problem::TooNew { object, .. }
            | Problem::Changed { object }
            | Problem::Missing { object }
            | Problem::Broken { object, .. }
            | Problem::NoWriter { object }
            | Problem::Checkpoint { object, .. } => object,
        }
    }

    /// The facts that the fault hides; none if every commit is readable. The times of an unreadable commit are
    /// unknown: an import commits packets of any time.
    ///
    /// A changed commit that still parses is used, but it hides facts too: its times and addresses decide which
    /// segments are opened, and any of them may be wrong. A fault of a writer hides only the description of the
    /// writer, and a fault of a checkpoint only the sums over the commits before it.
    pub fn gap(&self) -> Option<Gap> {
        let (object, kind) = match self {
            Problem::Damaged { object, .. } | Problem::Changed { object } => {
                (object, GapKind::Damaged)
            }
            Problem::TooNew { object, .. } => (object, GapKind::TooNew),
            Problem::Missing { object } => (object, GapKind::Missing),
            // The later entry is intact: its own checksum is right.
            Problem::Broken { before, .. } => (before, GapKind::Damaged),
            Problem::NoWriter { .. } | Problem::Checkpoint { .. } => return None,
        };
        let object = Path::from(object.as_str());
        names::parse_commit(&object)?;
        Some(Gap::new(&object, kind, About::AnyTime, with_causes(self)))
    }
}

/// Whether the bytes of the followed commit were changed. `found` are the problems of that commit.
pub(crate) fn is_changed(found: &[Problem]) -> bool {
    found.iter().any(|problem| matches!(problem, Problem::Changed { .. }))
}

/// Separates problems that hide facts from problems that do not. The latter become text.
pub(crate) fn sorted_out(problems: &[Problem]) -> (Vec<Gap>, Vec<String>) {
    let gaps = problems.iter().filter_map(Problem::gap).collect();
    let notes = problems.iter().filter(|problem| problem.gap().is_none());
    (gaps, notes.map(|problem| with_causes(problem)).collect())
}

/// The position in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    #[serde(flatten)]
    of: GenerationId,
    /// The number of the next commit.
    next: u64,
    /// SHA-256 of the previous entry, hex; none if that entry is missing or damaged, so that one fault is reported
    /// once.
    previous: Option<String>,
    finished: bool,
    next_ordinal: u64,
}

impl Chain {
    /// A log before its first commit. `writer` holds the bytes of the writer object, if it exists.
    pub fn new(of: GenerationId, writer: Option<&[u8]>) -> Chain {
        let previous = writer.map(sha256_hex);
        Chain { of, next: 0, previous, finished: false, next_ordinal: 0 }
    }

    /// A log before a commit, of which the previous one is unknown.
    pub(crate) fn at(of: GenerationId, next: u64) -> Chain {
        Chain { of, next, previous: None, finished: false, next_ordinal: 0 }
    }

    /// The same log before an earlier commit. `previous`: SHA-256 of the entry before that one, if it is known.
    pub(crate) fn before(&self, next: u64, previous: Option<String>) -> Chain {
        Chain { next, previous, finished: false, ..self.clone() }
    }

    /// SHA-256 of the previous entry, hex; none if it is unknown.
    pub(crate) fn previous(&self) -> Option<&str> {
        self.previous.as_deref()
    }

    /// The generation that owns the log.
    pub fn id(&self) -> GenerationId {
        self.of
    }

    /// The number of the next commit.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether the last commit declares the log finished.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Every packet with a lower ordinal is in a commit.
    pub fn next_ordinal(&self) -> u64 {
        self.next_ordinal
    }

    /// Follows the commit with number `seq`, at or after [`Chain::next`]. Adds faults to `problems`. Returns the
    /// commit if it is readable at all.
    pub fn follow(
        &mut self,
        seq: u64,
        bytes: &[u8],
        problems: &mut Vec<Problem>,
    ) -> Option<Commit> {
        if seq > self.next {
            self.skip(seq - 1, problems);
        }
        let name = |seq| names::commit(self.of, seq).to_string();
        let before = match seq.checked_sub(1) {
            Some(before) => name(before),
            None => names::writer(self.of).to_string(),
        };
        let object = name(seq);
        self.next = seq.saturating_add(1);
        match self.read(seq, bytes) {
            Ok(commit) => {
                let follows = self.previous.as_ref().is_none_or(|hash| *hash == commit.previous);
                // A change is reported once, and not by the next commit too.
                let changed = checked::is_changed(commit.format, bytes);
                if changed {
                    problems.push(Problem::Changed { object });
                } else if !follows {
                    problems.push(Problem::Broken { object, before });
                }
                self.previous = (!changed).then(|| sha256_hex(bytes));
                self.finished = commit.content.finished.is_some();
                self.next_ordinal = self.next_ordinal.max(commit.content.next_ordinal);
                Some(commit)
            }
            Err(source @ EntryError::TooNew(_)) => {
                problems.push(Problem::TooNew { object, source });
                self.previous = Some(sha256_hex(bytes));
                None
            }
            Err(source) => {
                problems.push(Problem::Damaged { object, source });
                self.previous = None;
                None
            }
        }
    }

    /// Continues after `seq`: all commits from [`Chain::next`] to `seq` are missing. Makes one report, which names
    /// the first missing commit.
    pub fn skip(&mut self, seq: u64, problems: &mut Vec<Problem>) {
        let object = names::commit(self.of, self.next).to_string();
        problems.push(Problem::Missing { object });
        self.previous = None;
        self.next = seq.saturating_add(1);
    }

    fn read(&self, seq: u64, bytes: &[u8]) -> Result<Commit, EntryError> {
        let commit: Commit = read(bytes)?;
        if commit.id() != (CommitId { of: self.of, seq }) {
            let says = names::commit(commit.id().of, commit.seq);
            return Err(EntryError::Misnamed(says.to_string()));
        }
        super::entry::check_segments(&commit.content)?;
        Ok(commit)
    }

    /// Turns a draft into the next commit of this log, or returns the reason why it cannot follow.
    pub(crate) fn next_commit(
        &self,
        content: super::CommitDraft,
        committed_at: capstan_model::Time,
        nonce: String,
    ) -> Result<Commit, EntryError> {
        if self.finished {
            return Err(EntryError::Order("the log is finished, nothing can follow"));
        }
        if content.next_ordinal < self.next_ordinal {
            return Err(EntryError::Order("the next ordinal is lower than in the commit before"));
        }
        super::entry::check_segments(&content)?;
        content.facts.iter().try_for_each(check_fact).map_err(EntryError::Fact)?;
        Ok(Commit {
            format: content.format(),
            recorder: self.of.recorder,
            generation: self.of.generation,
            seq: self.next,
            previous: self.previous.clone().unwrap_or_default(),
            nonce,
            committed_at,
            content,
        })
    }
}

/// Parses the writer object with this name, if it is readable, and begins its log.
pub(crate) fn read_writer(
    of: GenerationId,
    bytes: &[u8],
    problems: &mut Vec<Problem>,
) -> (Option<Writer>, Chain) {
    let object = names::writer(of).to_string();
    let (writer, problem) = match read::<Writer>(bytes) {
        Ok(writer) if writer.of() == of => {
            let changed = checked::is_changed(writer.format, bytes);
            (Some(writer), changed.then_some(Problem::Changed { object }))
        }
        Ok(writer) => {
            let says = names::writer(writer.of()).to_string();
            let source = EntryError::Misnamed(says);
            (None, Some(Problem::Damaged { object, source }))
        }
        Err(source @ EntryError::TooNew(_)) => (None, Some(Problem::TooNew { object, source })),
        Err(source) => (None, Some(Problem::Damaged { object, source })),
    };
    // The hash in the first commit is of the original bytes, not of changed ones.
    let sound = matches!(problem, None | Some(Problem::TooNew { .. })).then_some(bytes);
    problems.extend(problem);
    (writer, Chain::new(of, sound))
}
