//! Reading the packets of one segment: which flows, which of their columns, which pages,
//! which payload.
//!
//! Nothing is fetched that no column asks for. Without columns packets are only counted, from
//! the `flows` layer or not even that; payload is fetched only for `payload` and `data`, by
//! slices of flows, so that memory does not grow with the segment.

use std::ops::Range;
use std::sync::Arc;

use capstan_model::{Address, Failure, FailureKind, FlowId, FlowKey, FlowPart, Hour};
use capstan_storage_engine::catalog::SegmentEntry;
use capstan_storage_engine::segment::flows::{FlowRow, Placement};
use capstan_storage_engine::segment::packets::column;
use capstan_storage_engine::segment::reader::{Fetch, Scan, Step};
use capstan_storage_engine::segment::{Corrupt, Layer};
use datafusion::arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;

use super::columns::{FlowColumn, PacketColumn};
use super::flow_rows::{self, Constants, FlowRows, empty_columns, unexpected};
use super::packet_rows::{self, Decoded, Decoder};
use super::source::{Counted, Held};
use super::window::Window;
use crate::select::FlowFilter;

/// Payload that is unpacked at a time, bytes, unless one flow alone has more.
const SLICE_BYTES: u64 = 8 << 20;

/// Packets whose payload is put together at a time, unless one flow alone has more.
const SLICE_PACKETS: u64 = 32 << 10;

/// Which packets, and which of their columns.
#[derive(Debug)]
pub(super) struct PacketRequest {
    columns: Vec<PacketColumn>,
    schema: SchemaRef,
    pub(super) window: Option<Window>,
    pub(super) flows: FlowFilter,
}

/// How much has to be read of each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Nothing: there are none.
    Nothing,
    /// How many there are.
    Count,
    /// Columns.
    Columns,
    /// All columns of `packets.parquet`, for the header.
    Header,
    /// Its bytes.
    Payload,
}

impl PacketRequest {
    pub(super) fn new(
        columns: Vec<PacketColumn>,
        window: Option<Window>,
        flows: FlowFilter,
    ) -> Self {
        let schema = PacketColumn::schema(&columns);
        PacketRequest { columns, schema, window, flows }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn wants(&self, column: PacketColumn) -> bool {
        self.columns.contains(&column)
    }

    fn depth(&self, window: Option<&Window>) -> Depth {
        if self.wants(PacketColumn::Payload) || self.wants(PacketColumn::Data) {
            Depth::Payload
        } else if self.wants(PacketColumn::Header) {
            Depth::Header
        } else if self.stored_columns(window).is_empty() {
            Depth::Count
        } else {
            Depth::Columns
        }
    }

    /// Columns of `packets.parquet`, headers and payload aside.
    fn stored_columns(&self, window: Option<&Window>) -> Vec<&'static str> {
        let mut stored: Vec<_> =
            self.columns.iter().flat_map(|column| packet_rows::stored(*column)).copied().collect();
        if window.is_some() {
            stored.push(column::TIME);
        }
        if self.wants_prefixes() {
            stored.push(column::TEMPLATE);
        }
        stored.sort_unstable();
        stored.dedup();
        stored
    }

    /// Whether packets are cut into header and payload.
    fn wants_prefixes(&self) -> bool {
        self.wants(PacketColumn::Payload)
            || (self.wants(PacketColumn::Header) && self.wants(PacketColumn::Data))
    }

    fn flow_columns(&self) -> Vec<FlowColumn> {
        self.columns.iter().flat_map(|column| packet_rows::flow_columns(*column)).collect()
    }
}

/// The window a segment's packets have to be held against; none if all of them lie inside.
fn cut(window: Option<Window>, entry: &SegmentEntry) -> Option<Window> {
    let timeless = entry.hour == Hour::UNKNOWN || entry.hours.contains(&Hour::UNKNOWN);
    window.filter(|window| timeless || !window.covers(entry))
}

/// The packets of one segment that are asked for: their flows are known, they are not
/// fetched yet.
#[derive(Debug)]
pub(super) struct Selected {
    source: Counted,
    /// What packets have to be held against.
    window: Option<Window>,
    depth: Depth,
    /// None: all flows, of which nothing has to be known.
    flows: Option<FlowRows>,
    constants: Constants,
}

