//! Records live interfaces: packets, coverage, loss.
//!
//! One thread captures and builds segments. Another seals and uploads them (see [`crate::upload`]).
//! Every few seconds the recorder seals all open segments and commits coverage up to the oldest
//! packet that the kernel may still hold. So coverage never runs ahead of packets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_model::coverage::{Listened, Loss, LossCause};
use capstan_model::{Failure, GenerationId, IngestShares, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{Finished, Recorder, WriterInfo, WriterKind};
use capstan_storage_engine::store::{self, Store};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::flow_table::Timeouts;
use crate::metrics::RecorderMetrics;
use crate::pipeline::{Pipeline, SealPolicy, Settings};
use crate::source::live::LiveSource;
use crate::source::{Event, Lost, PacketSource};
use crate::upload::{CommitRule, Statement, Uploader, unless_stopped};

/// Options of a recording.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// The node's name, part of the recorder's identity.
    pub host: String,
    /// A text for readers of the catalog.
    pub description: String,
    /// Time between commits, and the age at which a segment is sealed.
    pub commit_every: Duration,
    /// Memory of its parts.
    pub memory: IngestShares,
}

/// The default of [`RecordOptions::commit_every`].
pub const COMMIT_EVERY: Duration = Duration::from_secs(10);

/// Totals of a recording.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Packets committed.
    pub packets: u64,
    /// Packets the kernel dropped.
    pub lost: u64,
    /// Captured bytes.
    pub captured_bytes: u64,
    /// Segments committed.
    pub segments: u64,
    /// Bytes of all layers.
    pub stored_bytes: u64,
    /// How often the recorder opened a new log because nothing was committed for a day.
    pub ended: u64,
}

/// Progress callback of a recording, about once a second.
pub trait Watch {
    /// The metrics were published.
    fn recording(&self, _metrics: &RecorderMetrics) {}
}

/// The recorder of this machine for this store. It stays the same across starts.
pub fn identity(store: &Store, host: &str) -> RecorderId {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let text = format!("live {} {host} {}", store.format().cluster, machine.trim());
    let digest = Sha256::digest(text);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    RecorderId(u64::from_be_bytes(bytes))
}

/// Records until the source is stopped. Keeps `metrics` up to date.
///
/// # Errors
/// Store or source errors. Earlier commits stay.
pub fn run(
    store: &Store,
    source: &mut LiveSource,
    options: &RecordOptions,
    metrics: &Arc<RecorderMetrics>,
    watch: &dyn Watch,
    runtime: &Handle,
) -> Result<Recorded, Failure> {
    let started = store::now();
    let id = identity(store, &options.host);
    let info = WriterInfo {
        kind: WriterKind::Live,
        description: options.description.clone(),
        host: options.host.clone(),
        source: None,
        resumes: None,
        started_at: started,
    };
    let stop = source.stop_handle();
    let starting = Recorder::start(store, id, info);
    let recorder = runtime.block_on(unless_stopped(store, || stop.is_stopped(), starting))?;
    let generation = recorder.generation();
    let uploader = Uploader::start(
        store.clone(),
        recorder,
        generation,
        CommitRule::OnStatement,
        None,
        Arc::clone(&metrics.upload),
        runtime.clone(),
    )?;
    let settings = Settings {
        writer: GenerationId { recorder: id, generation },
        flow_generation: generation,
        policy: SealPolicy::live(options.commit_every).within(&options.memory),
        timeouts: Timeouts::default(),
        flow_memory: options.memory.flows,
    };
    let mut recording = Recording {
        pipeline: Pipeline::new(settings, uploader),
        hearing: Hearing::default(),
        losses: Vec::new(),
        metrics: Arc::clone(metrics),
        committed_at: Instant::now(),
        looked_at: Instant::now(),
    };
    let heard = recording.listen(source, options, watch);
    // Also after a capture error: coverage up to the error is correct.
    let said = recording.commit(Some(Finished {
        complete: heard.is_ok(),
        packets_total: recording.pipeline.progress().packets,
    }));
    recording.publish(source);
    let finished = recording.pipeline.into_sink().finish();
    // The first failure caused the others.
    heard.and(said).and(finished)?;
    let RecorderMetrics { capture, upload } = &**metrics;
    Ok(Recorded {
        packets: upload.packets.get(),
        lost: capture.dropped.get(),
        captured_bytes: capture.bytes.get(),
        segments: upload.segments.get(),
        stored_bytes: upload.stored_bytes.get(),
        ended: upload.logs_ended.get(),
    })
}

/// Packets between two looks at the clock, and between two updates of the metrics.
const LOOK_EVERY: u64 = 1_024;
/// Time between two calls of [`Watch::recording`].
const WATCH_EVERY: Duration = Duration::from_secs(1);

struct Recording {
    pipeline: Pipeline<Uploader>,
    hearing: Hearing,
    losses: Vec<Loss>,
    metrics: Arc<RecorderMetrics>,
    committed_at: Instant,
    looked_at: Instant,
}

