//! Following one log: does each entry come right after the one before?

use capstan_model::GenerationId;
use capstan_model::failure::with_causes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::entry::{Commit, EntryError, Writer, read, sha256_hex};
use super::gap::{About, Gap, GapKind};
use super::state::CommitId;
use crate::store::{checked, names};

/// Something wrong with the catalog that a reader should hear of. What else there is stays
/// readable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Problem {
    /// An object that cannot be used.
    #[error("{object} is damaged")]
    Damaged {
        /// Its name.
        object: String,
        /// What is wrong.
        source: EntryError,
    },
    /// An object written by a newer version.
    #[error("{object} was written by a newer version; what it says is left out")]
    TooNew {
        /// Its name.
        object: String,
        /// Which format it has.
        source: EntryError,
    },
    /// An object that can be used, though a byte of it was changed: what it says may be wrong.
    #[error("{object} is not what was written: something in it is wrong")]
    Changed {
        /// Its name.
        object: String,
    },
    /// A number is missing in a log that goes on after it.
    #[error("{object} is missing, though later commits of its log are there")]
    Missing {
        /// Its name.
        object: String,
    },
    /// An entry was made after other bytes than are stored now.
    #[error("{before} or {object} was changed: the second does not follow from the first")]
    Broken {
        /// The entry that was to follow.
        object: String,
        /// The one before it.
        before: String,
    },
    /// A log whose writer is not registered.
    #[error("{object} has no writer: its log is read, but not who wrote it")]
    NoWriter {
        /// The log's first commit.
        object: String,
    },
}

impl Problem {
    /// The name of the object that it is about.
    pub fn object(&self) -> &str {
        match self {
            Problem::Damaged { object, .. }
            | Problem::TooNew { object, .. }
            | Problem::Changed { object }
            | Problem::Missing { object }
            | Problem::Broken { object, .. }
            | Problem::NoWriter { object } => object,
        }
    }

    /// The facts that it hides; none if all that was committed can be read. What a commit that cannot be
    /// read is about nobody can tell: an import commits packets of any time.
    ///
    /// A commit that was changed and can be parsed is used, and it hides facts all the same: its times and
    /// addresses decide which segments are opened, and any of them may be wrong. What is wrong with a writer
    /// hides nothing but who it was.
    pub fn gap(&self) -> Option<Gap> {
        let (object, kind) = match self {
            Problem::Damaged { object, .. } | Problem::Changed { object } => {
                (object, GapKind::Damaged)
            }
            Problem::TooNew { object, .. } => (object, GapKind::TooNew),
            Problem::Missing { object } => (object, GapKind::Missing),
            // The later one is what was written: its own checksum is right.
            Problem::Broken { before, .. } => (before, GapKind::Damaged),
            Problem::NoWriter { .. } => return None,
        };
        let object = Path::from(object.as_str());
        names::parse_commit(&object)?;
        Some(Gap::new(&object, kind, About::AnyTime, with_causes(self)))
    }
}

/// Whether a commit that was followed, and of which these are the problems, is not what was written.
pub(crate) fn is_changed(found: &[Problem]) -> bool {
    found.iter().any(|problem| matches!(problem, Problem::Changed { .. }))
}

/// Tells what hides facts from what does not, which is given in words.
pub(crate) fn sorted_out(problems: &[Problem]) -> (Vec<Gap>, Vec<String>) {
    let gaps = problems.iter().filter_map(Problem::gap).collect();
    let notes = problems.iter().filter(|problem| problem.gap().is_none());
    (gaps, notes.map(|problem| with_causes(problem)).collect())
}

/// How far a log was followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    #[serde(flatten)]
    of: GenerationId,
    /// The number of the next commit.
    next: u64,
    /// SHA-256 of the entry before, hex; none if it is missing or damaged, so that one
    /// fault is not reported twice.
    previous: Option<String>,
    finished: bool,
    next_ordinal: u64,
}

impl Chain {
    /// A log before its first commit; `writer` as its object's bytes, if it is there.
    pub fn new(of: GenerationId, writer: Option<&[u8]>) -> Chain {
        let previous = writer.map(sha256_hex);
        Chain { of, next: 0, previous, finished: false, next_ordinal: 0 }
    }

    /// Whose log it is.
    pub fn id(&self) -> GenerationId {
        self.of
    }

    /// The number of the next commit.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether the last commit said that nothing follows.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Every packet with a lower ordinal is in a commit.
    pub fn next_ordinal(&self) -> u64 {
        self.next_ordinal
    }

    /// Takes the commit with number `seq`, at or after [`Chain::next`]. What is wrong goes to
    /// `problems`; what the commit says is returned if it can be read at all.
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
                // What was changed is told once, and not by the one after it too.
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

    /// Goes on after `seq`: it and all from [`Chain::next`] on are missing. One report, however
    /// many there are; it names the first.
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

    /// Puts a draft into the form of this log's next commit, or says why it cannot follow.
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

/// Reads a writer found under this name, if it can be read, and begins its log.
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
    // The first commit follows from what was written, not from what it became.
    let sound = matches!(problem, None | Some(Problem::TooNew { .. })).then_some(bytes);
    problems.extend(problem);
    (writer, Chain::new(of, sound))
}