impl Selected {
    /// Asks the index and reads what has to be known of flows.
    pub(super) async fn of(
        source: Counted,
        constants: Constants,
        request: &PacketRequest,
    ) -> Result<Selected, Failure> {
        let open = Arc::clone(source.open());
        let segment = open.segment();
        let window = cut(request.window, open.entry());
        let everything = request.flows.is_all();
        let ordinals =
            if everything { segment.all_flows() } else { request.flows.evaluate(segment)?.flows };
        let depth = match ordinals.is_empty() {
            true => Depth::Nothing,
            false => request.depth(window.as_ref()),
        };
        if depth == Depth::Nothing {
            return Ok(Selected { source, window, depth, flows: None, constants });
        }
        let mut columns: Vec<&'static str> =
            request.flow_columns().into_iter().flat_map(flow_rows::stored).copied().collect();
        let whole = everything && window.is_none() && depth != Depth::Payload;
        if whole && columns.is_empty() {
            return Ok(Selected { source, window, depth, flows: None, constants });
        }
        if !whole {
            columns.extend(["first_row", "packets_forward", "packets_backward"]);
        }
        if depth == Depth::Payload {
            columns.extend(["head_offset", "head_bytes", "body_offset", "body_bytes"]);
        }
        let flows = FlowRows::read(segment, &source, ordinals, window.as_ref(), &columns).await?;
        let depth = if flows.len() == 0 { Depth::Nothing } else { depth };
        Ok(Selected { source, window, depth, flows: Some(flows), constants })
    }

    /// Counts what reading will fetch, without fetching it.
    pub(super) fn plan(&self, request: &PacketRequest) -> Result<(), Failure> {
        let open = self.source.open();
        if matches!(self.depth, Depth::Nothing | Depth::Count) {
            return Ok(());
        }
        let scan = self.scan(request)?;
        self.source.with(|plan| open.plan_scan(plan, scan))?;
        if self.depth == Depth::Payload {
            let rows = self.rows()?;
            for slice in slices(&rows) {
                let payload = open.segment().plan_payload(&rows[slice]);
                self.source.with(|plan| open.plan_payload(plan, &payload));
            }
        }
        Ok(())
    }

    pub(super) fn source(&self) -> &Counted {
        &self.source
    }

    /// All rows that will be read of `packets.parquet`.
    fn scan(&self, request: &PacketRequest) -> Result<Scan, Failure> {
        let stored = request.stored_columns(self.window.as_ref());
        let columns = (self.depth == Depth::Columns).then_some(stored.as_slice());
        self.scan_columns(columns)
    }

    fn scan_columns(&self, columns: Option<&[&str]>) -> Result<Scan, Failure> {
        let segment = self.source.open().segment();
        let partly = self.flows.as_ref().filter(|flows| flows.has_places());
        Ok(match partly {
            Some(_) => segment.scan_packets(&self.rows()?, columns)?,
            None => segment.scan_all(Layer::Packets, columns)?,
        })
    }

    /// Where the packets of each flow lie.
    fn rows(&self) -> Result<Vec<FlowRow>, Failure> {
        match &self.flows {
            Some(flows) => places(flows),
            None => Ok(Vec::new()),
        }
    }

    /// How many packets there are.
    fn count(&self) -> Result<u64, Failure> {
        match self.flows.as_ref().filter(|flows| flows.has_places()) {
            Some(_) => Ok(self.rows()?.iter().map(FlowRow::packets).sum()),
            None => Ok(self.source.open().segment().meta().packets),
        }
    }

