//! Seal, upload and commit, on a separate thread.
//!
//! The pipeline passes complete segments through a short queue. If the store is slower than the
//! source, the queue fills and the pipeline waits (back-pressure). All layers of a segment are in
//! the store before its commit names them.
//!
//! During an import, a separate task commits signs of life (`Signs`), so that no other process
//! treats the import as dead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use capstan_model::coverage::{Listened, Loss};
use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind, Generation, RecorderId, Time};
use capstan_storage_engine::catalog::names;
use capstan_storage_engine::catalog::{
    Commit, CommitDraft, Fact, Finished, Recorder, SegmentEntry, succession,
};
use capstan_storage_engine::segment::builder::SegmentBuilder;
use capstan_storage_engine::store::{self, Store};
use tokio::runtime::Handle;
use tokio::task::JoinHandle as Task;

use crate::metrics::{Tries, UploadMetrics};
use crate::pipeline::{PipelineError, Resume, Sink};
use crate::source::Progress;

/// Queue length, segments. One more is being sealed and others are open, so this bounds memory while
/// the store is slow.
const QUEUE: usize = 1;

/// Facts of a commit besides segments.
#[derive(Debug, Default)]
pub struct Statement {
    /// Coverage.
    pub listened: Vec<Listened>,
    /// Losses.
    pub losses: Vec<Loss>,
    /// Set in the last commit.
    pub finished: Option<Finished>,
    /// A note for the user.
    pub note: String,
    /// The end of the coverage: all earlier packets are committed with this, or were before.
    pub until: Option<Time>,
}

/// State of an import.
#[derive(Debug, Clone)]
pub struct Importing {
    /// How far the source has been read.
    pub progress: Arc<Progress>,
    /// Set to stop.
    pub stop: Arc<AtomicBool>,
}

/// When commits are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitRule {
    /// After each segment: an import can go on from there.
    EachSegment,
    /// When a statement comes: a recorder commits at most every few seconds.
    OnStatement,
}

/// What the pipeline hands over, and when it did.
#[derive(Debug)]
struct Handed {
    job: Job,
    at: Time,
}

enum Job {
    Segment(Box<SegmentBuilder>, Resume),
    Statement(Box<Statement>, Resume),
}

/// The pipeline's sink: feeds the upload thread.
#[derive(Debug)]
pub struct Uploader {
    queue: Option<SyncSender<Handed>>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
    metrics: Arc<UploadMetrics>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Job::Segment(..) => "Segment",
            Job::Statement(..) => "Statement",
        })
    }
}

impl Uploader {
    /// Starts the thread. `flow_generation` is what flow ids carry; `import` is set for an import;
    /// `metrics` is kept up to date; `runtime` drives the store's IO.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        store: Store,
        recorder: Recorder,
        flow_generation: Generation,
        rule: CommitRule,
        import: Option<Importing>,
        metrics: Arc<UploadMetrics>,
        runtime: Handle,
    ) -> Result<Uploader, Failure> {
        let (queue, jobs) = sync_channel(QUEUE);
        let (id, began) = (recorder.recorder(), recorder.began());
        let worker = Worker {
            store,
            id,
            began,
            generation: recorder.generation(),
            log: Log::open(recorder, &runtime),
            flow_generation,
            rule,
            import,
            runtime,
            metrics: Arc::clone(&metrics),
            next_segment: 0,
            draft: CommitDraft::default(),
            until: None,
        };
        let thread = std::thread::Builder::new()
            .name("capstan-upload".to_owned())
            .spawn(move || worker.run(&jobs))
            .map_err(|error| Failure::io("cannot start the upload thread", error))?;
        Ok(Uploader { queue: Some(queue), thread: Some(thread), metrics })
    }

    /// Commits the uploaded segments with a statement.
    ///
    /// # Errors
    /// Why the thread stopped, if it has.
    pub fn state(&mut self, statement: Statement, resume: Resume) -> Result<(), Failure> {
        self.send(Job::Statement(Box::new(statement), resume))
    }

    /// Waits until all segments are committed.
    ///
    /// # Errors
    /// Why a commit failed.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.join()
    }

    fn send(&mut self, job: Job) -> Result<(), Failure> {
        let at = store::now();
        self.metrics.waiting_since.set_if_unknown(at);
        match &self.queue {
            Some(queue) if queue.send(Handed { job, at }).is_ok() => Ok(()),
            _ => self.join().and_then(|()| Err(stopped())),
        }
    }

    fn join(&mut self) -> Result<(), Failure> {
        drop(self.queue.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(Failure::new(FailureKind::Other, "the upload thread failed")),
            None => Err(stopped()),
        }
    }
}

