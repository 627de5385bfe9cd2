//! Import of a capture into the store in one pass. An interrupted import resumes where it stopped.

mod changes;
mod file_state;
mod identity;
mod plan;
mod stored;
mod stretches;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capstan_model::coverage::{Loss, LossCause};
use capstan_model::packet::MAX_CAPTURED;
use capstan_model::words::agree;
use capstan_model::{Failure, FailureKind, GenerationId, IngestShares, Time};
use capstan_storage_engine::catalog::{Finished, Recorder, WriterInfo, WriterKind};
use capstan_storage_engine::store::Store;
use tokio::runtime::Handle;

use crate::flow_table::Timeouts;
use crate::metrics::UploadMetrics;
use crate::pipeline::{Pipeline, SealPolicy, Settings};
use crate::source::CaptureFile;
use crate::source::{Cut, Event, Lost, PacketSource, SourceError};
use crate::upload::{CommitRule, Importing, Statement, Uploader, unless_stopped};
use changes::Change;
pub use identity::{Known, identify};
pub use plan::{Plan, plan};
pub use stretches::LARGEST_GAP;
use stretches::Stretches;

/// Progress callbacks of an import, called from the importing thread.
pub trait Watch {
    /// Another import of the source, by this host since then, has not ended. This one waits
    /// `at_most` for signs of life.
    fn waiting(&self, _host: &str, _since: Option<Time>, _at_most: Duration) {}
    /// The source is being compared to an earlier import: bytes so far.
    fn comparing(&self, _bytes: u64) {}
    /// An earlier run committed this many packets. The import resumes after them.
    fn resuming(&self, _packets: u64) {}
    /// The store has packets of another source with the same first packet. If it is the same
    /// capture, compressed or cut, the packets are stored twice.
    fn alike(&self, _name: &str, _packets: u64) {}
    /// The source is being imported.
    fn importing(&self, _source_bytes: u64, _packets: u64, _committed: &UploadMetrics) {}
}

/// Options of an import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Import a source again that the store has already.
    pub again: bool,
    /// Set to stop. The packets so far are committed, and the import can resume later.
    pub stop: Arc<AtomicBool>,
    /// The host name, for readers of the catalog.
    pub host: String,
    /// Silence after which an unfinished import of the source counts as dead and this one takes over.
    pub dead_after: Duration,
    /// Memory of its parts.
    pub memory: IngestShares,
}

/// Result of an import.
#[derive(Debug, Clone, Default)]
pub struct Imported {
    /// Packets committed by this run.
    pub packets: u64,
    /// Packets an earlier run had committed.
    pub packets_before: u64,
    /// Captured bytes of the whole source that was read.
    pub captured_bytes: u64,
    /// Flows opened.
    pub flows: u64,
    /// Segments committed by this run.
    pub segments: u64,
    /// Bytes of all layers committed by this run.
    pub stored_bytes: u64,
    /// It was stopped before the source's end.
    pub interrupted: bool,
    /// Losses that the source reports, or that come from unreadable parts.
    pub losses: Vec<Loss>,
    /// The source is damaged: a description.
    pub damage: Option<String>,
    /// pcapng blocks without a segment, because the source has no packet.
    pub homeless_blocks: usize,
    /// Trailing bytes after the last member of a compressed source.
    pub trailing_bytes: u64,
    /// The file grew during the read: bytes read so far. A later import can resume after them.
    pub grew: Option<u64>,
    /// A change of the file during the read that makes the rest unusable.
    pub changed: Option<&'static str>,
}

/// Imports a source according to a plan.
///
/// # Errors
/// Store errors, with the part of the source that is committed; that part stays. A damaged source is
/// not an error here: see [`Imported::damage`].
pub fn run(
    store: &Store,
    plan: Plan,
    source: CaptureFile,
    options: &ImportOptions,
    watch: &dyn Watch,
    runtime: &Handle,
) -> Result<Imported, Failure> {
    let started = start(store, &plan, &source, options, runtime);
    let (pipeline, committed) = started.map_err(|failure| match failure.kind() {
        FailureKind::Busy => failure,
        _ => stopped(&plan, 0, failure),
    })?;
    drive(pipeline, &committed, &plan, source, options, watch)
        .map_err(|failure| stopped(&plan, committed.packets.get(), failure))
}

/// Explains the state after a store or read failure. `packets` are those this run committed.
fn stopped(plan: &Plan, packets: u64, failure: Failure) -> Failure {
    let kind = failure.kind();
    let mut what = format!("the import of {} stopped: ", plan.name);
    if kind == FailureKind::Full {
        what += "the store is full. ";
    }
    what += &match plan.packets_before() + packets {
        0 => "None of its packets are committed".to_owned(),
        packets => format!(
            "{packets} of its packets {} committed and {}",
            agree(packets, "is", "are"),
            agree(packets, "stays", "stay")
        ),
    };
    if plan.known.is_some() {
        what += "; run the same command again to resume";
    }
    Failure::caused_by(kind, what, failure)
}

