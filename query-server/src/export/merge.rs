//! From segments to one order of packets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use capstan_model::block::block_type;
use capstan_model::{Block, Failure, FailureKind, Generation, Hour, RecorderId, Time};
use capstan_storage_engine::catalog::Segment;
use capstan_storage_engine::segment::Layer;
use tokio::sync::mpsc::Sender;

use super::completeness::Completeness;
use super::output::{Output, unwanted};
use super::pcapng::Section;
use super::read::{Ahead, Beside, Reading, Slice, interfaces};
use super::records::Arena;
use super::run::{Head, Run, Spill};
use super::{Export, LEAST_MEMORY, Order, Report, Skipped};
use crate::select::Selection;
use crate::snapshot::{Cost, Plan, Snapshot};

/// Most bytes of payload and rows that are read and put together at a time.
const LARGEST_SLICE: usize = 16 << 20;

/// The part of the memory that one slice may take; four are held at the worst.
const SLICE_SHARE: usize = 16;

/// Where a packet comes in the file. Without a time comes before with one; for the recorded
/// order no packet has a time here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    time: Option<Time>,
    life: u32,
    ordinal: u64,
}

/// A segment that was not begun yet.
#[derive(Debug)]
struct Pending {
    /// No packet of it comes before.
    from: Position,
    segment: Arc<Segment>,
}

/// The ranks of lives: what packets of the same time are ordered by, or of the recorded order.
type Ranks = BTreeMap<(RecorderId, Generation), u32>;

fn ranks(snapshot: &Snapshot, order: Order) -> Ranks {
    let mut began: BTreeMap<RecorderId, Time> = BTreeMap::new();
    for life in snapshot.lives() {
        let started = life.writer.as_ref().map_or(Time::MAX, |writer| writer.info.started_at);
        let known = began.entry(life.recorder).or_insert(started);
        *known = started.min(*known);
    }
    let mut lives: Vec<(RecorderId, Generation)> =
        snapshot.lives().map(|life| (life.recorder, life.generation)).collect();
    match order {
        Order::Time => lives.sort_unstable(),
        Order::Recorded => {
            lives.sort_unstable_by_key(|life| (began.get(&life.0).copied(), life.0, life.1));
        }
    }
    lives.into_iter().zip(0..).collect()
}

/// The segments that may hold packets of a selection, by where their first packet comes.
fn pending(snapshot: &Snapshot, what: &Export, ranks: &Ranks) -> VecDeque<Pending> {
    let filter = what.selection.filter();
    let range = what.selection.range;
    let mut pending: Vec<Pending> = snapshot
        .segments(range)
        .filter(|segment| filter.may_match(&segment.entry))
        .map(|segment| {
            let timeless = range.is_all() && segment.hours().contains(&Hour::UNKNOWN);
            let time = match what.order {
                Order::Time if !timeless => segment.entry.first.map(|time| time.max(range.start)),
                _ => None,
            };
            let life = ranks.get(&(segment.recorder, segment.generation)).copied();
            let from = Position {
                time,
                life: life.unwrap_or(u32::MAX),
                ordinal: segment.entry.first_ordinal,
            };
            Pending { from, segment: Arc::clone(segment) }
        })
        .collect();
    pending.sort_by(|a, b| (a.from, &a.segment.entry.name).cmp(&(b.from, &b.segment.entry.name)));
    pending.into()
}

/// Whether a failure is about one segment only, so that the others can still be read.
fn is_local(failure: &Failure) -> bool {
    matches!(failure.kind(), FailureKind::Damaged | FailureKind::NotFound | FailureKind::TooNew)
}

/// One run being merged.
#[derive(Debug)]
struct Source {
    run: Run,
    /// Whose segment it is of.
    segment: usize,
}

/// What runs of one segment have in common.
#[derive(Debug)]
struct Active {
    life: u32,
    blocks: VecDeque<Block>,
    /// How many packets come before the next block; `u64::MAX` if there is none.
    next_block: u64,
    /// Runs that are not at their ends.
    runs: usize,
}

impl Active {
    fn block_due(&mut self, ordinal: Option<u64>) -> Option<Block> {
        let due =
            self.blocks.pop_front_if(|block| ordinal.is_none_or(|ordinal| block.before <= ordinal));
        self.next_block = self.blocks.front().map_or(u64::MAX, |block| block.before);
        due
    }
}