fn stopped() -> Failure {
    Failure::new(FailureKind::Other, "the upload thread has stopped")
}

/// Drops unsent segments and waits until the log is ended, so that no other process must check
/// whether this one lives.
impl Drop for Uploader {
    fn drop(&mut self) {
        // A caller that needs the error calls `finish`.
        let _ = self.join();
    }
}

/// The error for the user.
impl From<PipelineError<Failure>> for Failure {
    fn from(error: PipelineError<Failure>) -> Failure {
        match error {
            PipelineError::Sink(failure) => failure,
            PipelineError::Open(error) => Failure::io("a segment could not be opened", error),
        }
    }
}

impl Sink for Uploader {
    type Error = Failure;

    fn take(&mut self, segment: SegmentBuilder, resume: Resume) -> Result<(), Failure> {
        self.send(Job::Segment(Box::new(segment), resume))
    }
}

/// A log with two writers: commits, and signs of life between them.
struct Log {
    recorder: Arc<tokio::sync::Mutex<Recorder>>,
    /// When the newest commit was made.
    newest: Arc<Mutex<Instant>>,
    /// For a log that another process may continue.
    signs: Option<Task<()>>,
}

impl Log {
    fn open(recorder: Recorder, runtime: &Handle) -> Log {
        let needs_signs = recorder.may_be_succeeded();
        let recorder = Arc::new(tokio::sync::Mutex::new(recorder));
        let newest = Arc::new(Mutex::new(Instant::now()));
        let signs = needs_signs.then(|| {
            let signs = Signs { recorder: Arc::clone(&recorder), newest: Arc::clone(&newest) };
            runtime.spawn(signs.keep_coming())
        });
        Log { recorder, newest, signs }
    }

    /// Appends a commit. Returns the generation that it belongs to.
    async fn append(&self, draft: CommitDraft) -> Result<Generation, Failure> {
        let mut recorder = self.recorder.lock().await;
        let _commit: Commit = recorder.commit(draft).await?;
        note_newest(&self.newest);
        Ok(recorder.generation())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(signs) = &self.signs {
            signs.abort();
        }
    }
}

fn note_newest(newest: &Mutex<Instant>) {
    *newest.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
}

/// Signs of life of an import: an empty commit whenever no other commit was made for a while.
struct Signs {
    recorder: Arc<tokio::sync::Mutex<Recorder>>,
    newest: Arc<Mutex<Instant>>,
}

impl Signs {
    /// Runs until the log ends or cannot be written. The next commit then reports the reason.
    async fn keep_coming(self) {
        loop {
            let silent = self.newest.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            if let Some(wait) =
                succession::SIGN_EVERY.checked_sub(silent).filter(|of| !of.is_zero())
            {
                tokio::time::sleep(wait).await;
                continue;
            }
            let mut recorder = self.recorder.lock().await;
            if recorder.is_finished() {
                return;
            }
            match recorder.sign().await {
                Ok(()) => note_newest(&self.newest),
                Err(failure) if failure.kind() == FailureKind::Unavailable => {
                    tracing::debug!(%failure, "cannot commit a heartbeat");
                    drop(recorder);
                    tokio::time::sleep(TRY_EVERY).await;
                }
                Err(failure) => {
                    tracing::debug!(%failure, "heartbeats stop");
                    return;
                }
            }
        }
    }
}

