//! What a store holds, as text that does not depend on how it is laid out: packets, flows and
//! the shape of the stored formats. For tests that compare stores.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use capstan_model::{GenerationId, TimeRange};
use capstan_storage_engine::catalog::{
    Catalog, CatalogView, Segment as Known, SegmentEntry, manifest, names,
};
use capstan_storage_engine::fetch::StoreFetch;
use capstan_storage_engine::segment::flows::FlowRow;
use capstan_storage_engine::segment::index_layer::{IndexLayer, Section};
use capstan_storage_engine::segment::reader::Segment;
use capstan_storage_engine::segment::{Layer, tabular};
use capstan_storage_engine::store::Store;
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

/// Texts about a store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// By source: its name, and what is in it, in the form that `make_captures.py` describes.
    pub(crate) sources: Vec<(String, String)>,
    /// A line a flow part: all that it says of itself, and the terms that find it.
    pub(crate) flows: String,
    /// Format numbers, sections and columns.
    pub(crate) shape: String,
}

/// Reads all of a store. Whatever is not sound ends the test.
pub(crate) async fn describe(store: &Store) -> Described {
    let catalog = Catalog::load(store).await.expect("a catalog");
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    let mut sources = Vec::new();
    let (mut flows, mut shape) = (BTreeSet::new(), BTreeSet::new());
    shape.insert(format!("store {}", store.format().format));
    let view = CatalogView::load(store).await.expect("a view");
    if view.root().version > 0 {
        assert_eq!(view.waiting().count(), 0, "all is rolled up");
        shape.insert(format!("root {}", view.root().format));
        shape.insert(format!(
            "manifest {}",
            manifest::Manifest::empty(capstan_storage_engine::catalog::TimeSlot::Wide).format
        ));
    }
    let window = view.window(TimeRange::ALL).await.expect("all of time");
    assert_eq!(window.gaps, []);
    let truncated = truncated(store, &mut shape).await;
    // What is rolled up is what the logs say, as far as they are there.
    let mut logged: Vec<_> = catalog.segments(TimeRange::ALL).cloned().collect();
    logged.sort_by_key(|of| (of.of, of.by.seq, of.entry.first_ordinal));
    let is_whole = |of: &&Arc<Known>| !truncated.contains(&of.by.of);
    let whole = |all: &[Arc<Known>]| all.iter().filter(is_whole).cloned().collect::<Vec<_>>();
    assert_eq!(whole(&window.segments), whole(&logged));
    for (of, state) in catalog.generations() {
        let writer = state.writer().expect("a writer");
        shape.insert(format!("writer {}", writer.format));
        assert!(state.finished().is_some_and(|finished| finished.complete), "{writer:?}");
        let source = writer.info.source.as_ref().expect("an import");
        if state.source_read().is_some_and(|mark| mark.hash.blake3().is_some()) {
            shape.insert("source blake3".to_owned());
        }
        let mut lines = BTreeSet::new();
        for known in &window.segments {
            if known.of == of {
                segment(store, known, &mut lines, &mut flows, &mut shape).await;
            }
        }
        sources.push((source.name.clone(), joined(lines)));
    }
    sources.sort();
    Described { sources, flows: joined(flows), shape: joined(shape) }
}

/// The truncated logs. Their checkpoints are packed: a zstd frame of JSON, and a skippable one.
async fn truncated(store: &Store, shape: &mut BTreeSet<String>) -> BTreeSet<GenerationId> {
    let listed: Vec<_> = store.list(&names::checkpoints()).try_collect().await.expect("a listing");
    let mut truncated = BTreeSet::new();
    for object in listed {
        let bytes = store.get(&object.path).await.expect("a checkpoint");
        let json = zstd::decode_all(&bytes[..]).expect("zstd frames");
        let stored: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        shape.insert(format!("checkpoint {}", stored["format"]));
        truncated.extend(names::parse_checkpoint(&object.path).map(|id| id.of));
    }
    truncated
}

fn joined(lines: BTreeSet<String>) -> String {
    lines.into_iter().fold(String::new(), |text, line| text + &line + "\n")
}

/// Hex, or a dash for nothing.
fn shown(bytes: &[u8]) -> String {
    if bytes.is_empty() { "-".to_owned() } else { hex::encode(bytes) }
}

/// A value, or a dash for none.
fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

