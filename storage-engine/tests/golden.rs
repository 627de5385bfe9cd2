//! Stores that earlier versions wrote, byte for byte: every version reads them, for ever.
//! `golden/README.md` says what is where and how one is added.

#![allow(clippy::unwrap_used)] // Of a test, all of it.

mod describe;
mod stores;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::{Failure, FailureKind, TimeRange};
use capstan_storage_engine::catalog::CatalogView;
use capstan_storage_engine::repair;
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::reader::{Fetch, Segment};

use capstan_storage_engine::store::Store;
use capstan_storage_engine::verify::{self, Finding};
use futures::TryStreamExt;

use self::stores::{all, golden, open};

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test]
async fn every_golden_store_returns_its_packets() {
    let found = all();
    assert!(!found.is_empty());
    for folder in found {
        let described = describe::describe(&open(&folder).await).await;
        assert!(!described.sources.is_empty());
        for (name, packets) in &described.sources {
            // Known from who made the packets, not from a reader.
            let expected = golden().join("captures").join(name).with_extension("txt");
            assert!(*packets == text(&expected), "{}: {name}", folder.display());
        }
        for (name, found) in [("flows.txt", &described.flows), ("shape.txt", &described.shape)] {
            assert!(*found == text(&folder.join(name)), "{}: {name}", folder.display());
        }
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Finding>>);

impl verify::Watch for Heard {
    fn found(&self, finding: &Finding) {
        self.0.lock().unwrap().push(finding.clone());
    }
}

impl repair::Watch for Heard {}

async fn names(store: &Store) -> BTreeSet<String> {
    let all = object_store::path::Path::default();
    let listed: Vec<_> = store.list(&all).try_collect().await.unwrap();
    listed.iter().map(|object| object.path.to_string()).collect()
}

#[tokio::test]
async fn golden_stores_pass_checks_and_need_no_repair() {
    let mut truncated = 0;
    for folder in all() {
        let store = open(&folder).await;
        let before = names(&store).await;
        let heard = Heard::default();
        let layers = capstan_storage_engine::segment::Layers::KNOWN;
        let options = verify::Options { range: TimeRange::ALL, deep: true, layers };
        let report = verify::verify(&store, &options, &heard).await.unwrap();
        assert_eq!(heard.0.lock().unwrap()[..], [], "{}", folder.display());
        truncated += report.truncated;
        // The store is a copy in memory.
        let options = repair::Options { nobody_writes: true, ..repair::Options::default() };
        let report = repair::repair(&store, &options, &heard).await.unwrap();
        assert_eq!(report, repair::Report::default(), "{}", folder.display());
        assert_eq!(names(&store).await, before, "{}", folder.display());
    }
    assert!(truncated > 0, "no log of a golden store is truncated");
}

/// The layers of one segment.
struct Layers(Vec<(Layer, Bytes)>);

#[async_trait]
impl Fetch for Layers {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        let object = &self.0.iter().find(|(known, _)| *known == layer).unwrap().1;
        let there = |at: u64| usize::try_from(at).unwrap().min(object.len());
        Ok(ranges.iter().map(|range| object.slice(there(range.start)..there(range.end))).collect())
    }
}

type Packet = (u64, Option<u64>, u32, Vec<u8>);

async fn packets(layers: &Layers) -> Result<Vec<Packet>, Failure> {
    let segment = Segment::open(&layers.0[4].1)?;
    // Reading packets alone leaves these out.
    segment.extras()?;
    let all = segment.all_flows();
    let flows = segment.read_flows(layers, &all).await?;
    let rows = segment.read_packets(layers, &flows).await?;
    let payload = segment.read_payload(layers, &segment.plan_payload(&flows)).await?;
    let mut read = Vec::new();
    rows.assemble(&all, &flows, &payload, |found, data| {
        read.push((found.row.ordinal, found.ticks, found.row.length, data.to_vec()));
    })?;
    Ok(read)
}

/// Damage of stored bytes is told or does no harm: a sample of flipped bytes in every layer.
#[tokio::test]
async fn flipped_byte_of_a_golden_segment_never_gives_other_packets() {
    let mut state = 7_u64;
    for folder in all() {
        let store = open(&folder).await;
        let view = CatalogView::load(&store).await.unwrap();
        for known in view.window(TimeRange::ALL).await.unwrap().segments.iter() {
            let mut layers = Vec::new();
            for layer in Layer::SEALED {
                layers.push((layer, store.get(&known.path(layer)).await.unwrap()));
            }
            let mut layers = Layers(layers);
            let good = packets(&layers).await.unwrap();
            for place in 0..layers.0.len() {
                let sound = layers.0[place].1.clone();
                let mut refused = 0;
                for _ in 0..250 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let (at, bit) = ((state >> 33) as usize % sound.len(), (state >> 24) % 8);
                    let mut bytes = sound.to_vec();
                    bytes[at] ^= 1 << bit;
                    layers.0[place].1 = bytes.into();
                    let what = format!("{} {:?} at {at}", known.entry.name, layers.0[place].0);
                    match packets(&layers).await {
                        Ok(read) => assert!(read == good, "{what}: other packets"),
                        Err(failure) => {
                            let kinds = [FailureKind::Damaged, FailureKind::TooNew];
                            assert!(kinds.contains(&failure.kind()), "{what}: {failure}");
                            refused += 1;
                        }
                    }
                }
                // All of the index is needed; of a payload layer without a block, nothing.
                let needed = if layers.0[place].0 == Layer::Index { 250 } else { 1 };
                assert!(
                    refused >= needed || sound.len() < 100,
                    "{:?} {refused}",
                    layers.0[place].0
                );
                layers.0[place].1 = sound;
            }
        }
    }
}