struct Worker {
    store: Store,
    id: RecorderId,
    /// In which generation it began: segments are named by it.
    began: Generation,
    log: Log,
    /// In which generation it commits.
    generation: Generation,
    flow_generation: Generation,
    rule: CommitRule,
    import: Option<Importing>,
    runtime: Handle,
    metrics: Arc<UploadMetrics>,
    next_segment: u64,
    /// What the next commit will say.
    draft: CommitDraft,
    /// The end of the coverage that the next commit will say.
    until: Option<Time>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Handed>) -> Result<(), Failure> {
        let ended = self.work(jobs);
        if self.rule == CommitRule::EachSegment {
            self.end(ended.as_ref().err());
        }
        ended
    }

    /// Ends the log of an incomplete import, so that another run can resume it at once.
    fn end(&self, failure: Option<&Failure>) {
        // Not possible if the store is unavailable. The log of another process is not ours to end.
        let cannot = |of: &Failure| {
            matches!(
                of.kind(),
                FailureKind::Unavailable | FailureKind::Busy | FailureKind::Interrupted
            )
        };
        if failure.is_some_and(cannot) {
            return;
        }
        let ending = unless_stopped(&self.store, || self.is_stopped(), async {
            let mut recorder = self.log.recorder.lock().await;
            if recorder.is_finished() {
                return Ok(());
            }
            recorder.give_up().await
        });
        let ended = self.runtime.block_on(ending);
        if let Err(failure) = ended {
            tracing::debug!(%failure, "the log stays open");
        }
    }

    fn work(&mut self, jobs: &Receiver<Handed>) -> Result<(), Failure> {
        for Handed { job, at } in jobs {
            // It was handed over while the commit of the previous ones was made.
            self.metrics.waiting_since.set_if_unknown(at);
            match job {
                Job::Segment(builder, resume) => {
                    let entry = self.upload(*builder)?;
                    self.draft.facts.push(Fact::Segment(entry));
                    self.resume(resume);
                    if self.rule == CommitRule::EachSegment {
                        self.commit()?;
                    }
                }
                Job::Statement(statement, resume) => {
                    let Statement { listened, losses, finished, note, until } = *statement;
                    self.draft.facts.extend(listened.into_iter().map(Fact::Listened));
                    self.draft.facts.extend(losses.into_iter().map(Fact::Loss));
                    self.draft.finished = finished;
                    self.draft.note = note;
                    self.until = until;
                    self.resume(resume);
                    self.commit()?;
                }
            }
        }
        Ok(())
    }

    /// Whether an import must stop waiting for its store. A recorder keeps waiting, because its
    /// packets exist nowhere else.
    fn is_stopped(&self) -> bool {
        self.import.as_ref().is_some_and(|import| import.stop.load(Ordering::Relaxed))
    }

    fn resume(&mut self, resume: Resume) {
        self.draft.next_ordinal = resume.next_ordinal;
        self.draft.next_flow = resume.next_flow;
    }

    fn upload(&mut self, builder: SegmentBuilder) -> Result<SegmentEntry, Failure> {
        let name = format!("{}-{}-{:08}", self.id, self.began, self.next_segment);
        self.next_segment += 1;
        let secrets = builder.has_secrets();
        let sealed = builder.seal(name, self.flow_generation).map_err(|error| {
            Failure::caused_by(FailureKind::Other, "a segment cannot be sealed", error)
        })?;
        let entry = SegmentEntry::of_sealed(&sealed, secrets);
        let (store, patience) = (&self.store, Patience::of(self.rule));
        let uploading = patience.keep_trying(&self.metrics.upload, async || {
            let puts = sealed.layers.iter().map(|sealed| {
                let path = names::layer(entry.hour, &entry.name, sealed.layer.file());
                async move { store.put_new(&path, sealed.parts.clone()).await }
            });
            futures::future::try_join_all(puts).await
        });
        self.runtime.block_on(unless_stopped(store, || self.is_stopped(), uploading))?;
        self.metrics.uploads.add(1);
        Ok(entry)
    }

    fn commit(&mut self) -> Result<(), Failure> {
        let mut draft = std::mem::take(&mut self.draft);
        draft.source_read = self.import.as_ref().map(|import| import.progress.mark());
        let resume = Resume { next_ordinal: draft.next_ordinal, next_flow: draft.next_flow };
        let packets: u64 = draft.segments().map(|segment| segment.packets).sum();
        let layers = draft.segments().flat_map(|segment| &segment.layers);
        let bytes: u64 = layers.map(|layer| layer.bytes).sum();
        let segments = draft.segments().count() as u64;
        let (log, patience) = (&self.log, Patience::of(self.rule));
        let metrics = &*self.metrics;
        let appending = async || log.append(draft.clone()).await;
        let committing = patience.keep_trying(&metrics.commit, appending);
        let committing = unless_stopped(&self.store, || self.is_stopped(), committing);
        let generation = self.runtime.block_on(committing)?;
        let ended = generation != std::mem::replace(&mut self.generation, generation);
        metrics.commits.add(1);
        metrics.logs_ended.add(u64::from(ended));
        metrics.segments.add(segments);
        metrics.packets.add(packets);
        metrics.stored_bytes.add(bytes);
        metrics.committed_at.set(store::now());
        if let Some(until) = self.until.take() {
            metrics.committed_until.set(until);
        }
        metrics.waiting_since.clear();
        self.resume(resume);
        Ok(())
    }
}

