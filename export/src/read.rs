//! Reading the selected packets of one segment, some flows at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use capstan_model::link::Interface;
use capstan_model::packet::Stamp;
use capstan_model::{Block, Failure, FailureKind, TimeRange};
use capstan_storage_engine::catalog::Segment;
use capstan_storage_engine::segment::flows::FlowRow;
use capstan_storage_engine::segment::packets::ReadRow;
use capstan_storage_engine::segment::reader::{PacketRows, Payload};
use capstan_view::select::Selection;
use capstan_view::{Matching, Plan, ScopedSegment, ScopedView, VisibleFlows};
use roaring::RoaringBitmap;
use tokio::task::JoinHandle;

use super::pcapng::{about_packet, with_comment};
use super::records::{Arena, HEADER, Record};

/// Flow rows read at a time. They are wide, and a segment of tiny flows has very many.
const FLOWS_AT_ONCE: usize = 128 << 10;

/// Bytes of memory a packet's row takes while it is put together.
const ROW_BYTES: u64 = 128;

/// A task that is aborted when its waiter is dropped.
#[derive(Debug)]
pub(super) struct Prefetch<T>(JoinHandle<Result<T, Failure>>);

impl<T: Send + 'static> Prefetch<T> {
    pub(super) fn start(
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Prefetch<T> {
        Prefetch(tokio::spawn(work))
    }

    pub(super) async fn wait(mut self) -> Result<T, Failure> {
        (&mut self.0).await.unwrap_or_else(|error| {
            Err(Failure::caused_by(FailureKind::Other, "reading a segment failed", error))
        })
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A segment that is being read, with its remaining flows.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) open: Arc<ScopedSegment>,
    /// Number of flows for which the selection cannot be decided.
    pub(super) unknown: u64,
    /// Selected flows whose rows are not read yet.
    left: VecDeque<VisibleFlows>,
    /// Slices with rows, to be read next.
    slices: VecDeque<Slice>,
    /// The fetch of the next slice, if it was begun.
    fetching: Option<Prefetch<Fetched>>,
}

/// The sizes of slices.
#[derive(Debug, Clone, Copy)]
pub(super) struct SliceBytes {
    /// Bytes of payload and rows of a slice at most, unless it is a single flow.
    pub(super) most: u64,
    /// The first slice is fetched as soon as it is known if it has no more than this.
    pub(super) eager: u64,
}

/// Some flows of a segment, ascending, with their rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Slice {
    ordinals: RoaringBitmap,
    flows: Vec<FlowRow>,
    cost: u64,
}

/// Everything needed to assemble the packets of a slice.
#[derive(Debug)]
pub(super) struct Fetched {
    rows: PacketRows,
    payload: Payload,
}

/// Contents of a segment beside packets.
#[derive(Debug, Default)]
pub(super) struct SegmentExtras {
    /// Options of single packets, by ordinal.
    pub(super) options: Vec<(u64, Vec<u8>)>,
    /// Blocks, by the number of packets before them.
    pub(super) blocks: VecDeque<Block>,
    /// Capture points, by number.
    pub(super) interfaces: BTreeMap<u32, Interface>,
}

impl SegmentExtras {
    /// Reads them from the `index` layer.
    ///
    /// # Errors
    /// They are damaged.
    pub(super) fn of(open: &ScopedSegment) -> Result<SegmentExtras, Failure> {
        let extras = open.extras()?;
        let (mut options, mut blocks) = (extras.packet_options, extras.blocks);
        if open.is_masked() {
            options.iter_mut().for_each(|(_, options)| *options = about_packet(options));
        }
        options.sort_by_key(|(ordinal, _)| *ordinal);
        blocks.sort_by_key(|block| block.before);
        Ok(SegmentExtras { options, blocks: blocks.into(), interfaces: interfaces(open) })
    }

    fn options_of(&self, ordinal: u64) -> &[u8] {
        let place = self.options.binary_search_by_key(&ordinal, |(ordinal, _)| *ordinal);
        place.ok().and_then(|place| self.options.get(place)).map_or(&[], |(_, bytes)| bytes)
    }
}

/// The capture points a segment names.
pub(super) fn interfaces(open: &ScopedSegment) -> BTreeMap<u32, Interface> {
    open.interfaces().into_iter().collect()
}

