//! Reading the packets of one segment: which flows, which of their columns, which pages,
//! which payload.
//!
//! Nothing is fetched that no column asks for. Without columns packets are only counted, from
//! the `flows` layer or not even that; payload is fetched only for `payload` and `data`, by
//! slices of flows, so that memory does not grow with the segment.

mod fill;
mod read;
mod slices;

use std::sync::Arc;

use capstan_model::{Failure, Hour};
use capstan_storage_engine::catalog::SegmentEntry;
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::flows::FlowRow;
use capstan_storage_engine::segment::packets::column;
use capstan_storage_engine::segment::reader::Scan;
use datafusion::arrow::datatypes::SchemaRef;

pub(super) use self::read::PacketReader;
use self::slices::{places, slices};
use super::columns::{FlowColumn, PacketColumn};
use super::flow_rows::{self, Constants, FlowRows};
use super::packet_rows;
use super::source::Counted;
use super::window::Window;
use crate::select::FlowFilter;

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
}