struct Merge<'a> {
    snapshot: &'a Arc<Snapshot>,
    what: &'a Export,
    selection: Arc<Selection>,
    everything: bool,
    memory: usize,
    slice_bytes: u64,
    pending: VecDeque<Pending>,
    /// The next segment, being opened.
    next: Option<Ahead<Reading>>,
    active: Vec<Active>,
    sources: Vec<Option<Source>>,
    heap: BinaryHeap<Reverse<(Position, usize)>>,
    /// Blocks about the whole capture that come at its end.
    tail: Vec<(u32, Block)>,
    spill: Spill,
    output: Output<'a>,
    report: Report,
}

/// Runs an export.
pub(super) async fn run(
    snapshot: &Arc<Snapshot>,
    what: &Export,
    to: &Sender<Bytes>,
) -> Result<Report, Failure> {
    let completeness = Completeness::of(snapshot, what.selection.range);
    let ranks = ranks(snapshot, what.order);
    let memory = what.memory.max(LEAST_MEMORY);
    let mut merge = Merge {
        snapshot,
        what,
        selection: Arc::new(what.selection.clone()),
        everything: what.selection.is_everything(),
        memory,
        slice_bytes: (memory / SLICE_SHARE).min(LARGEST_SLICE) as u64,
        pending: pending(snapshot, what, &ranks),
        next: None,
        active: Vec::new(),
        sources: Vec::new(),
        heap: BinaryHeap::new(),
        tail: Vec::new(),
        spill: Spill::new(what.spill.clone()),
        output: Output::new(section(what, &completeness), what.order == Order::Recorded, to),
        report: Report::default(),
    };
    if what.order == Order::Recorded {
        merge.describe_all().await;
    }
    merge.merge().await?;
    let tail = std::mem::take(&mut merge.tail);
    tail.iter().for_each(|(life, block)| merge.output.block(*life, block));
    merge.output.losses(&completeness.losses, |lost| {
        ranks.get(&(lost.recorder, lost.generation)).copied()
    })?;
    merge.output.send().await?;
    let mut report = merge.report;
    report.packets = merge.output.packets;
    report.bytes = merge.output.bytes;
    report.cut = merge.output.cut();
    report.blocks_left_out = merge.output.blocks_left_out;
    report.options_left_out = merge.output.options_left_out;
    report.spilled = merge.spill.written;
    report.completeness = completeness;
    Ok(report)
}

fn section(what: &Export, completeness: &Completeness) -> Section {
    let range = what.selection.range;
    let bound = |time: Time, open: Time, name: &str| {
        if time == open { name.to_owned() } else { time.to_string() }
    };
    let window = if range.is_all() {
        "all of time".to_owned()
    } else {
        let from = bound(range.start, Time::MIN, "the beginning");
        format!("{from} to {}", bound(range.end, Time::MAX, "the end"))
    };
    let words = what.selection.words();
    let flows = if words.is_empty() { "all flows".to_owned() } else { words };
    let order = match what.order {
        Order::Time => "in order of time",
        Order::Recorded => "as recorded",
    };
    Section {
        application: Some(concat!("capstan ", env!("CARGO_PKG_VERSION")).to_owned()),
        comments: vec![format!("{window}; {flows}; {order}"), completeness.words()],
        ..Section::default()
    }
}

