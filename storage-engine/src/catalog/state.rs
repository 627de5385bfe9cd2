//! All logs together, and the questions put to them. No IO.

use std::collections::BTreeMap;

use capstan_model::coverage::{Listened, Loss};
use capstan_model::{Generation, Hour, RecorderId, Time, TimeRange};
use object_store::path::Path;

use super::chain::{Chain, Problem, read_writer};
use super::entry::{Commit, Finished, Layer, SegmentEntry, Source, SourceMark, Writer, WriterKind};
use crate::store::names;

/// What is in a store, as far as its logs were followed.
#[derive(Debug, Default)]
pub struct Catalog {
    lives: BTreeMap<(RecorderId, Generation), Life>,
    segments: Vec<Segment>,
    problems: Vec<Problem>,
}

/// One life of a recorder: who it is, and what its log says beside segments.
#[derive(Debug)]
pub struct Life {
    writer: Option<Writer>,
    chain: Chain,
    listened: Vec<Listened>,
    losses: Vec<Loss>,
    finished: Option<Finished>,
    notes: Vec<String>,
    packets: u64,
    next_ordinal: u64,
    next_flow: u64,
    source_read: Option<SourceMark>,
    last_commit: Option<Time>,
}

/// A committed segment and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Who recorded it.
    pub recorder: RecorderId,
    /// In which life.
    pub generation: Generation,
    /// What the commit says.
    pub entry: SegmentEntry,
}

