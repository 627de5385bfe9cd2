//! Streams the packets of one segment in batches, as they are fetched.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::reader::{Fetch, Payload, Scan, Step};
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::execution::memory_pool::MemoryReservation;

use super::fill::{Filled, Filler};
use super::slices::{Place, flow_rows, slices, total};
use super::{Depth, PacketRequest, Selected};
use crate::tables::columns::PacketColumn;
use crate::tables::flow_rows::{empty_columns, unexpected};
use crate::tables::packet_rows::{Decoded, Decoder};
use crate::tables::segment_table::SegmentRows;
use crate::tables::source::{CountingFetch, PrefetchedRanges, reserve, reserve_ranges};

impl Selected {
    /// Fetches what the first rows need.
    pub(super) async fn start(
        self,
        request: Arc<PacketRequest>,
        memory: MemoryReservation,
    ) -> Result<PacketReader, Failure> {
        let interfaces = self.source.open().interfaces();
        let (constants, flows) = (self.constants.clone(), self.flows.as_ref());
        let decoder = Decoder::new(&request.columns, &interfaces, constants, flows)?;
        let from = match self.depth {
            Depth::Nothing => From::Count(0),
            Depth::Count => From::Count(self.count()?),
            Depth::Columns | Depth::Header => {
                let mut scan = self.scan(&request)?;
                // The first step reveals which bytes are needed, so that they are prefetched before a reader
                // waits.
                let first = match scan.step()? {
                    Step::Needs(ranges) => {
                        let bytes = self.fetch(&ranges, &memory).await?;
                        scan.give(ranges, bytes)?;
                        None
                    }
                    Step::Rows(batch) => Some(batch),
                    Step::End => None,
                };
                From::Scan { first, scan }
            }
            Depth::Payload => {
                let mut slices = slices(self.places());
                slices.reverse();
                let needs = match self.scan(&request)?.step()? {
                    Step::Needs(ranges) => ranges,
                    // Without rows there is nothing to hold.
                    Step::Rows(_) | Step::End => Vec::new(),
                };
                let (bytes, first) = futures::join!(
                    self.fetch(&needs, &memory),
                    self.first_payload(slices.last(), &memory)
                );
                let held = PrefetchedRanges::new(&needs, bytes?);
                From::Slices { held, slices, first, ready: Vec::new() }
            }
        };
        Ok(PacketReader { selected: self, request, decoder, from, memory })
    }

    /// The payload of the first slice if it is small, so that it comes together with the packets. None if it
    /// cannot be read: the reader of the slice tries again, and reports the failure.
    async fn first_payload(
        &self,
        first: Option<&Range<usize>>,
        memory: &MemoryReservation,
    ) -> Option<FirstPayload> {
        let places = self.places().get(first?.clone())?;
        if total(places, Place::payload) > EAGER_BYTES {
            return None;
        }
        let memory = reserved_for(places, memory).ok()?;
        let segment = self.source.open();
        let plan = segment.plan_payload(&flow_rows(places));
        let payload = segment.read_payload(&self.source, &plan).await.ok()?;
        Some(FirstPayload { payload, memory })
    }

    async fn fetch(
        &self,
        ranges: &[Range<u64>],
        memory: &MemoryReservation,
    ) -> Result<Vec<Bytes>, Failure> {
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        reserve_ranges(memory, ranges)?;
        self.source.fetch(Layer::Packets, ranges).await
    }
}

/// Memory for the unpacked blocks and the assembled packets of some flows.
fn reserved_for(
    places: &[Place],
    memory: &MemoryReservation,
) -> Result<MemoryReservation, Failure> {
    let (bytes, packets) = (total(places, Place::payload), total(places, |of| of.packets));
    let memory = memory.new_empty();
    reserve(&memory, bytes.saturating_mul(2).saturating_add(packets.saturating_mul(256)))?;
    Ok(memory)
}

/// Payload of a first slice of no more bytes is read before the slice is due.
const EAGER_BYTES: u64 = 1 << 20;