    /// Fetches what the first rows need.
    pub(super) async fn start(
        self,
        request: Arc<PacketRequest>,
        memory: MemoryReservation,
    ) -> Result<PacketReader, Failure> {
        let meta = self.source.open().segment().meta();
        let decoder =
            Decoder::new(&request.columns, meta, self.constants.clone(), self.flows.as_ref())?;
        let from = match self.depth {
            Depth::Nothing => From::Count(0),
            Depth::Count => From::Count(self.count()?),
            Depth::Columns | Depth::Header => {
                let mut scan = self.scan(&request)?;
                self.feed(&mut scan, &memory).await?;
                From::Scan(scan)
            }
            Depth::Payload => {
                let mut scan = self.scan(&request)?;
                let held = match scan.step()? {
                    Step::Needs(ranges) => {
                        grow(&memory, &ranges)?;
                        let bytes = self.source.fetch(Layer::Packets, &ranges).await?;
                        Held::new(&ranges, bytes)
                    }
                    Step::Rows(_) | Step::End => Held::default(),
                };
                let rows = self.rows()?;
                let mut slices = slices(&rows);
                slices.reverse();
                From::Slices { held, rows, slices, ready: Vec::new() }
            }
        };
        Ok(PacketReader { selected: self, request, decoder, from, memory })
    }

    /// Gives a scan all it needs for its first rows, which is all it needs.
    async fn feed(&self, scan: &mut Scan, memory: &MemoryReservation) -> Result<(), Failure> {
        // Asking for rows is what tells which bytes are needed; it decodes none yet.
        if let Step::Needs(ranges) = scan.step()? {
            grow(memory, &ranges)?;
            let bytes = self.source.fetch(Layer::Packets, &ranges).await?;
            scan.give(ranges, bytes)?;
        }
        Ok(())
    }
}

fn grow(memory: &MemoryReservation, ranges: &[Range<u64>]) -> Result<(), Failure> {
    let bytes: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
    reserve(memory, bytes)
}

fn reserve(memory: &MemoryReservation, bytes: u64) -> Result<(), Failure> {
    memory.try_grow(usize::try_from(bytes).unwrap_or(usize::MAX)).map_err(|error| {
        Failure::new(
            FailureKind::Full,
            format!("the query needs more than it may take: {}", error.strip_backtrace()),
        )
    })
}

/// Packets of one segment, batch by batch.
#[derive(Debug)]
pub(super) struct PacketReader {
    selected: Selected,
    request: Arc<PacketRequest>,
    decoder: Decoder,
    from: From,
    memory: MemoryReservation,
}

#[derive(Debug)]
enum From {
    /// So many more, of which nothing is asked.
    Count(u64),
    /// Columns and headers.
    Scan(Scan),
    /// Payload, by slices of flows, the next one last.
    Slices { held: Held, rows: Vec<FlowRow>, slices: Vec<Range<usize>>, ready: Vec<RecordBatch> },
}

/// Rows of one batch that are only counted.
const COUNTED_ROWS: u64 = 1 << 20;

impl PacketReader {
    /// The next packets; none if there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, Failure> {
        loop {
            let batch = match &mut self.from {
                From::Count(0) => return Ok(None),
                From::Count(left) => {
                    let rows = (*left).min(COUNTED_ROWS);
                    *left -= rows;
                    self.counted(rows as usize)?
                }
                From::Scan(scan) => match scan.step()? {
                    Step::End => return Ok(None),
                    Step::Needs(ranges) => {
                        grow(&self.memory, &ranges)?;
                        let bytes = self.selected.source.fetch(Layer::Packets, &ranges).await?;
                        scan.give(ranges, bytes)?;
                        continue;
                    }
                    Step::Rows(batch) => self.columns(&batch)?,
                },
                From::Slices { slices, ready, .. } => match ready.pop() {
                    Some(batch) => batch,
                    None => match slices.pop() {
                        Some(slice) => {
                            self.slice(slice).await?;
                            continue;
                        }
                        None => return Ok(None),
                    },
                },
            };
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
    }

    pub(super) fn source(&self) -> &Counted {
        &self.selected.source
    }

    fn counted(&mut self, rows: usize) -> Result<RecordBatch, Failure> {
        let none = empty_columns(rows)?;
        let decoded = self.decoder.decode(&none, None, false)?;
        self.put_together(decoded, &[])
    }

    fn columns(&mut self, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
        let decoded = self.decoder.decode(batch, self.selected.window.as_ref(), false)?;
        let headers = match self.selected.depth {
            Depth::Header => vec![(PacketColumn::Header, self.decoder.headers(batch)?)],
            _ => Vec::new(),
        };
        self.put_together(decoded, &headers)
    }

