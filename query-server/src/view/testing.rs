//! Stores made for tests: packets through the real pipeline into a store in memory.

use std::sync::Arc;

use capstan_ingest::flow_table::Timeouts;
use capstan_ingest::pipeline::{Pipeline, SealPolicy, Settings};
use capstan_ingest::source::{Event, PacketSource};
use capstan_ingest::upload::{CommitRule, Statement, Uploader};
use capstan_model::coverage::{Listened, Loss};
use capstan_model::link::Interface;
use capstan_model::packet::Stamp;
use capstan_model::{
    Block, GenerationId, HOUR_NANOS, IngestShares, LinkType, Packet, RecorderId, Time, TimeRange,
};
use capstan_storage_engine::catalog::rollup::roll_up_all;
use capstan_storage_engine::catalog::{Finished, Recorder, Segment, WriterInfo, WriterKind};
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::store::Store;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, path::Path};
use tokio::runtime::Handle;

use super::{ScopedView, StoreView};
use crate::access::Principal;

/// Options of a pcapng block, without their end mark.
pub(crate) fn options(list: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (code, value) in list {
        bytes.extend(code.to_le_bytes());
        bytes.extend((value.len() as u16).to_le_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Something a source gives, owned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Given {
    Interface(Interface),
    Packet(Owned),
    Block(Block),
}

/// A packet with its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Owned {
    pub(crate) interface: u32,
    pub(crate) stamp: Stamp,
    pub(crate) length: u32,
    pub(crate) data: Vec<u8>,
    pub(crate) options: Vec<u8>,
}

impl Owned {
    pub(crate) fn of(packet: &Packet<'_>) -> Owned {
        Owned {
            interface: packet.interface,
            stamp: packet.stamp,
            length: packet.length,
            data: packet.data.to_vec(),
            options: packet.options.to_vec(),
        }
    }
}

/// Who records, and what besides packets.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    pub(crate) recorder: u64,
    pub(crate) kind: WriterKind,
    /// Captured bytes at which a segment is sealed.
    pub(crate) segment_bytes: u64,
    pub(crate) started_at: i64,
    pub(crate) losses: Vec<Loss>,
}

impl Recording {
    pub(crate) fn of(recorder: u64) -> Self {
        let (segment_bytes, started_at) = (256 << 10, recorder as i64);
        Recording { recorder, kind: WriterKind::Import, segment_bytes, started_at, losses: vec![] }
    }
}

/// An empty store in memory.
pub(crate) async fn store() -> Store {
    Store::on(Arc::new(InMemory::new()), "test").await.unwrap()
}

/// A view as a principal with all rights and without a mask sees it.
pub(crate) fn whole(view: &Arc<StoreView>) -> ScopedView {
    view.scoped(&Principal::everything())
}

/// A store with one recording.
pub(crate) async fn view_of(recording: Recording, given: Vec<Given>) -> Arc<StoreView> {
    let store = store().await;
    record(&store, recording, given).await;
    StoreView::load(store).await.unwrap()
}

/// Puts what is given through the pipeline into segments, and commits them.
pub(crate) async fn record(store: &Store, recording: Recording, given: Vec<Given>) {
    let info = WriterInfo {
        kind: recording.kind,
        description: "test".into(),
        host: String::new(),
        source: None,
        resumes: None,
        started_at: Time(recording.started_at),
    };
    let id = RecorderId(recording.recorder);
    let recorder = Recorder::start(store, id, info).await.unwrap();
    let generation = recorder.generation();
    let (rule, runtime) = (CommitRule::EachSegment, Handle::current());
    let metrics = Arc::default();
    let uploader =
        Uploader::start(store.clone(), recorder, generation, rule, None, metrics, runtime).unwrap();
    let settings = Settings {
        writer: GenerationId { recorder: id, generation },
        flow_generation: generation,
        policy: SealPolicy { bytes: recording.segment_bytes, ..SealPolicy::import() },
        timeouts: Timeouts::default(),
        flow_memory: IngestShares::default().flows,
    };
    let work = move || {
        let mut pipeline = Pipeline::new(settings, uploader);
        let mut span: Option<(Time, Time)> = None;
        for event in given {
            match event {
                Given::Interface(interface) => pipeline.interface(interface),
                Given::Block(block) => pipeline.block(block),
                Given::Packet(Owned { interface, stamp, length, data, options }) => {
                    if let Some(time) = stamp.time() {
                        let (first, last) = span.unwrap_or((time, time));
                        span = Some((first.min(time), last.max(time)));
                    }
                    let packet =
                        Packet { interface, stamp, length, data: &data, options: &options };
                    pipeline.packet(&packet, true).unwrap();
                }
            }
        }
        pipeline.flush().unwrap();
        let listened = span.map(|(first, last)| Listened {
            range: TimeRange { start: first, end: Time(last.0 + 1) },
            interfaces: Vec::new(),
        });
        let statement = Statement {
            listened: listened.into_iter().collect(),
            losses: recording.losses,
            finished: Some(Finished { complete: true, packets_total: pipeline.progress().packets }),
            note: String::new(),
            until: None,
        };
        let resume = pipeline.resume();
        let mut uploader = pipeline.into_sink();
        uploader.state(statement, resume).unwrap();
        uploader.finish().unwrap();
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// All that a source gives.
pub(crate) fn read_all(mut source: impl PacketSource) -> Vec<Given> {
    let mut all = Vec::new();
    while let Some(event) = source.next_event().unwrap() {
        match event {
            Event::Interface(interface) => all.push(Given::Interface(interface)),
            Event::Packet(packet) => all.push(Given::Packet(Owned::of(&packet))),
            Event::Block(block) => all.push(Given::Block(block)),
            _ => {}
        }
    }
    all
}

/// An Ethernet interface whose clock ticks in nanoseconds.
pub(crate) fn ethernet(name: &str) -> Given {
    Given::Interface(Interface {
        link_type: LinkType::ETHERNET,
        snap_length: 0,
        name: Some(name.to_owned()),
        resolution: 9,
        offset_seconds: 0,
        options: Vec::new(),
    })
}

/// A UDP packet over IPv4 and Ethernet: the last bytes of its two addresses, its two
/// ports, its payload.
pub(crate) fn udp(hosts: (u8, u8), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, hosts.1, 2, 0, 0, 0, 0, hosts.0, 8, 0];
    let length = |header: usize| ((header + payload.len()) as u16).to_be_bytes();
    frame.extend([0x45, 0]);
    frame.extend(length(28));
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, hosts.0, 10, 0, 0, hosts.1]);
    let sum = frame[14..34]
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ports.0.to_be_bytes());
    frame.extend(ports.1.to_be_bytes());
    frame.extend(length(8));
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// A packet at a time, on interface 0.
pub(crate) fn at(time: i64, data: Vec<u8>) -> Given {
    let (length, stamp) = (data.len() as u32, Stamp::At(Time(time)));
    Given::Packet(Owned { interface: 0, stamp, length, data, options: Vec::new() })
}

