//! Segments with contradictory contents, and a small valid one to be damaged.

mod damage;
mod groups;
mod ranges;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use capstan_model::packet::Stamp;
use capstan_model::{
    Direction, FailureKind, FlowId, FlowKey, FlowPart, Generation, GenerationId, Headers, Packet,
    RecorderId, Time,
};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

use super::*;
use crate::segment::block::{BlockHeader, Codec, MAX_RAW};
use crate::segment::builder::{SealedSegment, SegmentBuilder};
use crate::segment::column::{Column, ColumnType, Packing};
use crate::segment::flows::Placement;
use crate::segment::pages::Pages;
use crate::segment::tabular::{self, Written};
use crate::segment::{index_layer, packets};
use crate::testing::key;

const WRITER: GenerationId = GenerationId { recorder: RecorderId(7), generation: Generation(1) };

const SECTIONS: [Section; 9] = [
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

/// Two flow parts of twenty packets each, and a third one with payload in every layer.
fn sealed() -> SealedSegment {
    let mut builder = SegmentBuilder::new(WRITER).unwrap();
    let id = |number| FlowId::new(WRITER.recorder, WRITER.generation, number);
    let parts = [0, 1, 2].map(|number| builder.open_part(id(number), key()));
    let mut push = |part, ordinal: u64, data: &[u8]| {
        let mut headers = Headers::default();
        headers.prefix = 14;
        let stamp = match ordinal % 4 {
            0 => Stamp::Raw { ticks: ordinal * 7, time: None },
            _ => Stamp::At(Time(ordinal as i64)),
        };
        let length = data.len() as u32 + u32::from(ordinal == 5);
        let packet = Packet { interface: 0, stamp, length, data, options: &[] };
        builder.push(part, &packet, &headers, Direction::Forward, ordinal);
    };
    for number in 0..40_u64 {
        push(parts[number as usize % 2], number, &[number as u8; 60]);
    }
    for number in 40..43_u64 {
        push(parts[2], number, &[number as u8; 8_000]);
    }
    builder.seal("segment".to_owned(), WRITER.generation).unwrap()
}

fn bytes(sealed: &SealedSegment, layer: Layer) -> Bytes {
    sealed.layers.iter().find(|sealed| sealed.layer == layer).unwrap().bytes()
}

/// Bytes of a table that are no page's: the magic bytes, the page index and the footer.
fn beside_pages(segment: &Segment, layer: Layer, object: &Bytes) -> usize {
    let (page_index, _) = segment.parts(layer).pop().unwrap();
    4 + object.len() - page_index.start as usize
}

/// The `index` layer with one section changed.
fn with_section(sealed: &SealedSegment, which: Section, change: impl Fn(&mut Vec<u8>)) -> Bytes {
    changed(&bytes(sealed, Layer::Index), which, change)
}

fn changed(index: &Bytes, which: Section, change: impl Fn(&mut Vec<u8>)) -> Bytes {
    let index = IndexLayer::open(index).unwrap();
    let sections = SECTIONS.map(|kind| {
        let mut section = index.section(kind).unwrap().to_vec();
        if kind == which {
            change(&mut section);
        }
        section
    });
    let pairs: Vec<_> = SECTIONS.into_iter().zip(sections.iter().map(Vec::as_slice)).collect();
    index_layer::write(&pairs).unwrap().into()
}

/// Gives what there is of each range.
struct Objects(Vec<(Layer, Bytes)>);

#[async_trait]
impl Fetch for Objects {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        let object = &self.0.iter().find(|(known, _)| *known == layer).unwrap().1;
        let there = |at: u64| usize::try_from(at).unwrap().min(object.len());
        Ok(ranges.iter().map(|range| object.slice(there(range.start)..there(range.end))).collect())
    }
}

#[test]
fn contradictory_counts_are_refused() {
    let sealed = sealed();
    assert!(Segment::open(&bytes(&sealed, Layer::Index)).is_ok());
    for (name, layer) in [("packets", "packets"), ("flow_parts", "index")] {
        for count in [0, 5, u64::MAX] {
            let index = with_section(&sealed, Section::Meta, |meta| {
                let mut value: serde_json::Value = serde_json::from_slice(meta).unwrap();
                value[name] = count.into();
                *meta = serde_json::to_vec(&value).unwrap();
            });
            assert_eq!(Segment::open(&index).unwrap_err().layer, layer, "{name} {count}");
        }
    }
}

#[tokio::test]
async fn directory_larger_than_memory_is_refused() {
    let header =
        BlockHeader { codec: Codec::Stored, key: 0, raw: MAX_RAW as u32, stored: 1, crc: 0 };
    let sealed = sealed();
    let index = with_section(&sealed, Section::BodyBlocks, |blocks| {
        *blocks = header.to_bytes().repeat(200_000);
    });
    let segment = Segment::open(&index).unwrap();
    let placement = Placement { body_bytes: u64::MAX, ..Placement::default() };
    let part = FlowPart::new(FlowId([0; 16]), key());
    let plan = segment.plan_payload(&[FlowRow { part, placement }]);
    let objects = Objects(vec![(Layer::Body, bytes(&sealed, Layer::Body))]);
    let failure = segment.read_payload(&objects, &plan).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Damaged);
}

