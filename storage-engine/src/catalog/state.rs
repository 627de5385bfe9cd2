//! All logs together, and queries on them. No IO.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use capstan_model::coverage::{Listened, Loss};
use capstan_model::{GenerationId, TimeRange};

use super::chain::{Chain, Problem, read_writer};
use super::checkpoint::Checkpoint;
use super::commit_id::CommitId;
use super::fact::{Change, Fact};
use super::facts::Attributed;
use super::generation::{GenerationState, Import, imports};
use super::segment_state::Segment;
use crate::catalog::names;

/// The contents of a store, as far as its logs were followed.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    generations: BTreeMap<GenerationId, GenerationState>,
    facts: Vec<KnownFact>,
    problems: Vec<Problem>,
    replaced: BTreeSet<CommitId>,
}

/// A fact in the form for readers.
#[derive(Debug, Clone)]
pub(crate) enum KnownFact {
    Segment(Arc<Segment>),
    Listened(Attributed<Listened>),
    Loss(Attributed<Loss>),
    Change(Attributed<Change>),
}

impl KnownFact {
    /// A fact of a commit; none if it is of a kind that this version does not know.
    pub(crate) fn of(commit: CommitId, fact: Fact) -> Option<KnownFact> {
        fn said<T>(CommitId { of: by, seq }: CommitId, fact: T) -> Attributed<T> {
            Attributed { by, seq, fact }
        }
        Some(match fact {
            Fact::Segment(entry) => KnownFact::Segment(Arc::new(Segment::of(commit, entry))),
            Fact::Listened(listened) => KnownFact::Listened(said(commit, listened)),
            Fact::Loss(loss) => KnownFact::Loss(said(commit, loss)),
            Fact::Change(change) => KnownFact::Change(said(commit, change)),
            Fact::Unknown(_) => return None,
        })
    }

    /// The commit of the fact.
    pub(crate) fn commit(&self) -> CommitId {
        let (of, seq) = match self {
            KnownFact::Segment(segment) => return segment.by,
            KnownFact::Listened(said) => (said.by, said.seq),
            KnownFact::Loss(said) => (said.by, said.seq),
            KnownFact::Change(said) => (said.by, said.seq),
        };
        CommitId { of, seq }
    }
}

/// Sums over segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Segments.
    pub segments: u64,
    /// Packets.
    pub packets: u64,
    /// Flow parts.
    pub flow_parts: u64,
    /// Captured bytes.
    pub captured_bytes: u64,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// Objects and their bytes, by layer.
    pub layers: BTreeMap<String, (u64, u64)>,
}

impl Catalog {
    /// An empty store.
    pub fn new() -> Catalog {
        Catalog::default()
    }

    /// Adds a writer.
    pub fn add_writer(&mut self, of: GenerationId, bytes: &[u8]) {
        let (writer, chain) = read_writer(of, bytes, &mut self.problems);
        self.generations.entry(of).or_insert_with(|| GenerationState::new(writer, chain));
    }

    /// A catalog of generations with known positions. Their facts up to these positions are not included.
    pub(crate) fn of_generations(
        generations: impl IntoIterator<Item = GenerationState>,
    ) -> Catalog {
        let generations = generations.into_iter().map(|state| (state.id(), state)).collect();
        Catalog { generations, ..Catalog::default() }
    }

    /// Adds a generation with a known position. Its facts up to that position are not included.
    pub(crate) fn add_generation(&mut self, state: GenerationState) {
        self.generations.entry(state.id()).or_insert(state);
    }

    /// Adds a commit. The commits of one log must be in order; a number that was added already is skipped.
    pub fn add_commit(&mut self, of: GenerationId, seq: u64, bytes: &[u8]) {
        let state = self.generations.entry(of).or_insert_with(|| {
            let object = names::commit(of, seq).to_string();
            self.problems.push(Problem::NoWriter { object });
            GenerationState::new(None, Chain::new(of, None))
        });
        if seq < state.chain().next() {
            return;
        }
        if let Some(commit) = state.follow(seq, bytes, &mut self.problems) {
            self.replaced.extend(commit.content.replaced());
            let facts = commit.content.facts.into_iter();
            self.facts.extend(facts.filter_map(|fact| KnownFact::of(CommitId { of, seq }, fact)));
        }
    }

