//! Packets in, the same packets out, through sealed segments in memory.

mod flows;
mod frames;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::packet::Stamp;
use capstan_model::{Failure, FlowEnd, IngestShares, LinkType, RecorderId, Time};
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::builder::SealedSegment;
use capstan_storage_engine::segment::reader::{Fetch, Segment};

use super::*;

/// Seals at once and keeps everything.
#[derive(Default)]
struct Keep(Vec<SealedSegment>);

impl Sink for Keep {
    type Error = std::convert::Infallible;

    fn take(&mut self, segment: SegmentBuilder, _: Resume) -> Result<(), Self::Error> {
        let name = format!("segment-{}", self.0.len());
        self.0.push(segment.seal(name, Generation(1)).expect("memory suffices"));
        Ok(())
    }
}

struct InMemory<'a>(&'a SealedSegment);

#[async_trait]
impl Fetch for InMemory<'_> {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        let layer = self.0.layers.iter().find(|sealed| sealed.layer == layer).unwrap();
        let slice =
            |range: &Range<u64>| layer.bytes().slice(range.start as usize..range.end as usize);
        Ok(ranges.iter().map(slice).collect())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    ordinal: u64,
    time: Option<Time>,
    ticks: Option<u64>,
    interface: u32,
    length: u32,
    data: Vec<u8>,
}

fn settings(policy: SealPolicy) -> Settings {
    Settings {
        writer: GenerationId { recorder: RecorderId(7), generation: Generation(1) },
        flow_generation: Generation(1),
        policy,
        timeouts: Timeouts::default(),
        flow_memory: IngestShares::default().flows,
    }
}

/// Every packet of a segment, in capture order.
fn read_back(sealed: &SealedSegment) -> Vec<Stored> {
    let index = &sealed.layers.iter().find(|layer| layer.layer == Layer::Index).unwrap().bytes();
    let segment = Segment::open(index).unwrap();
    let fetch = InMemory(sealed);
    let mut out = Vec::new();
    futures::executor::block_on(async {
        let all = segment.all_flows();
        let flows = segment.read_flows(&fetch, &all).await.unwrap();
        let rows = segment.read_packets(&fetch, &flows).await.unwrap();
        let payload = segment.read_payload(&fetch, &segment.plan_payload(&flows)).await.unwrap();
        rows.assemble(&all, &flows, &payload, |read, data| {
            out.push(Stored {
                ordinal: read.row.ordinal,
                time: read.row.time(),
                ticks: read.ticks,
                interface: read.row.interface,
                length: read.row.length,
                data: data.to_vec(),
            });
        })
        .unwrap();
    });
    out
}

fn pass(
    policy: SealPolicy,
    link: LinkType,
    packets: &[(Stamp, u32, Vec<u8>)],
) -> Vec<SealedSegment> {
    let mut pipeline = Pipeline::new(settings(policy), Keep::default());
    pipeline.interface(Interface {
        link_type: link,
        snap_length: 0,
        name: None,
        resolution: 9,
        offset_seconds: 0,
        options: Vec::new(),
    });
    for (stamp, length, data) in packets {
        let packet = Packet { interface: 0, stamp: *stamp, length: *length, data, options: &[] };
        pipeline.packet(&packet, true).unwrap();
    }
    pipeline.flush().unwrap();
    pipeline.into_sink().0
}

fn expect_round_trip(
    policy: SealPolicy,
    link: LinkType,
    packets: &[(Stamp, u32, Vec<u8>)],
) -> usize {
    let sealed = pass(policy, link, packets);
    let mut stored: Vec<_> = sealed.iter().flat_map(read_back).collect();
    stored.sort_by_key(|packet| packet.ordinal);
    assert_eq!(stored.len(), packets.len());
    for (number, (stored, (stamp, length, data))) in stored.iter().zip(packets).enumerate() {
        assert_eq!(stored.ordinal, number as u64);
        assert_eq!(stored.time, stamp.time());
        assert_eq!(&stored.data, data, "packet {number}");
        assert_eq!(stored.length, *length);
        let ticks = if let Stamp::Raw { ticks, .. } = stamp { Some(*ticks) } else { None };
        assert_eq!(stored.ticks, ticks);
    }
    sealed.len()
}

const HOUR: i64 = capstan_model::time::HOUR_NANOS;

#[test]
fn sparse_hours_share_a_segment_and_full_ones_do_not() {
    let small: Vec<_> =
        (0..40).map(|n| (Stamp::At(Time(n * HOUR)), 70, vec![n as u8; 70])).collect();
    assert_eq!(expect_round_trip(SealPolicy::import(), LinkType::ETHERNET, &small), 1);
    let large: Vec<_> =
        (0..8).map(|n| (Stamp::At(Time(n / 4 * HOUR)), 400_000, vec![n as u8; 400_000])).collect();
    // The first hour fills a segment of its own, the rest of the second one spills over.
    let sealed = pass(SealPolicy::import(), LinkType::ETHERNET, &large);
    assert_eq!(sealed.len(), 2);
    assert!(sealed.iter().all(|segment| segment.hours.len() == 1));
    expect_round_trip(SealPolicy::import(), LinkType::ETHERNET, &large);
}

