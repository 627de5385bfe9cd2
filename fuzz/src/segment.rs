//! Segments in memory. Sealed ones must be read back completely. Untrusted ones may be refused, and nothing else may
//! happen.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_index::{Field, TermIndexBuilder};
use capstan_model::{Address, Failure, FailureKind, Time};
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::block::{BLOCK_HEADER, BlockDirectory, FILE_HEADER};
use capstan_storage_engine::segment::builder::SealedSegment;
use capstan_storage_engine::segment::flows::FlowRow;
use capstan_storage_engine::segment::index_layer::{self, Extras, LayerMeta, Meta, Section};
use capstan_storage_engine::segment::packets::RowReader;
use capstan_storage_engine::segment::pages::Pages;
use capstan_storage_engine::segment::reader::{Fetch, Segment, Step};
use capstan_storage_engine::segment::{Corrupt, flows, tabular};
use futures::executor::block_on;
use roaring::RoaringBitmap;

use crate::input::{Put, Take};
use crate::tables::Table;

/// Flow parts and terms that are looked at one by one, at most.
const MOST: usize = 2_000;

/// A packet as a segment gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Place in capture order.
    pub ordinal: u64,
    /// Interface number.
    pub interface: u32,
    /// When.
    pub time: Option<Time>,
    /// Raw ticks, where there are some.
    pub ticks: Option<u64>,
    /// Length on the wire.
    pub length: u32,
    /// What was captured.
    pub data: Vec<u8>,
    /// pcapng options.
    pub options: Vec<u8>,
}

/// A segment read to its end.
#[derive(Debug)]
pub struct Read {
    /// Its packets in stored order.
    pub packets: Vec<Stored>,
    /// What it keeps beside.
    pub extras: Extras,
}

/// The objects of a segment but for its `index`, by [`Layer::SEALED`]'s order.
#[derive(Debug, Clone, Default)]
pub struct Objects(pub [Bytes; 4]);

impl Objects {
    fn of(&self, layer: Layer) -> Option<&Bytes> {
        Layer::SEALED.iter().position(|known| *known == layer).and_then(|at| self.0.get(at))
    }
}

#[async_trait]
impl Fetch for Objects {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        let outside = || Failure::new(FailureKind::Damaged, "a range outside the object");
        let object = self.of(layer).ok_or_else(outside)?;
        let cut = |range: &Range<u64>| {
            let sound = range.start <= range.end && range.end <= object.len() as u64;
            let range = range.start as usize..range.end as usize;
            sound.then(|| object.slice(range)).ok_or_else(outside)
        };
        ranges.iter().map(cut).collect()
    }
}

/// Reads a segment that was just sealed.
///
/// # Panics
/// When it cannot be read, or contradicts itself.
pub fn read_sealed(sealed: &SealedSegment) -> Read {
    let bytes = |layer| {
        let found = sealed.layers.iter().find(|sealed| sealed.layer == layer);
        found.map(|sealed| sealed.bytes()).unwrap_or_default()
    };
    let [body, head, packets, flows, index] = Layer::SEALED.map(bytes);
    let objects = Objects([body, head, packets, flows]);
    let segment = Segment::open(&index).expect("just sealed");
    assert_eq!(segment.meta(), &sealed.meta);
    let all = segment.all_flows();
    let rows = block_on(segment.read_flows(&objects, &all)).expect("just sealed");
    assert_eq!(rows.len() as u64, sealed.meta.flow_parts);
    check_flows(&segment, sealed, &rows);
    let extras = segment.extras().expect("just sealed");
    let mut packets = Vec::new();
    read_parts(&segment, &objects, &all, &rows, |stored| packets.push(stored))
        .expect("just sealed");
    for (ordinal, options) in &extras.packet_options {
        let owner = packets.iter_mut().find(|stored: &&mut Stored| stored.ordinal == *ordinal);
        owner.expect("options of a packet that is there").options = options.clone();
    }
    // A single flow part is read without the others, too.
    if let Some(last) = all.max() {
        let one = RoaringBitmap::from_iter([last]);
        let rows = block_on(segment.read_flows(&objects, &one)).expect("just sealed");
        let mut count = 0;
        read_parts(&segment, &objects, &one, &rows, |stored| {
            let same = packets.iter().find(|other| other.ordinal == stored.ordinal);
            assert_eq!(same.map(|other| &other.data), Some(&stored.data));
            count += 1;
        })
        .expect("just sealed");
        assert_eq!(count, rows[0].packets());
    }
    Read { packets, extras }
}