    /// Begins a truncated log at its checkpoint, unless it is known further.
    pub(crate) fn begin_at(&mut self, checkpoint: Checkpoint) {
        let of = checkpoint.of();
        let known = self.generations.get(&of);
        if known.is_some_and(|state| state.chain().next() >= checkpoint.seq()) {
            return;
        }
        let writer = known.and_then(|state| state.writer().cloned());
        let state = checkpoint.begin(writer, &mut self.problems);
        self.generations.insert(of, state);
    }

    /// Records that a commit which existed is gone.
    pub fn add_missing(&mut self, of: GenerationId, seq: u64) {
        if let Some(state) = self.generations.get_mut(&of)
            && seq >= state.chain().next()
        {
            state.skip(seq, &mut self.problems);
        }
    }

    /// A generation, if it is known.
    pub fn state(&self, of: GenerationId) -> Option<&GenerationState> {
        self.generations.get(&of)
    }

    /// Every generation, by recorder and number.
    pub fn generations(&self) -> impl Iterator<Item = (GenerationId, &GenerationState)> {
        self.generations.iter().map(|(of, state)| (*of, state))
    }

    /// The next expected commit of each open log.
    pub fn open_logs(&self) -> impl Iterator<Item = CommitId> {
        let open = self.generations.iter().filter(|(_, state)| !state.chain().finished());
        open.map(|(of, state)| CommitId { of: *of, seq: state.chain().next() })
    }

    /// All facts, in the order in which they were added.
    pub(crate) fn facts(&self) -> &[KnownFact] {
        &self.facts
    }

    /// Commits that a repair has replaced: they no longer count.
    pub fn replaced(&self) -> &BTreeSet<CommitId> {
        &self.replaced
    }

    /// Faults of the catalog; empty if there are none.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The segments that may hold packets of a range, in the order of their commits within a
    /// log. Segments without any time belong to all of time only.
    pub fn segments(&self, range: TimeRange) -> impl Iterator<Item = &Arc<Segment>> {
        let segments = self.facts.iter().filter_map(|fact| match fact {
            KnownFact::Segment(segment) => Some(segment),
            _ => None,
        });
        segments.filter(move |segment| segment.entry.touches(&range))
    }

    /// Coverage statements that touch a range; they are not cut to the range.
    pub fn coverage(&self, range: TimeRange) -> impl Iterator<Item = &Attributed<Listened>> {
        let listened = self.facts.iter().filter_map(|fact| match fact {
            KnownFact::Listened(said) => Some(said),
            _ => None,
        });
        listened.filter(move |said| said.fact.range.intersect(&range).is_some())
    }

    /// Losses in a range. A loss at a single moment has a range of one nanosecond or zero length; both are found.
    pub fn losses(&self, range: TimeRange) -> impl Iterator<Item = &Attributed<Loss>> {
        let losses = self.facts.iter().filter_map(|fact| match fact {
            KnownFact::Loss(said) => Some(said),
            _ => None,
        });
        losses.filter(move |said| said.fact.touches(&range))
    }

    /// The imports of files; see [`imports`].
    pub fn imports(&self) -> Vec<Import> {
        imports(self.generations.values())
    }

    /// Sums over the segments of a range.
    pub fn totals(&self, range: TimeRange) -> Totals {
        let mut totals = Totals::default();
        for entry in self.segments(range).map(|segment| &segment.entry) {
            totals.segments += 1;
            totals.packets = totals.packets.saturating_add(entry.packets);
            totals.flow_parts = totals.flow_parts.saturating_add(entry.flow_parts);
            totals.captured_bytes = totals.captured_bytes.saturating_add(entry.captured_bytes);
            totals.wire_bytes = totals.wire_bytes.saturating_add(entry.wire_bytes);
            for layer in &entry.layers {
                let (objects, bytes) = totals.layers.entry(layer.layer.clone()).or_default();
                *objects += 1;
                *bytes = bytes.saturating_add(layer.bytes);
            }
        }
        totals
    }
}
