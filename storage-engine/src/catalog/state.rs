//! All logs together, and the questions put to them. No IO.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use capstan_model::coverage::{Listened, Loss};
use capstan_model::{Generation, Hour, RecorderId, TimeRange};
use object_store::path::Path;

use super::chain::{Chain, Problem, read_writer};
use super::entry::{Layer, SegmentEntry};
use super::generation::{GenerationState, Import, imports};
use crate::store::names;

/// What is in a store, as far as its logs were followed.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    generations: BTreeMap<(RecorderId, Generation), GenerationState>,
    segments: Vec<Arc<Segment>>,
    listened: Vec<Said<Listened>>,
    losses: Vec<Said<Loss>>,
    problems: Vec<Problem>,
    replaced: BTreeSet<CommitId>,
}

/// A commit: whose, of which generation, and its number.
pub type CommitId = (RecorderId, Generation, u64);

/// A statement of a commit and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said<T> {
    /// Who said it.
    pub recorder: RecorderId,
    /// In which generation.
    pub generation: Generation,
    /// In which commit.
    pub seq: u64,
    /// What.
    pub what: T,
}

/// A committed segment and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Who recorded it.
    pub recorder: RecorderId,
    /// In which generation.
    pub generation: Generation,
    /// In which commit.
    pub seq: u64,
    /// Whose commit that is; not who recorded it if it was repaired.
    pub by: (RecorderId, Generation),
    /// What the commit says.
    pub entry: SegmentEntry,
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

    /// Takes in a writer.
    pub fn add_writer(&mut self, recorder: RecorderId, generation: Generation, bytes: &[u8]) {
        let (writer, chain) = read_writer(recorder, generation, bytes, &mut self.problems);
        self.generations
            .entry((recorder, generation))
            .or_insert_with(|| GenerationState::new(writer, chain));
    }

    /// Generations that others followed so far, to go on with them; what their commits said until then is left
    /// to them.
    pub(crate) fn of_generations(
        generations: impl IntoIterator<Item = GenerationState>,
    ) -> Catalog {
        let generations = generations.into_iter().map(|state| (state.owner(), state)).collect();
        Catalog { generations, ..Catalog::default() }
    }

    /// Takes in a generation that others followed so far; what its commits said until then is left to
    /// them.
    pub(crate) fn add_generation(&mut self, state: GenerationState) {
        self.generations.entry(state.owner()).or_insert(state);
    }

    /// Takes in a commit. Those of one log come in the order of their numbers; numbers
    /// that were taken in already are passed over.
    pub fn add_commit(
        &mut self,
        recorder: RecorderId,
        generation: Generation,
        seq: u64,
        bytes: &[u8],
    ) {
        let state = self.generations.entry((recorder, generation)).or_insert_with(|| {
            let object = names::commit(recorder, generation, seq).to_string();
            self.problems.push(Problem::NoWriter { object });
            GenerationState::new(None, Chain::new(recorder, generation, None))
        });
        if seq < state.chain().next() {
            return;
        }
        if let Some(commit) = state.follow(seq, bytes, &mut self.problems) {
            let content = commit.content;
            self.replaced.extend(content.replaced());
            fn said<T>(owner: (RecorderId, Generation), seq: u64) -> impl Fn(T) -> Said<T> {
                let (recorder, generation) = owner;
                move |what| Said { recorder, generation, seq, what }
            }
            let owner = (recorder, generation);
            self.listened.extend(content.listened.into_iter().map(said(owner, seq)));
            self.losses.extend(content.losses.into_iter().map(said(owner, seq)));
            let segment = |entry| Arc::new(Segment::of(recorder, generation, seq, entry));
            self.segments.extend(content.segments.into_iter().map(segment));
        }
    }

    /// Notes that a commit which was there is gone.
    pub fn add_missing(&mut self, recorder: RecorderId, generation: Generation, seq: u64) {
        if let Some(state) = self.generations.get_mut(&(recorder, generation))
            && seq >= state.chain().next()
        {
            state.skip(seq, &mut self.problems);
        }
    }

    /// A generation, if it is known.
    pub fn state(&self, owner: (RecorderId, Generation)) -> Option<&GenerationState> {
        self.generations.get(&owner)
    }

    /// Every generation, by recorder and generation.
    pub fn generations(&self) -> impl Iterator<Item = (RecorderId, Generation, &GenerationState)> {
        self.generations
            .iter()
            .map(|((recorder, generation), state)| (*recorder, *generation, state))
    }

    /// The next commit to ask for, of each log that may go on.
    pub fn open_logs(&self) -> impl Iterator<Item = (RecorderId, Generation, u64)> {
        self.generations
            .iter()
            .filter(|(_, state)| !state.chain().finished())
            .map(|((recorder, generation), state)| (*recorder, *generation, state.chain().next()))
    }

    /// Commits that a repair has replaced: they count no more.
    pub fn replaced(&self) -> &BTreeSet<CommitId> {
        &self.replaced
    }

    /// What is wrong with the catalog; empty if nothing is.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The segments that may hold packets of a range, in the order of their commits within a
    /// log. Segments without any time belong to all of time only.
    pub fn segments(&self, range: TimeRange) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter().filter(move |segment| segment.entry.touches(&range))
    }

    /// When and where was listened in a range: statements that are not cut to the range.
    pub fn coverage(&self, range: TimeRange) -> impl Iterator<Item = &Said<Listened>> {
        self.listened.iter().filter(move |said| said.what.range.intersect(&range).is_some())
    }

    /// What is missing in a range. A loss at a single moment has a range of one nanosecond
    /// or none; both are found.
    pub fn losses(&self, range: TimeRange) -> impl Iterator<Item = &Said<Loss>> {
        self.losses.iter().filter(move |said| said.what.touches(&range))
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

impl Segment {
    /// What a commit says of a segment.
    pub(crate) fn of(
        recorder: RecorderId,
        generation: Generation,
        seq: u64,
        entry: SegmentEntry,
    ) -> Segment {
        let by = (recorder, generation);
        let (recorder, generation) = entry.owner.map_or(by, |of| (of.recorder, of.generation));
        Segment { recorder, generation, seq, by, entry }
    }

    /// The name of a layer's object.
    pub fn path(&self, layer: Layer) -> Path {
        self.entry.path(layer)
    }

    /// The hours it is listed in.
    pub fn hours(&self) -> &[Hour] {
        self.entry.hours()
    }
}
