//! Runs queries within limits, so that none of them harms the process.
//!
//! Each query is planned and run on its own threads, which are joined at its end. So its computation blocks
//! neither other queries nor the threads that serve connections. A query has a deadline for its work. It is
//! cancelled when its client goes away. All queries and exports share one memory budget.
//!
//! * `question`: the state of one query, and why it ends
//! * `threads`: the threads of a query, and how they are joined
//! * `watch`: the watchdog of deadlines and memory
//! * `memory`: decisions about the budget; `machine`: what the machine, cgroup and limits allow
//! * `cooperate`: makes the query engine yield and notice cancellation

mod cooperate;
pub mod machine;
mod memory;
mod question;
#[cfg(test)]
mod tests;
mod threads;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use capstan_model::account::{self, Slot};
use capstan_model::{Failure, FailureKind};
use capstan_view::access::Principal;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub(crate) use self::cooperate::{Cooperate, check};
pub(crate) use self::memory::StoppablePool;
use self::question::{Asked, Question, Why};
pub(crate) use self::threads::Reserved;
use self::threads::Shared;
pub use self::threads::wait_for_all;

/// Stack size that suffices to plan and run the longest accepted statement (`MAX_LEVELS` in
/// `flight::statement`), bytes. Measured for chains of `+` in a build without optimisation: 500 levels fit into
/// 16 MiB and 1,000 do not, 2,000 fit into 64 MiB.
const STACK_BYTES: usize = 64 << 20;

/// Messages that may be queued for the client.
const WAITING: usize = 2;

/// Most threads of one query.
const MAX_THREADS: usize = 16;

/// Limits of queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory budget of all queries and exports together, bytes.
    pub memory: usize,
    /// Time-out of the work of one query; unlimited if none. Time in which rows wait for the client is not work,
    /// but has the same limit.
    pub time: Option<Duration>,
    /// Queries that run concurrently; others wait.
    pub running: usize,
    /// How long a query or an export waits for its turn before it is refused.
    pub patience: Duration,
    /// Threads of one query.
    pub threads: usize,
}

/// Default for the number of queries that run concurrently.
pub const RUNNING: usize = 32;

/// Default for how long a query or an export waits for its turn.
pub const PATIENCE: Duration = Duration::from_secs(10);

impl Default for Limits {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Limits {
            memory: machine::budget(),
            time: None,
            running: RUNNING,
            patience: PATIENCE,
            threads: processors.min(MAX_THREADS),
        }
    }
}

/// Runs queries; see the module.
#[derive(Debug)]
pub struct Questions {
    shared: Arc<Shared>,
}

impl Default for Questions {
    fn default() -> Self {
        Questions::new(Limits::default())
    }
}

impl Questions {
    /// Runs queries within these limits.
    pub fn new(limits: Limits) -> Questions {
        Questions { shared: Arc::new(Shared::new(limits)) }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Number of running queries.
    pub fn running(&self) -> usize {
        self.shared.running()
    }

    /// Cancels all running queries; their clients get the error that the server ends.
    pub fn stop_all(&self) {
        self.shared.stop_all(Why::Ending);
    }

    /// Runs `work` of a principal on threads of its own. Dropping this future cancels it.
    ///
    /// # Errors
    /// The failure of the work; no turn within the time-out; stopped at a limit; a crash.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        who: &Arc<Principal>,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let (tell, told) = oneshot::channel();
        let asked = self
            .start(who, async move |_| {
                // The caller may be gone; then the result is dropped.
                let _ = tell.send(work.await);
            })
            .await?;
        asked.until_stopped(async { told.await.unwrap_or_else(|_| Err(crashed())) }).await
    }

    /// Like [`Questions::ask`] for results in pieces: `start` returns what is known beforehand, and the pieces.
    /// Dropping the stream cancels the work. `weigh` returns the memory size of a piece.
    ///
    /// # Errors
    /// As [`Questions::ask`]; the stream, too, ends with such a failure.
    pub(crate) async fn stream<H: Send + 'static, M: Send + 'static>(
        &self,
        who: &Arc<Principal>,
        weigh: fn(&M) -> usize,
        start: impl Future<Output = Result<(H, BoxStream<'static, M>), Failure>> + Send + 'static,
    ) -> Result<(H, BoxStream<'static, Result<M, Failure>>), Failure> {
        let (tell, told) = oneshot::channel();
        let (to, from) = mpsc::channel(WAITING);
        let asked = self
            .start(who, async move |question: Arc<Question>| {
                let mut pieces = match start.await {
                    Ok((head, pieces)) => {
                        if tell.send(Ok(head)).is_err() {
                            return;
                        }
                        pieces
                    }
                    Err(failure) => {
                        let _ = tell.send(Err(failure));
                        return;
                    }
                };
                while let Some(piece) = pieces.next().await {
                    account::hand_over(weigh(&piece));
                    question.waits(true);
                    if to.send(Some(piece)).await.is_err() {
                        return;
                    }
                    question.waits(false);
                }
                // A crash must not look like the end of the stream.
                let _ = to.send(None).await;
            })
            .await?;
        let head =
            asked.until_stopped(async { told.await.unwrap_or_else(|_| Err(crashed())) }).await?;
        let pieces = stream::unfold(Some((asked, from)), async |state| {
            let (asked, mut from) = state?;
            let next = async { from.recv().await.ok_or_else(crashed) };
            match asked.until_stopped(next).await {
                Ok(Some(piece)) => Some((Ok(piece), Some((asked, from)))),
                Ok(None) => None,
                Err(failure) => Some((Err(failure), None)),
            }
        });
        Ok((head, pieces.boxed()))
    }

    /// Reserves memory of the budget for work that is not a query; waits for it if needed.
    ///
    /// # Errors
    /// Not enough memory within the time-out.
    pub(crate) async fn reserve(&self, bytes: usize, what: &str) -> Result<Reserved, Failure> {
        let trying = async {
            loop {
                if let Some(reserved) = Shared::reserve(&self.shared, bytes) {
                    return reserved;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let limits = self.limits();
        timeout(limits.patience, trying).await.map_err(|_| {
            let what = format!(
                "{what} needs {} MiB of memory, and the server's {} MiB are in use: retry later, \
                 or raise --memory",
                bytes >> 20,
                limits.memory >> 20
            );
            Failure::new(FailureKind::Unavailable, what)
        })
    }

    async fn start<F>(
        &self,
        who: &Arc<Principal>,
        work: impl FnOnce(Arc<Question>) -> F + Send + 'static,
    ) -> Result<Asked, Failure>
    where
        F: Future<Output = ()> + Send,
    {
        let limits = self.limits();
        let turn = Arc::clone(&self.shared.turns).acquire_owned();
        let Ok(Ok(turn)) = timeout(limits.patience, turn).await else {
            return Err(busy(limits.running));
        };
        Shared::start(&self.shared, turn, who, work)
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn busy(running: usize) -> Failure {
    Failure::new(
        FailureKind::Unavailable,
        format!("{running} queries are running, which is the limit: retry later"),
    )
}

fn crashed() -> Failure {
    Failure::new(FailureKind::Other, "the query crashed; the log has more")
}

/// Whether this thread works for a query that is cancelled.
pub(crate) fn is_stopped() -> bool {
    Slot::current().is_stopped()
}
