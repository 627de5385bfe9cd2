//! The threads of queries. Their stacks are large, and the C library unmaps such a stack the moment its thread
//! ends. Detaching a thread that is just ending then reads unmapped memory. So each thread is joined, and none
//! is ever detached. A thread that outlives its registry is leaked.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use capstan_model::account::{self, Slot};
use capstan_model::{Failure, FailureKind};
use capstan_view::access::Principal;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::memory;
use super::question::{Asked, Question, Why};
use super::{Limits, STACK_BYTES};

mod watch;

/// Time-out for the tasks of a finished query to end by themselves.
const ENDING: Duration = Duration::from_secs(1);

/// Free slots. They are shared by the whole process.
static FREE: LazyLock<Mutex<Vec<Slot>>> = LazyLock::new(|| Mutex::new(Slot::all().collect()));

/// Number of queries in the whole process whose threads run.
static ALL: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data is valid between statements, so a poisoned lock may be used.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no query of this process runs, at most this long. A query removes its temporary files when it
/// ends.
pub fn wait_for_all(longest: Duration) {
    let (running, changed) = &ALL;
    let running = lock(running);
    let _ = changed.wait_timeout_while(running, longest, |running| *running > 0);
}

/// Freed memory that the allocator may keep for the next query, bytes.
const LEFT_BEHIND: usize = 128 << 20;

/// State shared by all queries.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) turns: Arc<Semaphore>,
    pub(super) reserved: AtomicUsize,
    registry: Mutex<Registry>,
    pub(super) changed: Condvar,
    /// Peak of the process's allocated memory since freed memory was last returned to the system, bytes.
    most: AtomicUsize,
}

#[derive(Debug, Default)]
struct Registry {
    next: u64,
    running: HashMap<u64, Running>,
    /// Threads of finished queries that are still to be joined.
    over: Vec<JoinHandle<()>>,
    watched: bool,
    closed: bool,
    /// Memory that the process had allocated when it was idle, bytes.
    idle: usize,
}

#[derive(Debug)]
struct Running {
    question: Arc<Question>,
    thread: JoinHandle<()>,
}

impl Shared {
    pub(super) fn new(limits: Limits) -> Shared {
        account::set_budget(limits.memory);
        let turns = Arc::new(Semaphore::new(limits.running.max(1)));
        let (reserved, registry) = (AtomicUsize::new(0), Mutex::default());
        let (changed, most) = (Condvar::new(), AtomicUsize::new(0));
        Shared { limits, turns, reserved, registry, changed, most }
    }

    pub(super) fn running(&self) -> usize {
        lock(&self.registry).running.len()
    }

    pub(super) fn stop_all(&self, why: Why) {
        for running in lock(&self.registry).running.values() {
            running.question.stop(why);
        }
    }

    /// Accepts no more queries.
    pub(super) fn close(&self) {
        lock(&self.registry).closed = true;
        self.stop_all(Why::Ending);
        self.changed.notify_all();
    }

