//! An open segment: collects packets, compresses them, and seals.
//!
//! A flow part whose body reaches the block size is compressed into a block at once. A long flow
//! then keeps only its compressed blocks and a tail in memory. Small parts are packed together at
//! seal.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use capstan_index::filter::{FlowTerms, TunnelEnds};
use capstan_index::{TermIndex, TermIndexBuilder};
use capstan_model::headers::Outer;
use capstan_model::link::Interface;
use capstan_model::packet::Stamp;
use capstan_model::{
    Address, Block as SourceBlock, Direction, FlowId, FlowKey, FlowPart, Generation, GenerationId,
    Headers, Hour, Packet, Protocol, Time,
};
use sha2::{Digest, Sha256};

use super::block::{self, Block, Encoder};
use super::chunks::Chunks;
use super::flows::{self, FlowRow, Placement};
use super::index_layer::{self, Extras, LayerMeta, Meta, RunMeta, Section};
use super::layout::{self, Layout, PartSize};
use super::packets::{self, Context, PacketRow, Rows};
use super::payload::{PayloadLayer, PayloadWriter};
use super::predict::Predictor;
use super::tabular::Written;
use super::template::{Dictionary, HeaderSplitter, SplitHeader};
use super::{BODY_BLOCK, HEAD_BLOCK, HEAD_CUTOFF, Layer};
use crate::term_filters::{FlowIds, Summary, TermFilters};