/// Interval at which the stop flag is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs a store operation, but gives up on a stop while the store does not answer. A successful
/// operation completes.
pub(crate) async fn unless_stopped<T>(
    store: &Store,
    is_stopped: impl Fn() -> bool,
    operation: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut operation = std::pin::pin!(operation);
    loop {
        tokio::select! {
            biased;
            ended = &mut operation => return ended,
            () = tokio::time::sleep(LOOK_EVERY) => {
                if is_stopped() && store.is_in_trouble() {
                    let what = "stopped while waiting for the store";
                    return Err(Failure::new(FailureKind::Interrupted, what));
                }
            }
        }
    }
}

/// How long to wait for an unavailable store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Live packets cannot be recorded again, so wait without limit. Meanwhile the kernel ring fills
    /// and counts drops.
    Endless,
    /// A capture file remains available.
    Minutes,
}

/// How long an import waits for its store; `meanwhile` says it.
const IMPORT_WAITS: Duration = Duration::from_secs(300);

/// Time between two tries, on top of what the store tries by itself.
const TRY_EVERY: Duration = Duration::from_secs(2);

/// Tries between two words about it.
const TELL_EVERY: u32 = 15;

impl Patience {
    fn of(rule: CommitRule) -> Patience {
        match rule {
            CommitRule::OnStatement => Patience::Endless,
            CommitRule::EachSegment => Patience::Minutes,
        }
    }

    /// Whether a retry of this failure may succeed.
    fn waits_for(self, kind: FailureKind, waited: Duration) -> bool {
        match self {
            // Keys are renewed and disks made larger while a recorder runs.
            Patience::Endless => matches!(
                kind,
                FailureKind::Unavailable | FailureKind::Permission | FailureKind::Full
            ),
            Patience::Minutes => kind == FailureKind::Unavailable && waited < IMPORT_WAITS,
        }
    }