#[test]
fn a_ninth_hour_seals_the_oldest() {
    // Each hour begins in the segment that spans hours, and outgrows it.
    let packets: Vec<_> =
        (0..60).map(|n| (Stamp::At(Time(n / 4 * HOUR)), 400_000, vec![n as u8; 400_000])).collect();
    let mut pipeline = Pipeline::new(settings(SealPolicy::import()), Keep::default());
    pipeline.interface(Interface {
        link_type: LinkType::ETHERNET,
        snap_length: 0,
        name: None,
        resolution: 9,
        offset_seconds: 0,
        options: Vec::new(),
    });
    for (stamp, length, data) in &packets {
        let packet = Packet { interface: 0, stamp: *stamp, length: *length, data, options: &[] };
        pipeline.packet(&packet, true).unwrap();
        assert!(pipeline.open_segments() <= 9, "eight hours, and one that spans hours");
    }
    let sealed = pipeline.into_sink().0;
    let hours: Vec<i32> = sealed.iter().map(|segment| segment.hours[0].0).collect();
    assert_eq!(hours, [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn times_outside_the_nanosecond_range_are_stored_as_ticks() {
    let packets = vec![
        (Stamp::None, 60, vec![1; 60]),
        (Stamp::Raw { ticks: u64::MAX, time: None }, 60, vec![2; 60]),
        (Stamp::Raw { ticks: 12_345, time: Some(Time(12)) }, 60, vec![3; 60]),
        (Stamp::At(Time(-5)), 9_000, vec![4; 20]),
    ];
    expect_round_trip(SealPolicy::import(), LinkType::ETHERNET, &packets);
    expect_round_trip(
        SealPolicy::live(std::time::Duration::from_secs(10)),
        LinkType(147),
        &packets,
    );
}

#[test]
fn long_flows_and_long_packets_cross_blocks() {
    let mut frame = vec![0; 12];
    frame.extend_from_slice(&[
        8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    frame.extend_from_slice(&[0x9c, 0x40, 0, 53, 0, 0, 0, 0]);
    let packets: Vec<_> = (0..60_u32)
        .map(|n| {
            let mut data = frame.clone();
            data.resize(42 + n as usize * 5_000, n as u8);
            (Stamp::At(Time(i64::from(n))), data.len() as u32, data)
        })
        .collect();
    expect_round_trip(SealPolicy::import(), LinkType::ETHERNET, &packets);
}

proptest::proptest! {
    #[test]
    fn random_bytes_of_any_link_type_round_trip(
        link in 0_u16..300,
        packets in proptest::collection::vec(
            (0_i64..3 * HOUR, 0_u32..3_000, proptest::collection::vec(proptest::num::u8::ANY, 0..300)),
            1..30,
        ),
    ) {
        let packets: Vec<_> =
            packets.into_iter().map(|(time, length, data)| (Stamp::At(Time(time)), length, data)).collect();
        expect_round_trip(SealPolicy::import(), LinkType(link), &packets);
    }
}

#[test]
fn evicted_flow_has_the_end_state_evicted() {
    // More flows at once than are remembered; the first ones are the longest idle.
    let flows = crate::flow_table::flows_within(IngestShares::default().flows) as u32 + 1;
    let policy = SealPolicy {
        bytes: u64::MAX,
        segment_memory: usize::MAX,
        memory: usize::MAX,
        ..SealPolicy::import()
    };
    let packets: Vec<_> = (0..flows)
        .map(|number| {
            let mut data = vec![0; 12];
            data.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10]);
            data.extend(&number.to_be_bytes()[1..]);
            data.extend([192, 168, 0, 1, 0x13, 0x88, 0, 53, 0, 8, 0, 0]);
            (Stamp::At(Time(i64::from(number) * 1_000_000)), 42, data)
        })
        .collect();
    let sealed = pass(policy, LinkType::ETHERNET, &packets);
    let [sealed] = &sealed[..] else { panic!("{} segments", sealed.len()) };
    let index = &sealed.layers.iter().find(|layer| layer.layer == Layer::Index).unwrap().bytes();
    let segment = Segment::open(index).unwrap();
    let (all, fetch) = (segment.all_flows(), InMemory(sealed));
    let mut rows = futures::executor::block_on(segment.read_flows(&fetch, &all)).unwrap();
    assert_eq!(rows.len(), flows as usize);
    rows.sort_by_key(|row| row.part.first);
    let evicted = rows.iter().filter(|row| row.part.end == FlowEnd::Evicted).count();
    assert_eq!(evicted, 1, "room is made for one flow");
    assert!(rows[..evicted].iter().all(|row| row.part.end == FlowEnd::Evicted));
    assert!(rows[evicted..].iter().all(|row| row.part.end == FlowEnd::Open));
}