impl Merge<'_> {
    /// Learns of all interfaces before the first packet, so that each life's keep their order.
    async fn describe_all(&mut self) {
        for place in 0..self.pending.len() {
            let Some(Pending { from, segment }) = self.pending.get(place) else { break };
            let life = from.life;
            // What cannot be opened is found again, and reported, when its packets are due.
            if let Ok(open) = self.snapshot.open(segment).await {
                self.output.describe(life, &interfaces(&open));
            }
        }
    }

    async fn merge(&mut self) -> Result<(), Failure> {
        loop {
            let least = self.heap.peek().map(|Reverse((position, _))| *position);
            let next = self.pending.front().map(|pending| pending.from);
            match (least, next) {
                (None, None) => return Ok(()),
                (Some(least), Some(next)) if least < next => self.emit(Some(next)).await?,
                (Some(_), None) => self.emit(None).await?,
                (_, Some(_)) => self.begin().await?,
            }
        }
    }

    fn position(&self, head: Head, life: u32) -> Position {
        let time = if self.what.order == Order::Time { head.time } else { None };
        Position { time, life, ordinal: head.ordinal }
    }

    /// Writes packets of the run with the least one, up to where another run, or a segment not
    /// begun, may have one that comes before.
    async fn emit(&mut self, pending: Option<Position>) -> Result<(), Failure> {
        let Some(Reverse((_, place))) = self.heap.pop() else { return Ok(()) };
        let other = self.heap.peek().map(|Reverse((position, _))| *position);
        let limit = match (pending, other) {
            (Some(pending), Some(other)) => Some(pending.min(other)),
            (pending, other) => pending.or(other),
        };
        let Some(mut source) = self.sources.get_mut(place).and_then(Option::take) else {
            return Ok(());
        };
        let Some(life) = self.active.get(source.segment).map(|active| active.life) else {
            return Ok(());
        };
        while let Some(head) = source.run.head() {
            let position = self.position(head, life);
            if limit.is_some_and(|limit| position > limit) {
                self.heap.push(Reverse((position, place)));
                if let Some(slot) = self.sources.get_mut(place) {
                    *slot = Some(source);
                }
                return Ok(());
            }
            if self.active.get(source.segment).is_some_and(|a| a.next_block <= head.ordinal) {
                self.write_blocks(source.segment, Some(head.ordinal));
            }
            if let Some(record) = source.run.record() {
                self.output.packet(life, &record)?;
            }
            source.run.advance()?;
            if self.output.is_full() {
                self.output.send().await?;
            }
        }
        self.end_run(source.segment);
        Ok(())
    }

    fn end_run(&mut self, segment: usize) {
        let Some(active) = self.active.get_mut(segment) else { return };
        active.runs -= 1;
        if active.runs == 0 {
            self.write_blocks(segment, None);
        }
    }

    /// Writes the blocks that come before a packet, or all that are left.
    fn write_blocks(&mut self, segment: usize, ordinal: Option<u64>) {
        let Some(active) = self.active.get_mut(segment) else { return };
        while let Some(block) = active.block_due(ordinal) {
            let helps = matches!(
                block.block_type,
                block_type::NAME_RESOLUTION | block_type::DECRYPTION_SECRETS
            );
            if helps || (self.everything && ordinal.is_some()) {
                self.output.block(active.life, &block);
            } else if self.everything {
                self.tail.push((active.life, block));
            }
        }
    }

    /// Bytes of memory that runs take.
    fn resident(&self) -> usize {
        self.sources.iter().flatten().map(|source| source.run.memory()).sum()
    }

    /// Starts opening a segment.
    fn open_ahead(&self, segment: &Arc<Segment>) -> Ahead<Reading> {
        let (snapshot, segment) = (Arc::clone(self.snapshot), Arc::clone(segment));
        let (selection, slice_bytes) = (Arc::clone(&self.selection), self.slice_bytes);
        Ahead::start(
            async move { Reading::begin(&snapshot, &segment, &selection, slice_bytes).await },
        )
    }

    /// Reads the next segment's selected packets into runs.
    async fn begin(&mut self) -> Result<(), Failure> {
        let Some(Pending { from, segment }) = self.pending.pop_front() else { return Ok(()) };
        let opening = match self.next.take() {
            Some(opening) => opening,
            None => self.open_ahead(&segment),
        };
        let opened = opening.wait().await;
        self.next = self.pending.front().map(|next| self.open_ahead(&next.segment));
        let mut reading = match opened {
            Ok(reading) => reading,
            Err(failure) => return self.skip(&segment, segment.entry.packets, failure),
        };
        self.report.segments += 1;
        self.report.unknown += u64::from(reading.unknown > 0);
        let mut beside = match Beside::of(&reading.open) {
            Ok(beside) => beside,
            Err(failure) => {
                // Packets are worth more than what stands beside them.
                self.skip(&segment, 0, failure)?;
                Beside { interfaces: interfaces(&reading.open), ..Beside::default() }
            }
        };
        self.output.describe(from.life, &beside.interfaces);
        for source in self.sources.iter_mut().flatten() {
            source.run.compact();
        }
        let blocks = std::mem::take(&mut beside.blocks);
        let next_block = blocks.front().map_or(u64::MAX, |block| block.before);
        let place = self.active.len();
        self.active.push(Active { life: from.life, blocks, next_block, runs: 1 });
        self.read(&mut reading, &segment, &beside, place).await?;
        self.end_run(place);
        Ok(())
    }

    /// Reads all slices of a segment, the next one while one is put together.
    async fn read(
        &mut self,
        reading: &mut Reading,
        segment: &Arc<Segment>,
        beside: &Beside,
        place: usize,
    ) -> Result<(), Failure> {
        let range = self.what.selection.range;
        let mut arena = Arena::default();
        // Halves of slices that could not be read whole, and slices whose bytes are on their way.
        let mut again: Vec<Slice> = Vec::new();
        let mut ahead = VecDeque::new();
        loop {
            while again.is_empty() && ahead.len() < 2 {
                match reading.next(range, self.slice_bytes).await {
                    Ok(Some(slice)) => {
                        let (open, to_fetch) = (Arc::clone(&reading.open), slice.clone());
                        let fetch = Ahead::start(async move { to_fetch.fetch(&open).await });
                        ahead.push_back((slice, fetch));
                    }
                    Ok(None) => break,
                    Err(failure) => {
                        let packets = reading.give_up_flows();
                        self.skip(segment, packets, failure)?;
                    }
                }
            }
            let (slice, fetched) = match again.pop() {
                Some(slice) => {
                    let fetched = slice.fetch(&reading.open).await;
                    (slice, fetched)
                }
                None => match ahead.pop_front() {
                    Some((slice, fetch)) => (slice, fetch.wait().await),
                    None => break,
                },
            };
            if self.output.is_unwanted() {
                return Err(unwanted());
            }
            let assembled = match fetched {
                Ok(fetched) => {
                    self.make_room(&mut arena, fetched.size(range).1, slice.cost(), place)?;
                    fetched.assemble(&slice, range, beside, &mut arena)
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = assembled {
                let packets = slice.packets();
                match slice.halves() {
                    Some([first, second]) if is_local(&failure) => again.extend([second, first]),
                    _ => self.skip(segment, packets, failure)?,
                }
            }
        }
        self.add_run(arena, place);
        Ok(())
    }

    /// Makes room for packets of so many bytes: first from the runs of other segments, the
    /// largest first, then from what was read of this one.
    fn make_room(
        &mut self,
        arena: &mut Arena,
        bytes: usize,
        slice: u64,
        place: usize,
    ) -> Result<(), Failure> {
        // Stored and raw bytes of this slice and of those on their way.
        let slices = self.slice_bytes.saturating_mul(2).saturating_add(slice.saturating_mul(2));
        let allowed = self.memory.saturating_sub(usize::try_from(slices).unwrap_or(usize::MAX));
        while self.resident() + arena.memory() + bytes > allowed {
            let largest = self
                .sources
                .iter_mut()
                .flatten()
                .filter(|source| matches!(source.run, Run::Memory { .. }))
                .max_by_key(|source| source.run.memory());
            match largest {
                Some(source) => self.spill.spill(&mut source.run)?,
                None if arena.is_empty() => break,
                None => {
                    self.add_run(std::mem::take(arena), place);
                }
            }
        }
        Ok(())
    }

    /// Sorts what was read and lets it take part in the merge.
    fn add_run(&mut self, mut arena: Arena, segment: usize) {
        arena.sort(self.what.order == Order::Time);
        let run = Run::new(arena);
        let Some(active) = self.active.get_mut(segment) else { return };
        let Some(head) = run.head() else { return };
        active.runs += 1;
        let position = self.position(head, self.active.get(segment).map_or(0, |a| a.life));
        let free = self.sources.iter().position(Option::is_none);
        let place = free.unwrap_or(self.sources.len());
        let source = Some(Source { run, segment });
        match self.sources.get_mut(place) {
            Some(slot) => *slot = source,
            None => self.sources.push(source),
        }
        self.heap.push(Reverse((position, place)));
    }

    /// Notes packets that cannot be read, if that is about this segment only.
    fn skip(&mut self, segment: &Segment, packets: u64, failure: Failure) -> Result<(), Failure> {
        if !is_local(&failure) {
            return Err(failure);
        }
        let segment = segment.entry.name.clone();
        tracing::warn!(segment, packets, %failure, "packets are left out of an export");
        self.report.skipped.push(Skipped { segment, packets, failure });
        Ok(())
    }
}

/// What [`run`] will ask of the store.
pub(super) async fn plan(snapshot: &Arc<Snapshot>, what: &Export) -> Result<Cost, Failure> {
    let ranks = ranks(snapshot, what.order);
    let memory = what.memory.max(LEAST_MEMORY);
    let slice_bytes = (memory / SLICE_SHARE).min(LARGEST_SLICE) as u64;
    let range = what.selection.range;
    let mut cost = Cost::default();
    for Pending { segment, .. } in pending(snapshot, what, &ranks) {
        let mut plan = Plan::default();
        if let Some(index) = segment.entry.layer(Layer::Index) {
            plan.whole(Layer::Index, index.bytes);
        }
        let mut reading = Reading::begin(snapshot, &segment, &what.selection, slice_bytes).await?;
        reading.plan_flows(&what.selection, &mut plan)?;
        while let Some(slice) = reading.next(range, slice_bytes).await? {
            slice.plan(&reading.open, &mut plan)?;
        }
        cost += plan.cost();
    }
    Ok(cost)
}
