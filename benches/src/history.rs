//! Cost of queries as the history grows: the same queries over an hour, a day, a month and a year of
//! generated traffic, each in its own store.
//!
//! One recorder, a segment every quarter of an hour, in memory or in a folder. Measured are requests and bytes,
//! which are the same on every kind of store, and time. Each query starts cold: the reader has loaded nothing.
//!
//! * `first_byte`: how soon an export of everything delivers packets, from a bucket far away

mod first_byte;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_export::{Export, Order, export};
use capstan_ingest::flow_table::Timeouts;
use capstan_ingest::pipeline::{Pipeline, SealPolicy, Settings};
use capstan_ingest::upload::{CommitRule, Statement, Uploader};
use capstan_model::coverage::Listened;
use capstan_model::link::Interface;
use capstan_model::packet::Stamp;
use capstan_model::{
    Address, Failure, FailureKind, GenerationId, IngestShares, LinkType, Packet, RecorderId, Time,
    TimeRange,
};
use capstan_storage_engine::catalog::{
    Catalog, Outcome, Recorder, Rollup, Stay, WriterInfo, WriterKind,
};
use capstan_storage_engine::store::{Location, Options, Requests, Store};
use capstan_view::StoreView;
use capstan_view::access::Principal;
use capstan_view::select::Selection;
use object_store::memory::InMemory;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use self::first_byte::first_bytes;
use crate::bench::beside;

/// Cost of queries as the history grows, as a Markdown table
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Days of history to query; may be repeated
    #[arg(long, value_name = "DAYS", default_values_t = [0, 1, 30, 365])]
    days: Vec<u32>,
    /// Existing folder in which to create the stores [default: in memory, which leaves out what other processes read]
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// Rounds of each query, over all histories in turn; the time is the median
    #[arg(long, default_value_t = 101)]
    rounds: usize,
}

const MINUTE: i64 = 60_000_000_000;
const HOUR: i64 = 60 * MINUTE;
/// 2026-01-01.
const BEGIN: i64 = 1_767_225_600_000_000_000;
/// Segments in an hour.
const SEGMENTS: i64 = 4;
/// Packets in a segment.
const PACKETS: i64 = 240;
/// Hosts with packets in every segment.
const HOSTS: i64 = 200;
/// Hours between two segments with packets of the rare host.
const SELDOM: i64 = 60;
/// The rare host.
const RARE: [u8; 4] = [10, 9, 9, 9];

/// The cluster of the stores.
const CLUSTER: &str = "history";

/// A store whose history grows.
struct History {
    store: Store,
    /// Its folder; none in memory.
    place: Option<PathBuf>,
    rollup: Rollup,
    pipeline: Pipeline<Uploader>,
    /// Segments so far.
    segments: i64,
}

/// The cost of a query.
struct Cost {
    requests: Requests,
    time: Duration,
    /// Opened segments.
    opened: u64,
    packets: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<String, Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::io("cannot start threads", error))?;
    let mut days = arguments.days.clone();
    days.sort_unstable();
    let capstan = beside()?;
    let mut histories = Vec::new();
    for days in &days {
        let place = arguments.store.as_ref().map(|place| place.join(format!("days-{days}")));
        let mut history = History::new(&runtime, place)?;
        history.grow(&runtime, i64::from(*days).saturating_mul(24).max(1))?;
        histories.push(history);
    }
    let minutes = History::minutes(&histories, &runtime, arguments.rounds)?;
    let mut text = String::from(
        "| history | segments | one host, one minute: requests | bytes | time, ms | one host, 30 days: \
         segments opened | with it | requests | bytes | all logs, requests | first packets of all from far away: \
         by time, s | as recorded, s |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for ((days, history), minute) in days.into_iter().zip(&histories).zip(minutes) {
        let month = history.month(&runtime)?;
        let hours = history.segments / SEGMENTS;
        let holding = (0..history.segments).filter(|number| is_rare(*number));
        let holding = holding.filter(|number| *number / SEGMENTS >= hours - 30 * 24).count();
        let before = history.store.requests();
        runtime.block_on(Catalog::load(&history.store))?;
        let logs = history.store.requests() - before;
        let name = match days {
            0 => "1 hour".to_owned(),
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        let first = |order| match &history.place {
            Some(place) => first_bytes(&capstan, place, CLUSTER, order)
                .map(|took| format!("{:.2}", took.as_secs_f64())),
            None => Ok("-".to_owned()),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {:.2} | {} | {holding} | {} | {} | {} | {} | {} |",
            history.segments,
            asked(&minute.requests),
            minute.requests.bytes_read,
            minute.time.as_secs_f64() * 1_000.0,
            month.opened,
            asked(&month.requests),
            month.requests.bytes_read,
            asked(&logs),
            first("time")?,
            first("recorded")?,
        );
        eprintln!("{name}: {} and {} packets found", minute.packets, month.packets);
    }
    Ok(text)
}

