//! Cost of finding the segments of a host in an hour of many recorders: the whole catalog of the hour, what is read
//! of it after the filter of the hour has pruned segments, and, for comparison, an index over the segments of the
//! hour.
//!
//! Only the catalog is made, in memory, from generated segments. No query opens a segment.

use std::fmt::Write;
use std::sync::Arc;

use capstan_index::filter::FlowFilter;
use capstan_index::{Field, TermIndex, TermIndexBuilder};
use capstan_model::coverage::Listened;
use capstan_model::{
    Address, Failure, FailureKind, Generation, HOUR_NANOS, Hour, RecorderId, Time, TimeRange,
};
use capstan_storage_engine::catalog::names;
use capstan_storage_engine::catalog::{
    Asked, CatalogView, CommitDraft, Layer, LayerEntry, Outcome, Recorder, Rollup, SegmentEntry,
    Stay, TimeSlot, Window, WriterInfo, WriterKind,
};
use capstan_storage_engine::store::{Requests, Store};
use capstan_storage_engine::term_filters::{Summary, TermFilter};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::history::asked;

/// What it costs to find a host in an hour of many recorders, as Markdown
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many recorders there are; repeat it for several
    #[arg(long, value_name = "NUMBER", default_values_t = [1, 10, 100])]
    recorders: Vec<u64>,
}

/// 2026-01-01, an hour's start, in hours since 1970.
const HOUR: Hour = Hour(490_896);
pub(crate) const BEGIN: Time = Time(HOUR.0 as i64 * HOUR_NANOS);
const RANGE: TimeRange = TimeRange { start: BEGIN, end: Time(BEGIN.0 + HOUR_NANOS) };
/// Commits of each recorder in the hour: one every ten seconds, with a segment each.
pub(crate) const COMMITS: u64 = 360;
/// Commits of each recorder between two steps of the rollup: half a minute.
pub(crate) const STEP: u64 = 3;
/// Pods on the node of a recorder.
const PODS: u64 = 30;
/// Pods of other nodes, and addresses outside, that a node talks to in ten seconds.
const OTHERS: (u64, u64) = (100, 20);
/// Addresses outside that anybody talks to.
const OUTSIDE: u64 = 2_000;
/// Who is there in one segment only.
const SELDOM: [u8; 4] = [192, 0, 2, 1];
/// Who is not there.
const NOBODY: [u8; 4] = [192, 0, 2, 2];

/// Numbers that look drawn and are the same each time.
fn drawn(of: &str, numbers: [u64; 3]) -> [u8; 32] {
    Sha256::digest(format!("{of} {numbers:?}")).into()
}

fn below(end: u64, drawn: &[u8; 32]) -> u64 {
    let (number, _) = drawn.split_at(8);
    number.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte)) % end
}

fn pod(node: u64, number: u64) -> Address {
    Address::v4([10, 64 + (node >> 8) as u8, node as u8, number as u8])
}