/// How far an import of one source has come, over all lives that worked on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// What was imported.
    pub source: Source,
    /// Who imports it.
    pub recorder: RecorderId,
    /// The life that began it; the flow ids of all its lives carry this one.
    pub first_generation: Generation,
    /// The life that worked on it last.
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
        self.lives.entry((recorder, generation)).or_insert_with(|| Life::new(writer, chain));
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
        let life = self.lives.entry((recorder, generation)).or_insert_with(|| {
            let object = names::commit(recorder, generation, seq).to_string();
            self.problems.push(Problem::NoWriter { object });
            Life::new(None, Chain::new(recorder, generation, None))
        });
        if seq < life.chain.next() {
            return;
        }
        if let Some(commit) = life.chain.follow(seq, bytes, &mut self.problems) {
            let segments = life.apply(commit);
            self.segments.extend(segments.into_iter().map(|entry| Segment {
                recorder,
                generation,
                entry,
            }));
        }
    }

    /// Notes that a commit which was there is gone.
    pub fn add_missing(&mut self, recorder: RecorderId, generation: Generation, seq: u64) {
        if let Some(life) = self.lives.get_mut(&(recorder, generation))
            && seq >= life.chain.next()
        {
            life.chain.skip(seq, &mut self.problems);
        }
    }

    /// Whether a writer is known.
    pub fn knows(&self, recorder: RecorderId, generation: Generation) -> bool {
        self.lives.contains_key(&(recorder, generation))
    }

    /// Every life, by recorder and generation.
    pub fn lives(&self) -> impl Iterator<Item = (RecorderId, Generation, &Life)> {
        self.lives.iter().map(|((recorder, generation), life)| (*recorder, *generation, life))
    }

    /// The next commit to ask for, of each log that may go on.
    pub fn open_logs(&self) -> impl Iterator<Item = (RecorderId, Generation, u64)> {
        self.lives
            .iter()
            .filter(|(_, life)| !life.chain.finished())
            .map(|((recorder, generation), life)| (*recorder, *generation, life.chain.next()))
    }

    /// What is wrong with the catalog; empty if nothing is.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The segments that may hold packets of a range, in the order of their commits within a
    /// log. Segments without any time belong to all of time only.
    pub fn segments(&self, range: TimeRange) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |segment| segment.entry.touches(&range))
    }

    /// When and where was listened in a range: who, and their statement, not cut to the range.
    pub fn coverage(
        &self,
        range: TimeRange,
    ) -> impl Iterator<Item = (RecorderId, Generation, &Listened)> {
        self.lives().flat_map(move |(recorder, generation, life)| {
            life.listened
                .iter()
                .filter(move |listened| listened.range.intersect(&range).is_some())
                .map(move |listened| (recorder, generation, listened))
        })
    }

    /// What is missing in a range. A loss at a single moment has a range of one nanosecond
    /// or none; both are found.
    pub fn losses(
        &self,
        range: TimeRange,
    ) -> impl Iterator<Item = (RecorderId, Generation, &Loss)> {
        self.lives().flat_map(move |(recorder, generation, life)| {
            life.losses
                .iter()
                .filter(move |loss| loss.touches(&range))
                .map(move |loss| (recorder, generation, loss))
        })
    }

    /// The imports of sources with a sketch; the earliest first. That a sketch is the same is a
    /// strong hint and no proof: [`Import::source_read`] is.
    pub fn imports(&self, sketch: &str) -> Vec<Import> {
        let mut imports: Vec<Import> = Vec::new();
        for ((recorder, generation), life) in &self.lives {
            let Some(writer) = &life.writer else { continue };
            let Some(source) = &writer.info.source else { continue };
            if writer.info.kind != WriterKind::Import || source.sketch != sketch {
                continue;
            }
            // Lives are in order, so what is resumed was met before.
            let resumed = imports.iter_mut().find(|import| {
                import.recorder == *recorder && Some(import.last_generation) == writer.info.resumes
            });
            match resumed {
                Some(import) => {
                    import.last_generation = *generation;
                    import.complete |= life.is_complete();
                    import.packets = import.packets.saturating_add(life.packets);
                    import.next_ordinal = import.next_ordinal.max(life.next_ordinal);
                    import.next_flow = import.next_flow.max(life.next_flow);
                    import.source_read = life.source_read.clone().or(import.source_read.take());
                }
                None => imports.push(Import {
                    source: source.clone(),
                    recorder: *recorder,
                    first_generation: *generation,
                    last_generation: *generation,
                    complete: life.is_complete(),
                    packets: life.packets,
                    next_ordinal: life.next_ordinal,
                    next_flow: life.next_flow,
                    source_read: life.source_read.clone(),
                }),
            }
        }
        imports
    }

    /// Sums over the segments of a range.
    pub fn totals(&self, range: TimeRange) -> Totals {
        let mut totals = Totals::default();
        for Segment { entry, .. } in self.segments(range) {
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

impl Life {
    fn new(writer: Option<Writer>, chain: Chain) -> Life {
        Life {
            writer,
            chain,
            listened: Vec::new(),
            losses: Vec::new(),
            finished: None,
            notes: Vec::new(),
            packets: 0,
            next_ordinal: 0,
            next_flow: 0,
            source_read: None,
            last_commit: None,
        }
    }

    /// Takes in a commit but for its segments, which are given back.
    fn apply(&mut self, commit: Commit) -> Vec<SegmentEntry> {
        let content = commit.content;
        self.listened.extend(content.listened);
        self.losses.extend(content.losses);
        self.notes.extend(Some(content.note).filter(|note| !note.is_empty()));
        self.finished = content.finished.or(self.finished.take());
        self.source_read = content.source_read.or(self.source_read.take());
        self.next_ordinal = self.next_ordinal.max(content.next_ordinal);
        self.next_flow = self.next_flow.max(content.next_flow);
        self.last_commit = self.last_commit.max(Some(commit.committed_at));
        for segment in &content.segments {
            self.packets = self.packets.saturating_add(segment.packets);
        }
        content.segments
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

    /// When it committed last, by its own clock.
    pub fn last_commit(&self) -> Option<Time> {
        self.last_commit
    }

    /// What its commits noted for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn is_complete(&self) -> bool {
        self.finished.as_ref().is_some_and(|finished| finished.complete)
    }
}

impl Segment {
    /// The name of a layer's object.
    pub fn path(&self, layer: Layer) -> Path {
        self.entry.path(layer)
    }

    /// The hours it is listed in.
    pub fn hours(&self) -> &[Hour] {
        if self.entry.hours.is_empty() {
            std::slice::from_ref(&self.entry.hour)
        } else {
            &self.entry.hours
        }
    }
}