/// Starts a generation in the store, before the first read.
fn start(
    store: &Store,
    plan: &Plan,
    source: &CaptureFile,
    options: &ImportOptions,
    runtime: &Handle,
) -> Result<(Pipeline<Uploader>, Arc<UploadMetrics>), Failure> {
    let info = WriterInfo {
        kind: WriterKind::Import,
        description: plan.name.clone(),
        host: options.host.clone(),
        source: plan.source(),
        resumes: plan.before.as_ref().map(|import| import.last_generation),
        started_at: capstan_storage_engine::store::now(),
    };
    let is_stopped = || options.stop.load(Ordering::Relaxed);
    let starting = async {
        match plan.next {
            Some(next) => Recorder::succeed(store, plan.recorder, next, info).await,
            None => Recorder::start(store, plan.recorder, info).await.map(Some),
        }
    };
    let started = runtime.block_on(unless_stopped(store, is_stopped, starting))?;
    let recorder = started.ok_or_else(|| plan::overtaken(store, &plan.name))?;
    let generation = recorder.generation();
    let flow_generation = plan.before.as_ref().map_or(generation, |import| import.first_generation);
    let committed = Arc::<UploadMetrics>::default();
    let uploader = Uploader::start(
        store.clone(),
        recorder,
        flow_generation,
        CommitRule::EachSegment,
        Some(Importing { progress: source.progress(), stop: Arc::clone(&options.stop) }),
        Arc::clone(&committed),
        runtime.clone(),
    )?;
    let settings = Settings {
        writer: GenerationId { recorder: plan.recorder, generation },
        flow_generation,
        policy: SealPolicy::import().within(&options.memory),
        timeouts: Timeouts::default(),
        flow_memory: options.memory.flows,
    };
    Ok((Pipeline::new(settings, uploader), committed))
}

/// Reads the source to the end.
fn drive(
    pipeline: Pipeline<Uploader>,
    committed: &UploadMetrics,
    plan: &Plan,
    mut source: CaptureFile,
    options: &ImportOptions,
    watch: &dyn Watch,
) -> Result<Imported, Failure> {
    let mut import = Running {
        pipeline,
        plan,
        summary: Imported::default(),
        stretches: Stretches::default(),
        stated: plan.before.as_ref().map_or(0, |import| import.stated),
        last: None,
    };
    if let Some(before) = &plan.before {
        watch.resuming(before.packets);
    }
    let mut ended = import.read(&mut source, options, watch, committed)?;
    if let Some(known) = &plan.known
        && !import.summary.interrupted
    {
        let read = source.position();
        let looked = changes::look(known, read);
        match looked.map_err(|error| {
            Failure::io(format!("cannot read the metadata of {}", plan.name), error)
        })? {
            Change::None => {
                // Bytes after the capture's end belong to the file's identity.
                let rest = identity::read_rest(known, &source.progress(), &options.stop, watch);
                import.summary.interrupted = match rest {
                    Err(failure) if failure.kind() == FailureKind::Interrupted => true,
                    rest => rest.map(|()| false)?,
                };
            }
            Change::Grew => {
                import.summary.grew = Some(read);
                // The reader caught up with the writer: the last packet is incomplete.
                if read >= known.bytes {
                    ended = None;
                }
            }
            change => import.summary.changed = change.harm(),
        }
    }
    if let Some(damage) = &ended {
        source.progress().note_damage();
        let (at, note) = (import.last, damage.to_string());
        import.lose(LossCause::SourceDamaged, Lost::at(None, 0, at), note);
    }
    let Running { pipeline, mut summary, stretches, .. } = import;
    finish(pipeline, &mut summary, stretches)?;
    summary.damage = ended.map(|error| error.to_string());
    summary.trailing_bytes = source.progress().trailing();
    summary.packets = committed.packets.get();
    summary.packets_before = plan.packets_before();
    summary.segments = committed.segments.get();
    summary.stored_bytes = committed.stored_bytes.get();
    watch.importing(source.position(), summary.packets, committed);
    Ok(summary)
}