    /// Columns in the order they were asked for, rows outside the window left out.
    fn put_together(
        &self,
        decoded: Decoded,
        bytes: &[(PacketColumn, ArrayRef)],
    ) -> Result<RecordBatch, Failure> {
        let Decoded { rows, columns, inside, .. } = decoded;
        let columns = columns
            .into_iter()
            .zip(&self.request.columns)
            .map(|(array, column)| {
                let put = || bytes.iter().find(|(of, _)| of == column).map(|(_, put)| put.clone());
                array.or_else(put).ok_or_else(|| {
                    Failure::new(
                        FailureKind::Other,
                        format!("column {} was not read", column.name()),
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.request.schema);
        let batch =
            RecordBatch::try_new_with_options(schema, columns, &options).map_err(unexpected)?;
        match inside {
            Some(inside) => filter_record_batch(&batch, &inside).map_err(unexpected),
            None => Ok(batch),
        }
    }

    /// Puts the packets of some flows together.
    async fn slice(&mut self, slice: Range<usize>) -> Result<(), Failure> {
        let From::Slices { held, rows, .. } = &self.from else { return Ok(()) };
        let flows = &rows[slice.clone()];
        let open = Arc::clone(self.selected.source.open());
        let segment = open.segment();
        let plan = segment.plan_payload(flows);
        let bytes: u64 = flows.iter().map(payload_bytes).sum();
        let packets: u64 = flows.iter().map(FlowRow::packets).sum();
        // Unpacked once as blocks and once more as packets.
        let memory = self.memory.new_empty();
        reserve(&memory, bytes.saturating_mul(2).saturating_add(packets.saturating_mul(256)))?;
        let payload = segment.read_payload(&self.selected.source, &plan).await?;
        let assembled = segment.read_packets(held, flows).await?;

        let stored = self.request.stored_columns(self.selected.window.as_ref());
        let batches = if stored.is_empty() {
            vec![empty_columns(usize::try_from(packets).unwrap_or(usize::MAX))?]
        } else {
            segment.scan_packets(flows, Some(&stored))?.run(held).await?
        };
        let (window, prefixes) = (self.selected.window, self.request.wants_prefixes());
        let decoded = batches
            .iter()
            .map(|batch| self.decoder.decode(batch, window.as_ref(), prefixes))
            .collect::<Result<Vec<_>, _>>()?;

        let ordinals: Vec<u32> = match &self.selected.flows {
            Some(known) => known.ordinals.iter().skip(slice.start).take(slice.len()).collect(),
            None => Vec::new(),
        };
        let mut filler = Filler::new(&self.request, &decoded);
        let ordinals = ordinals.into_iter().collect();
        assembled.assemble(&ordinals, flows, &payload, |_, data| filler.put(data))?;
        let filled = filler.finish()?;

        let mut ready = Vec::with_capacity(filled.len());
        for (decoded, bytes) in decoded.into_iter().zip(filled) {
            ready.push(self.put_together(decoded, &bytes)?);
        }
        ready.reverse();
        if let From::Slices { ready: next, .. } = &mut self.from {
            *next = ready;
        }
        Ok(())
    }
}

/// Fills the columns of captured bytes, packet by packet, batch by batch.
struct Filler<'a> {
    decoded: &'a [Decoded],
    /// Which batch, and which row of it, is next.
    at: (usize, usize),
    columns: Vec<(PacketColumn, BinaryBuilder)>,
    done: Vec<Vec<(PacketColumn, ArrayRef)>>,
    /// Bytes put into the columns of the batch.
    held: usize,
    wrong: Option<Corrupt>,
}

impl<'a> Filler<'a> {
    fn new(request: &PacketRequest, decoded: &'a [Decoded]) -> Self {
        let columns = request
            .columns
            .iter()
            .filter(|column| packet_rows::is_bytes(**column))
            .map(|column| (*column, BinaryBuilder::new()))
            .collect();
        Filler { decoded, at: (0, 0), columns, done: Vec::new(), held: 0, wrong: None }
    }

    fn put(&mut self, data: &[u8]) {
        let (batch, row) = self.at;
        let Some(decoded) = self.decoded.get(batch) else {
            self.fail("more packets than rows");
            return;
        };
        let inside = decoded.inside.as_ref().is_none_or(|inside| inside.value(row));
        self.held = self.held.saturating_add(data.len());
        if self.held > i32::MAX as usize {
            self.fail("more bytes than one segment can have");
            return;
        }
        // What lies outside the window is left out afterwards.
        let data = if inside { data } else { &[] };
        let prefix = decoded.prefixes.get(row).map_or(0, |prefix| *prefix as usize);
        let (header, payload) = data.split_at(prefix.min(data.len()));
        for (column, builder) in &mut self.columns {
            builder.append_value(match column {
                PacketColumn::Header => header,
                PacketColumn::Payload => payload,
                _ => data,
            });
        }
        self.at.1 += 1;
        if self.at.1 == decoded.rows {
            self.close();
        }
    }

    fn close(&mut self) {
        let arrays = self.columns.iter_mut();
        let arrays =
            arrays.map(|(column, builder)| (*column, Arc::new(builder.finish()) as ArrayRef));
        self.done.push(arrays.collect());
        self.at = (self.at.0 + 1, 0);
        self.held = 0;
    }

    fn fail(&mut self, what: &str) {
        let wrong = || Corrupt { layer: "packets", what: what.to_owned() };
        self.wrong.get_or_insert_with(wrong);
    }

    fn finish(mut self) -> Result<Vec<Vec<(PacketColumn, ArrayRef)>>, Corrupt> {
        if self.at.1 != 0 || self.done.len() != self.decoded.len() {
            self.fail("fewer packets than rows");
        }
        match self.wrong {
            Some(wrong) => Err(wrong),
            None => Ok(self.done),
        }
    }
}

fn payload_bytes(flow: &FlowRow) -> u64 {
    flow.placement.body_bytes.saturating_add(u64::from(flow.placement.head_bytes))
}

/// Flows whose payload is unpacked together.
fn slices(flows: &[FlowRow]) -> Vec<Range<usize>> {
    let mut slices = Vec::new();
    let (mut start, mut bytes, mut packets) = (0, 0_u64, 0_u64);
    for (at, flow) in flows.iter().enumerate() {
        let (more, rows) = (payload_bytes(flow), flow.packets());
        let full = bytes.saturating_add(more) > SLICE_BYTES
            || packets.saturating_add(rows) > SLICE_PACKETS;
        if at > start && full {
            slices.push(start..at);
            (start, bytes, packets) = (at, 0, 0);
        }
        bytes = bytes.saturating_add(more);
        packets = packets.saturating_add(rows);
    }
    if start < flows.len() {
        slices.push(start..flows.len());
    }
    slices
}

/// Flow rows with nothing in them but where their packets and payload lie, as far as that
/// was read.
fn places(flows: &FlowRows) -> Result<Vec<FlowRow>, Failure> {
    let key = FlowKey {
        source: Address::NONE,
        destination: Address::NONE,
        source_port: 0,
        destination_port: 0,
        ip_protocol: 0,
        vlan: None,
        vni: None,
        ethertype: 0,
        pseudo: None,
        fragment_id: None,
    };
    let first_row = flows.small_numbers("first_row")?;
    let forward = flows.numbers("packets_forward")?;
    let backward = flows.numbers("packets_backward")?;
    let payload = match flows.small_numbers("head_bytes") {
        Ok(head_bytes) => Some((
            flows.numbers("head_offset")?,
            head_bytes,
            flows.numbers("body_offset")?,
            flows.numbers("body_bytes")?,
        )),
        Err(_) => None,
    };
    let place = |row: usize| {
        let mut placement =
            Placement { first_row: first_row.value(row) as u32, ..Placement::default() };
        if let Some((head_offset, head_bytes, body_offset, body_bytes)) = payload {
            placement.head_offset = head_offset.value(row) as u64;
            placement.head_bytes = head_bytes.value(row) as u32;
            placement.body_offset = body_offset.value(row) as u64;
            placement.body_bytes = body_bytes.value(row) as u64;
        }
        let mut part = FlowPart::new(FlowId([0; 16]), key);
        // A negative count is damage; as no packets at all it will not fit the rows.
        part.packets = [forward.value(row), backward.value(row)]
            .map(|count| u64::from(u32::try_from(count).unwrap_or(0)));
        FlowRow { part, placement }
    };
    Ok((0..flows.len()).map(place).collect())
}