/// Counters add up, and the index finds every flow by what it is.
fn check_flows(segment: &Segment, sealed: &SealedSegment, rows: &[FlowRow]) {
    let meta = &sealed.meta;
    let sum = |each: fn(&FlowRow) -> u64| rows.iter().map(each).sum::<u64>();
    assert_eq!(sum(FlowRow::packets), meta.packets);
    assert_eq!(sum(|row| row.part.bytes.iter().sum()), meta.wire_bytes);
    assert_eq!(meta.runs.iter().map(|run| run.flows).sum::<u32>() as usize, rows.len());
    assert_eq!(sealed.protocols.values().sum::<u64>(), meta.packets);
    let finds = |field, value: &[u8], ordinal| {
        let postings = segment.postings(field, value).expect("just sealed");
        assert!(postings.contains(ordinal), "{field:?} does not find flow {ordinal}");
    };
    for (ordinal, row) in (0..).zip(rows).take(MOST) {
        let (part, key) = (&row.part, &row.part.key);
        for address in [key.source, key.destination] {
            if address != Address::NONE {
                finds(Field::Ip, &address.0, ordinal);
                assert!(sealed.addresses.binary_search(&address).is_ok());
            }
        }
        if key.source_port != 0 {
            finds(Field::Port, &key.source_port.to_be_bytes(), ordinal);
        }
        finds(Field::Protocol, &[part.protocol as u8], ordinal);
        if let Some(sni) = &part.sni {
            finds(Field::Sni, sni.as_bytes(), ordinal);
        }
    }
}

fn read_parts(
    segment: &Segment,
    objects: &Objects,
    ordinals: &RoaringBitmap,
    rows: &[FlowRow],
    mut each: impl FnMut(Stored),
) -> Result<(), Failure> {
    let packets = block_on(segment.read_packets(objects, rows))?;
    let payload = block_on(segment.read_payload(objects, &segment.plan_payload(rows)))?;
    packets.assemble(ordinals, rows, &payload, |read, data| {
        each(Stored {
            ordinal: read.row.ordinal,
            interface: read.row.interface,
            time: read.row.time(),
            ticks: read.ticks,
            length: read.row.length,
            data: data.to_vec(),
            options: Vec::new(),
        });
    })?;
    Ok(())
}

/// Reads a segment in every way there is; errors are what is expected.
pub fn explore(index: &Bytes, objects: &Objects) {
    let Ok(segment) = Segment::open(index) else { return };
    let _ = segment.extras();
    for field in Field::ALL {
        let Ok(terms) = segment.terms().terms(*field) else { continue };
        for term in terms.take(MOST) {
            let Ok(term) = term else { break };
            let _ = term.postings.load();
            let _ = segment.postings(*field, &term.value);
        }
    }
    let _ = scan(&segment, objects, Layer::Flows);
    let _ = scan(&segment, objects, Layer::Packets);
    let all = segment.all_flows();
    let Ok(rows) = block_on(segment.read_flows(objects, &all)) else { return };
    let _ = read_parts(&segment, objects, &all, &rows, drop);
    // Some parts, as a query picks them: also where the rows of the whole do not fit together.
    for (ordinal, row) in (0_u32..).zip(&rows).take(MOST).step_by(3) {
        let one = RoaringBitmap::from_iter([ordinal]);
        let _ = read_parts(&segment, objects, &one, std::slice::from_ref(row), drop);
    }
}

