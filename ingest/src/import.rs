//! Importing a capture: through the pipeline into the store, in one reading. An
//! import that was stopped goes on where it was.

mod identity;
mod plan;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use capstan_model::coverage::{Listened, Loss, LossCause};
use capstan_model::packet::MAX_CAPTURED;
use capstan_model::{Failure, FailureKind, Time, TimeRange};
use capstan_storage_engine::catalog::{Finished, Recorder, WriterInfo, WriterKind};
use capstan_storage_engine::segment::builder::Writer;
use capstan_storage_engine::store::Store;
use tokio::runtime::Handle;

use crate::flow_table::Timeouts;
use crate::pipeline::{Pipeline, PipelineError, SealPolicy, Settings};
use crate::source::CaptureFile;
use crate::source::{Cut, Event, Lost, PacketSource, SourceError};
use crate::upload::{CommitRule, Committed, Statement, Uploader};
pub use identity::{Known, identify};
pub use plan::{Plan, plan};

/// What an import tells while it runs. Called from the importing thread.
pub trait Watch {
    /// The source is being compared to an earlier import: bytes so far.
    fn comparing(&self, _bytes: u64) {}
    /// An earlier run committed this many packets; the import goes on behind them.
    fn resuming(&self, _packets: u64) {}
    /// The source is being imported.
    fn importing(&self, _source_bytes: u64, _packets: u64, _committed: &Committed) {}
}

/// How to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Import a source that is in the store already once more.
    pub again: bool,
    /// Set to stop: what was read is committed, and the import can go on later.
    pub stop: Arc<AtomicBool>,
    /// For people who read the catalog.
    pub host: String,
}

/// What an import did.
#[derive(Debug, Clone, Default)]
pub struct Imported {
    /// Packets committed by this run.
    pub packets: u64,
    /// Packets an earlier run had committed.
    pub packets_before: u64,
    /// Captured bytes of the whole source that was read.
    pub captured_bytes: u64,
    /// Flows met.
    pub flows: u64,
    /// Segments committed by this run.
    pub segments: u64,
    /// Bytes of all layers committed by this run.
    pub stored_bytes: u64,
    /// It was stopped before the source's end.
    pub interrupted: bool,
    /// What the source says to be missing, or could not be read.
    pub losses: Vec<Loss>,
    /// The source is damaged: what was said about it.
    pub damage: Option<String>,
    /// pcapng blocks that no segment could take, as the source has no packet.
    pub homeless_blocks: usize,
    /// Bytes behind the last member of a compressed source, which belong to nothing.
    pub trailing_bytes: u64,
}

/// Imports a source according to a plan.
///
/// # Errors
/// What the store says, and how much of the source is committed; that stays. A damaged source is no
/// error here: see [`Imported::damage`].
pub fn run(
    store: &Store,
    plan: Plan,
    source: CaptureFile,
    options: &ImportOptions,
    watch: &dyn Watch,
    runtime: &Handle,
) -> Result<Imported, Failure> {
    let (pipeline, committed) = start(store, &plan, &source, options, runtime)
        .map_err(|failure| stopped(&plan, 0, failure))?;
    drive(pipeline, &committed, &plan, source, options, watch)
        .map_err(|failure| stopped(&plan, committed.packets(), failure))
}

/// Says what becomes of what was read until the store, or reading, failed. `packets` are
/// committed by this run.
fn stopped(plan: &Plan, packets: u64, failure: Failure) -> Failure {
    let kind = failure.kind();
    let mut what = format!("the import of {} stopped: ", plan.name);
    if kind == FailureKind::Full {
        what += "the store is full. ";
    }
    what += &match plan.packets_before() + packets {
        0 => "Nothing of it is committed".to_owned(),
        packets => format!("{packets} of its packets are committed and stay"),
    };
    if plan.known.is_some() {
        what += "; the same command goes on from there";
    }
    Failure::caused_by(kind, what, failure)
}

/// Begins a life in the store, with nothing read yet.
fn start(
    store: &Store,
    plan: &Plan,
    source: &CaptureFile,
    options: &ImportOptions,
    runtime: &Handle,
) -> Result<(Pipeline<Uploader>, Arc<Committed>), Failure> {
    let info = WriterInfo {
        kind: WriterKind::Import,
        description: plan.name.clone(),
        host: options.host.clone(),
        source: plan.source(),
        resumes: plan.before.as_ref().map(|import| import.last_generation),
        started_at: capstan_storage_engine::store::now(),
    };
    let recorder = runtime.block_on(Recorder::start(store, plan.recorder, info))?;
    let generation = recorder.generation();
    let flow_generation = plan.before.as_ref().map_or(generation, |import| import.first_generation);
    let uploader = Uploader::start(
        store.clone(),
        recorder,
        flow_generation,
        CommitRule::EachSegment,
        Some(source.progress()),
        runtime.clone(),
    )?;
    let committed = uploader.committed();
    let settings = Settings {
        writer: Writer { recorder: plan.recorder, generation },
        flow_generation,
        policy: SealPolicy::import(),
        timeouts: Timeouts::default(),
    };
    Ok((Pipeline::new(settings, uploader), committed))
}