/// The payload of the first slice, read before it is due.
#[derive(Debug)]
struct FirstPayload {
    payload: Payload,
    memory: MemoryReservation,
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
    /// The number of remaining packets, when no column is selected.
    Count(u64),
    /// Columns and headers.
    Scan { first: Option<RecordBatch>, scan: Scan },
    /// Payload, by slices of flows, the next one last.
    Slices {
        held: PrefetchedRanges,
        slices: Vec<Range<usize>>,
        first: Option<FirstPayload>,
        ready: Vec<RecordBatch>,
    },
}

/// Rows of one batch that are only counted.
const COUNTED_ROWS: u64 = 1 << 20;

#[async_trait]
impl SegmentRows for PacketReader {
    async fn next(&mut self) -> Result<Option<RecordBatch>, Failure> {
        loop {
            let batch = match &mut self.from {
                From::Count(0) => return Ok(None),
                From::Count(left) => {
                    let rows = (*left).min(COUNTED_ROWS);
                    *left -= rows;
                    self.counted(rows as usize)?
                }
                From::Scan { first, scan } => match first.take() {
                    Some(batch) => self.columns(&batch)?,
                    None => match scan.step()? {
                        Step::End => return Ok(None),
                        Step::Needs(ranges) => {
                            let bytes = self.selected.fetch(&ranges, &self.memory).await?;
                            scan.give(ranges, bytes)?;
                            continue;
                        }
                        Step::Rows(batch) => self.columns(&batch)?,
                    },
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

    /// Payload of other flows can be read after a failure.
    fn goes_on(&self) -> bool {
        matches!(&self.from, From::Slices { slices, .. } if !slices.is_empty())
    }

    fn memory(&self) -> usize {
        let first = match &self.from {
            From::Slices { first: Some(first), .. } => first.memory.size(),
            _ => 0,
        };
        self.memory.size() + first
    }

    fn source(&self) -> &CountingFetch {
        &self.selected.source
    }
}

impl PacketReader {
    fn counted(&mut self, rows: usize) -> Result<RecordBatch, Failure> {
        let none = empty_columns(rows)?;
        let decoded = self.decoder.decode(&none, None, false)?;
        self.put_together(decoded, &Filled::new())
    }

    fn columns(&mut self, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
        let decoded = self.decoder.decode(batch, self.selected.window.as_ref(), false)?;
        let headers = match self.selected.depth {
            Depth::Header => vec![(PacketColumn::Header, self.decoder.headers(batch)?)],
            _ => Vec::new(),
        };
        self.put_together(decoded, &headers)
    }

    /// Assembles the selected columns, without rows outside the window.
    fn put_together(&self, decoded: Decoded, bytes: &Filled) -> Result<RecordBatch, Failure> {
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

    /// Assembles the packets of some flows.
    async fn slice(&mut self, slice: Range<usize>) -> Result<(), Failure> {
        let From::Slices { held, first, .. } = &mut self.from else { return Ok(()) };
        let places = &self.selected.places()[slice.clone()];
        let flows = &flow_rows(places);
        let segment = Arc::clone(self.selected.source.open());
        let plan = segment.plan_payload(flows);
        let packets = total(places, |of| of.packets);
        let FirstPayload { payload, memory: _memory } = match first.take() {
            Some(first) => first,
            None => {
                let memory = reserved_for(places, &self.memory)?;
                let payload = segment.read_payload(&self.selected.source, &plan).await?;
                FirstPayload { payload, memory }
            }
        };
        let held = &*held;
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
            .filter(|batch| batch.num_rows() > 0)
            .map(|batch| self.decoder.decode(batch, window.as_ref(), prefixes))
            .collect::<Result<Vec<_>, _>>()?;

        let ordinals: Vec<u32> = match &self.selected.flows {
            Some(known) => known.ordinals.iter().skip(slice.start).take(slice.len()).collect(),
            None => Vec::new(),
        };
        let mut filler = Filler::new(&self.request, &decoded);
        let ordinals = ordinals.into_iter().collect();
        assembled.assemble(&ordinals, flows, &payload, |read, data| {
            filler.put(read.row.captured, data);
        })?;
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
