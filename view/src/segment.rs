//! An opened segment as a principal sees it. Rows and packets are read by flows, and [`VisibleFlows`] are made here
//! alone.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_index::filter::FlowFilter;
use capstan_index::{Field, IndexError};
use capstan_model::Failure;
use capstan_model::link::Interface;
use capstan_storage_engine::cache::{Extent, Keep, Read};
use capstan_storage_engine::catalog::SegmentEntry;
use capstan_storage_engine::segment::flows::FlowRow;
use capstan_storage_engine::segment::index_layer::Extras;
use capstan_storage_engine::segment::reader::{
    Fetch, PacketRows, PartReader, Payload, PayloadPlan, Piece, Scan, Segment,
};
use capstan_storage_engine::segment::{Corrupt, Layer, TableLayer};
use roaring::RoaringBitmap;

use super::{OpenSegment, Plan};
use crate::access::{FlowIdCipher, Principal};

/// See the module.
#[derive(Debug)]
pub struct ScopedSegment {
    open: Arc<OpenSegment>,
    mask: Option<Masked>,
}

/// The effect of a mask on one segment.
#[derive(Debug)]
struct Masked {
    who: Arc<Principal>,
    /// Flows that certainly match the mask.
    shown: RoaringBitmap,
}

/// Flows of a segment that its reader may see, by ordinal.
#[derive(Debug, Clone, PartialEq)]
pub struct VisibleFlows(RoaringBitmap);

/// Visible flows that match a filter.
#[derive(Debug)]
pub struct Matching {
    /// Flows that certainly match.
    pub sure: VisibleFlows,
    /// Flows of which it is unknown; none of them is in `sure`.
    pub unknown: VisibleFlows,
}

impl VisibleFlows {
    /// How many they are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their ordinals.
    pub fn ordinals(&self) -> &RoaringBitmap {
        &self.0
    }

    /// Their ordinals.
    pub fn into_ordinals(self) -> RoaringBitmap {
        self.0
    }

    /// In batches of at most so many.
    pub fn batches(&self, at_once: usize) -> VecDeque<VisibleFlows> {
        let mut batches = VecDeque::new();
        let mut flows = self.0.iter();
        loop {
            let batch: RoaringBitmap = flows.by_ref().take(at_once.max(1)).collect();
            if batch.is_empty() {
                return batches;
            }
            batches.push_back(VisibleFlows(batch));
        }
    }
}

impl ScopedSegment {
    /// A segment as a principal sees it. The mask is evaluated here.
    pub(super) fn new(
        open: Arc<OpenSegment>,
        who: &Arc<Principal>,
    ) -> Result<ScopedSegment, Corrupt> {
        let mask = match who.mask() {
            Some(mask) => {
                let shown = mask.shown().bounds(open.segment())?.sure;
                Some(Masked { who: Arc::clone(who), shown })
            }
            None => None,
        };
        Ok(ScopedSegment { open, mask })
    }

    fn segment(&self) -> &Segment {
        self.open.segment()
    }

    /// The catalog's entry of the segment.
    pub fn entry(&self) -> &SegmentEntry {
        self.open.entry()
    }

    /// Whether some of its flows may be hidden.
    pub fn is_masked(&self) -> bool {
        self.mask.is_some()
    }

    /// The cipher of the flow ids that its reader gets; none if it gets the stored ones.
    pub fn flow_ids(&self) -> Option<FlowIdCipher> {
        let mask = self.mask.as_ref().and_then(|masked| masked.who.mask());
        mask.map(|mask| *mask.flow_ids())
    }

    /// Bytes of memory that it takes, about.
    pub fn memory(&self) -> usize {
        self.segment().memory()
    }

    /// All visible flows.
    pub fn all_flows(&self) -> VisibleFlows {
        VisibleFlows(match &self.mask {
            Some(masked) => masked.shown.clone(),
            None => self.segment().all_flows(),
        })
    }

