//! Reads the packets of one segment: selected flows and columns, and only the needed pages and payload blocks.
//!
//! Only what a column needs is fetched. Without columns packets are only counted, from the `flows` layer or
//! without any fetch. Payload is fetched only for `payload` and `data`, by slices of flows, so that memory does
//! not grow with the segment.

mod fill;
mod read;
mod slices;

use std::sync::Arc;

use async_trait::async_trait;
use capstan_index::filter::FlowFilter;
use capstan_model::{Failure, FailureKind, Hour};
use capstan_storage_engine::catalog::SegmentEntry;
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::packets::column;
use capstan_storage_engine::segment::reader::Scan;
use capstan_view::Cost;
use capstan_view::access::{Principal, Right};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;

use self::slices::{Place, flow_rows as flow_rows_of, places, slices, total};
use super::columns::PacketColumn;
use super::flow_columns::FlowColumn;
use super::flow_rows::{self, Constants, FlowRows};
use super::hidden;
use super::packet_rows;
use super::predicate::{Pushed, Table};
use super::segment_table::{SegmentRequest, SegmentRows, SegmentTable, chosen};
use super::source::CountingFetch;
use super::window::Window;

/// The selected packets and columns.
#[derive(Debug)]
struct PacketRequest {
    columns: Vec<PacketColumn>,
    schema: SchemaRef,
    window: Option<Window>,
    flows: FlowFilter,
}

/// How much of each packet is read.
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

/// The table `packets`: a row a packet.
#[derive(Debug)]
pub(super) struct Packets;

impl SegmentTable for Packets {
    fn schema(&self) -> SchemaRef {
        PacketColumn::schema(PacketColumn::ALL)
    }

    fn conditions(&self) -> Option<Table> {
        Some(Table::Packets)
    }

    fn ask(
        &self,
        columns: &[usize],
        pushed: Pushed,
        who: &Principal,
    ) -> Result<Arc<dyn SegmentRequest>, Failure> {
        let columns = chosen(PacketColumn::ALL, columns)?;
        may_read(&columns, who)?;
        let schema = hidden::schema(PacketColumn::schema(&columns), who);
        let Pushed { window, flows } = pushed;
        Ok(Arc::new(PacketRequest { columns, schema, window, flows }))
    }
}

/// Refuses columns of packets that need a right.
fn may_read(columns: &[PacketColumn], who: &Principal) -> Result<(), Failure> {
    who.require(Right::FlowsRead, "the table packets")?;
    let mut payload = columns
        .iter()
        .filter(|column| matches!(column, PacketColumn::Payload | PacketColumn::Data));
    payload.try_for_each(|column| {
        who.require(Right::PayloadRead, &format!("the column {} of packets", column.name()))
    })
}

#[async_trait]
impl SegmentRequest for PacketRequest {
    fn table(&self) -> &'static str {
        "packets"
    }

    /// The flow of a packet is found through the `flows` layer.
    fn layers(&self) -> &[Layer] {
        &[Layer::Packets, Layer::Flows]
    }

    fn of_values(&self) -> &[Layer] {
        if self.wants_payload() { &[Layer::Body, Layer::Head] } else { &[] }
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    fn flows(&self) -> &FlowFilter {
        &self.flows
    }

    fn rows(&self, entry: &SegmentEntry) -> Option<u64> {
        Some(entry.packets)
    }

    /// A packet has one time, so none is in an empty window.
    fn may_touch(&self, entry: &SegmentEntry) -> bool {
        let window = self.window.as_ref();
        window.is_none_or(|window| !window.is_empty() && window.may_touch(entry))
    }

    async fn cost(&self, source: CountingFetch, constants: Constants) -> Result<Cost, Failure> {
        let selected = Selected::of(source, constants, self).await?;
        selected.plan(self)?;
        Ok(selected.source.cost())
    }

    async fn start(
        self: Arc<Self>,
        source: CountingFetch,
        constants: Constants,
        memory: MemoryReservation,
    ) -> Result<Box<dyn SegmentRows>, Failure> {
        let selected = Selected::of(source, constants, &self).await?;
        Ok(Box::new(selected.start(self, memory).await?))
    }
}

impl PacketRequest {
    fn wants(&self, column: PacketColumn) -> bool {
        self.columns.contains(&column)
    }