/// Requests that read.
pub(crate) fn asked(requests: &Requests) -> u64 {
    requests.gets + requests.lists + requests.heads
}

/// Whether the rare host is in a segment.
fn is_rare(segment: i64) -> bool {
    segment % (SELDOM * SEGMENTS) == 0
}

/// Who sends a packet of a segment.
fn frequent(segment: i64, number: i64) -> [u8; 4] {
    let host = (segment * 7 + number) % HOSTS;
    [10, 0, (host / 100) as u8, host as u8]
}

impl History {
    fn new(runtime: &Runtime, place: Option<PathBuf>) -> Result<History, Failure> {
        let (store, recorder, rollup) = runtime.block_on(async {
            let store = match &place {
                None => Store::on(Arc::new(InMemory::new()), CLUSTER).await?,
                Some(place) => {
                    let location = Location::Folder(place.clone());
                    Store::open_or_create(&location, CLUSTER, &Options::default()).await?
                }
            };
            let info = WriterInfo {
                kind: WriterKind::Live,
                description: "made".to_owned(),
                host: "history".to_owned(),
                source: None,
                resumes: None,
                started_at: Time(BEGIN),
            };
            let recorder = Recorder::start(&store, RecorderId(1), info).await?;
            let rollup = Rollup::claim(&store, "history", Stay::Keeps).await?;
            Ok::<_, Failure>((store, recorder, rollup))
        })?;
        let writer =
            GenerationId { recorder: recorder.recorder(), generation: recorder.generation() };
        let settings = Settings {
            writer,
            flow_generation: writer.generation,
            policy: SealPolicy::live(Duration::from_secs(3_600)),
            timeouts: Timeouts::default(),
            flow_memory: IngestShares::default().flows,
        };
        let rule = CommitRule::OnStatement;
        let (metrics, handle) = (Arc::default(), runtime.handle().clone());
        let generation = writer.generation;
        let uploader =
            Uploader::start(store.clone(), recorder, generation, rule, None, metrics, handle)?;
        let mut pipeline = Pipeline::new(settings, uploader);
        pipeline.interface(Interface {
            link_type: LinkType::ETHERNET,
            snap_length: 0,
            name: Some("eth0".to_owned()),
            resolution: 9,
            offset_seconds: 0,
            options: Vec::new(),
        });
        Ok(History { store, place, rollup, pipeline, segments: 0 })
    }