/// The `index` layer of a segment one of whose tables is another one, checksums and all.
fn with_table(sealed: &SealedSegment, layer: Layer, table: &Written) -> Bytes {
    let mut index = bytes(sealed, Layer::Index);
    let length = table.bytes.len() as u64;
    let (tails, sums) = match layer {
        Layer::Packets => (Section::PacketsTail, Section::PacketsPages),
        _ => (Section::FlowsTail, Section::FlowsPages),
    };
    index = changed(&index, tails, |section| *section = table.bytes[table.tail..].to_vec());
    index = changed(&index, sums, |section| *section = table.pages.to_bytes());
    changed(&index, Section::Meta, |meta| {
        let mut known: Meta = serde_json::from_slice(meta).unwrap();
        let of = known.layers.iter_mut().find(|known| known.layer == layer.name()).unwrap();
        of.bytes = length;
        *meta = serde_json::to_vec(&known).unwrap();
    })
}

#[tokio::test]
async fn wrong_pages_with_valid_checksums_do_not_panic() {
    let sealed = sealed();
    for (layer, tail) in
        [(Layer::Packets, Section::PacketsTail), (Layer::Flows, Section::FlowsTail)]
    {
        let good = bytes(&sealed, layer);
        let index = IndexLayer::open(&bytes(&sealed, Layer::Index)).unwrap();
        let tail = good.len() - index.section(tail).unwrap().len();
        let policy = PageIndexPolicy::Required;
        let mut metadata = ParquetMetaDataReader::new().with_page_index_policy(policy);
        metadata.try_parse(&good).unwrap();
        let metadata = metadata.finish().unwrap();
        let mut refused = 0;
        for at in 4..tail {
            let mut object = good.to_vec();
            object[at] ^= 0x7f;
            let pages = Pages::of(&object[..tail], &metadata, tabular::PAGE_ROWS);
            let table = Written { bytes: object, tail, pages };
            let index = with_table(&sealed, layer, &table);
            let segment = Segment::open(&index).unwrap();
            let objects = Objects(vec![(layer, table.bytes.into())]);
            match segment.scan_all(layer, None).unwrap().run(&objects).await {
                Ok(batches) => {
                    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
                    assert!(rows <= 43);
                }
                Err(failure) => {
                    assert_eq!(failure.kind(), FailureKind::Damaged);
                    refused += 1;
                }
            }
        }
        assert!(refused > 100, "{refused} of {}", good.len());
    }
}

#[test]
fn a_table_without_checksums_is_refused() {
    let sealed = sealed();
    for (which, layer) in [(Section::PacketsPages, "packets"), (Section::FlowsPages, "flows")] {
        let index = with_section(&sealed, which, Vec::clear);
        let error = Segment::open(&index).unwrap_err();
        assert_eq!((error.layer, error.kind), (layer, FailureKind::Damaged));
        assert_eq!(error.what, "no page index");
    }
}

/// The footer's format number of a table, put in place of the one it has, of the same length.
fn with_format(sealed: &SealedSegment, layer: Layer, format: &str) -> Bytes {
    let tail = if layer == Layer::Packets { Section::PacketsTail } else { Section::FlowsTail };
    with_section(sealed, tail, |tail| {
        let major = if layer == Layer::Packets { b"\x18\x032.0" } else { b"\x18\x031.0" };
        let known = [tabular::FORMAT_KEY.as_bytes(), major].concat();
        let at = tail.windows(known.len()).position(|bytes| bytes == known).unwrap();
        let number = at + known.len() - format.len();
        tail[number..number + format.len()].copy_from_slice(format.as_bytes());
    })
}

#[test]
fn table_of_a_newer_minor_is_readable_and_of_a_newer_major_refused() {
    let sealed = sealed();
    for layer in [Layer::Packets, Layer::Flows] {
        let (newer_minor, newer) =
            if layer == Layer::Packets { ("2.9", "3.0") } else { ("1.9", "2.0") };
        assert!(Segment::open(&with_format(&sealed, layer, newer_minor)).is_ok());
        let refused =
            |format: &str| Segment::open(&with_format(&sealed, layer, format)).unwrap_err();
        let error = refused(newer);
        assert_eq!(error.kind, FailureKind::TooNew);
        let words = format!("{}: format {newer} is newer than this version reads", layer.name());
        assert_eq!(error.to_string(), words);
        assert_eq!(Failure::from(error).kind(), FailureKind::TooNew);
        for nonsense in ["1-0", "1. ", "..."] {
            let error = refused(nonsense);
            assert_eq!(error.kind, FailureKind::Damaged);
            assert!(error.what.ends_with("is no format number"), "{error}");
        }
        // The key itself is another one.
        let error = refused(".formaT\x18\x031.0");
        assert!(error.what.contains("has no capstan.format"), "{error}");
    }
}