    /// The visible flows that may match. Where the index does not decide, a flow is among them.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn possible(&self, flows: &FlowFilter) -> Result<VisibleFlows, Corrupt> {
        if flows.is_all() {
            return Ok(self.all_flows());
        }
        Ok(self.visible(self.asked(flows).bounds(self.segment())?.possible))
    }

    /// The visible flows that match.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn matching(&self, flows: &FlowFilter) -> Result<Matching, Corrupt> {
        let found = self.asked(flows).evaluate(self.segment())?;
        Ok(Matching { sure: self.visible(found.flows), unknown: self.visible(found.unknown) })
    }

    /// A filter with the flow ids that are stored.
    fn asked<'a>(&self, flows: &'a FlowFilter) -> Cow<'a, FlowFilter> {
        match self.mask.as_ref().and_then(|masked| masked.who.mask()) {
            Some(mask) => Cow::Owned(mask.asked(flows)),
            None => Cow::Borrowed(flows),
        }
    }

    fn visible(&self, flows: RoaringBitmap) -> VisibleFlows {
        VisibleFlows(match &self.mask {
            Some(masked) => flows & &masked.shown,
            None => flows,
        })
    }

    /// Whether the Kubernetes identity of both ends is known of each visible flow.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn is_identified(&self) -> Result<bool, Corrupt> {
        let terms = self.segment().terms();
        let known = |field| match &self.mask {
            Some(masked) => terms.is_known_of(field, &masked.shown),
            None => terms.is_known_of_all(field),
        };
        let damaged = |error: IndexError| Corrupt::new("index", error.to_string());
        Ok(known(Field::Namespace).map_err(damaged)? && known(Field::Pod).map_err(damaged)?)
    }

    /// The number of packets; none if some may be hidden.
    pub fn packets(&self) -> Option<u64> {
        self.mask.is_none().then(|| self.segment().meta().packets)
    }

    /// The capture points of its packets, by number. Under a mask without the options of their descriptions: capture
    /// filters name hosts.
    pub fn interfaces(&self) -> Vec<(u32, Interface)> {
        let mut interfaces = self.segment().meta().interfaces.clone();
        if self.is_masked() {
            interfaces.iter_mut().for_each(|(_, interface)| interface.options.clear());
        }
        interfaces
    }

    /// pcapng blocks and packet options. Under a mask there are no blocks: they are about all flows.
    ///
    /// # Errors
    /// They are damaged.
    pub fn extras(&self) -> Result<Extras, Corrupt> {
        let mut extras = self.segment().extras()?;
        if self.is_masked() {
            extras.blocks.clear();
        }
        Ok(extras)
    }

    /// The scan of some flow parts in `flows.parquet`.
    ///
    /// # Errors
    /// The segment is damaged.
    pub fn scan_flows(
        &self,
        flows: &VisibleFlows,
        columns: Option<&[&str]>,
    ) -> Result<Scan, Corrupt> {
        self.segment().scan_flows(&flows.0, columns)
    }

    /// Reads the rows of some flows.
    ///
    /// # Errors
    /// Any failure of the store; the segment is damaged.
    pub async fn read_flows(
        &self,
        fetch: &dyn Fetch,
        flows: &VisibleFlows,
    ) -> Result<Vec<FlowRow>, Failure> {
        self.segment().read_flows(fetch, &flows.0).await
    }

    /// The scan of the packets of all flows; none if some may be hidden.
    ///
    /// # Errors
    /// The segment is damaged.
    pub fn scan_all_packets(&self, columns: Option<&[&str]>) -> Result<Option<Scan>, Corrupt> {
        match self.mask {
            Some(_) => Ok(None),
            None => self.segment().scan_all(Layer::Packets, columns).map(Some),
        }
    }

    /// The scan of the packets of flows whose rows were read.
    ///
    /// # Errors
    /// The segment is damaged.
    pub fn scan_packets(
        &self,
        flows: &[FlowRow],
        columns: Option<&[&str]>,
    ) -> Result<Scan, Corrupt> {
        self.segment().scan_packets(flows, columns)
    }

    /// Reads the packets of flows whose rows were read.
    ///
    /// # Errors
    /// Any failure of the store; the segment is damaged.
    pub async fn read_packets(
        &self,
        fetch: &dyn Fetch,
        flows: &[FlowRow],
    ) -> Result<PacketRows, Failure> {
        self.segment().read_packets(fetch, flows).await
    }

    /// Plans the read of the payload of flows whose rows were read, without layers that retention deleted.
    pub fn plan_payload(&self, flows: &[FlowRow]) -> PayloadPlan {
        self.segment().plan_payload(flows).of_left(self.open.payload_left())
    }

    /// Reads planned payload.
    ///
    /// # Errors
    /// Any failure of the store; the segment is damaged.
    pub async fn read_payload(
        &self,
        fetch: &dyn Fetch,
        plan: &PayloadPlan,
    ) -> Result<Payload, Failure> {
        self.segment().read_payload(fetch, plan).await
    }

    /// The payload of a flow in pieces of about so many bytes.
    pub fn pieces(&self, flow: &FlowRow, bytes: u64) -> Vec<Piece> {
        self.segment().pieces(flow, bytes, self.open.payload_left())
    }

    /// Plans the read of a piece.
    pub fn piece_plan(&self, piece: &Piece) -> PayloadPlan {
        self.segment().piece_plan(piece)
    }

    /// Reads a piece.
    ///
    /// # Errors
    /// Any failure of the store; the segment is damaged.
    pub async fn read_piece(&self, piece: &Piece) -> Result<Vec<u8>, Failure> {
        self.segment().read_piece(self, piece).await
    }

    /// Begins to read a flow piece by piece.
    ///
    /// # Errors
    /// The segment is damaged.
    pub fn read_part(&self, ordinal: u32, flow: &FlowRow) -> Result<PartReader, Corrupt> {
        self.segment().read_part(ordinal, flow, self.open.payload_left())
    }

    /// A plan of reads of the segment, without any.
    pub fn new_plan(&self) -> Plan {
        self.open.new_plan()
    }

    /// Adds to a plan what a scan will fetch.
    ///
    /// # Errors
    /// The scan is invalid.
    pub fn add_scan(&self, plan: &mut Plan, scan: Scan) -> Result<(), Failure> {
        self.open.plan_scan(plan, scan)
    }

    /// Adds to a plan what a read of payload will fetch.
    pub fn add_payload(&self, plan: &mut Plan, payload: &PayloadPlan) {
        self.open.plan_payload(plan, payload);
    }

    /// Adds one fetch to a plan, and how much of it the cache has.
    pub fn add_fetch(&self, plan: &mut Plan, layer: Layer, ranges: &[Range<u64>]) {
        self.open.plan_fetch(plan, layer, ranges);
    }

    /// The directory of a table that was added to the segment.
    ///
    /// # Errors
    /// The segment does not have the table; its entry names no directory.
    pub fn directory(&self, layer: &'static TableLayer) -> Result<Extent, Failure> {
        self.open.directory(layer)
    }

    /// Adds one fetch of ranges whose extents are known to a plan, and how much of it the cache has.
    pub fn add_extents(&self, plan: &mut Plan, layer: Layer, extents: &[Vec<Extent>]) {
        self.open.plan_extents(plan, layer, extents);
    }

    /// Reads ranges whose extents are known.
    ///
    /// # Errors
    /// As [`Fetch::fetch`].
    pub async fn read_extents(
        &self,
        layer: Layer,
        keep: Keep,
        extents: &[Vec<Extent>],
    ) -> Result<Read, Failure> {
        self.open.read_extents(layer, keep, extents).await
    }

    /// Like [`Fetch::fetch`], and also returns what was requested from the store.
    ///
    /// # Errors
    /// As [`Fetch::fetch`].
    pub async fn read(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Read, Failure> {
        self.open.read(layer, ranges).await
    }
}

#[async_trait]
impl Fetch for ScopedSegment {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        self.open.fetch(layer, ranges).await
    }
}
