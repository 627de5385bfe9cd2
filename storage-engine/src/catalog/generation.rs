//! One generation of a recorder: its identity, the position in its log, and the sums over its commits.

use std::collections::BTreeSet;

use capstan_model::{Generation, GenerationId, RecorderId, Time};
use serde::{Deserialize, Serialize};

use super::chain::{Chain, Problem, is_changed};
use super::entry::{Commit, Finished, Writer, WriterKind};
use super::source::{Source, SourceMark};

/// Maximum number of notes kept per generation.
const NOTES: usize = 64;

/// The state of one generation. See the module. Segments, coverage and losses are kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationState {
    writer: Option<Writer>,
    chain: Chain,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished: Option<Finished>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    notes: BTreeSet<String>,
    packets: u64,
    packets_lost: u64,
    next_flow: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_read: Option<SourceMark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_commit: Option<Time>,
}

impl GenerationState {
    pub(crate) fn new(writer: Option<Writer>, chain: Chain) -> GenerationState {
        GenerationState {
            writer,
            chain,
            finished: None,
            notes: BTreeSet::new(),
            packets: 0,
            packets_lost: 0,
            next_flow: 0,
            source_read: None,
            last_commit: None,
        }
    }

    /// The same state with another registration of the generation.
    pub(crate) fn registered_as(self, writer: Option<Writer>) -> GenerationState {
        GenerationState { writer, ..self }
    }

    /// Follows the commit with number `seq`, at or after that of [`Generation::chain`]. Adds faults to `problems`.
    /// Returns the commit if it is readable at all.
    pub(crate) fn follow(
        &mut self,
        seq: u64,
        bytes: &[u8],
        problems: &mut Vec<Problem>,
    ) -> Option<Commit> {
        let known = problems.len();
        let commit = self.chain.follow(seq, bytes, problems)?;
        let is_changed = is_changed(&problems[known..]);
        let content = &commit.content;
        if !content.note.is_empty() && self.notes.len() < NOTES {
            self.notes.insert(content.note.clone());
        }
        // The sums in a changed commit are not trusted.
        if is_changed {
            self.finished = content.finished.clone().map(|of| Finished { complete: false, ..of });
        } else {
            self.finished = content.finished.clone().or(self.finished.take());
            self.source_read = content.source_read.clone().or(self.source_read.take());
        }
        self.next_flow = self.next_flow.max(content.next_flow);
        self.last_commit = self.last_commit.max(Some(commit.committed_at));
        for segment in content.segments() {
            self.packets = self.packets.saturating_add(segment.packets);
        }
        for loss in content.losses() {
            self.packets_lost = self.packets_lost.saturating_add(loss.packets);
        }
        Some(commit)
    }

    /// Continues the log before a commit. Commits in between that were not followed are missing.
    pub(crate) fn skip_to(&mut self, seq: u64) {
        if self.chain.next() < seq {
            self.skip(seq.saturating_sub(1), &mut Vec::new());
        }
    }

    /// Continues after `seq`. That commit and all commits before it that were not followed are missing.
    pub(crate) fn skip(&mut self, seq: u64, problems: &mut Vec<Problem>) {
        self.chain.skip(seq, problems);
    }

    /// The state before an earlier commit: `packets` and `lost` are the packets of segments and of losses in the commits
    /// from there on. The other values only grow with commits, so those of this state are as good.
    pub(crate) fn before(&self, chain: Chain, packets: u64, lost: u64) -> GenerationState {
        GenerationState {
            chain,
            finished: None,
            packets: self.packets.saturating_sub(packets),
            packets_lost: self.packets_lost.saturating_sub(lost),
            ..self.clone()
        }
    }

    /// The same state with other sums: packets of segments, and of losses.
    pub(crate) fn with_sums(self, packets: u64, packets_lost: u64) -> GenerationState {
        GenerationState { packets, packets_lost, ..self }
    }

    /// Ignores the writer object, because its bytes were changed.
    pub(crate) fn forget_writer(&mut self) {
        self.writer = None;
    }

    /// Its identity.
    pub fn id(&self) -> GenerationId {
        self.chain.id()
    }

