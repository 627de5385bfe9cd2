//! Opens a sealed segment and gives its rows and packets back.
//!
//! Everything is planned from the `index` layer: which rows, which pages of the
//! Parquet layers, which payload blocks. Only then bytes are asked for, through
//! [`Fetch`], so that a plan can be shown without fetching ([`Step::Needs`]).

mod pieces;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use capstan_index::{Field, IndexError, TermIndex};
use capstan_model::{Failure, FailureKind};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelectionPolicy,
};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringBitmap;

pub use self::pieces::{PartReader, Piece, Wants};
use super::block::{self, BlockDirectory};
use super::flows::{self, FlowRow};
use super::index_layer::{Extras, IndexLayer, Meta, Section};
use super::packets::{self, ReadRow, Rebuilder, RowReader};
use super::{Corrupt, Layer, tabular};

/// Gives byte ranges of a segment's layers: a store, a cache, a test.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The bytes of each range of `layer`, in order.
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure>;
}

/// Bytes that are reserved for payload on a directory's word.
const MOST_RESERVED: usize = 32 << 20;

/// Rows of a batch while a Parquet layer is read.
const BATCH_ROWS: usize = 32 * 1024;

/// An opened segment.
#[derive(Debug)]
pub struct Segment {
    meta: Meta,
    index: IndexLayer,
    terms: TermIndex<Bytes>,
    head: BlockDirectory,
    body: BlockDirectory,
    packets: ArrowReaderMetadata,
    flows: ArrowReaderMetadata,
}

impl From<Corrupt> for Failure {
    fn from(error: Corrupt) -> Self {
        Failure::caused_by(FailureKind::Damaged, "a segment is damaged", error)
    }
}

fn terms_failed(error: IndexError) -> Corrupt {
    Corrupt::new("index", format!("terms: {error}"))
}

impl Segment {
    /// Opens a segment from its `index` layer.
    ///
    /// # Errors
    /// [`Corrupt`] for damage or a newer format.
    pub fn open(index: &Bytes) -> Result<Segment, Corrupt> {
        let index = IndexLayer::open(index)?;
        let meta: Meta = index.json(Section::Meta)?;
        let length = |layer: Layer| {
            meta.layers
                .iter()
                .find(|known| known.layer == layer.name())
                .map(|known| known.bytes)
                .ok_or_else(|| {
                    Corrupt::new("index", format!("layer {} is not named", layer.name()))
                })
        };
        let table = |layer: Layer, section, schema, rows| {
            let tail = index.section(section)?;
            let metadata = tabular::parse_tail(layer.name(), &tail, length(layer)?)?;
            let known = metadata.file_metadata().num_rows();
            if u64::try_from(known) != Ok(rows) {
                let what = format!("{known} rows instead of {rows}");
                return Err(Corrupt::new(layer.name(), what));
            }
            reader_metadata(layer.name(), metadata, schema)
        };
        let (packets, flows) = (packets::read_schema(), flows::read_schema());
        let terms = TermIndex::open(index.section(Section::Terms)?).map_err(terms_failed)?;
        if u64::from(terms.flows()) != meta.flow_parts {
            let what = format!("terms of {} flow parts, not {}", terms.flows(), meta.flow_parts);
            return Err(Corrupt::new("index", what));
        }
        Ok(Segment {
            terms,
            head: BlockDirectory::from_bytes(&index.section(Section::HeadBlocks)?)?,
            body: BlockDirectory::from_bytes(&index.section(Section::BodyBlocks)?)?,
            packets: table(Layer::Packets, Section::PacketsTail, packets, meta.packets)?,
            flows: table(Layer::Flows, Section::FlowsTail, flows, meta.flow_parts)?,
            meta,
            index,
        })
    }

    /// What the segment says of itself.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// pcapng blocks and packet options kept beside the packets.
    pub fn extras(&self) -> Result<Extras, Corrupt> {
        self.index.json(Section::Extras)
    }

    /// Ordinals of the flow parts that have a term.
    pub fn postings(&self, field: Field, value: &[u8]) -> Result<RoaringBitmap, Corrupt> {
        self.terms.postings(field, value).map_err(terms_failed)
    }

