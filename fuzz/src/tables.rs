//! Parquet layers to be damaged: small tables with every kind of column value, as the segment writer makes them.
//! There is an uncompressed form of each, too, because a decompressor refuses most damage.

use std::sync::OnceLock;

use bytes::Bytes;
use capstan_model::LinkType;
use capstan_storage_engine::segment::reader::Fetch;
use capstan_storage_engine::segment::reader::{Segment, Step};
use capstan_storage_engine::segment::tabular::Written;
use capstan_storage_engine::segment::{Layer, tabular};
use futures::executor::block_on;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterVersion};

use crate::packets::{self, Recording};
use crate::segment::{Objects, Parts, index_over};

/// A Parquet file and what an `index` layer has of it.
#[derive(Debug, Clone)]
pub struct Table {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// Where the tail begins: the footer, or the page index before it.
    pub tail: usize,
    /// Where its pages are; empty if the tail has the page index.
    pub pages: Vec<u8>,
}

impl From<Written> for Table {
    fn from(written: Written) -> Self {
        let Written { bytes, tail, pages } = written;
        Table { bytes, tail, pages: pages.to_bytes() }
    }
}

/// How a [`Table`] is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As a segment has it: zstd, data pages version 2.
    Stored,
    /// Without compression, data pages version 2.
    Plain,
    /// Without compression, data pages version 1.
    Old,
}

impl Form {
    /// Every form.
    pub const ALL: [Form; 3] = [Form::Stored, Form::Plain, Form::Old];
}

/// The tables of one recording that never changes: `packets` and `flows` in every [`Form`].
pub fn reference() -> &'static [[Table; 2]; 3] {
    static TABLES: OnceLock<[[Table; 2]; 3]> = OnceLock::new();
    TABLES.get_or_init(|| tables(&sample()))
}

/// The tables of the first segment of a recording.
///
/// # Panics
/// When it has none, or a table cannot be written.
pub fn tables(recording: &Recording) -> [[Table; 2]; 3] {
    let sealed = packets::seal(recording);
    let parts = Parts::of(&sealed[0]).expect("just sealed");
    let index = parts.clone().index();
    let segment = Segment::open(&index).expect("just sealed");
    let layers = [(Layer::Packets, 2, 4, 7), (Layer::Flows, 3, 5, 8)];
    Form::ALL.map(|form| {
        layers.map(|(layer, object, tail, pages)| {
            let stored = &parts.objects.0[object];
            if form == Form::Stored {
                let tail = stored.len() - parts.sections[tail].len();
                let pages = parts.sections[pages].clone();
                return Table { bytes: stored.to_vec(), tail, pages };
            }
            rewrite(&segment, &parts.objects, layer, form)
        })
    })
}

fn rewrite(segment: &Segment, objects: &Objects, layer: Layer, form: Form) -> Table {
    let version = match form {
        Form::Old => WriterVersion::PARQUET_1_0,
        _ => WriterVersion::PARQUET_2_0,
    };
    let properties = WriterProperties::builder()
        .set_writer_version(version)
        .set_compression(Compression::UNCOMPRESSED)
        .set_key_value_metadata(Some(vec![tabular::format_entry((1, 0))]))
        .build();
    let mut scan = segment.scan_all(layer, None).expect("just sealed");
    let mut writer = None;
    loop {
        match scan.step().expect("just sealed") {
            Step::Rows(batch) => {
                let writer = writer.get_or_insert_with(|| {
                    let properties = Some(properties.clone());
                    ArrowWriter::try_new(Vec::new(), batch.schema(), properties).expect("a writer")
                });
                writer.write(&batch).expect("into memory");
            }
            Step::Needs(ranges) => {
                let bytes = block_on(objects.fetch(layer, &ranges)).expect("just sealed");
                scan.give(ranges, bytes).expect("just sealed");
            }
            Step::End => break,
        }
    }
    let mut writer = writer.expect("a table with rows");
    writer.flush().expect("into memory");
    let tail = writer.bytes_written();
    Table { bytes: writer.into_inner().expect("into memory"), tail, pages: Vec::new() }
}

/// A handful of packets of several protocols, with times of every kind.
fn sample() -> Recording {
    let mut bytes = vec![0, 0, 0];
    bytes.extend_from_slice(&LinkType::ETHERNET.0.to_le_bytes());
    bytes.extend_from_slice(&LinkType::RAW.0.to_le_bytes());
    for number in 0..24_u8 {
        let ports = [0xc0, number % 5, 0, 53 + number % 3];
        let tcp = number % 3 == 0;
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        let length = if tcp { 52 } else { 28 } + number % 7;
        frame.extend_from_slice(&[0x45, 0, 0, length, number, 7, 0x40, 0, 64]);
        frame.extend_from_slice(&[if tcp { 6 } else { 17 }, 0, 0, 10, 0, 0, 1, 10, 0, 0, number]);
        frame.extend_from_slice(&ports);
        if tcp {
            frame.extend_from_slice(&[
                0, 0, 1, number, 0, 0, 2, number, 0x80, 0x18, 1, 0, 9, number,
            ]);
            frame.extend_from_slice(&[0, 0, 1, 1, 8, 10, 0, 0, 3, number, 0, 0, 4, number]);
        } else {
            frame.extend_from_slice(&[0, 8 + number % 7, number, number]);
        }
        frame.resize(14 + usize::from(length), number);
        // Every kind of time stamp, a wrong wire length now and then.
        let control =
            [0, 2, 3, 0x40][usize::from(number % 4)] | if number % 5 == 0 { 4 } else { 0 };
        bytes.push(control);
        match control & 0x43 {
            0 => bytes.extend_from_slice(&1_000_u32.to_le_bytes()),
            0x40 => {}
            _ => bytes.extend_from_slice(&77_u64.to_le_bytes()),
        }
        if control & 4 != 0 {
            bytes.extend_from_slice(&200_u32.to_le_bytes());
        }
        bytes.extend_from_slice(&(frame.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&frame);
    }
    packets::parse(&bytes)
}

/// An `index` layer over two tables, and the objects it is about.
pub fn segment_of(packets: &Table, flows: &Table) -> (Bytes, Objects) {
    let objects = Objects([
        Bytes::new(),
        Bytes::new(),
        Bytes::copy_from_slice(&packets.bytes),
        Bytes::copy_from_slice(&flows.bytes),
    ]);
    let tail = |table: &Table| Bytes::copy_from_slice(&table.bytes[table.tail..]);
    // As many rows as the footer says: a number that disagrees is refused before all else.
    let rows = [packets, flows].map(|table| {
        let parsed = tabular::parse_tail("fuzz", &tail(table), table.bytes.len() as u64);
        parsed.map_or(0, |parsed| u64::try_from(parsed.file_metadata().num_rows()).unwrap_or(0))
    });
    (index_over(packets, flows, &objects, rows), objects)
}

/// Lets the Parquet library's own panics through to who catches them in the segment reader,
/// each place told once; any other panic is a finding.
pub fn tolerate_parquet() {
    let finding = std::panic::take_hook();
    let known = std::sync::Mutex::new(std::collections::BTreeSet::new());
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.contains(&place) {
            return;
        }
        // Deep in other crates, too: what counts is that the library was called.
        let trace = std::backtrace::Backtrace::force_capture().to_string();
        if !trace.contains("guarded<") {
            return finding(panic);
        }
        eprintln!("PARQUET {place}: {:?}", panic.payload_as_str());
        known.insert(place);
    }));
}