impl Reading {
    /// Opens a segment, reads the rows of the first selected flows, and begins to fetch their packets if these are
    /// few.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub(super) async fn begin(
        view: &ScopedView,
        segment: &Segment,
        selection: &Selection,
        bytes: SliceBytes,
    ) -> Result<Reading, Failure> {
        let open = view.open(segment).await?;
        let Matching { sure, unknown } = open.matching(&selection.filter())?;
        let (left, unknown) = (sure.batches(FLOWS_AT_ONCE), unknown.len());
        let mut reading = Reading { open, unknown, left, slices: VecDeque::new(), fetching: None };
        reading.fill(selection.range, bytes.most).await?;
        if let Some(first) = reading.slices.front().filter(|first| first.cost <= bytes.eager) {
            reading.fetching = Some(first.prefetch(&reading.open));
        }
        Ok(reading)
    }

    /// Reads more flow rows if there are none left and more selected flows.
    async fn fill(&mut self, range: TimeRange, slice_bytes: u64) -> Result<(), Failure> {
        while self.slices.is_empty()
            && let Some(ordinals) = self.left.pop_front()
        {
            let rows = match self.open.read_flows(&*self.open, &ordinals).await {
                Ok(rows) => rows,
                Err(failure) => {
                    self.left.push_front(ordinals);
                    return Err(failure);
                }
            };
            if rows.len() as u64 != ordinals.len() {
                let what = format!("{} flow rows instead of {}", rows.len(), ordinals.len());
                self.left.push_front(ordinals);
                return Err(Failure::new(FailureKind::Damaged, what));
            }
            self.slices = cut(ordinals.ordinals().iter().zip(rows), range, slice_bytes);
        }
        Ok(())
    }

    /// Gives up the flows whose rows could not be read, and returns their number. Their packets cannot be
    /// counted: each flow has at least one.
    pub(super) fn give_up_flows(&mut self) -> u64 {
        self.left.pop_front().map_or(0, |flows| flows.len())
    }

    /// Whether flows are selected, of those that are not read yet.
    pub(super) fn has_flows(&self) -> bool {
        !self.left.is_empty() || !self.slices.is_empty()
    }

    /// Adds to `plan` what reading the flow rows of a selection asks for.
    pub(super) fn plan_flows(&self, selection: &Selection, plan: &mut Plan) -> Result<(), Failure> {
        let flows = self.open.matching(&selection.filter())?.sure;
        for flows in flows.batches(FLOWS_AT_ONCE) {
            self.open.add_scan(plan, self.open.scan_flows(&flows, None)?)?;
        }
        Ok(())
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn memory(&self) -> usize {
        let flows: usize = self.slices.iter().map(|slice| slice.flows.len()).sum();
        let fetching = self.slices.front().filter(|_| self.fetching.is_some());
        let fetching = usize::try_from(fetching.map_or(0, |slice| slice.cost));
        self.open.memory() + flows * size_of::<FlowRow>() + fetching.unwrap_or(usize::MAX / 4)
    }

    /// The next slice, and its fetch if that was begun.
    ///
    /// # Errors
    /// Flow rows cannot be read: see [`Reading::give_up_flows`].
    pub(super) async fn next(
        &mut self,
        range: TimeRange,
        slice_bytes: u64,
    ) -> Result<Option<(Slice, Option<Prefetch<Fetched>>)>, Failure> {
        self.fill(range, slice_bytes).await?;
        let fetching = self.fetching.take();
        Ok(self.slices.pop_front().map(|slice| (slice, fetching)))
    }
}

/// Flows that touch the range, in slices of about this many bytes, with at least one flow each.
fn cut(
    flows: impl Iterator<Item = (u32, FlowRow)>,
    range: TimeRange,
    slice_bytes: u64,
) -> VecDeque<Slice> {
    let mut slices: VecDeque<Slice> = VecDeque::new();
    for (ordinal, row) in flows {
        let touches = match (row.part.first, row.part.last) {
            _ if range.is_all() => true,
            (Some(first), Some(last)) => range.touches(first, last),
            _ => false,
        };
        if !touches || row.packets() == 0 {
            continue;
        }
        let cost = row
            .placement
            .body_bytes
            .saturating_add(u64::from(row.placement.head_bytes))
            .saturating_add(row.packets().saturating_mul(ROW_BYTES));
        match slices.back_mut() {
            Some(slice) if slice.cost.saturating_add(cost) <= slice_bytes => {
                slice.push(ordinal, row, cost);
            }
            _ => {
                let mut slice = Slice::default();
                slice.push(ordinal, row, cost);
                slices.push_back(slice);
            }
        }
    }
    slices
}

impl Slice {
    fn push(&mut self, ordinal: u32, row: FlowRow, cost: u64) {
        self.ordinals.insert(ordinal);
        self.flows.push(row);
        self.cost = self.cost.saturating_add(cost);
    }

    /// Whether it is a single flow that must be read piece by piece.
    pub(super) fn is_large(&self, slice_bytes: u64) -> bool {
        self.cost > slice_bytes
    }

    /// Its first flow: its ordinal and its row.
    pub(super) fn first(&self) -> Option<(u32, &FlowRow)> {
        self.ordinals.min().zip(self.flows.first())
    }

    /// Packets of its flows, also those outside the range.
    pub(super) fn packets(&self) -> u64 {
        self.flows.iter().map(FlowRow::packets).fold(0, u64::saturating_add)
    }

    /// Its two halves; none if it is a single flow.
    pub(super) fn halves(self) -> Option<[Slice; 2]> {
        if self.flows.len() < 2 {
            return None;
        }
        let (middle, mut halves) = (self.flows.len() / 2, [Slice::default(), Slice::default()]);
        let [first, second] = &mut halves;
        for (place, (ordinal, row)) in self.ordinals.iter().zip(self.flows).enumerate() {
            let half = if place < middle { &mut *first } else { &mut *second };
            half.push(ordinal, row, 0);
        }
        [first.cost, second.cost] = [self.cost / 2; 2];
        Some(halves)
    }

