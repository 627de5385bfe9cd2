//! Segments that say of themselves what cannot be.

use capstan_model::packet::Stamp;
use capstan_model::{
    Address, Direction, FlowId, FlowKey, FlowPart, Generation, Headers, Packet, RecorderId, Time,
};

use super::*;
use crate::segment::block::{BlockHeader, Codec, MAX_RAW};
use crate::segment::builder::{SealedSegment, SegmentBuilder, Writer};
use crate::segment::flows::Placement;
use crate::segment::index_layer;

const WRITER: Writer = Writer { recorder: RecorderId(7), generation: Generation(1) };

const SECTIONS: [Section; 7] = [
    Section::Meta,
    Section::Terms,
    Section::HeadBlocks,
    Section::BodyBlocks,
    Section::PacketsTail,
    Section::FlowsTail,
    Section::Extras,
];

fn key() -> FlowKey {
    FlowKey {
        source: Address::v4([10, 0, 0, 1]),
        destination: Address::v4([10, 0, 0, 2]),
        source_port: 40_000,
        destination_port: 53,
        ip_protocol: 17,
        vlan: None,
        vni: None,
        ethertype: 0x0800,
        pseudo: None,
        fragment_id: None,
    }
}

/// Two flow parts of twenty packets each.
fn sealed() -> SealedSegment {
    let mut builder = SegmentBuilder::new(WRITER).unwrap();
    let id = |number| FlowId::new(WRITER.recorder, WRITER.generation, number);
    let parts = [builder.open_part(id(0), key()), builder.open_part(id(1), key())];
    for number in 0..40_u64 {
        let data = [number as u8; 60];
        let mut headers = Headers::default();
        headers.prefix = 14;
        let stamp = Stamp::At(Time(number as i64));
        let packet = Packet { interface: 0, stamp, length: 60, data: &data, options: &[] };
        let part = parts[number as usize % 2];
        builder.push(part, &packet, &headers, Direction::Forward, number);
    }
    builder.seal("segment".to_owned(), WRITER.generation).unwrap()
}

fn bytes(sealed: &SealedSegment, layer: Layer) -> Bytes {
    sealed.layers.iter().find(|sealed| sealed.layer == layer).unwrap().bytes()
}

/// The `index` layer with one section changed.
fn with_section(sealed: &SealedSegment, which: Section, change: impl Fn(&mut Vec<u8>)) -> Bytes {
    let index = IndexLayer::open(&bytes(sealed, Layer::Index)).unwrap();
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
fn counts_that_disagree_are_refused() {
    let sealed = sealed();
    assert!(Segment::open(&bytes(&sealed, Layer::Index)).is_ok());
    for (name, layer) in [("packets", "packets"), ("flow_parts", "index")] {
        for count in [0, 3, u64::MAX] {
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
async fn a_directory_of_more_than_any_memory_is_refused() {
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

#[tokio::test]
async fn any_wrong_byte_of_a_table_is_met_without_a_panic() {
    let sealed = sealed();
    let segment = Segment::open(&bytes(&sealed, Layer::Index)).unwrap();
    for layer in [Layer::Packets, Layer::Flows] {
        let good = bytes(&sealed, layer);
        let mut refused = 0;
        for at in 0..good.len() {
            let mut object = good.to_vec();
            object[at] ^= 0x7f;
            let objects = Objects(vec![(layer, object.into())]);
            match segment.scan_all(layer, None).unwrap().run(&objects).await {
                Ok(batches) => {
                    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
                    assert!(rows <= 40);
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
fn stored_counters_may_say_anything() {
    let mut part = FlowPart::new(FlowId([0; 16]), key());
    part.packets = [u64::MAX, 1];
    let row = FlowRow { part, placement: Placement::default() };
    assert_eq!(row.packets(), u64::MAX);
}