    /// What happens to packets while the store is unavailable, for the user.
    fn meanwhile(self) -> &'static str {
        match self {
            Patience::Endless => "nothing is lost yet; packets that the kernel drops are counted",
            Patience::Minutes => "the import stops after five minutes and can be resumed",
        }
    }

    /// Retries an operation until it succeeds or cannot succeed. Counts in `counted`.
    async fn keep_trying<T>(
        self,
        counted: &Tries,
        mut operation: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let mut tries = 0_u32;
        loop {
            let outcome = operation().await;
            counted.failures.add(u64::from(outcome.is_err()));
            match outcome {
                Err(failure) if self.waits_for(failure.kind(), began.elapsed()) => {
                    if tries.is_multiple_of(TELL_EVERY) {
                        let (why, meanwhile) = (with_causes(&failure), self.meanwhile());
                        tracing::warn!("{why}: waiting for the store; {meanwhile}");
                    }
                    tries = tries.wrapping_add(1);
                    counted.retries.add(1);
                    tokio::time::sleep(TRY_EVERY).await;
                }
                Ok(value) if tries > 0 => {
                    tracing::warn!(
                        "the store is available again after {} s",
                        began.elapsed().as_secs()
                    );
                    return Ok(value);
                }
                outcome => return outcome,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use capstan_model::{Time, TimeRange};
    use capstan_storage_engine::catalog::{CatalogView, Rollup, Stay, WriterInfo, WriterKind};
    use capstan_storage_engine::store::{Location, Options};

    use super::*;

    #[tokio::test]
    async fn recording_waits_for_its_store_without_limit_and_an_import_for_minutes() {
        let soon = Duration::from_secs(1);
        for (kind, live, import) in [
            (FailureKind::Unavailable, true, true),
            (FailureKind::Permission, true, false),
            (FailureKind::Full, true, false),
            (FailureKind::AlreadyThere, false, false),
            (FailureKind::Busy, false, false),
            (FailureKind::Damaged, false, false),
        ] {
            assert_eq!(Patience::Endless.waits_for(kind, soon), live, "{kind:?}");
            assert_eq!(Patience::Minutes.waits_for(kind, soon), import, "{kind:?}");
        }
        assert!(!Patience::Minutes.waits_for(FailureKind::Unavailable, IMPORT_WAITS));

        let mut answers = vec![Ok(7), Err(Failure::new(FailureKind::Unavailable, "away"))];
        let tries = Tries::default();
        let answer = async || answers.pop().unwrap();
        let value = Patience::Endless.keep_trying(&tries, answer).await;
        assert_eq!(value.unwrap(), 7);
        let lost = async || Err::<(), _>(Failure::new(FailureKind::AlreadyThere, "lost"));
        assert!(Patience::Endless.keep_trying(&tries, lost).await.is_err());
        assert_eq!((tries.failures.get(), tries.retries.get()), (2, 1));
    }

    #[test]
    fn recording_continues_in_a_new_log_after_its_log_was_ended() {
        let place = tempfile::tempdir().unwrap();
        let location: Location = place.path().to_str().unwrap().parse().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = Options::default();
        let store = runtime.block_on(Store::open_or_create(&location, "test", &options)).unwrap();
        let info = WriterInfo {
            kind: WriterKind::Live,
            description: String::new(),
            host: String::new(),
            source: None,
            resumes: None,
            started_at: Time(1),
        };
        let recorder = runtime.block_on(Recorder::start(&store, RecorderId(7), info)).unwrap();
        let rule = CommitRule::OnStatement;
        let (handle, metrics) = (runtime.handle().clone(), Arc::<UploadMetrics>::default());
        let counted = Arc::clone(&metrics);
        let uploader =
            Uploader::start(store.clone(), recorder, Generation(1), rule, None, counted, handle);
        let mut uploader = uploader.unwrap();
        let mut say = |at| {
            let range = TimeRange { start: Time(at), end: Time(at + 1) };
            let listened = vec![Listened { range, interfaces: Vec::new() }];
            let resume = Resume { next_ordinal: 0, next_flow: 0 };
            let until = Some(range.end);
            let statement = Statement { listened, until, ..Statement::default() };
            uploader.state(statement, resume).unwrap();
        };
        say(1);
        // Nothing comes for a day, which is short here.
        let silent = Duration::from_millis(10);
        runtime.block_on(async {
            loop {
                Rollup::claim(&store, "test", Stay::Leaves).await.unwrap().step().await.unwrap();
                tokio::time::sleep(3 * silent).await;
                let mut rollup = Rollup::claim(&store, "test", Stay::Leaves).await.unwrap();
                if rollup.end_silent(silent).await.unwrap() > 0 {
                    break;
                }
            }
        });
        (2..4).for_each(&mut say);
        uploader.finish().unwrap();
        assert_eq!((metrics.logs_ended.get(), metrics.commits.get()), (1, 3));
        assert_eq!(metrics.committed_until.get(), Some(Time(4)));
        assert_eq!(metrics.waiting_since.get(), None);
        let view = runtime.block_on(CatalogView::load(&store)).unwrap();
        let window = runtime.block_on(view.window(TimeRange::ALL)).unwrap();
        assert_eq!(window.listened.len(), 3);
        assert_eq!((view.notes().count(), view.gaps().len()), (0, 0));
    }
}