/// The addresses in segment `number` of the recorder of a node.
pub(crate) fn addresses(recorders: u64, node: u64, number: u64) -> Vec<Address> {
    let mut all: Vec<Address> = (0..PODS).map(|of| pod(node, of)).collect();
    for of in 0..OTHERS.0 {
        let drawn = drawn("pod", [node, number, of]);
        all.push(pod(below(recorders, &drawn), u64::from(drawn[31]) % PODS));
    }
    for of in 0..OTHERS.1 {
        let outside = below(OUTSIDE, &drawn("outside", [node, number, of])) as u32;
        all.push(Address::v4((0x2d00_0000 + outside * 7_919).to_be_bytes()));
    }
    if (node, number) == (0, COMMITS / 2) {
        all.push(Address::v4(SELDOM));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// The terms of a segment: a flow an address, and names. So few terms always make an index.
fn summary(number: u64, addresses: &[Address]) -> Summary {
    let mut terms = TermIndexBuilder::new();
    for (flow, address) in (0_u32..).zip(addresses) {
        terms.add(Field::Ip, &address.0, flow);
        // A thousand new flows between two segments.
        let counter = (number as u32).wrapping_mul(1_000).wrapping_add(flow);
        terms.add(Field::Flow, &counter.to_be_bytes(), flow);
        let name = format!("service-{}.shop.svc.cluster.local", address.0[15]);
        terms.add(Field::Sni, name.as_bytes(), flow);
    }
    let made = terms.finish(addresses.len() as u32).and_then(TermIndex::open);
    made.and_then(|index| Summary::of(&index)).unwrap_or_default()
}

/// Segment `number` of a recorder, in the first hour.
pub(crate) fn segment(
    node: u64,
    number: u64,
    range: TimeRange,
    addresses: &[Address],
) -> SegmentEntry {
    let summary = summary(number, addresses);
    let layer = |(place, layer): (u64, Layer)| {
        let bytes = 10_000 + below(1_000_000, &drawn("bytes", [node, number, place]));
        let sha256 = drawn("layer", [node, number, place]).map(|byte| format!("{byte:02x}"));
        LayerEntry::new(layer.name(), bytes, sha256.concat())
    };
    let packets = 1_000 + below(100_000, &drawn("packets", [node, number, 0]));
    SegmentEntry {
        name: format!("{}-00000001-{number:08}", RecorderId(node)),
        hour: HOUR,
        hours: Vec::new(),
        first: Some(range.start),
        last: Some(Time(range.end.0 - 1)),
        first_ordinal: number * 101_000,
        last_ordinal: number * 101_000 + packets - 1,
        packets,
        flow_parts: packets / 30,
        captured_bytes: packets * 700,
        wire_bytes: packets * 700,
        layers: (0..).zip(Layer::SEALED).map(layer).collect(),
        protocols: [("http", 3), ("dns", 20), ("tls", 5), ("redis", 7)]
            .map(|(name, part)| (name.to_owned(), packets / part))
            .into(),
        secrets: false,
        address_filter: summary.address_filter(),
        flow_ids: summary.flow_ids(RecorderId(node), Generation(1)),
        term_filters: summary.filters,
        owner: None,
    }
}

/// An hour, rolled up.
struct Busy {
    store: Store,
    /// Of an index of the hour over its segments, bytes.
    index: usize,
}

/// Starts a recorder on each of so many nodes.
pub(crate) async fn start(store: &Store, recorders: u64) -> Result<Vec<Recorder>, Failure> {
    let mut all = Vec::new();
    for node in 0..recorders {
        let info = WriterInfo {
            kind: WriterKind::Live,
            description: "made".to_owned(),
            host: format!("node-{node}"),
            source: None,
            resumes: None,
            started_at: BEGIN,
        };
        all.push(Recorder::start(store, RecorderId(node), info).await?);
    }
    Ok(all)
}

async fn make(recorders: u64) -> Result<Busy, Failure> {
    let store = Store::on(Arc::new(InMemory::new()), "busy").await?;
    let mut all = start(&store, recorders).await?;
    let mut rollup = Rollup::claim(&store, "busy", Stay::Keeps).await?;
    let mut index = TermIndexBuilder::new();
    let mut segments = 0;
    let long = HOUR_NANOS / COMMITS as i64;
    for number in 0..COMMITS {
        let start = Time(BEGIN.0 + number as i64 * long);
        let range = TimeRange { start, end: Time(start.0 + long) };
        for (node, recorder) in (0..).zip(&mut all) {
            let addresses = addresses(recorders, node, number);
            addresses.iter().for_each(|address| index.add(Field::Ip, &address.0, segments));
            segments += 1;
            recorder
                .commit(CommitDraft::recorded(
                    [segment(node, number, range, &addresses)],
                    [Listened { range, interfaces: vec![0] }],
                    [],
                ))
                .await?;
        }
        if number % STEP == STEP - 1 {
            match rollup.step().await? {
                Outcome::Done(_) => {}
                Outcome::Fenced { by } => {
                    return Err(Failure::new(FailureKind::Other, format!("{by} rolls up")));
                }
            }
        }
    }
    // What one step did not take the next ones do.
    rollup.roll_up_all().await?;
    let index = index.finish(segments).map_err(|error| {
        Failure::caused_by(FailureKind::Other, "an index cannot be made", error)
    })?;
    Ok(Busy { store, index: index.len() })
}

impl Busy {
    /// What the catalog says of the hour that is needed to find a host, by who knows nothing.
    async fn ask(&self, host: Option<[u8; 4]>) -> Result<(Window, Requests), Failure> {
        let view = CatalogView::load(&self.store).await?;
        let loaded = self.store.requests();
        let window = match host.map(Address::v4) {
            None => view.window(RANGE).await?,
            Some(host) => {
                let host = FlowFilter::host(host);
                let asked = Asked { range: RANGE, flows: Some(&host), statements: false };
                view.window_of(asked).await?
            }
        };
        Ok((window, self.store.requests() - loaded))
    }

    /// Length of the newest manifest.
    async fn manifest(&self) -> Result<u64, Failure> {
        let slot = names::slot(TimeSlot::Hour(HOUR));
        let listed: Vec<_> = self.store.list(&slot).try_collect().await?;
        let newest =
            listed.iter().filter_map(|of| Some((names::parse_manifest(&of.path)?.1, of.bytes)));
        Ok(newest.max().map_or(0, |(_, bytes)| bytes))
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<String, Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::io("cannot start threads", error))?;
    let mut text = String::from(
        "| recorders | segments in the hour | newest manifest, bytes | all of the hour: requests | bytes | a host that is \
         not there: requests | bytes | one in a single segment: requests | bytes | an index over the segments, bytes |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for recorders in &arguments.recorders {
        let row = runtime.block_on(async {
            let busy = make(*recorders).await?;
            let (all, whole) = busy.ask(None).await?;
            let (_, nobody) = busy.ask(Some(NOBODY)).await?;
            let (seldom, one) = busy.ask(Some(SELDOM)).await?;
            let host = Address::v4(SELDOM);
            let holds = |filter: &TermFilter| filter.may_hold(host);
            let with = seldom
                .segments
                .iter()
                .filter(|of| of.entry.address_filter.as_ref().is_some_and(holds));
            eprintln!("{recorders} recorders: {} segments with the host", with.count());
            Ok::<_, Failure>(format!(
                "| {recorders} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                all.segments.len(),
                busy.manifest().await?,
                asked(&whole),
                whole.bytes_read,
                asked(&nobody),
                nobody.bytes_read,
                asked(&one),
                one.bytes_read,
                busy.index,
            ))
        })?;
        // Writing to a string does not fail.
        let _ = writeln!(text, "{row}");
    }
    Ok(text)
}