/// A column that this version does not know, of a newer minor format.
#[tokio::test]
async fn columns_of_a_newer_minor_are_ignored() {
    let sealed = sealed();
    let segment = Segment::open(&bytes(&sealed, Layer::Index)).unwrap();
    let objects = Objects(vec![(Layer::Packets, bytes(&sealed, Layer::Packets))]);
    let batches = segment.scan_all(Layer::Packets, None).unwrap().run(&objects).await.unwrap();
    let mut columns = packets::TABLE.stored_columns();
    columns.push(Column::new(99, "novelty", ColumnType::I64, false, Packing::Delta));
    let mut arrays = batches[0].columns().to_vec();
    arrays.push(Arc::new(Int64Array::from_iter_values(0..43)));
    let written = tabular::write((1, 1), &columns, arrays, 43).unwrap();
    let index = with_table(&sealed, Layer::Packets, &written);
    let newer = Segment::open(&index).unwrap();
    let objects = Objects(
        [Layer::Body, Layer::Head, Layer::Flows]
            .map(|layer| (layer, bytes(&sealed, layer)))
            .into_iter()
            .chain([(Layer::Packets, written.bytes.into())])
            .collect(),
    );
    assert_eq!(
        damage::packets(&newer, &objects).await.unwrap(),
        damage::packets(&segment, &damage::objects(&sealed)).await.unwrap()
    );
}

/// A table without one of its columns, as if it had been written before that was there.
async fn without(sealed: &SealedSegment, layer: Layer, column: &str) -> Written {
    let segment = Segment::open(&bytes(sealed, Layer::Index)).unwrap();
    let objects = Objects(vec![(layer, bytes(sealed, layer))]);
    let scan = segment.scan_all(layer, None).unwrap();
    let [batch] = &scan.run(&objects).await.unwrap()[..] else { panic!("one batch") };
    let table = Layers::KNOWN.table(layer).unwrap();
    let kept = table.stored_columns().into_iter().filter(|of| of.name != column);
    let kept: Vec<_> = kept.collect();
    let arrays = kept.iter().map(|of| batch.column_by_name(of.name).unwrap().clone()).collect();
    tabular::write(table.version, &kept, arrays, batch.num_rows()).unwrap()
}

#[tokio::test]
async fn missing_column_reads_as_null_or_default() {
    let sealed = sealed();
    for layer in [Layer::Flows, Layer::Packets] {
        let mut lacking = 0;
        for column in Layers::KNOWN.table(layer).unwrap().columns {
            let written = without(&sealed, layer, column.name).await;
            let segment = Segment::open(&with_table(&sealed, layer, &written)).unwrap();
            let mut objects = damage::objects(&sealed);
            objects.0.retain(|(known, _)| *known != layer);
            objects.0.push((layer, written.bytes.into()));
            let alone = segment.scan_all(layer, Some(&[column.name])).unwrap();
            let read = alone.run(&objects).await.unwrap();
            let rows: usize = read.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(rows, if layer == Layer::Flows { 3 } else { 43 }, "{}", column.name);
            let packets = damage::packets(&segment, &objects).await;
            if !column.may_be_absent() {
                // What a packet is made of was always there.
                assert!(read.iter().all(|batch| batch.num_columns() == 0), "{}", column.name);
                assert_eq!(packets.unwrap_err().kind(), FailureKind::Damaged, "{}", column.name);
                continue;
            }
            lacking += 1;
            let array = read[0].column_by_name(column.name).unwrap();
            assert_eq!(array.data_type(), &column.of.data_type(), "{}", column.name);
            match column.default {
                None => assert_eq!(array.null_count(), array.len(), "{}", column.name),
                Some(default) => {
                    let text =
                        arrow::compute::cast(array, &arrow::datatypes::DataType::Utf8).unwrap();
                    let text: &arrow::array::StringArray = arrow::array::AsArray::as_string(&text);
                    assert!(text.iter().all(|of| of == Some(default)), "{}", column.name);
                }
            }
            if column.name == packets::column::CAPTURED {
                // Null says that all of a packet was captured, which is not so of one here.
                assert_eq!(packets.unwrap_err().kind(), FailureKind::Damaged);
                continue;
            }
            let packets = packets.unwrap_or_else(|failure| panic!("{}: {failure}", column.name));
            assert_eq!(packets.len(), 43, "{}", column.name);
            let all = segment.all_flows();
            assert_eq!(segment.read_flows(&objects, &all).await.unwrap().len(), 3);
        }
        assert!(lacking > 5, "{layer:?}: {lacking}");
    }
}

#[test]
fn layer_without_rows_is_refused() {
    let segment = Segment::open(&bytes(&sealed(), Layer::Index)).unwrap();
    for layer in [Layer::Body, Layer::Head, Layer::Index] {
        let refused = segment.scan_all(layer, None).unwrap_err();
        assert_eq!(refused.to_string(), format!("{}: this layer is no table", layer.name()));
    }
}

#[test]
fn hostile_stored_counters_do_not_panic() {
    let mut part = FlowPart::new(FlowId([0; 16]), key());
    part.packets = [u64::MAX, 1];
    let row = FlowRow { part, placement: Placement::default() };
    assert_eq!(row.packets(), u64::MAX);
}
