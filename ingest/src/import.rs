//! Importing a capture: read once to know it by its SHA-256, then through the
//! pipeline into the store. An import that was stopped goes on where it was.

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use capstan_model::coverage::{Listened, Loss, LossCause};
use capstan_model::{Failure, FailureKind, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{
    Catalog, Finished, Import, Recorder, Source, WriterInfo, WriterKind,
};
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::builder::Writer;
use capstan_storage_engine::segment::packets::{self, column};
use capstan_storage_engine::segment::reader::Segment;
use capstan_storage_engine::store::Store;
use roaring::RoaringTreemap;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::fetch::StoreFetch;
use crate::flow_table::Timeouts;
use crate::pipeline::{Pipeline, PipelineError, SealPolicy, Settings};
use crate::source::CaptureFile;
use crate::source::{Event, Lost, PacketSource, SourceError};
use crate::upload::{CommitRule, Committed, Statement, Uploader};

/// What an import tells while it runs. Called from the importing thread.
pub trait Watch {
    /// The source is being read for its SHA-256: bytes so far.
    fn hashing(&self, _bytes: u64) {}
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
}

/// The SHA-256 of a file and its length, read in one go.
///
/// # Errors
/// The file cannot be read; [`FailureKind::Interrupted`] when `stop` was set.
pub fn fingerprint(
    path: &Path,
    stop: &AtomicBool,
    watch: &dyn Watch,
) -> Result<(String, u64), Failure> {
    let failed = |error| Failure::io(format!("cannot read {}", path.display()), error);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let length = file.read(&mut buffer).map_err(failed)?;
        if length == 0 {
            return Ok((hex::encode(hasher.finalize()), total));
        }
        hasher.update(&buffer[..length]);
        total += length as u64;
        watch.hashing(total);
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::new(
                FailureKind::Interrupted,
                "stopped before anything was imported",
            ));
        }
    }
}

/// What is imported, and under which identity.
#[derive(Debug)]
pub struct Plan {
    recorder: RecorderId,
    source: Option<Source>,
    name: String,
    /// The import this one goes on with.
    before: Option<Import>,
    /// Ordinals that are committed although a lower one is not.
    scattered: RoaringTreemap,
}

/// Decides how a source is imported: anew, on from where an earlier run stopped, or not at all.
///
/// # Errors
/// [`FailureKind::AlreadyThere`] if the store has all of it and `again` is not set; what the store says.
pub async fn plan(
    store: &Store,
    name: &str,
    fingerprint: Option<(String, u64)>,
    again: bool,
) -> Result<Plan, Failure> {
    let Some((sha256, bytes)) = fingerprint else {
        // A stream cannot be known before it has ended: it gets an identity of its own.
        let unique = Sha256::digest(format!("stream {}", capstan_storage_engine::store::nonce()));
        return Ok(Plan {
            recorder: recorder_of(&unique),
            source: None,
            name: name.to_owned(),
            before: None,
            scattered: RoaringTreemap::new(),
        });
    };
    let recorder = recorder_of(&Sha256::digest(format!("import {sha256}")));
    // A source and its recorder are known by the same hash: nobody else imports it.
    let catalog = Catalog::load_recorder(store, recorder).await?;
    let imports = catalog.imports(&sha256);
    if let Some(done) = imports.iter().find(|import| import.complete)
        && !again
    {
        let known = if done.source.name == name {
            String::new()
        } else {
            format!(" (as {})", done.source.name)
        };
        return Err(Failure::new(
            FailureKind::AlreadyThere,
            format!(
                "{name} is in {} already{known}: {} packets; --again imports it once more",
                store.place(),
                done.packets
            ),
        ));
    }
    let before = imports.into_iter().find(|import| !import.complete);
    let scattered = match &before {
        Some(import) => scattered(store, &catalog, import).await?,
        None => RoaringTreemap::new(),
    };
    let source = Some(Source { name: name.to_owned(), bytes, sha256 });
    Ok(Plan { recorder, source, name: name.to_owned(), before, scattered })
}