/// Reads every row of a Parquet layer.
///
/// # Errors
/// [`Corrupt`], or the fetch's failure.
pub fn scan(segment: &Segment, objects: &Objects, layer: Layer) -> Result<usize, Failure> {
    let mut scan = segment.scan_all(layer, None)?;
    let (mut reader, mut packets, mut count) = (RowReader::default(), Vec::new(), 0);
    loop {
        match scan.step()? {
            Step::Rows(batch) if layer == Layer::Flows => count += flows::read(&batch)?.len(),
            Step::Rows(batch) => {
                packets.clear();
                reader.read(&batch, &mut packets)?;
                count += packets.len();
            }
            Step::Needs(ranges) => {
                let bytes = block_on(objects.fetch(layer, &ranges))?;
                scan.give(ranges, bytes)?;
            }
            Step::End => return Ok(count),
        }
    }
}

/// What an `index` layer is put together from.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// The [`SECTIONS`]; checksums in the pages are made when the layer is.
    pub sections: [Vec<u8>; 9],
    /// The other layers.
    pub objects: Objects,
}

/// The sections of [`Parts`], in order.
pub const SECTIONS: [Section; 9] = [
    Section::Meta,
    Section::Terms,
    Section::HeadBlocks,
    Section::BodyBlocks,
    Section::PacketsTail,
    Section::FlowsTail,
    Section::Extras,
    Section::PacketsPages,
    Section::FlowsPages,
];

/// Where the pages of a table stand in `index` if its tail says where they are.
const ENTRIES: [Section; 2] = [Section::PacketsEntries, Section::FlowsEntries];

impl Parts {
    /// Takes a sealed segment apart.
    ///
    /// # Errors
    /// [`Corrupt`] if it is no sealed segment.
    pub fn of(sealed: &SealedSegment) -> Result<Parts, Corrupt> {
        let bytes = |layer| {
            let found = sealed.layers.iter().find(|sealed| sealed.layer == layer);
            found.map(|sealed| sealed.bytes()).unwrap_or_default()
        };
        let [body, head, packets, flows, index] = Layer::SEALED.map(bytes);
        let index = index_layer::IndexLayer::open(&index)?;
        let mut parts =
            Parts { objects: Objects([body, head, packets, flows]), ..Parts::default() };
        for (section, bytes) in SECTIONS.iter().zip(&mut parts.sections) {
            *bytes = index.section(*section)?.to_vec();
        }
        Ok(parts)
    }

    /// The whole as a fuzzer's input.
    pub fn to_input(&self) -> Vec<u8> {
        let mut put = Put::default();
        for section in &self.sections {
            put.long(section);
        }
        for object in &self.objects.0 {
            put.long(object);
        }
        put.0
    }

    /// Reads any bytes as parts.
    pub fn from_input(bytes: &[u8]) -> Parts {
        let mut take = Take::new(bytes);
        let sections = std::array::from_fn(|_| take.long().to_vec());
        let objects = Objects(std::array::from_fn(|_| Bytes::copy_from_slice(take.long())));
        Parts { sections, objects }
    }

    /// The `index` layer with right checksums everywhere: those of its sections, of the payload
    /// blocks and of the tables' pages, so that what lies behind them is reached.
    ///
    /// # Panics
    /// When there is no memory for compression.
    pub fn index(&mut self) -> Bytes {
        let [body, head, packets, flows] = &self.objects.0;
        for (directory, layer) in [(2, head), (3, body)] {
            fix_blocks(&mut self.sections[directory], layer);
        }
        fix_pages(&mut self.sections[7], packets);
        fix_pages(&mut self.sections[8], flows);
        let entries = [entries(packets, &self.sections[4]), entries(flows, &self.sections[5])];
        let sections: Vec<(Section, &[u8])> = SECTIONS
            .into_iter()
            .chain(ENTRIES)
            .zip(self.sections.iter().chain(&entries))
            .map(|(kind, bytes)| (kind, bytes.as_slice()))
            .collect();
        index_layer::write(&sections).expect("memory suffices").into()
    }
}