    /// All flow ordinals.
    pub fn all_flows(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.terms.flows());
        all
    }

    /// The term dictionary.
    pub fn terms(&self) -> &TermIndex<Bytes> {
        &self.terms
    }

    /// The scan of some flow parts in `flows.parquet`.
    pub fn scan_flows(
        &self,
        flows: &RoaringBitmap,
        columns: Option<&[&str]>,
    ) -> Result<Scan, Corrupt> {
        let mut flows = flows.iter();
        let ranges = std::iter::from_fn(|| flows.next_range())
            .map(|run| *run.start() as usize..*run.end() as usize + 1);
        Scan::new(Layer::Flows, &self.flows, ranges, columns)
    }

    /// The scan of the packets of some flow parts in `packets.parquet`, whole parts
    /// in stored order.
    pub fn scan_packets(
        &self,
        flows: &[FlowRow],
        columns: Option<&[&str]>,
    ) -> Result<Scan, Corrupt> {
        let ranges = flows.iter().map(|row| {
            let first = row.placement.first_row as usize;
            first..first.saturating_add(usize::try_from(row.packets()).unwrap_or(usize::MAX))
        });
        Scan::new(Layer::Packets, &self.packets, ranges, columns)
    }

    /// The scan of every row of a Parquet layer.
    pub fn scan_all(&self, layer: Layer, columns: Option<&[&str]>) -> Result<Scan, Corrupt> {
        let metadata = if layer == Layer::Flows { &self.flows } else { &self.packets };
        let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
        Scan::new(layer, metadata, std::iter::once(0..rows), columns)
    }

    /// The payload blocks of some flow parts.
    pub fn plan_payload(&self, flows: &[FlowRow]) -> PayloadPlan {
        let head = flows.iter().map(|row| {
            let from = row.placement.head_offset;
            self.head.blocks_of(from, from.saturating_add(u64::from(row.placement.head_bytes)))
        });
        let body = flows.iter().map(|row| {
            let from = row.placement.body_offset;
            self.body.blocks_of(from, from.saturating_add(row.placement.body_bytes))
        });
        PayloadPlan { head: merge_spans(head), body: merge_spans(body) }
    }

    /// The byte ranges a payload plan needs, by layer.
    pub fn payload_ranges(&self, plan: &PayloadPlan) -> Vec<(Layer, Vec<Range<u64>>)> {
        [(Layer::Head, &self.head, &plan.head), (Layer::Body, &self.body, &plan.body)]
            .into_iter()
            .map(|(layer, directory, spans)| (layer, span_ranges(directory, spans)))
            .filter(|(_, ranges)| !ranges.is_empty())
            .collect()
    }

    /// Fetches and decompresses the blocks of a plan.
    ///
    /// # Errors
    /// [`Failure`] of the fetch, or of kind `Damaged` when a block's checksum differs.
    pub async fn read_payload(
        &self,
        fetch: &dyn Fetch,
        plan: &PayloadPlan,
    ) -> Result<Payload, Failure> {
        let head = read_spans(fetch, Layer::Head, &self.head, &plan.head).await?;
        let body = read_spans(fetch, Layer::Body, &self.body, &plan.body).await?;
        Ok(Payload { head, body })
    }

    /// Reads the flow rows of some ordinals.
    ///
    /// # Errors
    /// [`Failure`] of the fetch, or of kind `Damaged`.
    pub async fn read_flows(
        &self,
        fetch: &dyn Fetch,
        flows: &RoaringBitmap,
    ) -> Result<Vec<FlowRow>, Failure> {
        let mut rows = Vec::new();
        for batch in self.scan_flows(flows, None)?.run(fetch).await? {
            rows.extend(flows::read(&batch)?);
        }
        Ok(rows)
    }

    /// Reads the packet rows of some flow parts (as [`Segment::read_flows`] gave them).
    ///
    /// # Errors
    /// [`Failure`] of the fetch, or of kind `Damaged`.
    pub async fn read_packets(
        &self,
        fetch: &dyn Fetch,
        flows: &[FlowRow],
    ) -> Result<PacketRows, Failure> {
        let mut reader = RowReader::default();
        let mut rows = Vec::new();
        for batch in self.scan_packets(flows, None)?.run(fetch).await? {
            reader.read(&batch, &mut rows)?;
        }
        Ok(PacketRows { reader, rows })
    }
}