    /// Begins to read the packet rows and the payload of its flows.
    pub(super) fn prefetch(&self, open: &Arc<ScopedSegment>) -> Prefetch<Fetched> {
        let (open, slice) = (Arc::clone(open), self.clone());
        Prefetch::start(async move { slice.fetch(&open).await })
    }

    /// Reads the packet rows and the payload of its flows.
    pub(super) async fn fetch(&self, open: &ScopedSegment) -> Result<Fetched, Failure> {
        let plan = open.plan_payload(&self.flows);
        let (rows, payload) = futures::try_join!(
            open.read_packets(open, &self.flows),
            open.read_payload(open, &plan)
        )?;
        Ok(Fetched { rows, payload })
    }

    /// Adds to `plan` what reading its packets will ask for.
    pub(super) fn plan(
        &self,
        open: &ScopedSegment,
        slice_bytes: u64,
        plan: &mut Plan,
    ) -> Result<(), Failure> {
        open.add_scan(plan, open.scan_packets(&self.flows, None)?)?;
        match self.first().filter(|_| self.is_large(slice_bytes)) {
            Some((_, flow)) => {
                for piece in open.pieces(flow, slice_bytes) {
                    open.add_payload(plan, &open.piece_plan(&piece));
                }
            }
            None => open.add_payload(plan, &open.plan_payload(&self.flows)),
        }
        Ok(())
    }
}

impl Fetched {
    /// Packets inside the range, and the bytes their records will take without options.
    pub(super) fn size(&self, range: TimeRange) -> (usize, usize) {
        let inside = self.rows.rows.iter().filter(|read| belongs(range, read.row.time()));
        inside.fold((0, 0), |(packets, bytes), read| {
            let ticks = if read.ticks.is_some() { 8 } else { 0 };
            (packets + 1, bytes + HEADER + ticks + read.row.captured as usize)
        })
    }

    /// Assembles the packets inside the range.
    ///
    /// # Errors
    /// Stored bytes do not fit together; the arena is then unchanged.
    pub(super) fn assemble(
        &self,
        slice: &Slice,
        range: TimeRange,
        beside: &SegmentExtras,
        arena: &mut Arena,
    ) -> Result<(), Failure> {
        let (packets, bytes) = self.size(range);
        let mark = arena.mark();
        arena.expect(packets, bytes);
        let mut push = Push::new(range, beside, arena);
        let assembled =
            self.rows.assemble(&slice.ordinals, &slice.flows, &self.payload, |read, data| {
                push.packet(read, data);
            });
        let outcome = push.end().and(assembled.map_err(Failure::from));
        if outcome.is_err() {
            arena.back_to(mark);
        }
        outcome
    }
}

/// Packets on their way into an arena.
pub(super) struct Push<'a> {
    range: TimeRange,
    beside: &'a SegmentExtras,
    arena: &'a mut Arena,
    /// An interface that the segment does not describe.
    stranger: Option<u32>,
}

impl<'a> Push<'a> {
    pub(super) fn new(
        range: TimeRange,
        beside: &'a SegmentExtras,
        arena: &'a mut Arena,
    ) -> Push<'a> {
        Push { range, beside, arena, stranger: None }
    }

    /// Takes an assembled packet, if it is inside the range.
    #[inline]
    pub(super) fn packet(&mut self, read: &ReadRow, data: &[u8]) {
        let time = read.row.time();
        if !belongs(self.range, time) {
            return;
        }
        if !self.beside.interfaces.contains_key(&read.row.interface) {
            self.stranger = Some(read.row.interface);
            return;
        }
        let stamp = match (read.ticks, time) {
            (Some(ticks), time) => Stamp::Raw { ticks, time },
            (None, Some(time)) => Stamp::At(time),
            (None, None) => Stamp::None,
        };
        let mut options = self.beside.options_of(read.row.ordinal);
        let commented;
        let deleted = (read.row.captured as usize).saturating_sub(data.len());
        if deleted > 0 {
            let words = format!("retention deleted the last {deleted} captured bytes");
            commented = with_comment(options, &words);
            options = &commented;
        }
        let record =
            Record { interface: read.row.interface, length: read.row.length, stamp, data, options };
        self.arena.push(read.row.ordinal, &record);
    }

    /// Whether all packets could be taken.
    pub(super) fn end(self) -> Result<(), Failure> {
        match self.stranger {
            None => Ok(()),
            Some(number) => Err(Failure::new(
                FailureKind::Damaged,
                format!("a packet names interface {number}, which the segment does not describe"),
            )),
        }
    }
}

/// Whether a time is inside; a packet without a time is selected only by all of time.
fn belongs(range: TimeRange, time: Option<capstan_model::Time>) -> bool {
    range.is_all() || time.is_some_and(|time| range.contains(time))
}
