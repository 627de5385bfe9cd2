//! The stored form of writers, commits, and their segments. JSON; readers ignore unknown fields and refuse a newer
//! format number.

use std::sync::Arc;

use bytes::Bytes;
use capstan_model::coverage::{Listened, Loss};
use capstan_model::{Failure, FailureKind, Generation, GenerationId, RecorderId, Time};
use object_store::path::Path;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::commit_id::CommitId;
use super::fact::{Bare, Fact};
use super::facts::{Later, Lists};
use super::invariants::Broken;
use super::names;
use super::segment_entry::SegmentEntry;
use super::source::{Source, SourceMark};
pub use crate::segment::Layer;
use crate::store::checked;

/// The newest format of writers and commits that this version reads. The number is raised when an older reader would
/// misread them; new fields do not raise it.
pub const FORMAT: u32 = WITH_BLAKE3;

/// The format of writers, and of commits with nothing that an older reader would misread.
pub(crate) const PLAIN: u32 = 2;
/// The format of commits with changes of segments: a reader that ignores them would miss retired layers.
const WITH_CHANGES: u32 = 3;
/// The format of commits with a BLAKE3 hash of the source: older readers expect a SHA-256.
const WITH_BLAKE3: u32 = 4;

/// A generation of a recorder: `writers/<recorder>/<generation>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The format number.
    pub format: u32,
    /// The recorder.
    pub recorder: RecorderId,
    /// Number of the generation.
    pub generation: Generation,
    /// The description of the writer.
    #[serde(flatten)]
    pub info: WriterInfo,
    /// The Capstan version that wrote this.
    pub capstan_version: String,
    /// Marks the create request.
    pub nonce: String,
}

impl Writer {
    /// The generation.
    pub fn of(&self) -> GenerationId {
        GenerationId::new(self.recorder, self.generation)
    }
}

/// The description that a writer gives of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterInfo {
    /// Live recording, import or repair.
    pub kind: WriterKind,
    /// Text for operators: node and interfaces, or the imported file.
    #[serde(default)]
    pub description: String,
    /// The machine it runs on.
    #[serde(default)]
    pub host: String,
    /// The imported capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The generation that this one continues: of an interrupted import, of an import of a file that has grown since, or
    /// of a recording whose log was ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<Generation>,
    /// When it started, by its own clock.
    pub started_at: Time,
}

/// The task of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriterKind {
    /// Records live traffic.
    Live,
    /// Reads an existing capture.
    Import,
    /// Names segments of other recorders whose commits are lost.
    Repair,
}

impl WriterKind {
    /// Its name, as it is stored.
    pub fn name(self) -> &'static str {
        match self {
            WriterKind::Live => "live",
            WriterKind::Import => "import",
            WriterKind::Repair => "repair",
        }
    }
}

/// An entry of a recorder's log: `log/<recorder>/<generation>/<seq>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The format number: the lowest one whose readers read this commit correctly.
    pub format: u32,
    /// The recorder.
    pub recorder: RecorderId,
    /// The generation.
    pub generation: Generation,
    /// Its number, from 0 without gaps.
    pub seq: u64,
    /// SHA-256 of the bytes of the commit before, hex; of the writer for number 0.
    pub previous: String,
    /// Marks the create request.
    pub nonce: String,
    /// Time of the commit, by the recorder's clock.
    pub committed_at: Time,
    /// The content.
    #[serde(flatten)]
    pub content: CommitDraft,
}

impl Commit {
    /// The identity of the commit.
    pub fn id(&self) -> CommitId {
        CommitId { of: GenerationId::new(self.recorder, self.generation), seq: self.seq }
    }
}

/// The content of a commit, before it has a number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "StoredDraft")]
pub struct CommitDraft {
    /// Segments whose layers are all in the store; coverage since the previous commit (also without packets); losses
    /// found since; changes of segments.
    pub facts: Vec<Fact>,
    /// Every packet with a lower ordinal is in a segment (or a loss) of this commit or an earlier one. An import
    /// resumes here.
    pub next_ordinal: u64,
    /// The flow counter to continue with.
    pub next_flow: u64,
    /// Of an import: the read position in the source. In the last commit of a complete import this is the end of the
    /// source.
    pub source_read: Option<SourceMark>,
    /// Set in the last commit of a generation.
    pub finished: Option<Finished>,
    /// Of a repair: names of unreadable or changed commits. They no longer count: the facts of this log replace them.
    pub replaces: Vec<String>,
    /// A note for operators.
    pub note: String,
}

/// A draft in its stored form.
#[derive(Deserialize)]
struct StoredDraft {
    #[serde(default)]
    segments: Vec<SegmentEntry>,
    #[serde(default)]
    listened: Vec<Listened>,
    #[serde(default)]
    losses: Vec<Loss>,
    #[serde(default)]
    facts: Vec<Later>,
    #[serde(default)]
    next_ordinal: u64,
    #[serde(default)]
    next_flow: u64,
    #[serde(default)]
    source_read: Option<SourceMark>,
    #[serde(default)]
    finished: Option<Finished>,
    #[serde(default)]
    replaces: Vec<String>,
    #[serde(default)]
    note: String,
}

impl From<StoredDraft> for CommitDraft {
    fn from(stored: StoredDraft) -> CommitDraft {
        let StoredDraft { segments, listened, losses, facts: later, .. } = stored;
        let segments = segments.into_iter().map(Fact::Segment);
        let listened = listened.into_iter().map(Fact::Listened);
        let losses = losses.into_iter().map(Fact::Loss);
        let later = later.into_iter().map(|Later(fact)| fact);
        CommitDraft {
            facts: segments.chain(listened).chain(losses).chain(later).collect(),
            next_ordinal: stored.next_ordinal,
            next_flow: stored.next_flow,
            source_read: stored.source_read,
            finished: stored.finished,
            replaces: stored.replaces,
            note: stored.note,
        }
    }
}