    /// The position in its log.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The description of the writer; none if its object is missing or damaged.
    pub fn writer(&self) -> Option<&Writer> {
        self.writer.as_ref()
    }

    /// How it ended, if it did.
    pub fn finished(&self) -> Option<&Finished> {
        self.finished.as_ref()
    }

    /// Of an import: the read position in the source, from the last commit that has one.
    pub fn source_read(&self) -> Option<&SourceMark> {
        self.source_read.as_ref()
    }

    /// Whether it has a field that versions before BLAKE3 cannot read.
    pub(crate) fn has_blake3(&self) -> bool {
        self.source_read.as_ref().is_some_and(SourceMark::is_blake3)
    }

    /// Number of commits in its log.
    pub fn commits(&self) -> u64 {
        self.chain.next()
    }

    /// Packets committed.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets lost, as committed.
    pub fn packets_lost(&self) -> u64 {
        self.packets_lost
    }

    /// Time of the last commit, by the recorder's own clock.
    pub fn last_commit(&self) -> Option<Time> {
        self.last_commit
    }

    /// Distinct notes of its commits for operators; only the first ones if there are many.
    pub fn notes(&self) -> &BTreeSet<String> {
        &self.notes
    }

    fn is_complete(&self) -> bool {
        self.finished.as_ref().is_some_and(|finished| finished.complete)
    }
}

/// Progress of the import of one source, over all generations that worked on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The source, as the last generation found it.
    pub source: Source,
    /// The recorder that imports it.
    pub recorder: RecorderId,
    /// The first generation of the import; the flow ids of all its generations carry this number.
    pub first_generation: Generation,
    /// The last generation of the import.
    pub last_generation: Generation,
    /// All of it is committed.
    pub complete: bool,
    /// Packets committed.
    pub packets: u64,
    /// Where to resume: every packet with a lower ordinal is committed.
    pub next_ordinal: u64,
    /// The flow counter to continue with.
    pub next_flow: u64,
    /// The read position in the source, from the last commit that has one.
    pub source_read: Option<SourceMark>,
    /// Number of packets of the source, from its first, for which coverage and losses are committed.
    pub stated: u64,
    /// Read positions at which earlier generations had completed the import. The source has grown since.
    pub earlier: Vec<SourceMark>,
}

/// The imports of files, earliest first. `generations` must be in order of recorder and generation.
/// [`Import::source_read`] tells the read position.
pub fn imports<'a>(generations: impl IntoIterator<Item = &'a GenerationState>) -> Vec<Import> {
    let mut imports: Vec<Import> = Vec::new();
    for state in generations {
        let GenerationId { recorder, generation } = state.id();
        let Some(writer) = &state.writer else { continue };
        let Some(source) = &writer.info.source else { continue };
        if writer.info.kind != WriterKind::Import {
            continue;
        }
        // Generations are in order, so a resumed generation was seen before.
        let stated = state.finished.as_ref().map_or(0, |of| of.packets_total);
        let resumed = imports.iter_mut().find(|import| {
            import.recorder == recorder && Some(import.last_generation) == writer.info.resumes
        });
        match resumed {
            Some(import) => {
                // The import of a file that has grown continues although the previous generation was complete.
                if import.complete {
                    import.earlier.extend(import.source_read.clone());
                }
                import.source = source.clone();
                import.last_generation = generation;
                import.complete = state.is_complete();
                import.packets = import.packets.saturating_add(state.packets);
                import.next_ordinal = import.next_ordinal.max(state.chain.next_ordinal());
                import.next_flow = import.next_flow.max(state.next_flow);
                import.stated = import.stated.max(stated);
                import.source_read = state.source_read.clone().or(import.source_read.take());
            }
            None => imports.push(Import {
                source: source.clone(),
                recorder,
                first_generation: generation,
                last_generation: generation,
                complete: state.is_complete(),
                packets: state.packets,
                next_ordinal: state.chain.next_ordinal(),
                next_flow: state.next_flow,
                source_read: state.source_read.clone(),
                stated,
                earlier: Vec::new(),
            }),
        }
    }
    imports
}