async fn segment(
    store: &Store,
    known: &Known,
    lines: &mut BTreeSet<String>,
    flows: &mut BTreeSet<String>,
    shape: &mut BTreeSet<String>,
) {
    for layer in Layer::SEALED {
        let bytes = store.get(&known.path(layer)).await.expect("a layer");
        let entry = known.entry.layer(layer).expect("five layers");
        assert_eq!(bytes.len() as u64, entry.bytes);
        assert_eq!(hex::encode(Sha256::digest(&bytes)), entry.sha256);
        describe_framing(layer, &bytes, shape);
    }
    let index = store.get(&known.path(Layer::Index)).await.expect("an index");
    describe_index(&known.entry, &index, shape);
    let segment = Segment::open(&index).expect("a segment");
    let fetch = StoreFetch::new(store, &known.entry);
    let all = segment.all_flows();
    let rows = segment.read_flows(&fetch, &all).await.expect("flows");
    let packets = segment.read_packets(&fetch, &rows).await.expect("packets");
    let payload = segment.read_payload(&fetch, &segment.plan_payload(&rows)).await;
    let extras = segment.extras().expect("extras");
    let options = |ordinal| extras.packet_options.iter().find(|(of, _)| *of == ordinal);
    let assembled = packets.assemble(&all, &rows, &payload.expect("payload"), |read, data| {
        let row = &read.row;
        let time = or_dash(row.time().map(|time| time.0));
        let options = shown(options(row.ordinal).map_or(&[][..], |(_, options)| options));
        lines.insert(format!(
            "packet {} {} {time} {} {} {options} {}",
            row.ordinal,
            row.interface,
            or_dash(read.ticks),
            row.length,
            shown(data)
        ));
    });
    assembled.expect("packets");
    for block in &extras.blocks {
        let body = hex::encode(&block.body);
        lines.insert(format!("block {} {} {body}", block.block_type, block.before));
    }
    for (number, interface) in &segment.meta().interfaces {
        lines.insert(format!(
            "interface {number} {} {} {} {}",
            interface.link_type.0,
            interface.snap_length,
            interface.resolution,
            or_dash(interface.name.as_ref())
        ));
    }
    let hours = &segment.meta().hours;
    for (ordinal, row) in (0..).zip(&rows) {
        flows.insert(flow(row, hours) + &terms(&segment, ordinal));
    }
}

fn flow(row: &FlowRow, hours: &[i32]) -> String {
    let (part, key) = (&row.part, &row.part.key);
    let outer = part.outer.map(|(source, destination)| format!("{source}>{destination}"));
    let pseudo = key.pseudo.map(|(link, interface)| format!("{}/{interface}", link.0));
    let both = |values: [u64; 2]| format!("{}/{}", values[0], values[1]);
    [
        format!("flow {} hours {hours:?}", hex::encode(part.id.0)),
        format!("{} {}", key.source, key.source_port),
        format!("{} {}", key.destination, key.destination_port),
        format!("ip_protocol {} ethertype {:04x}", key.ip_protocol, key.ethertype),
        format!("vlan {} vni {}", or_dash(key.vlan), or_dash(key.vni)),
        format!("fragment {} pseudo {}", or_dash(key.fragment_id), or_dash(pseudo)),
        format!("outer {} protocol {}", or_dash(outer), part.protocol.name()),
        format!("sni {} alpn {}", or_dash(part.sni.as_ref()), or_dash(part.alpn.as_ref())),
        format!("first {}", or_dash(part.first.map(|time| time.0))),
        format!("last {}", or_dash(part.last.map(|time| time.0))),
        format!("packets {} bytes {}", both(part.packets), both(part.bytes)),
        format!("payload {}", both(part.payload)),
        format!("tcp_flags {:02x}/{:02x}", part.tcp_flags[0], part.tcp_flags[1]),
        format!("opened {} end {}", part.opened, part.end.name()),
    ]
    .join(" ")
}

/// The terms that find a flow part.
fn terms(segment: &Segment, ordinal: u32) -> String {
    let mut text = String::from(" terms");
    for field in capstan_index::Field::ALL {
        for term in segment.terms().terms(*field).expect("terms") {
            let term = term.expect("a term");
            if term.postings.load().expect("postings").contains(ordinal) {
                let value = hex::encode(&term.value);
                write!(text, " {}={value}", field.name()).expect("a string");
            }
        }
    }
    text
}

/// The format number at the head of a layer that is no table.
fn describe_framing(layer: Layer, bytes: &[u8], shape: &mut BTreeSet<String>) {
    if let Layer::Body | Layer::Head | Layer::Index = layer {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        shape.insert(format!("layer {} {}.{}", layer.name(), number(8), number(10)));
    }
}

/// What a reader of another version looks at first: sections, and the tables' tails in them.
fn describe_index(entry: &SegmentEntry, bytes: &Bytes, shape: &mut BTreeSet<String>) {
    let index = IndexLayer::open(bytes).expect("an index");
    let terms = index.section(Section::Terms).expect("terms");
    shape.insert(format!("section terms format {}", terms[3]));
    for kind in index.kinds() {
        shape.insert(format!("section {kind}"));
    }
    let tables = [(Layer::Packets, Section::PacketsTail), (Layer::Flows, Section::FlowsTail)];
    for (layer, tail) in tables {
        let length = entry.layer(layer).expect("five layers").bytes;
        describe_table(layer, length, &index.section(tail).expect("a tail"), shape);
    }
}

/// The columns of a table of so many bytes, and what its footer says of its format.
fn describe_table(layer: Layer, length: u64, tail: &Bytes, shape: &mut BTreeSet<String>) {
    let name = layer.name();
    let metadata = tabular::parse_tail(name, tail, length).expect("a table");
    let file = metadata.file_metadata();
    for entry in file.key_value_metadata().into_iter().flatten() {
        let value = or_dash(entry.value.as_ref());
        shape.insert(format!("layer {name} {} {value}", entry.key));
    }
    for column in file.schema_descr().columns() {
        let info = column.self_type().get_basic_info();
        shape.insert(format!(
            "column {name} {:02} {} {} {} {}",
            info.id(),
            column.name(),
            info.repetition(),
            column.physical_type(),
            column.converted_type()
        ));
    }
}