/// Packets between sixteen hosts at a few ports, `step` nanoseconds apart, each fifth one a
/// little earlier than the one before. The same for the same numbers.
pub(crate) fn traffic(seed: u64, count: u32, start: i64, step: i64) -> Vec<Given> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let packet = |number: u32| {
        let (a, b, c) = (next(), next(), next());
        let length = if a.is_multiple_of(8) { 1_400 } else { (a % 200) as usize };
        let payload: Vec<u8> = (0..length).map(|n| (b >> (n % 8)) as u8).collect();
        let early = if number.is_multiple_of(5) { step * 3 / 2 } else { 0 };
        let hosts = (1 + (b % 16) as u8, 101 + (c % 3) as u8);
        let ports = (40_000 + (c % 7) as u16, [53, 4_433, 9_000][(a % 3) as usize]);
        at(start + i64::from(number) * step - early, udp(hosts, ports, &payload))
    };
    std::iter::once(ethernet("eth0")).chain((0..count).map(packet)).collect()
}

/// A store with 450 packets of 10.0.0.1 in the first hour and as many of 10.0.0.2 in the second, each in a segment of
/// its own, so that what the catalog says of an hour is in parts.
pub(crate) async fn busy_hours() -> Store {
    let hour = |hour: i64, host: u8| {
        let time = move |number: i64| hour * HOUR_NANOS + number * 1_000;
        (0..600).map(move |number| at(time(number), udp((host, 101), (1, 53), b"x")))
    };
    let given = std::iter::once(ethernet("eth0")).chain(hour(0, 1)).chain(hour(1, 2)).collect();
    let store = store().await;
    record(&store, Recording { segment_bytes: 1, ..Recording::of(1) }, given).await;
    roll_up_all(&store, "test").await.unwrap();
    store
}

/// The packets among what was given.
pub(crate) fn packets(given: &[Given]) -> Vec<Owned> {
    let packet = |given: &Given| match given {
        Given::Packet(packet) => Some(packet.clone()),
        _ => None,
    };
    given.iter().filter_map(packet).collect()
}

/// Changes one byte in the middle of a layer of the segment with that number in the catalog.
pub(crate) async fn damage(view: &StoreView, number: usize, layer: Layer) {
    let path = layer_path(view, number, layer).await;
    let objects = view.store().objects();
    let mut bytes = objects.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    objects.put(&path, bytes.into()).await.unwrap();
}

/// Deletes a layer.
pub(crate) async fn delete(view: &StoreView, number: usize, layer: Layer) {
    let path = layer_path(view, number, layer).await;
    view.store().objects().delete(&path).await.unwrap();
}

/// Every segment, as the catalog lists them.
pub(crate) async fn segments(view: &StoreView) -> Vec<Arc<Segment>> {
    view.window(TimeRange::ALL).await.unwrap().segments.clone()
}

async fn layer_path(view: &StoreView, number: usize, layer: Layer) -> Path {
    segments(view).await[number].path(layer)
}