/// Why a segment could not be sealed: only a lack of memory or a fault of a library.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The compression library failed.
    #[error("compressing a segment failed")]
    Compress(#[from] std::io::Error),
    /// The Parquet library failed.
    #[error("writing a segment's tables failed")]
    Table(#[from] parquet::errors::ParquetError),
    /// The term index failed.
    #[error("writing a segment's index failed")]
    Terms(#[from] capstan_index::IndexError),
}

/// A number of a flow part within its open segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartNumber(u32);

/// A flow part while its segment is open.
#[derive(Debug)]
struct OpenPart {
    part: FlowPart,
    /// Rows before these numbers have the other direction than they say, for each of them.
    turned: Vec<u32>,
    /// Network identifiers met.
    vnis: Vec<u32>,
    /// Ends of tunnels met.
    outers: Vec<TunnelEnds>,
    predictor: Predictor,
    /// The last template each way: nearly always the next packet's too.
    last_template: [u32; 2],
    head: Vec<u8>,
    /// Full body blocks, compressed.
    own: Vec<Block>,
    /// Body bytes behind the last full block.
    tail: Chunks,
    body_bytes: u64,
    /// Blocks stored in a row because they did not compress.
    incompressible: u32,
}

const NO_TEMPLATE: u32 = u32::MAX;

/// Room for the next body block of a flow that has one already. It is closed by the packet that
/// makes it long enough, hence a little more. (Recording 1 Gbit/s takes 3 % less processor time
/// than with blocks put together from chunks.)
const LONG_TAIL: usize = BODY_BLOCK.full + 64 * 1024;

/// An open segment.
#[derive(Debug)]
pub struct SegmentBuilder {
    writer: GenerationId,
    rows: Rows,
    parts: Vec<OpenPart>,
    templates: Dictionary,
    ticks: HashMap<u64, u64>,
    extras: Extras,
    interfaces: BTreeMap<u32, Interface>,
    /// The interface described last: nearly always the next packet's too.
    last_interface: Option<u32>,
    hours: BTreeSet<Hour>,
    encoder: Encoder,
    splitter: HeaderSplitter,
    captured_bytes: u64,
    wire_bytes: u64,
    compressed_bytes: usize,
    span: Option<(Time, Time)>,
    /// The hour of the packet before: nearly always the next one's too.
    last_hour: Option<Hour>,
    /// Raw bytes that are in compressed blocks already.
    compressed_raw: usize,
    /// Flow parts that have a block of their own, and [`LONG_TAIL`] for the next.
    long_parts: usize,
}

/// A sealed segment: its layers and what the catalog says of it.
#[derive(Debug, Clone)]
pub struct SealedSegment {
    /// What the `index` layer says of it too.
    pub meta: Meta,
    /// Hours touched, ascending.
    pub hours: Vec<Hour>,
    /// The layers as objects, `index` last.
    pub layers: Vec<SealedLayer>,
    /// Packets of each label met.
    pub protocols: BTreeMap<Protocol, u64>,
    /// Every address met, inner and outer, ascending.
    pub addresses: Vec<Address>,
    /// Filters of other terms met.
    pub term_filters: TermFilters,
    /// The range of the ids of its flows.
    pub flow_ids: Option<FlowIds>,
}

/// One object of a sealed segment.
#[derive(Debug, Clone)]
pub struct SealedLayer {
    /// Which.
    pub layer: Layer,
    /// Its content, in pieces that follow each other: what was compressed is not moved again.
    pub parts: Vec<Bytes>,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
}

impl SegmentBuilder {
    /// An empty segment.
    ///
    /// # Errors
    /// When the compression library has no memory.
    pub fn new(writer: GenerationId) -> std::io::Result<Self> {
        Ok(SegmentBuilder {
            writer,
            rows: Rows::default(),
            parts: Vec::new(),
            templates: Dictionary::default(),
            ticks: HashMap::new(),
            extras: Extras::default(),
            interfaces: BTreeMap::new(),
            last_interface: None,
            hours: BTreeSet::new(),
            encoder: Encoder::new()?,
            splitter: HeaderSplitter::default(),
            captured_bytes: 0,
            wire_bytes: 0,
            compressed_bytes: 0,
            span: None,
            last_hour: None,
            compressed_raw: 0,
            long_parts: 0,
        })
    }

    /// Begins a flow part.
    pub fn open_part(&mut self, id: FlowId, key: FlowKey) -> PartNumber {
        let number = PartNumber(self.parts.len() as u32);
        self.parts.push(OpenPart {
            part: FlowPart::new(id, key),
            turned: Vec::new(),
            vnis: Vec::new(),
            outers: Vec::new(),
            predictor: Predictor::default(),
            last_template: [NO_TEMPLATE; 2],
            head: Vec::new(),
            own: Vec::new(),
            tail: Chunks::default(),
            body_bytes: 0,
            incompressible: 0,
        });
        number
    }

    /// A flow part's counters and labels, to be changed.
    pub fn part_mut(&mut self, number: PartNumber) -> &mut FlowPart {
        &mut self.parts[number.0 as usize].part
    }

    /// Exchanges source and destination of a flow part: its packets so far go the other way.
    pub fn turn_part(&mut self, number: PartNumber) {
        let rows = self.rows.len() as u32;
        let open = &mut self.parts[number.0 as usize];
        open.part.turn();
        open.predictor.turn();
        open.last_template.reverse();
        open.turned.push(rows);
    }

    /// Names a capture point; packets of it may follow.
    pub fn describe_interface(&mut self, number: u32, interface: &Interface) {
        if self.last_interface != Some(number) {
            self.interfaces.entry(number).or_insert_with(|| interface.clone());
            self.last_interface = Some(number);
        }
    }

    /// Keeps a pcapng block that is not a packet.
    pub fn push_block(&mut self, block: SourceBlock) {
        self.extras.blocks.push(block);
    }

    /// Makes a flow part found by the ends of a tunnel that its packets are in. Those of the
    /// outermost one are known already.
    pub fn meet_tunnel(&mut self, number: PartNumber, tunnel: &Outer) {
        self.parts[number.0 as usize].meet_tunnel(tunnel);
    }

    /// Whether one of those blocks holds decryption secrets.
    pub fn has_secrets(&self) -> bool {
        self.extras.has_secrets()
    }

    /// Adds a packet to a flow part and counts it there.
    pub fn push(
        &mut self,
        number: PartNumber,
        packet: &Packet<'_>,
        headers: &Headers,
        direction: Direction,
        ordinal: u64,
    ) {
        let open = &mut self.parts[number.0 as usize];
        let template = &mut open.last_template[direction as usize];
        let known = self.templates.get(*template);
        let SplitHeader { values, set, template: new } =
            self.splitter.split(headers, packet.data, packet.length, known);
        if let Some(new) = new {
            *template = self.templates.number_of(new, set);
        }
        let template = *template;
        let prefix = usize::from(headers.prefix).min(packet.data.len());
        let time = packet.stamp.time();
        let flags = headers.tcp.map_or(0, |tcp| tcp.flags);
        open.part.count(direction, time, packet.length, headers.transport_payload, flags);
        if let Some(outer) = &headers.outer {
            open.meet_tunnel(outer);
            open.part.outer = open.part.outer.or(Some((outer.source, outer.destination)));
        }
        if let Some(vni) = headers.vni
            && !open.vnis.contains(&vni)
        {
            open.vnis.push(vni);
        }

        let mut row = PacketRow::new(ordinal, packet.stamp, direction);
        row.flow = number.0;
        row.template = template;
        row.length = packet.length;
        row.captured = packet.data.len() as u32;
        row.trailer = values.trailer;
        row.interface = packet.interface;
        row.checksum = values.checksum;
        row.outer_checksum = values.outer_checksum;
        row.tcp_window = values.tcp_window;
        row.tcp_flags = values.tcp_flags;
        let payload = packets::wire_payload(packet.length, values.trailer, prefix);
        row.deltas = open.predictor.encode(direction, set, &values, payload);
        self.rows.push(row);

        open.push_payload(&packet.data[prefix..]);
        if open.tail.len() >= BODY_BLOCK.full {
            self.compressed_raw += open.tail.len();
            self.long_parts += usize::from(open.own.is_empty());
            self.compressed_bytes += open.close_block(&mut self.encoder);
        }
        if let Stamp::Raw { ticks, .. } = packet.stamp {
            self.ticks.insert(ordinal, ticks);
        }
        if !packet.options.is_empty() {
            self.extras.packet_options.push((ordinal, packet.options.to_vec()));
        }
        self.captured_bytes += packet.data.len() as u64;
        self.wire_bytes += u64::from(packet.length);
        if let Some(time) = time {
            let (first, last) = self.span.unwrap_or((time, time));
            self.span = Some((first.min(time), last.max(time)));
        }
        let hour = packet.hour();
        if self.last_hour != Some(hour) {
            self.hours.insert(hour);
            self.last_hour = Some(hour);
        }
    }

    /// Hours touched so far.
    pub fn hours(&self) -> &BTreeSet<Hour> {
        &self.hours
    }

    /// Packets collected.
    pub fn packets(&self) -> usize {
        self.rows.len()
    }

    /// Ordinal of the first packet; packets come in order, so it is the lowest.
    pub fn first_ordinal(&self) -> Option<u64> {
        self.rows.iter().next().map(|row| row.ordinal)
    }

    /// Captured bytes collected.
    pub fn captured_bytes(&self) -> u64 {
        self.captured_bytes
    }

    /// Bytes of memory the open segment takes, near enough for a budget.
    pub fn memory(&self) -> usize {
        let pending = self.captured_bytes as usize;
        let part = size_of::<OpenPart>() + 64;
        self.rows.len() * size_of::<PacketRow>()
            + self.parts.len() * part
            + self.templates.memory()
            + pending.saturating_sub(self.compressed_raw)
            + self.compressed_bytes
            // What is pending of them is counted above; half of the room is empty on average.
            + self.long_parts * (LONG_TAIL / 2)
    }

    /// Seals the segment under `name`.
    ///
    /// # Errors
    /// [`SealError`]; the packets are lost then and must be counted by the caller.
    pub fn seal(
        mut self,
        name: String,
        flow_generation: Generation,
    ) -> Result<SealedSegment, SealError> {
        let sizes: Vec<PartSize> = self.parts.iter().map(OpenPart::size).collect();
        let layout = layout::plan(&sizes);
        self.turn_rows();
        let sorted = Sorted::new(&self.rows, &layout);
        let first_rows = &sorted.first_rows;
        let (flow_rows, payload) = self.place(&layout, first_rows);

        let quiet_flows = layout.quiet_flows as usize;
        let quiet_rows = first_rows.get(quiet_flows).map_or(self.rows.len(), |row| *row as usize);
        let context = Context {
            templates: std::mem::take(&mut self.templates),
            ticks: &self.ticks,
            flows: &flow_rows,
            first_group: quiet_rows,
        };
        let packets = packets::write(sorted.iter(&self.rows), context)?;
        let flows = flows::write(&flow_rows, quiet_flows)?;
        let terms = self.terms(&layout, &flow_rows)?;
        let summary = Summary::of(&TermIndex::open(&terms)?)?;

        let (packets_pages, flows_pages) = (packets.pages.to_bytes(), flows.pages.to_bytes());
        let (packets_tail, packets) = with_tail(packets);
        let (flows_tail, flows) = with_tail(flows);
        let mut layers = vec![
            SealedLayer::new(Layer::Body, payload.body.parts),
            SealedLayer::new(Layer::Head, payload.head.parts),
            SealedLayer::new(Layer::Packets, vec![packets]),
            SealedLayer::new(Layer::Flows, vec![flows]),
        ];
        let meta = self.meta(name, flow_generation, &flow_rows, &layout, &layers);
        let index = index_layer::write(&[
            (Section::Meta, &json(&meta)?),
            (Section::Terms, &terms),
            (Section::HeadBlocks, &payload.head.directory.to_bytes()),
            (Section::BodyBlocks, &payload.body.directory.to_bytes()),
            (Section::PacketsTail, &packets_tail),
            (Section::FlowsTail, &flows_tail),
            (Section::Extras, &json(&self.extras)?),
            (Section::PacketsPages, &packets_pages),
            (Section::FlowsPages, &flows_pages),
        ])?;
        layers.push(SealedLayer::new(Layer::Index, vec![index.into()]));

        let mut by_protocol = BTreeMap::new();
        for row in &flow_rows {
            *by_protocol.entry(row.part.protocol).or_default() += row.packets();
        }
        Ok(SealedSegment {
            meta,
            hours: self.hours.into_iter().collect(),
            layers,
            protocols: by_protocol,
            flow_ids: summary.flow_ids(self.writer.recorder, flow_generation),
            addresses: summary.addresses,
            term_filters: summary.filters,
        })
    }

    /// Gives the packets of parts that were turned their right direction.
    fn turn_rows(&mut self) {
        if self.parts.iter().all(|open| open.turned.is_empty()) {
            return;
        }
        for (number, row) in (0_u32..).zip(self.rows.iter_mut()) {
            let turned = &self.parts[row.flow as usize].turned;
            if !turned.iter().filter(|before| number < **before).count().is_multiple_of(2) {
                row.turn();
            }
        }
    }

    /// Lays payload and flow rows out in stored order.
    fn place(&mut self, layout: &Layout, first_rows: &[u32]) -> (Vec<FlowRow>, Payload) {
        let mut head = PayloadWriter::new(HEAD_BLOCK);
        let mut body = PayloadWriter::new(BODY_BLOCK);
        let mut hosts = None;
        let mut flow_rows = Vec::with_capacity(self.parts.len());
        for run in &layout.runs {
            let places = run.first_flow as usize..(run.first_flow + run.flows) as usize;
            for place in places {
                let open = &mut self.parts[layout.order[place] as usize];
                if hosts.replace(open.hosts()) != Some(open.hosts()) {
                    head.hosts_change(&mut self.encoder);
                    body.hosts_change(&mut self.encoder);
                }
                let encrypted = open.encrypted();
                let placement = Placement {
                    first_row: first_rows[place],
                    head_offset: head.offset(),
                    head_bytes: open.head.len() as u32,
                    body_offset: if open.own.is_empty() {
                        body.offset()
                    } else {
                        body.close(&mut self.encoder)
                    },
                    body_bytes: open.body_bytes,
                };
                head.add(std::mem::take(&mut open.head).into(), false, &mut self.encoder);
                for block in std::mem::take(&mut open.own) {
                    body.add_block(block);
                }
                body.add(std::mem::take(&mut open.tail), encrypted, &mut self.encoder);
                flow_rows.push(FlowRow { part: open.part.clone(), placement });
            }
            // A block never mixes two runs.
            head.close(&mut self.encoder);
            body.close(&mut self.encoder);
        }
        (flow_rows, Payload { head: head.finish(), body: body.finish() })
    }

    fn terms(&self, layout: &Layout, flow_rows: &[FlowRow]) -> Result<Vec<u8>, SealError> {
        let mut terms = TermIndexBuilder::new();
        for (ordinal, (row, number)) in (0_u32..).zip(flow_rows.iter().zip(&layout.order)) {
            let open = &self.parts[*number as usize];
            let found_by = FlowTerms { part: &row.part, tunnels: &open.outers, vnis: &open.vnis };
            found_by.each(|field, value| terms.add(field, value, ordinal));
        }
        Ok(terms.finish(flow_rows.len() as u32)?)
    }

    fn meta(
        &self,
        name: String,
        flow_generation: Generation,
        flow_rows: &[FlowRow],
        layout: &Layout,
        layers: &[SealedLayer],
    ) -> Meta {
        let ordinals = self.rows.iter().map(|row| row.ordinal);
        let layer = |sealed: &SealedLayer| LayerMeta {
            layer: sealed.layer.name().to_owned(),
            bytes: sealed.length(),
            sha256: hex::encode(sealed.sha256),
        };
        let run = |run: &layout::Run| RunMeta {
            address: run.address.to_string(),
            first_flow: run.first_flow,
            flows: run.flows,
        };
        Meta {
            name,
            recorder: self.writer.recorder.to_string(),
            generation: self.writer.generation.0,
            flow_generation: flow_generation.0,
            hours: self.hours.iter().map(|hour| hour.0).collect(),
            first: self.span.map(|span| span.0.0),
            last: self.span.map(|span| span.1.0),
            first_ordinal: ordinals.clone().min().unwrap_or(0),
            last_ordinal: ordinals.max().unwrap_or(0),
            packets: self.rows.len() as u64,
            flow_parts: flow_rows.len() as u64,
            captured_bytes: self.captured_bytes,
            wire_bytes: self.wire_bytes,
            layers: layers.iter().map(layer).collect(),
            runs: layout.runs.iter().map(run).collect(),
            interfaces: self.interfaces.iter().map(|(n, i)| (*n, i.clone())).collect(),
        }
    }
}

impl OpenPart {
    fn size(&self) -> PartSize {
        PartSize {
            source: self.part.key.source,
            destination: self.part.key.destination,
            packets: self.part.packets.iter().sum(),
            bytes: self.part.bytes.iter().sum(),
            has_own_blocks: !self.own.is_empty(),
            encrypted: self.encrypted(),
        }
    }

    /// Its two ends, in ascending order.
    fn hosts(&self) -> (Address, Address) {
        let FlowKey { source, destination, .. } = self.part.key;
        (source.min(destination), source.max(destination))
    }

    fn encrypted(&self) -> bool {
        matches!(self.part.protocol, Protocol::Tls | Protocol::Quic)
    }

    #[inline]
    fn meet_tunnel(&mut self, outer: &Outer) {
        // Both directions of a tunnel are the same two ends.
        let ends = if outer.source <= outer.destination {
            TunnelEnds {
                addresses: (outer.source, outer.destination),
                ports: (outer.source_port, outer.destination_port),
            }
        } else {
            TunnelEnds {
                addresses: (outer.destination, outer.source),
                ports: (outer.destination_port, outer.source_port),
            }
        };
        if self.outers.last() != Some(&ends) && !self.outers.contains(&ends) {
            self.outers.push(ends);
        }
    }

    #[inline]
    fn push_payload(&mut self, payload: &[u8]) {
        let room = HEAD_CUTOFF - self.head.len();
        let (head, body) = payload.split_at(payload.len().min(room));
        self.head.extend_from_slice(head);
        self.tail.push(body);
        self.body_bytes += body.len() as u64;
    }

    /// Compresses the tail into a block of its own; returns its stored length.
    fn close_block(&mut self, encoder: &mut Encoder) -> usize {
        // After two blocks that did not shrink only every eighth is tried.
        let hopeless = self.incompressible >= 2 && !self.incompressible.is_multiple_of(8);
        let try_it = !self.encrypted() && !hopeless;
        // It is a long flow: what follows is put where it can be compressed as it lies.
        let tail = std::mem::replace(&mut self.tail, Chunks::with_room(LONG_TAIL));
        let block = encoder.encode(tail, try_it);
        if block.header.codec == block::Codec::Stored {
            self.incompressible += 1;
        } else {
            self.incompressible = 0;
        }
        let stored = block.header.stored as usize;
        self.own.push(block);
        stored
    }
}

impl SealedLayer {
    fn new(layer: Layer, parts: Vec<Bytes>) -> Self {
        let mut hasher = Sha256::new();
        parts.iter().for_each(|part| hasher.update(part));
        SealedLayer { layer, parts, sha256: hasher.finalize().into() }
    }

    /// Length of the content, bytes.
    pub fn length(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// The content in one piece.
    pub fn bytes(&self) -> Bytes {
        match self.parts.as_slice() {
            [whole] => whole.clone(),
            parts => parts.concat().into(),
        }
    }
}

/// How rows lie in stored order.
struct Sorted {
    /// The stored number of each part, by its number here.
    place_of: Vec<u32>,
    /// Each part's first row, by its stored number.
    first_rows: Vec<u32>,
    /// Numbers of the rows, in stored order.
    order: Vec<u32>,
}

impl Sorted {
    fn new(rows: &Rows, layout: &Layout) -> Sorted {
        let parts = layout.order.len();
        let mut place_of = vec![0_u32; parts];
        for (place, number) in (0_u32..).zip(&layout.order) {
            place_of[*number as usize] = place;
        }
        let mut next = vec![0_u32; parts];
        for row in rows.iter() {
            next[place_of[row.flow as usize] as usize] += 1;
        }
        let mut total = 0;
        for count in &mut next {
            total += std::mem::replace(count, total);
        }
        let first_rows = next.clone();
        let mut order = vec![0_u32; rows.len()];
        for (number, row) in (0_u32..).zip(rows.iter()) {
            let at = &mut next[place_of[row.flow as usize] as usize];
            order[*at as usize] = number;
            *at += 1;
        }
        Sorted { place_of, first_rows, order }
    }

    /// The rows in stored order with stored flow numbers.
    fn iter(&self, rows: &Rows) -> impl ExactSizeIterator<Item = PacketRow> {
        self.order.iter().map(move |number| {
            let mut row = *rows.get(*number as usize);
            row.flow = self.place_of[row.flow as usize];
            row
        })
    }
}

/// A table's tail, which the `index` layer keeps a copy of, and the whole object.
fn with_tail(written: Written) -> (Bytes, Bytes) {
    let whole = Bytes::from(written.bytes);
    (whole.slice(written.tail..), whole)
}

/// The two payload layers.
struct Payload {
    head: PayloadLayer,
    body: PayloadLayer,
}

/// JSON of the plain values an `index` layer holds.
fn json<T: serde::Serialize>(value: &T) -> std::io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(std::io::Error::from)
}
