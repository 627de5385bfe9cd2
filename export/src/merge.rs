//! Merges the packets of all segments into one order.

mod fill;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use capstan_model::block::block_type;
use capstan_model::{Block, Failure};
use capstan_storage_engine::catalog::Segment;
use capstan_view::access::hidden_gap;
use capstan_view::select::Selection;
use capstan_view::{Ahead, PinnedView, may_skip};
use futures::{StreamExt, stream};
use tokio::sync::mpsc::Sender;

use super::completeness::Completeness;
use super::order::{AT_ONCE, Pending, Position, pending, ranks, secrets};
use super::output::{Output, section};
use super::read::{Prefetch, Reading, SegmentExtras, SliceBytes, interfaces};
use super::run::{Head, Run, Spill};
use super::{Export, LEAST_MEMORY, Order, Report, Skipped};

/// Most bytes of payload and rows that are read and assembled at a time.
const LARGEST_SLICE: usize = 16 << 20;

/// The share of the memory for one slice, 1 of so many; at most four slices are held.
const SLICE_SHARE: usize = 16;

/// The share of the memory for segments that are opened before they are needed, 1 of so many.
const AHEAD_SHARE: usize = 8;

/// The first slice of a segment is fetched before the segment is needed if it is this share of a slice, 1 of so many.
const EAGER_SHARE: u64 = 16;

/// Bytes of payload and rows that are read and assembled at a time.
pub(super) fn slice_bytes(memory: usize) -> u64 {
    (memory.max(LEAST_MEMORY) / SLICE_SHARE).min(LARGEST_SLICE) as u64
}

/// One run being merged.
#[derive(Debug)]
struct Source {
    run: Run,
    /// The index of its segment.
    segment: usize,
}

/// State shared by the runs of one segment.
#[derive(Debug)]
struct Active {
    state: u32,
    blocks: VecDeque<Block>,
    /// Number of packets before the next block; `u64::MAX` if there is none.
    next_block: u64,
    /// Runs that are not consumed yet.
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
    view: &'a Arc<PinnedView>,
    what: &'a Export,
    selection: Arc<Selection>,
    everything: bool,
    /// A masked principal is not told what could not be read, but that something could not.
    unreadable: bool,
    memory: usize,
    slice_bytes: u64,
    pending: VecDeque<Pending>,
    /// The next segments, being opened, in the order of `pending`.
    next: VecDeque<Prefetch<Reading>>,
    ahead: Ahead,
    active: Vec<Active>,
    sources: Vec<Option<Source>>,
    heap: BinaryHeap<Reverse<(Position, usize)>>,
    /// Blocks about the whole capture, written at its end.
    tail: Vec<(u32, Block)>,
    spill: Spill,
    output: Output<'a>,
    report: Report,
}

/// Runs an export.
pub(super) async fn run(
    view: &Arc<PinnedView>,
    what: &Export,
    to: &Sender<Bytes>,
) -> Result<Report, Failure> {
    let window = view.window_of(what.selection.range, &what.selection.filter()).await?;
    let mut completeness = Completeness::of(&view.statements(&window), what.selection.range);
    let ranks = ranks(view, &window, what.order).await?;
    let (pending, mut deleted) = pending(view, &window, what, &ranks);
    let secrets = secrets(&window, &pending, &mut deleted);
    completeness.deleted = deleted;
    let memory = what.memory.max(LEAST_MEMORY);
    let is_masked = view.who().is_masked();
    let mut merge = Merge {
        view,
        what,
        selection: Arc::new(what.selection.clone()),
        everything: what.selection.is_everything() && !is_masked,
        unreadable: false,
        memory,
        slice_bytes: slice_bytes(memory),
        pending,
        next: VecDeque::new(),
        ahead: Ahead::new(view.is_remote(), memory / AHEAD_SHARE),
        active: Vec::new(),
        sources: Vec::new(),
        heap: BinaryHeap::new(),
        tail: Vec::new(),
        spill: Spill::new(what.spill.clone()),
        output: {
            let recorded = what.order == Order::Recorded;
            // Under a mask nothing in the file may depend on how many generations there are.
            let generations_apart = recorded || (ranks.len() <= 1 && !is_masked);
            let whole_generations = recorded && !is_masked;
            let section = section(what, view.who(), &completeness);
            Output::new(section, whole_generations, generations_apart, to)
        },
        report: Report { remarks: what.selection.remarks(), ..Report::default() },
    };
    merge.write_secrets(secrets).await?;
    merge.merge().await?;
    if merge.everything {
        merge.output.declare_all();
    }
    let tail = std::mem::take(&mut merge.tail);
    tail.iter().for_each(|(state, block)| merge.output.block(*state, block));
    merge.output.losses(&completeness.losses, |lost| ranks.get(&lost.of).copied())?;
    if merge.unreadable && completeness.gaps.is_empty() {
        completeness.gaps.push(hidden_gap());
    }
    let mut report = merge.report;
    report.packets = merge.output.packets;
    report.cut = merge.output.cut();
    report.blocks_left_out = merge.output.blocks_left_out;
    report.options_left_out = merge.output.options_left_out;
    report.spilled = merge.spill.written;
    report.completeness = completeness;
    merge.output.end(report.ending());
    merge.output.send().await?;
    report.bytes = merge.output.bytes;
    Ok(report)
}