    fn depth(&self, window: Option<&Window>) -> Depth {
        if self.wants_payload() {
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

    fn wants_payload(&self) -> bool {
        self.wants(PacketColumn::Payload) || self.wants(PacketColumn::Data)
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

/// The window to filter a segment's packets by; none if all of them lie inside.
fn cut(window: Option<Window>, entry: &SegmentEntry) -> Option<Window> {
    let timeless = entry.hour == Hour::UNKNOWN || entry.hours.contains(&Hour::UNKNOWN);
    window.filter(|window| timeless || !window.covers(entry))
}

/// Under a mask packets are read flow by flow.
fn unplaced() -> Failure {
    Failure::new(FailureKind::Other, "the places of the visible packets were not read")
}

/// The selected packets of one segment: their flows are known, they are not fetched yet.
#[derive(Debug)]
struct Selected {
    source: CountingFetch,
    /// The window to filter packets by.
    window: Option<Window>,
    depth: Depth,
    /// None: all flows, without any column of them.
    flows: Option<FlowRows>,
    /// Where the packets of those flows lie; none if all packets are read in one go.
    places: Option<Vec<Place>>,
    constants: Constants,
}

impl Selected {
    /// Evaluates the term index and reads the needed columns of flows.
    async fn of(
        source: CountingFetch,
        constants: Constants,
        request: &PacketRequest,
    ) -> Result<Selected, Failure> {
        let segment = &*Arc::clone(source.open());
        let window = cut(request.window, segment.entry());
        let everything = request.flows.is_all() && !segment.is_masked();
        // Where a term does not decide, the engine does.
        let visible = segment.possible(&request.flows)?;
        let depth = match visible.is_empty() {
            true => Depth::Nothing,
            false => request.depth(window.as_ref()),
        };
        let mut selected = Selected { source, window, depth, flows: None, places: None, constants };
        let mut columns: Vec<&'static str> =
            request.flow_columns().iter().flat_map(FlowColumn::stored).collect();
        if matches!(depth, Depth::Header | Depth::Payload) {
            columns.extend(flow_rows::ENDS);
        }
        let in_one_go = everything && window.is_none() && depth != Depth::Payload;
        if depth == Depth::Nothing || (in_one_go && columns.is_empty()) {
            return Ok(selected);
        }
        if !in_one_go {
            columns.extend(["first_row", "packets_forward", "packets_backward"]);
        }
        if depth == Depth::Payload {
            columns.extend(["head_offset", "head_bytes", "body_offset", "body_bytes"]);
        }
        let window = selected.window.as_ref();
        let flows = FlowRows::read(segment, &selected.source, visible, window, &columns).await?;
        if flows.len() == 0 {
            selected.depth = Depth::Nothing;
        }
        if !in_one_go {
            selected.places = Some(places(&flows)?);
        }
        selected.flows = Some(flows);
        Ok(selected)
    }

    /// Counts what reading will fetch, without fetching it.
    fn plan(&self, request: &PacketRequest) -> Result<(), Failure> {
        let open = self.source.open();
        if matches!(self.depth, Depth::Nothing | Depth::Count) {
            return Ok(());
        }
        let scan = self.scan(request)?;
        self.source.plan(|plan| open.add_scan(plan, scan))?;
        if self.depth == Depth::Payload {
            let places = self.places();
            for slice in slices(places) {
                let payload = open.plan_payload(&flow_rows_of(&places[slice]));
                self.source.plan(|plan| open.add_payload(plan, &payload));
            }
        }
        Ok(())
    }

    fn places(&self) -> &[Place] {
        self.places.as_deref().unwrap_or_default()
    }

    /// All rows that will be read of `packets.parquet`.
    fn scan(&self, request: &PacketRequest) -> Result<Scan, Failure> {
        let stored = request.stored_columns(self.window.as_ref());
        let columns = (self.depth == Depth::Columns).then_some(stored.as_slice());
        let segment = self.source.open();
        let all = match &self.places {
            Some(places) => Some(segment.scan_packets(&flow_rows_of(places), columns)?),
            None => segment.scan_all_packets(columns)?,
        };
        all.ok_or_else(unplaced)
    }

    /// How many packets there are.
    fn count(&self) -> Result<u64, Failure> {
        match &self.places {
            Some(places) => Ok(total(places, |place| place.packets)),
            None => self.source.open().packets().ok_or_else(unplaced),
        }
    }
}