    /// Records and rolls up until there are so many hours.
    fn grow(&mut self, runtime: &Runtime, hours: i64) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(FailureKind::Other, format!("a segment cannot be made: {error}"))
        };
        while self.segments < hours * SEGMENTS {
            let start = BEGIN + self.segments * (HOUR / SEGMENTS);
            for number in 0..PACKETS {
                let time = Time(start + number * (HOUR / SEGMENTS / PACKETS));
                let rare = number == PACKETS / 2 && is_rare(self.segments);
                let host = if rare { RARE } else { frequent(self.segments, number) };
                let data = frame(host, number as u16);
                let packet = Packet {
                    interface: 0,
                    stamp: Stamp::At(time),
                    length: data.len() as u32,
                    data: &data,
                    options: &[],
                };
                self.pipeline.packet(&packet, true).map_err(|error| failed(&error))?;
            }
            self.pipeline.flush().map_err(|error| failed(&error))?;
            let range = TimeRange { start: Time(start), end: Time(start + HOUR / SEGMENTS) };
            let listened = vec![Listened { range, interfaces: vec![0] }];
            let resume = self.pipeline.resume();
            self.pipeline
                .sink_mut()
                .state(Statement { listened, ..Statement::default() }, resume)?;
            self.segments += 1;
            if self.segments % SEGMENTS == 0 {
                self.roll_up(runtime)?;
            }
        }
        Ok(())
    }

    /// Rolls up all that was committed, and removes what was replaced, as after hours of real time.
    fn roll_up(&mut self, runtime: &Runtime) -> Result<(), Failure> {
        runtime.block_on(async {
            let rolled_up = |rollup: &Rollup| {
                rollup.root().logs.first().map_or(0, |log| log.state.chain().next())
            };
            // The upload goes on beside.
            while (rolled_up(&self.rollup) as i64) < self.segments {
                if let Outcome::Fenced { by } = self.rollup.step().await? {
                    return Err(Failure::new(FailureKind::Other, format!("{by} rolls up")));
                }
            }
            self.rollup.sweep(Duration::ZERO).await.map(|_| ())
        })
    }

    /// What [`History::minute`] costs of each, by the median of time. They are asked in turn, so that what else
    /// goes on in the machine or this process meets all of them.
    fn minutes(
        histories: &[History],
        runtime: &Runtime,
        rounds: usize,
    ) -> Result<Vec<Cost>, Failure> {
        let mut costs: Vec<Vec<Cost>> = histories.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds.max(1) {
            for (history, costs) in histories.iter().zip(&mut costs) {
                costs.push(history.minute(runtime)?);
            }
        }
        let median = |mut costs: Vec<Cost>| {
            costs.sort_by_key(|cost| cost.time);
            costs.swap_remove(costs.len() / 2)
        };
        Ok(costs.into_iter().map(median).collect())
    }

    /// One host, one minute, in the newest hour.
    fn minute(&self, runtime: &Runtime) -> Result<Cost, Failure> {
        let start = Time(BEGIN + (self.segments / SEGMENTS - 1) * HOUR + 20 * MINUTE);
        let range = TimeRange { start, end: Time(start.0 + MINUTE) };
        // Somebody who was there then: 20 minutes into the hour is 5 into its second segment.
        let second = self.segments - SEGMENTS + 1;
        let host = frequent(second, 5 * PACKETS * SEGMENTS / 60);
        self.ask(runtime, range, host)
    }

    /// A host that is seldom there, in the last thirty days.
    fn month(&self, runtime: &Runtime) -> Result<Cost, Failure> {
        let end = Time(BEGIN + self.segments * (HOUR / SEGMENTS));
        let range = TimeRange { start: Time(end.0 - 30 * 24 * HOUR), end };
        self.ask(runtime, range, RARE)
    }

    /// Asks as somebody does who knows nothing of the store.
    fn ask(&self, runtime: &Runtime, range: TimeRange, host: [u8; 4]) -> Result<Cost, Failure> {
        let selection =
            Selection { hosts: vec![Address::v4(host).into()], ..Selection::of_range(range) };
        let what = Export::new(selection, Order::Time);
        let before = self.store.requests();
        let began = Instant::now();
        let report = runtime.block_on(async {
            let view = StoreView::load(self.store.clone()).await?;
            let view = view.scoped(&Principal::everything());
            let (to, mut from) = mpsc::channel(16);
            let taken = tokio::spawn(async move { while from.recv().await.is_some() {} });
            let report = export(&view, &what, &to).await?;
            drop(to);
            let _ = taken.await;
            Ok::<_, Failure>(report)
        })?;
        Ok(Cost {
            time: began.elapsed(),
            requests: self.store.requests() - before,
            opened: report.segments,
            packets: report.packets,
        })
    }
}

/// A UDP packet from a host to a server, over IPv4 and Ethernet.
fn frame(host: [u8; 4], number: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(host);
    frame.extend([10, 200, 0, 1]);
    frame.extend((20_000 + number).to_be_bytes());
    frame.extend([0, 53, 0, 40, 0, 0]);
    frame.extend([7; 32]);
    frame
}
