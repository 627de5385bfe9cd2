//! One generation of a recorder: who it is, how far its log was followed, and what its commits add up to.

use std::collections::BTreeSet;

use capstan_model::{Generation, GenerationId, RecorderId, Time};
use serde::{Deserialize, Serialize};

use super::chain::{Chain, Problem, is_changed};
use super::entry::{Commit, Finished, Source, SourceMark, Writer, WriterKind};

/// Notes that are kept of one generation.
const NOTES: usize = 64;

/// See the module. What the commits say of segments, listening and losses is kept elsewhere.
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

    /// Takes the commit with number `seq`, at or after that of [`Generation::chain`]. What is wrong goes to
    /// `problems`; what the commit says is returned if it can be read at all.
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
        // What a commit says of all before it is not taken from one that may say anything.
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

    /// Goes on after `seq`, which is missing with all before it that were not followed.
    pub(crate) fn skip(&mut self, seq: u64, problems: &mut Vec<Problem>) {
        self.chain.skip(seq, problems);
    }

    /// Takes nothing from what its writer's object says, which is not what was written.
    pub(crate) fn forget_writer(&mut self) {
        self.writer = None;
    }

    /// Which one it is.
    pub fn id(&self) -> GenerationId {
        self.chain.id()
    }

    /// How far its log was followed.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What the writer says of itself; none if its object is missing or damaged.
    pub fn writer(&self) -> Option<&Writer> {
        self.writer.as_ref()
    }

    /// How it ended, if it said so.
    pub fn finished(&self) -> Option<&Finished> {
        self.finished.as_ref()
    }

    /// Of an import: how far its source was read, by the last commit that says so.
    pub fn source_read(&self) -> Option<&SourceMark> {
        self.source_read.as_ref()
    }

    /// How many commits its log has.
    pub fn commits(&self) -> u64 {
        self.chain.next()
    }

    /// Packets committed.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets that its commits say were lost.
    pub fn packets_lost(&self) -> u64 {
        self.packets_lost
    }

    /// When it committed last, by its own clock.
    pub fn last_commit(&self) -> Option<Time> {
        self.last_commit
    }

    /// What its commits noted for people, each once, of many the first.
    pub fn notes(&self) -> &BTreeSet<String> {
        &self.notes
    }

    fn is_complete(&self) -> bool {
        self.finished.as_ref().is_some_and(|finished| finished.complete)
    }
}

/// How far an import of one source has come, over all generations that worked on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// What was imported, as the last generation found it.
    pub source: Source,
    /// Who imports it.
    pub recorder: RecorderId,
    /// The generation that began it; the flow ids of all its generations carry this one.
    pub first_generation: Generation,
    /// The generation that worked on it last.
    pub last_generation: Generation,
    /// All of it is committed.
    pub complete: bool,
    /// Packets committed.
    pub packets: u64,
    /// Where to go on: every packet with a lower ordinal is committed.
    pub next_ordinal: u64,
    /// The flow counter to go on with.
    pub next_flow: u64,
    /// How far the source was read, by the last commit that says so.
    pub source_read: Option<SourceMark>,
    /// Of so many of the source's first packets it is said what was listened to and lost.
    pub stated: u64,
    /// How far the source had been read each time that an earlier generation had imported all of it. It has grown since.
    pub earlier: Vec<SourceMark>,
}

/// The imports of files, from generations in the order of recorders and generations; the earliest first. What they have read of their files
/// is told by [`Import::source_read`].
pub fn imports<'a>(generations: impl IntoIterator<Item = &'a GenerationState>) -> Vec<Import> {
    let mut imports: Vec<Import> = Vec::new();
    for state in generations {
        let GenerationId { recorder, generation } = state.id();
        let Some(writer) = &state.writer else { continue };
        let Some(source) = &writer.info.source else { continue };
        if writer.info.kind != WriterKind::Import {
            continue;
        }
        // Generations are in order, so what is resumed was met before.
        let stated = state.finished.as_ref().map_or(0, |of| of.packets_total);
        let resumed = imports.iter_mut().find(|import| {
            import.recorder == recorder && Some(import.last_generation) == writer.info.resumes
        });
        match resumed {
            Some(import) => {
                // A file that has grown is gone on with although the generation before was complete.
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