/// Gives every block of a directory the checksum that its bytes have.
fn fix_blocks(directory: &mut [u8], layer: &[u8]) {
    let mut at = FILE_HEADER;
    for header in directory.as_chunks_mut::<BLOCK_HEADER>().0 {
        let stored = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        at += BLOCK_HEADER;
        let bytes = layer.get(at..at.saturating_add(stored)).unwrap_or_default();
        header[12..].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
        at = at.saturating_add(stored);
    }
}

/// Gives every piece of a table the checksum that its bytes have.
fn fix_pages(pages: &mut [u8], object: &[u8]) {
    let Some((header, entries)) = pages.split_at_mut_checked(8) else { return };
    let count = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let Some((lengths, crcs)) = entries.split_at_mut_checked(count.saturating_mul(4)) else {
        return;
    };
    let mut at = 0_usize;
    for (piece, crc) in crcs.as_chunks_mut::<4>().0.iter_mut().take(count).enumerate() {
        let length = u32::from_le_bytes(std::array::from_fn(|byte| lengths[byte * count + piece]));
        let end = at.saturating_add(length as usize);
        *crc = crc32c::crc32c(object.get(at..end).unwrap_or_default()).to_le_bytes();
        at = end;
    }
}

/// The pages of a Parquet file in the form of earlier stores, with right checksums; none if its tail does
/// not say where they are.
fn entries(object: &[u8], tail: &[u8]) -> Vec<u8> {
    let length = object.len() as u64;
    let tail = Bytes::copy_from_slice(tail);
    let Ok(metadata) = tabular::parse_tail("fuzz", &tail, length) else { return Vec::new() };
    let pages = &object[..object.len().saturating_sub(tail.len())];
    let pieces = Pages::of(pages, &metadata, 0);
    let words = pieces.pieces().flat_map(|(range, crc)| [(range.end - range.start) as u32, crc]);
    words.flat_map(u32::to_le_bytes).collect()
}

/// An `index` layer about one Parquet file each, of so many rows: everything else in it is right
/// and empty.
///
/// # Panics
/// When there is no memory for compression.
pub fn index_over(packets: &Table, flows: &Table, objects: &Objects, rows: [u64; 2]) -> Bytes {
    let [packet_rows, flow_parts] = rows;
    let layers = Layer::SEALED.iter().zip(&objects.0).map(|(layer, bytes)| LayerMeta {
        layer: layer.name().to_owned(),
        bytes: bytes.len() as u64,
        sha256: String::new(),
    });
    let meta = Meta {
        name: "segment".to_owned(),
        recorder: "0000000000000007".to_owned(),
        generation: 1,
        flow_generation: 1,
        hours: vec![0],
        first: None,
        last: None,
        first_ordinal: 0,
        last_ordinal: 0,
        packets: packet_rows,
        flow_parts,
        captured_bytes: 0,
        wire_bytes: 0,
        layers: layers.collect(),
        runs: Vec::new(),
        interfaces: Vec::new(),
    };
    let terms = TermIndexBuilder::new().finish(flow_parts as u32).expect("no term, no error");
    let blocks = BlockDirectory::new().to_bytes();
    let sections = [
        serde_json::to_vec(&meta).expect("plain values"),
        terms,
        blocks.clone(),
        blocks,
        packets.bytes[packets.tail..].to_vec(),
        flows.bytes[flows.tail..].to_vec(),
        serde_json::to_vec(&Extras::default()).expect("plain values"),
        packets.pages.clone(),
        flows.pages.clone(),
    ];
    Parts { sections, objects: objects.clone() }.index()
}