fn finish(
    mut pipeline: Pipeline<Uploader>,
    summary: &mut Imported,
    stretches: Stretches,
) -> Result<(), Failure> {
    pipeline.flush()?;
    summary.homeless_blocks = pipeline.homeless_blocks();
    summary.flows = pipeline.flows().0;
    summary.captured_bytes = pipeline.progress().captured_bytes;
    let (listened, left_out) = stretches.take();
    let complete = !summary.interrupted && summary.grew.is_none() && summary.changed.is_none();
    let note = match left_out {
        true => {
            "too many gaps between its packets: only the longest stretches of coverage are stored"
        }
        false => "",
    };
    let statement = Statement {
        listened,
        losses: summary.losses.clone(),
        finished: Some(Finished { complete, packets_total: pipeline.progress().packets }),
        note: note.to_owned(),
        until: None,
    };
    let resume = pipeline.resume();
    let mut uploader = pipeline.into_sink();
    uploader.state(statement, resume)?;
    uploader.finish()
}

/// Packets between two looks at the stop flag and the progress bar.
const LOOK_EVERY: u64 = 4_096;

struct Running<'a> {
    pipeline: Pipeline<Uploader>,
    plan: &'a Plan,
    summary: Imported,
    stretches: Stretches,
    /// Number of packets whose coverage and losses an earlier run committed.
    stated: u64,
    /// The time of the last packet that has one.
    last: Option<Time>,
}

impl Running<'_> {
    /// Reads to the source's end. Returns the damage that ended it, if any.
    fn read(
        &mut self,
        source: &mut CaptureFile,
        options: &ImportOptions,
        watch: &dyn Watch,
        committed: &UploadMetrics,
    ) -> Result<Option<SourceError>, Failure> {
        let resume_at = self.plan.before.as_ref().map_or(0, |import| import.next_ordinal);
        let position = source.progress();
        // A stopped stream ends, possibly inside a packet.
        let is_stopped = || self.plan.known.is_none() && options.stop.load(Ordering::Relaxed);
        loop {
            let event = match source.next_event() {
                Ok(Some(event)) => event,
                Ok(None) | Err(SourceError::Damaged { .. }) if is_stopped() => {
                    self.summary.interrupted = true;
                    return Ok(None);
                }
                Ok(None) => return Ok(None),
                Err(error @ SourceError::Damaged { .. }) => return Ok(Some(error)),
                Err(error) => return Err(error.into()),
            };
            match event {
                Event::Interface(interface) => self.pipeline.interface(interface),
                Event::Block(block) => self.pipeline.block(block),
                Event::Lost(lost) => {
                    if self.pipeline.progress().packets >= self.stated {
                        self.lose(LossCause::SourceDrop, lost, String::new());
                    }
                }
                Event::Cut(cut) => {
                    if self.pipeline.progress().packets >= self.stated {
                        self.cut(cut);
                    }
                }
                Event::Opened { .. } | Event::Idle(_) | Event::Closed { .. } => {}
                Event::Packet(packet) => {
                    let ordinal = self.pipeline.progress().packets;
                    if let Some(time) = packet.stamp.time() {
                        // Includes the last earlier packet, so that the resume point leaves no gap
                        // in coverage.
                        if ordinal + 1 >= self.stated {
                            self.stretches.add(packet.interface, time);
                        }
                        self.last = Some(time);
                    }
                    let store = ordinal >= resume_at && !self.plan.scattered.contains(ordinal);
                    self.pipeline.packet(&packet, store)?;
                    if ordinal.is_multiple_of(LOOK_EVERY) {
                        watch.importing(position.consumed(), ordinal, committed);
                        if options.stop.load(Ordering::Relaxed) {
                            self.summary.interrupted = true;
                            return Ok(None);
                        }
                    }
                }
            }
        }
    }

    /// Records cut bytes. All cuts of one interface form one loss.
    fn cut(&mut self, Cut { interface, bytes, time }: Cut) {
        let note = match interface {
            Some(_) => {
                format!("packets with more than {MAX_CAPTURED} captured bytes were truncated")
            }
            None => {
                "blocks other than packets exceeded the size limit and were discarded".to_owned()
            }
        };
        let range = Loss::range_of(None, time.or(self.last));
        let cause = LossCause::SourceDamaged;
        let mut losses = self.summary.losses.iter_mut();
        match losses.find(|loss| loss.note == note && loss.interface == interface) {
            Some(loss) => {
                loss.extend(range);
                loss.bytes = loss.bytes.saturating_add(bytes);
            }
            None => {
                self.summary.losses.push(Loss { range, interface, cause, packets: 0, bytes, note })
            }
        }
    }

    fn lose(&mut self, cause: LossCause, lost: Lost, note: String) {
        let Lost { interface, packets, since, noticed, .. } = lost;
        let range = Loss::range_of(since, noticed);
        let note = match (since, noticed) {
            (None, Some(_)) if note.is_empty() => "start of the loss is unknown".to_owned(),
            _ => note,
        };
        self.summary.losses.push(Loss { range, interface, cause, packets, bytes: 0, note });
    }
}