impl Merge<'_> {
    /// Writes secrets of segments without packets in the file: they may decrypt packets of other segments.
    async fn write_secrets(&mut self, segments: Vec<Arc<Segment>>) -> Result<(), Failure> {
        let view = Arc::clone(self.view);
        let opening = segments.into_iter().map(|segment| {
            let view = Arc::clone(&view);
            async move { (view.open(&segment).await, segment) }
        });
        let mut opening = stream::iter(opening).buffered(AT_ONCE);
        while let Some((opened, segment)) = opening.next().await {
            let blocks = match opened.and_then(|open| SegmentExtras::of(&open)) {
                Ok(beside) => beside.blocks,
                Err(failure) => {
                    self.skip(&segment, 0, failure)?;
                    continue;
                }
            };
            // Secrets are not about an interface, so whose generation it is does not matter.
            let secret = |block: &&Block| block.block_type == block_type::DECRYPTION_SECRETS;
            blocks.iter().filter(secret).for_each(|block| self.output.secret(block));
            if self.output.is_full() {
                self.output.send().await?;
            }
        }
        Ok(())
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

    fn position(&self, head: Head, state: u32) -> Position {
        let time = if self.what.order == Order::Time { head.time } else { None };
        Position { time, state, ordinal: head.ordinal }
    }

    /// Writes packets of the least run, up to the first packet of another run, or of a segment that is not open
    /// yet.
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
        let Some(state) = self.active.get(source.segment).map(|active| active.state) else {
            return Ok(());
        };
        while let Some(head) = source.run.head() {
            let position = self.position(head, state);
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
                self.output.packet(state, &record)?;
            }
            source.run.advance()?;
            if self.output.is_due() {
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

    /// Writes the blocks before a packet, or all that are left.
    fn write_blocks(&mut self, segment: usize, ordinal: Option<u64>) {
        let Some(active) = self.active.get_mut(segment) else { return };
        while let Some(block) = active.block_due(ordinal) {
            let helps = matches!(
                block.block_type,
                block_type::NAME_RESOLUTION | block_type::DECRYPTION_SECRETS
            );
            if block.block_type == block_type::SECTION_HEADER {
                // It says something of packets only.
                if ordinal.is_some() {
                    self.output.block(active.state, &block);
                }
                continue;
            }
            if helps || (self.everything && ordinal.is_some()) {
                self.output.block(active.state, &block);
            } else if self.everything {
                self.tail.push((active.state, block));
            }
        }
    }

    /// Bytes of memory that runs take.
    fn resident(&self) -> usize {
        self.sources.iter().flatten().map(|source| source.run.memory()).sum()
    }

    /// Starts opening a segment.
    fn open(&self, segment: &Arc<Segment>) -> Prefetch<Reading> {
        let (view, segment) = (Arc::clone(self.view), Arc::clone(segment));
        let selection = Arc::clone(&self.selection);
        let sizes = SliceBytes { most: self.slice_bytes, eager: self.slice_bytes / EAGER_SHARE };
        Prefetch::start(async move { Reading::begin(&view, &segment, &selection, sizes).await })
    }

    /// Starts opening the next segments.
    fn open_ahead(&mut self) {
        while self.next.len() < self.ahead.depth()
            && let Some(pending) = self.pending.get(self.next.len())
        {
            let opening = self.open(&pending.segment);
            self.next.push_back(opening);
        }
    }

    /// Reads the selected packets of the next segment into runs, and logs what cannot be read.
    async fn begin(&mut self) -> Result<(), Failure> {
        let Some(next) = self.pending.pop_front() else { return Ok(()) };
        let before = self.report.skipped.len();
        let begun = self.read_segment(next).await;
        if let Some(skipped @ [first, ..]) = self.report.skipped.get(before..) {
            let packets = skipped.iter().map(|part| part.packets).fold(0, u64::saturating_add);
            let Skipped { segment, failure, .. } = first;
            tracing::warn!(segment, packets, %failure, "packets are left out of an export");
        }
        begun
    }

    async fn read_segment(&mut self, next: Pending) -> Result<(), Failure> {
        let Pending { from, segment } = next;
        let is_masked = self.view.who().is_masked();
        let opening = match self.next.pop_front() {
            Some(opening) => opening,
            None => self.open(&segment),
        };
        self.open_ahead();
        let opened = opening.wait().await;
        let mut reading = match opened {
            Ok(reading) => {
                self.ahead.opened(reading.memory());
                self.open_ahead();
                reading
            }
            Err(failure) => return self.skip(&segment, segment.entry.packets, failure),
        };
        if !is_masked || reading.has_flows() {
            self.report.segments += 1;
        }
        self.report.unknown += u64::from(reading.unknown > 0);
        let mut beside = match SegmentExtras::of(&reading.open) {
            Ok(beside) => beside,
            Err(failure) => {
                // Packets are worth more than what stands beside them.
                self.skip(&segment, 0, failure)?;
                SegmentExtras { interfaces: interfaces(&reading.open), ..SegmentExtras::default() }
            }
        };
        self.output.describe(from.state, &beside.interfaces);
        for source in self.sources.iter_mut().flatten() {
            source.run.compact();
        }
        let blocks = std::mem::take(&mut beside.blocks);
        self.output.expect_blocks(from.state, blocks.iter());
        let next_block = blocks.front().map_or(u64::MAX, |block| block.before);
        let place = self.active.len();
        self.active.push(Active { state: from.state, blocks, next_block, runs: 1 });
        self.read(&mut reading, &segment, &beside, place).await?;
        self.end_run(place);
        Ok(())
    }

    /// Records unreadable packets, if the failure concerns this segment only.
    fn skip(&mut self, segment: &Segment, packets: u64, failure: Failure) -> Result<(), Failure> {
        if !may_skip(&failure) {
            return Err(failure);
        }
        let failure = self.view.note_sweep(failure);
        if self.view.who().is_masked() {
            self.unreadable = true;
            return Ok(());
        }
        let segment = segment.entry.name.clone();
        self.report.skipped.push(Skipped { segment, packets, failure });
        Ok(())
    }
}