fn recorder_of(digest: &[u8]) -> RecorderId {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    RecorderId(u64::from_be_bytes(bytes))
}

/// Committed ordinals from `import.next_ordinal` on: several segments were open,
/// and some of them were committed before others.
async fn scattered(
    store: &Store,
    catalog: &Catalog,
    import: &Import,
) -> Result<RoaringTreemap, Failure> {
    let mut found = RoaringTreemap::new();
    let lives = import.first_generation..=import.last_generation;
    for segment in catalog.segments(TimeRange::ALL) {
        if segment.recorder != import.recorder
            || !lives.contains(&segment.generation)
            || segment.entry.last_ordinal < import.next_ordinal
        {
            continue;
        }
        let index = store.get(&segment.path(Layer::Index)).await?;
        let opened = Segment::open(&index)?;
        let fetch = StoreFetch::new(store, &segment.entry);
        let scan = opened.scan_all(Layer::Packets, Some(&[column::ORDINAL]))?;
        for batch in scan.run(&fetch).await? {
            let ordinals = packets::ordinals(&batch)?;
            found.extend(ordinals.filter(|ordinal| *ordinal >= import.next_ordinal));
        }
    }
    Ok(found)
}

/// Imports a source according to a plan.
///
/// # Errors
/// What the store says; everything committed until then stays and is named in the message's place
/// by the caller from `committed`. A damaged source is no error here: see [`Imported::damage`].
pub fn run(
    store: &Store,
    plan: Plan,
    mut source: CaptureFile,
    options: &ImportOptions,
    watch: &dyn Watch,
    runtime: &Handle,
) -> Result<Imported, Failure> {
    let info = WriterInfo {
        kind: WriterKind::Import,
        description: plan.name.clone(),
        host: options.host.clone(),
        source: plan.source.clone(),
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
        runtime.clone(),
    )?;
    let committed = uploader.committed();
    let settings = Settings {
        writer: Writer { recorder: plan.recorder, generation },
        flow_generation,
        policy: SealPolicy::import(),
        timeouts: Timeouts::default(),
    };
    let mut import = Running {
        pipeline: Pipeline::new(settings, uploader),
        plan: &plan,
        summary: Imported::default(),
        span: None,
        last: None,
    };
    if let Some(before) = &plan.before {
        watch.resuming(before.packets);
    }
    let ended = import.read(&mut source, options, watch, &committed)?;
    let Running { pipeline, mut summary, span, .. } = import;
    let complete = !summary.interrupted;
    finish(pipeline, &plan, &mut summary, span, complete)?;
    summary.damage = ended.map(|error| error.to_string());
    summary.packets = committed.packets();
    summary.packets_before = plan.before.as_ref().map_or(0, |import| import.packets);
    summary.segments = committed.segments();
    summary.stored_bytes = committed.stored_bytes();
    watch.importing(source.position(), summary.packets, &committed);
    Ok(summary)
}

fn finish(
    mut pipeline: Pipeline<Uploader>,
    plan: &Plan,
    summary: &mut Imported,
    span: Option<(Time, Time)>,
    complete: bool,
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
            complete,
            packets_total: pipeline.progress().packets,
            source_sha256: plan.source.as_ref().map(|source| source.sha256.clone()),
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
        loop {
            let event = match source.next_event() {
                Ok(Some(event)) => event,
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
                Event::Idle(_) | Event::Closed { .. } => {}
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

    fn lose(&mut self, cause: LossCause, interface: Option<u32>, packets: u64, note: String) {
        let at = self.last.unwrap_or(Time(0));
        let start = self.span.map_or(at, |span| span.0);
        let end = Time(at.0.saturating_add(1));
        let range = TimeRange { start: start.min(at), end };
        self.summary.losses.push(Loss { range, interface, cause, packets, bytes: 0, note });
    }
}