fn reader_metadata(
    layer: &'static str,
    metadata: ParquetMetaData,
    schema: SchemaRef,
) -> Result<ArrowReaderMetadata, Corrupt> {
    let metadata = Arc::new(metadata);
    // Our writers leave no Arrow schema in the file; somebody else's is not listened to.
    let plain = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let read = |options| {
        let metadata = metadata.clone();
        tabular::guarded(layer, || ArrowReaderMetadata::try_new(metadata, options))
    };
    // A newer minor may have columns that this version does not know: pass over them.
    let known = read(plain())?
        .schema()
        .fields()
        .iter()
        .map(|field| match schema.field_with_name(field.name()) {
            Ok(ours) => Arc::new(ours.clone().with_nullable(field.is_nullable())),
            Err(_) => field.clone(),
        })
        .collect::<Vec<_>>();
    read(plain().with_schema(Arc::new(arrow::datatypes::Schema::new(known))))
}

/// The scan of some rows and columns of one Parquet layer.
#[derive(Debug)]
pub struct Scan {
    layer: Layer,
    decoder: ParquetPushDecoder,
}

impl Scan {
    fn new(
        layer: Layer,
        metadata: &ArrowReaderMetadata,
        ranges: impl Iterator<Item = Range<usize>>,
        columns: Option<&[&str]>,
    ) -> Result<Scan, Corrupt> {
        let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
        let ranges = join_ranges(ranges);
        if ranges.last().is_some_and(|range| range.end > rows)
            || ranges.windows(2).any(|pair| pair[0].end > pair[1].start)
        {
            return Err(Corrupt::new(layer.name(), "a row number outside the table"));
        }
        let decoder = tabular::guarded(layer.name(), || {
            let descriptor = metadata.metadata().file_metadata().schema_descr();
            let projection = match columns {
                Some(columns) => ProjectionMask::columns(descriptor, columns.iter().copied()),
                None => ProjectionMask::all(),
            };
            ParquetPushDecoderBuilder::new_with_metadata(metadata.clone())
                .with_batch_size(BATCH_ROWS)
                .with_projection(projection)
                .with_row_selection(RowSelection::from_consecutive_ranges(ranges.into_iter(), rows))
                .with_row_selection_policy(RowSelectionPolicy::Selectors)
                .build()
        })?;
        Ok(Scan { layer, decoder })
    }

    /// Which layer is read.
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// The next batch; or the byte ranges that are needed for it first.
    pub fn step(&mut self) -> Result<Step, Corrupt> {
        match tabular::guarded(self.layer.name(), || self.decoder.try_decode())? {
            DecodeResult::Data(batch) => Ok(Step::Rows(batch)),
            DecodeResult::NeedsData(ranges) => Ok(Step::Needs(ranges)),
            DecodeResult::Finished => Ok(Step::End),
        }
    }

    /// Gives the bytes that [`Step::Needs`] named.
    pub fn give(&mut self, ranges: Vec<Range<u64>>, bytes: Vec<Bytes>) -> Result<(), Corrupt> {
        tabular::guarded(self.layer.name(), || self.decoder.push_ranges(ranges, bytes))
    }

    /// Fetches and decodes everything.
    ///
    /// # Errors
    /// [`Failure`] of the fetch, or of kind `Damaged`.
    pub async fn run(mut self, fetch: &dyn Fetch) -> Result<Vec<RecordBatch>, Failure> {
        let mut batches = Vec::new();
        loop {
            match self.step()? {
                Step::Rows(batch) => batches.push(batch),
                Step::Needs(ranges) => {
                    let bytes = fetch.fetch(self.layer, &ranges).await?;
                    self.give(ranges, bytes)?;
                }
                Step::End => return Ok(batches),
            }
        }
    }
}

/// What a [`Scan`] has next.
#[derive(Debug)]
pub enum Step {
    /// Some rows.
    Rows(RecordBatch),
    /// Bytes must be given first.
    Needs(Vec<Range<u64>>),
    /// No more.
    End,
}

/// Joins ascending ranges that touch.
fn join_ranges(ranges: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges.filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

/// Which blocks of the payload layers are needed: spans of consecutive numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PayloadPlan {
    head: Vec<Range<usize>>,
    body: Vec<Range<usize>>,
}