impl Serialize for CommitDraft {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Stored<'a> {
            #[serde(flatten)]
            lists: Lists<Bare<'a>>,
            next_ordinal: u64,
            next_flow: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            source_read: &'a Option<SourceMark>,
            #[serde(skip_serializing_if = "Option::is_none")]
            finished: &'a Option<Finished>,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            replaces: &'a [String],
            #[serde(skip_serializing_if = "str::is_empty")]
            note: &'a str,
        }
        let CommitDraft { next_ordinal, next_flow, source_read, finished, replaces, note, .. } =
            self;
        Stored {
            lists: Lists::of(&self.facts, |fact| fact, |_, bare| bare),
            next_ordinal: *next_ordinal,
            next_flow: *next_flow,
            source_read,
            finished,
            replaces,
            note,
        }
        .serialize(to)
    }
}

impl CommitDraft {
    /// A draft with the results of a recorder.
    pub fn recorded(
        segments: impl IntoIterator<Item = SegmentEntry>,
        listened: impl IntoIterator<Item = Listened>,
        losses: impl IntoIterator<Item = Loss>,
    ) -> CommitDraft {
        let segments = segments.into_iter().map(Fact::Segment);
        let listened = listened.into_iter().map(Fact::Listened);
        let losses = losses.into_iter().map(Fact::Loss);
        CommitDraft {
            facts: segments.chain(listened).chain(losses).collect(),
            ..CommitDraft::default()
        }
    }

    /// The segments in it.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentEntry> {
        self.facts.iter().filter_map(Fact::segment)
    }

    /// The losses in it.
    pub fn losses(&self) -> impl Iterator<Item = &Loss> {
        self.facts.iter().filter_map(|fact| match fact {
            Fact::Loss(loss) => Some(loss),
            _ => None,
        })
    }

    /// The format for a commit with this content: the oldest format whose readers read it correctly.
    pub(crate) fn format(&self) -> u32 {
        let has_blake3 = self.source_read.as_ref().is_some_and(SourceMark::is_blake3);
        match (has_blake3, self.facts.iter().any(Fact::is_late)) {
            (true, _) => WITH_BLAKE3,
            (false, true) => WITH_CHANGES,
            (false, false) => PLAIN,
        }
    }

    /// The commits that it replaces.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = CommitId> {
        self.replaces.iter().filter_map(|name| names::parse_commit(&Path::from(name.as_str())))
    }
}

/// How a generation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Everything to be recorded or imported is committed.
    pub complete: bool,
    /// Packets of the whole generation. For an import: of its source up to the read position, over all generations. 0
    /// if another process ended the import.
    pub packets_total: u64,
}

/// Why a writer, a commit or a draft is invalid.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EntryError {
    /// Not JSON, or JSON of another shape.
    #[error("it cannot be read")]
    Unreadable(#[source] Arc<serde_json::Error>),
    /// Written by a newer version.
    #[error("unknown format {0}: this version supports up to {FORMAT}")]
    TooNew(u32),
    /// The object has the identity of another one.
    #[error("it contains the name {0}")]
    Misnamed(String),
    /// The entry contradicts itself.
    #[error("segment '{segment}': {what}")]
    Segment {
        /// The segment.
        segment: String,
        /// The contradiction.
        what: &'static str,
    },
    /// A fact violates an invariant.
    #[error(transparent)]
    Fact(Broken),
    /// The entry contradicts the previous commit.
    #[error("{0}")]
    Order(&'static str),
}

fn unreadable(error: serde_json::Error) -> EntryError {
    EntryError::Unreadable(Arc::new(error))
}

/// Parses a writer or a commit; checks the format number first.
pub(crate) fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, EntryError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(unreadable)?;
    if head.format > FORMAT {
        return Err(EntryError::TooNew(head.format));
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

/// Serializes a writer or a commit.
pub(crate) fn to_json(entry: &impl Serialize) -> Result<Bytes, Failure> {
    checked::to_bytes(entry).map(Bytes::from).map_err(|error| {
        Failure::caused_by(FailureKind::Other, "a catalog entry cannot be written as JSON", error)
    })
}

/// SHA-256, hex: catalog objects refer to each other's bytes by it.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Checks that each segment of a draft is consistent and that segment names are unique.
pub(crate) fn check_segments(draft: &CommitDraft) -> Result<(), EntryError> {
    let mut names: Vec<&str> = draft.segments().map(|segment| segment.name.as_str()).collect();
    names.sort_unstable();
    let twice: Vec<&str> =
        names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    for segment in draft.segments() {
        let wrong = |what| Err(EntryError::Segment { segment: segment.name.clone(), what });
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if segment.name.is_empty() || !segment.name.chars().all(plain) {
            return wrong("its name is not letters, digits, '.', '_' and '-'");
        }
        if twice.binary_search(&segment.name.as_str()).is_ok() {
            return wrong("two segments have this name");
        }
        if segment.first_ordinal > segment.last_ordinal {
            return wrong("its last ordinal is lower than its first");
        }
        if segment.packets > (segment.last_ordinal - segment.first_ordinal).saturating_add(1) {
            return wrong("it has more packets than its range of ordinals");
        }
        if segment.first.is_some() != segment.last.is_some() || segment.first > segment.last {
            return wrong("its last time is before its first");
        }
        if !segment.hours.is_empty() && !segment.hours.contains(&segment.hour) {
            return wrong("its list of hours lacks its own hour");
        }
        if segment.layer(Layer::Index).is_none() {
            return wrong("it has no index layer");
        }
    }
    Ok(())
}