    /// Starts the threads of a query.
    pub(super) fn start<F>(
        shared: &Arc<Shared>,
        turn: OwnedSemaphorePermit,
        who: &Arc<Principal>,
        work: impl FnOnce(Arc<Question>) -> F + Send + 'static,
    ) -> Result<Asked, Failure>
    where
        F: Future<Output = ()> + Send,
    {
        let Some(slot) = lock(&FREE).pop() else { return Err(super::busy(account::SLOTS - 1)) };
        let question = Arc::new(Question::new(slot));
        let asked = Asked { question: Arc::clone(&question), who: Arc::clone(who) };
        // Locked until the thread is registered: at its end the thread removes itself.
        let mut registry = lock(&shared.registry);
        if registry.running.is_empty() && shared.reserved.load(Ordering::Relaxed) == 0 {
            registry.idle = account::allocated();
        }
        let number = registry.next;
        registry.next += 1;
        let (own, of) = (Arc::clone(shared), Arc::clone(&question));
        let thread = std::thread::Builder::new()
            .name("capstan-query".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || own.run(number, &of, turn, work));
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => {
                drop(registry);
                question.end(give_back);
                return Err(no_threads(error));
            }
        };
        *lock(&ALL.0) += 1;
        registry.running.insert(number, Running { question, thread });
        if !registry.watched {
            registry.watched = watch::start(shared).is_ok();
        }
        drop(registry);
        shared.changed.notify_all();
        Ok(asked)
    }

    /// The body of a query's own thread.
    fn run<F>(
        self: Arc<Shared>,
        number: u64,
        question: &Arc<Question>,
        turn: OwnedSemaphorePermit,
        work: impl FnOnce(Arc<Question>) -> F,
    ) where
        F: Future<Output = ()>,
    {
        question.slot.enter();
        let whole = AssertUnwindSafe(|| {
            // A failure to create the runtime reaches the caller as a closed channel.
            let runtime = match runtime(&self.limits, question.slot) {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(%error, "threads for a query cannot be started");
                    return;
                }
            };
            runtime.block_on(async {
                let work = work(Arc::clone(question));
                tokio::select! {
                    biased;
                    _ = question.stopped() => {}
                    () = work => {}
                }
                until_over(ENDING).await;
            });
            // Aborts the tasks that are left, and joins their threads.
            drop(runtime);
        });
        if std::panic::catch_unwind(whole).is_err() {
            tracing::error!("a query crashed");
        }
        Slot::NOBODY.enter();
        question.end(give_back);
        {
            let mut registry = lock(&self.registry);
            if let Some(Running { thread, .. }) = registry.running.remove(&number) {
                registry.over.push(thread);
            }
        }
        drop(turn);
        self.changed.notify_all();
        *lock(&ALL.0) -= 1;
        ALL.1.notify_all();
        account::flush();
    }

    /// Joins the threads of finished queries, and checks the running ones. Returns whether to check again.
    pub(super) fn look(&self) -> bool {
        let mut registry = lock(&self.registry);
        if registry.running.is_empty() && registry.over.is_empty() {
            if registry.closed {
                return false;
            }
            let waited = self.changed.wait(registry);
            registry = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let over = std::mem::take(&mut registry.over);
        let questions: Vec<Arc<Question>> =
            registry.running.values().map(|running| Arc::clone(&running.question)).collect();
        let idle = registry.idle;
        drop(registry);
        self.most.fetch_max(account::allocated(), Ordering::Relaxed);
        let is_any_over = !over.is_empty();
        for thread in over {
            // A panic was already reported.
            let _ = thread.join();
        }
        if is_any_over {
            self.trim();
        }
        self.check(&questions, idle);
        true
    }

    /// Returns memory that large queries freed to the system.
    fn trim(&self) {
        let now = account::allocated();
        if self.most.load(Ordering::Relaxed).saturating_sub(now) > LEFT_BEHIND {
            account::trim();
            self.most.store(now, Ordering::Relaxed);
        }
    }

    fn check(&self, questions: &[Arc<Question>], idle: usize) {
        if let Some(limit) = self.limits.time {
            let now = Instant::now();
            questions.iter().for_each(|question| question.check(now, limit));
        }
        let budget = self.limits.memory;
        for question in questions {
            let held = question.slot.refused();
            if held > 0 && question.stop(Why::Memory { held, budget }) {
                tracing::warn!(
                    refused = held,
                    "a query does not stop allocating memory: its threads and their memory remain \
                     until the process ends"
                );
            }
        }
        let views: Vec<memory::View> = questions
            .iter()
            .map(|question| memory::View {
                held: usize::try_from(question.slot.held()).unwrap_or(0),
                stopped: question.why().is_some(),
            })
            .collect();
        let process = account::allocated().saturating_sub(idle);
        let reserved = self.reserved.load(Ordering::Relaxed);
        if let Some(victim) = memory::victim(&views, reserved, process, budget)
            && let (Some(question), Some(view)) = (questions.get(victim), views.get(victim))
        {
            tracing::warn!(
                held = view.held,
                reserved,
                process,
                budget,
                "a query is stopped: memory"
            );
            question.stop(Why::Memory { held: view.held, budget });
        }
    }

    /// Memory of all queries, bytes.
    fn held(&self) -> usize {
        let registry = lock(&self.registry);
        let held = registry.running.values().map(|running| running.question.slot.held());
        held.map(|held| usize::try_from(held).unwrap_or(0)).sum()
    }

    /// Reserves a part of the budget, if it is free. A quarter is left for queries, because exports with slow
    /// clients keep their reservations for minutes.
    pub(super) fn reserve(shared: &Arc<Shared>, bytes: usize) -> Option<Reserved> {
        let held = shared.held();
        let fits = |reserved: usize| {
            let sum = reserved.saturating_add(bytes);
            // One reservation always fits; otherwise a small budget would allow no export at all.
            let all = shared.limits.memory;
            let fits = sum <= all - all / 4 && sum.saturating_add(held) <= all;
            (reserved == 0 || fits).then_some(sum)
        };
        shared.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Reserved { shared: Arc::clone(shared), bytes })
    }
}

/// A reservation in the budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Reserved {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shared.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Waits until the tasks of this runtime are gone, at most this long. They were cancelled, waiting tasks before
/// the tasks they wait for. Dropping a runtime cancels them in any order, and the waiting ones would then report
/// failures.
async fn until_over(longest: Duration) {
    let metrics = tokio::runtime::Handle::current().metrics();
    let over = async {
        while metrics.num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Tasks that do not react end with the runtime.
    let _ = tokio::time::timeout(longest, over).await;
}

impl Drop for Shared {
    fn drop(&mut self) {
        let registry = self.registry.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Dropping a handle detaches its thread.
        registry.over.drain(..).for_each(std::mem::forget);
        registry.running.drain().for_each(std::mem::forget);
    }
}

fn give_back(slot: Slot) {
    slot.clear();
    lock(&FREE).push(slot);
}

fn no_threads(error: std::io::Error) -> Failure {
    let what = "cannot start a thread for this query: retry later";
    Failure::caused_by(FailureKind::Unavailable, what, error)
}

fn runtime(limits: &Limits, slot: Slot) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(limits.threads.max(1))
        .max_blocking_threads(limits.threads.max(1) * 4)
        .thread_name("capstan-query")
        .thread_stack_size(STACK_BYTES)
        .on_thread_start(move || slot.enter())
        .on_thread_stop(account::flush)
        .enable_all()
        .build()
}