/// Reads the source to its end.
fn drive(
    pipeline: Pipeline<Uploader>,
    committed: &Committed,
    plan: &Plan,
    mut source: CaptureFile,
    options: &ImportOptions,
    watch: &dyn Watch,
) -> Result<Imported, Failure> {
    let mut import =
        Running { pipeline, plan, summary: Imported::default(), span: None, last: None };
    if let Some(before) = &plan.before {
        watch.resuming(before.packets);
    }
    let ended = import.read(&mut source, options, watch, committed)?;
    let Running { pipeline, mut summary, span, .. } = import;
    if let Some(known) = &plan.known
        && !summary.interrupted
    {
        // What lies behind the capture's end belongs to what the file is known by.
        let rest = identity::read_rest(&known.path, &source.progress(), &options.stop, watch);
        summary.interrupted = match rest {
            Err(failure) if failure.kind() == FailureKind::Interrupted => true,
            rest => rest.map(|()| false)?,
        };
    }
    finish(pipeline, &mut summary, span)?;
    summary.damage = ended.map(|error| error.to_string());
    summary.trailing_bytes = source.progress().trailing();
    summary.packets = committed.packets();
    summary.packets_before = plan.packets_before();
    summary.segments = committed.segments();
    summary.stored_bytes = committed.stored_bytes();
    watch.importing(source.position(), summary.packets, committed);
    Ok(summary)
}

fn finish(
    mut pipeline: Pipeline<Uploader>,
    summary: &mut Imported,
    span: Option<(Time, Time)>,
) -> Result<(), Failure> {
    pipeline.flush().map_err(unwrap)?;
    summary.homeless_blocks = pipeline.homeless_blocks();
    summary.flows = pipeline.flows().0;
    summary.captured_bytes = pipeline.progress().captured_bytes;
    let interfaces = (0..pipeline.interfaces().len() as u32).collect();
    let listened = span.map(|(first, last)| Listened {
        range: TimeRange { start: first, end: Time(last.0.saturating_add(1)) },
        interfaces,
    });
    let statement = Statement {
        listened: listened.into_iter().collect(),
        losses: summary.losses.clone(),
        finished: Some(Finished {
            complete: !summary.interrupted,
            packets_total: pipeline.progress().packets,
        }),
        note: String::new(),
    };
    let resume = pipeline.resume();
    let mut uploader = pipeline.into_sink();
    uploader.state(statement, resume)?;
    uploader.finish()
}

fn unwrap(error: PipelineError<Failure>) -> Failure {
    match error {
        PipelineError::Sink(failure) => failure,
        PipelineError::Open(error) => Failure::io("a segment could not be opened", error),
    }
}

/// Packets between two looks at the stop flag and the progress bar.
const LOOK_EVERY: u64 = 4_096;

struct Running<'a> {
    pipeline: Pipeline<Uploader>,
    plan: &'a Plan,
    summary: Imported,
    /// First and last packet time.
    span: Option<(Time, Time)>,
    last: Option<Time>,
}

impl Running<'_> {
    /// Reads to the source's end; gives the damage that ended it, if any.
    fn read(
        &mut self,
        source: &mut CaptureFile,
        options: &ImportOptions,
        watch: &dyn Watch,
        committed: &Committed,
    ) -> Result<Option<SourceError>, Failure> {
        let resume_at = self.plan.before.as_ref().map_or(0, |import| import.next_ordinal);
        let position = source.progress();
        // A stream that is stopped ends, perhaps in the middle of a packet.
        let is_stopped = || self.plan.known.is_none() && options.stop.load(Ordering::Relaxed);
        loop {
            let event = match source.next_event() {
                Ok(Some(event)) => event,
                Ok(None) | Err(SourceError::Damaged { .. }) if is_stopped() => {
                    self.summary.interrupted = true;
                    return Ok(None);
                }
                Ok(None) => return Ok(None),
                Err(error @ SourceError::Damaged { .. }) => {
                    self.lose(LossCause::SourceDamaged, None, 0, error.to_string());
                    return Ok(Some(error));
                }
                Err(error) => return Err(error.into()),
            };
            match event {
                Event::Interface(interface) => self.pipeline.interface(interface),
                Event::Block(block) => self.pipeline.block(block),
                Event::Lost(Lost { interface, packets, .. }) => {
                    self.lose(LossCause::SourceDrop, interface, packets, String::new());
                }
                Event::Cut(cut) => self.cut(cut),
                Event::Opened { .. } | Event::Idle(_) | Event::Closed { .. } => {}
                Event::Packet(packet) => {
                    let ordinal = self.pipeline.progress().packets;
                    if let Some(time) = packet.stamp.time() {
                        let (first, last) = self.span.unwrap_or((time, time));
                        self.span = Some((first.min(time), last.max(time)));
                        self.last = Some(time);
                    }
                    let store = ordinal >= resume_at && !self.plan.scattered.contains(ordinal);
                    self.pipeline.packet(&packet, store).map_err(unwrap)?;
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

    /// Takes note of bytes that are not kept. All of one interface are one loss.
    fn cut(&mut self, Cut { interface, bytes }: Cut) {
        let note = match interface {
            Some(_) => format!("packets longer than {MAX_CAPTURED} captured bytes were cut"),
            None => "blocks that are no packets were too long to keep".to_owned(),
        };
        let until = self.last.map_or(Time(1), |last| Time(last.0.saturating_add(1)));
        let mut losses = self.summary.losses.iter_mut();
        match losses.find(|loss| loss.note == note && loss.interface == interface) {
            Some(loss) => loss.range.end = loss.range.end.max(until),
            None => self.lose(LossCause::SourceDamaged, interface, 0, note.clone()),
        }
        let mut losses = self.summary.losses.iter_mut();
        if let Some(loss) = losses.find(|loss| loss.note == note && loss.interface == interface) {
            loss.bytes = loss.bytes.saturating_add(bytes);
        }
    }

    fn lose(&mut self, cause: LossCause, interface: Option<u32>, packets: u64, note: String) {
        let at = self.last.unwrap_or(Time(0));
        let start = self.span.map_or(at, |span| span.0);
        let end = Time(at.0.saturating_add(1));
        let range = TimeRange { start: start.min(at), end };
        self.summary.losses.push(Loss { range, interface, cause, packets, bytes: 0, note });
    }
}