impl Recording {
    fn listen(
        &mut self,
        source: &mut LiveSource,
        options: &RecordOptions,
        watch: &dyn Watch,
    ) -> Result<(), Failure> {
        while let Some(event) = source.next_event()? {
            let look = match event {
                Event::Packet(packet) => {
                    self.pipeline.packet(&packet, true)?;
                    self.pipeline.progress().packets.is_multiple_of(LOOK_EVERY)
                }
                Event::Interface(interface) => {
                    self.pipeline.interface(interface);
                    false
                }
                Event::Opened { interface, at } => {
                    self.hearing.begin(interface, at);
                    self.metrics.upload.committed_until.set_if_unknown(at);
                    false
                }
                Event::Closed { interface, at } => {
                    self.hearing.end(interface, at);
                    false
                }
                Event::Block(block) => {
                    self.pipeline.block(block);
                    false
                }
                Event::Lost(lost) => {
                    self.lose(&lost);
                    false
                }
                // Only files have frames longer than the limit, not the kernel ring.
                Event::Cut(_) => false,
                Event::Idle(until) => {
                    self.hearing.until(until);
                    true
                }
            };
            if look {
                self.publish(source);
                let now = Instant::now();
                if now.duration_since(self.committed_at) >= options.commit_every {
                    self.commit(None)?;
                    self.publish(source);
                }
                if now.duration_since(self.looked_at) >= WATCH_EVERY {
                    self.looked_at = now;
                    watch.recording(&self.metrics);
                }
            }
        }
        Ok(())
    }

    /// Publishes the counts of this thread.
    fn publish(&self, source: &LiveSource) {
        let (progress, capture) = (self.pipeline.progress(), &self.metrics.capture);
        capture.packets.raise_to(progress.packets);
        capture.bytes.raise_to(progress.captured_bytes);
        capture.rings_full.raise_to(source.statistics().freezes);
        capture.open_bytes.set(self.pipeline.open_bytes());
        capture.open_segments.set(self.pipeline.open_segments() as u64);
    }

    fn lose(&mut self, lost: &Lost) {
        self.metrics.capture.dropped.add(lost.packets);
        let range = Loss::range_of(lost.since, lost.noticed);
        // Drops of one interface between two commits form one loss.
        match self.losses.iter_mut().find(|loss| loss.interface == lost.interface) {
            Some(loss) => {
                loss.packets += lost.packets;
                loss.range.start = loss.range.start.min(range.start);
                loss.range.end = loss.range.end.max(range.end);
            }
            None => self.losses.push(Loss {
                range,
                interface: lost.interface,
                cause: LossCause::KernelDrop,
                packets: lost.packets,
                bytes: 0,
                note: String::new(),
            }),
        }
    }

    /// Seals and commits everything with its coverage. `finished` is set for the last commit.
    fn commit(&mut self, finished: Option<Finished>) -> Result<(), Failure> {
        self.committed_at = Instant::now();
        self.pipeline.flush()?;
        let resume = self.pipeline.resume();
        let statement = Statement {
            listened: self.hearing.take(),
            losses: std::mem::take(&mut self.losses),
            finished,
            note: String::new(),
            until: self.hearing.known_until(),
        };
        self.pipeline.sink_mut().state(statement, resume)
    }
}

/// Coverage of each interface that is not committed yet.
#[derive(Debug)]
struct Hearing {
    open: Vec<(u32, Time)>,
    ended: Vec<Listened>,
    /// The end of coverage: all earlier packets were delivered.
    until: Time,
}

impl Default for Hearing {
    fn default() -> Self {
        Hearing { open: Vec::new(), ended: Vec::new(), until: Time::MIN }
    }
}

impl Hearing {
    fn begin(&mut self, interface: u32, at: Time) {
        self.open.push((interface, at));
    }

    fn until(&mut self, at: Time) {
        self.until = self.until.max(at);
    }

    fn end(&mut self, interface: u32, at: Time) {
        if let Some(place) = self.open.iter().position(|(open, _)| *open == interface) {
            let (_, since) = self.open.swap_remove(place);
            if let Ok(range) = TimeRange::new(since, at) {
                self.ended.push(Listened { range, interfaces: vec![interface] });
            }
        }
    }

    /// The end of coverage, once it is known.
    fn known_until(&self) -> Option<Time> {
        (self.until > Time::MIN).then_some(self.until)
    }

    /// Coverage since the last call. Interfaces with the same range share one entry.
    fn take(&mut self) -> Vec<Listened> {
        let mut listened = std::mem::take(&mut self.ended);
        for (interface, since) in &mut self.open {
            let Ok(range) = TimeRange::new(*since, self.until) else { continue };
            match listened.iter_mut().find(|listened| listened.range == range) {
                Some(same) => same.interfaces.push(*interface),
                None => listened.push(Listened { range, interfaces: vec![*interface] }),
            }
            *since = self.until;
        }
        listened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_committed_once_and_without_gaps() {
        let mut hearing = Hearing::default();
        hearing.begin(0, Time(10));
        hearing.begin(1, Time(10));
        hearing.until(Time(20));
        let first = hearing.take();
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].range, TimeRange { start: Time(10), end: Time(20) });
        assert_eq!(first[0].interfaces, [0, 1]);
        assert!(hearing.take().is_empty(), "nothing new was heard");
        hearing.end(1, Time(25));
        hearing.until(Time(30));
        let second = hearing.take();
        assert_eq!(second[0].range, TimeRange { start: Time(20), end: Time(25) });
        assert_eq!(second[1].range, TimeRange { start: Time(20), end: Time(30) });
        assert_eq!(second[1].interfaces, [0]);
    }

    #[test]
    fn coverage_of_one_interface_does_not_cover_another() {
        let mut hearing = Hearing::default();
        hearing.begin(0, Time(10));
        hearing.until(Time(20));
        // Packets of the first from after 20 may still be in its ring.
        hearing.begin(1, Time(50));
        hearing.begin(2, Time(51));
        hearing.end(2, Time(60));
        let said = hearing.take();
        let ranges: Vec<_> = said.iter().map(|of| (of.range.start.0, of.range.end.0)).collect();
        assert_eq!(ranges, [(51, 60), (10, 20)]);
        hearing.until(Time(70));
        let said = hearing.take();
        let ranges: Vec<_> = said.iter().map(|of| (of.range.start.0, of.range.end.0)).collect();
        assert_eq!(ranges, [(20, 70), (50, 70)]);
    }
}