/// Merges block spans, sorted, touching ones joined.
fn merge_spans(spans: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut spans: Vec<_> = spans.filter(|span| !span.is_empty()).collect();
    spans.sort_unstable_by_key(|span| span.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

fn span_ranges(directory: &BlockDirectory, spans: &[Range<usize>]) -> Vec<Range<u64>> {
    spans
        .iter()
        .filter_map(|span| {
            let first = directory.stored_range(span.start)?;
            let last = directory.stored_range(span.end - 1)?;
            Some(first.start..last.end)
        })
        .collect()
}

async fn read_spans(
    fetch: &dyn Fetch,
    layer: Layer,
    directory: &BlockDirectory,
    spans: &[Range<usize>],
) -> Result<Vec<RawSpan>, Failure> {
    let ranges = span_ranges(directory, spans);
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    let parts = fetch.fetch(layer, &ranges).await?;
    let mut raw_spans = Vec::with_capacity(spans.len());
    for ((span, range), stored) in spans.iter().zip(&ranges).zip(&parts) {
        let start = directory.raw_start(span.start);
        // The directory may say anything: past this the bytes must come first.
        let raw = usize::try_from(directory.raw_start(span.end) - start).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(raw.min(MOST_RESERVED));
        for number in span.clone() {
            let missing = || Corrupt::new(layer.name(), format!("block {number} is cut short"));
            let header = directory.header(number).ok_or_else(missing)?;
            let at = directory.stored_range(number).ok_or_else(missing)?;
            let slice = stored
                .get((at.start - range.start) as usize..(at.end - range.start) as usize)
                .ok_or_else(missing)?;
            block::decode_into(header, slice, &mut bytes).map_err(|error| {
                Corrupt::new(layer.name(), format!("block {number}: {}", error.what))
            })?;
        }
        raw_spans.push(RawSpan { start, bytes });
    }
    Ok(raw_spans)
}

/// Decompressed payload of consecutive blocks.
#[derive(Debug)]
struct RawSpan {
    start: u64,
    bytes: Vec<u8>,
}

/// Decompressed payload of some flow parts.
#[derive(Debug, Default)]
pub struct Payload {
    head: Vec<RawSpan>,
    body: Vec<RawSpan>,
}

impl Payload {
    fn part(spans: &[RawSpan], offset: u64, length: u64) -> Option<&[u8]> {
        if length == 0 {
            return Some(&[]);
        }
        let span = &spans[spans.partition_point(|span| span.start <= offset).checked_sub(1)?];
        let from = usize::try_from(offset - span.start).ok()?;
        span.bytes.get(from..from.checked_add(usize::try_from(length).ok()?)?)
    }
}

/// Packet rows of some flow parts, in stored order, and their templates.
#[derive(Debug)]
pub struct PacketRows {
    reader: RowReader,
    /// The rows.
    pub rows: Vec<ReadRow>,
}

impl PacketRows {
    /// Rebuilds every packet and hands it to `each`: its row and its captured
    /// bytes. `flows` are the parts the rows were read for, ascending.
    ///
    /// # Errors
    /// [`Corrupt`] when header or payload do not fit together.
    pub fn assemble(
        &self,
        flow_ordinals: &RoaringBitmap,
        flows: &[FlowRow],
        payload: &Payload,
        mut each: impl FnMut(&ReadRow, &[u8]),
    ) -> Result<(), Corrupt> {
        let bad = |what: &str| Corrupt::new("packets", what);
        let mut rebuilder = Rebuilder::default();
        let mut packet = Vec::new();
        let mut at = 0;
        for (ordinal, flow) in flow_ordinals.iter().zip(flows) {
            let place = &flow.placement;
            let head = Payload::part(&payload.head, place.head_offset, u64::from(place.head_bytes))
                .ok_or_else(|| bad("head payload is missing"))?;
            let body = Payload::part(&payload.body, place.body_offset, place.body_bytes)
                .ok_or_else(|| bad("body payload is missing"))?;
            let (mut head, mut body) = (head, body);
            let count = usize::try_from(flow.packets()).unwrap_or(usize::MAX);
            let rows = at_most(&self.rows, at, count).ok_or_else(|| bad("rows are missing"))?;
            at += count;
            for read in rows {
                if read.row.flow != ordinal {
                    return Err(bad("a row of another flow"));
                }
                packet.clear();
                rebuilder.header(&read.row, self.reader.templates(), &mut packet)?;
                let length = self.reader.payload_length(&read.row)?;
                let from_head = length.min(head.len());
                packet.extend_from_slice(&head[..from_head]);
                head = &head[from_head..];
                let from_body = body
                    .get(..length - from_head)
                    .ok_or_else(|| bad("payload ends before its packets"))?;
                packet.extend_from_slice(from_body);
                body = &body[from_body.len()..];
                each(read, &packet);
            }
            if !head.is_empty() || !body.is_empty() {
                return Err(bad("payload behind the last packet"));
            }
        }
        Ok(())
    }
}

fn at_most<T>(rows: &[T], at: usize, count: usize) -> Option<&[T]> {
    rows.get(at..at.checked_add(count)?)
}

#[cfg(test)]
mod tests;
