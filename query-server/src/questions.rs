//! Running questions so that none of them harms the process.
//!
//! Each question is planned and run on threads that are made for it and joined when it is over, so
//! that whatever it computes holds up nothing else: not other questions, not those who serve
//! connections. It has a deadline for its work, it is stopped when nobody waits for it any more,
//! and all questions and exports share one budget of memory.
//!
//! * `question`: one question and what it knows of its end
//! * `threads`: the threads of a question, and who joins them
//! * `watch`: who looks at deadlines and memory
//! * `memory`: the budget, as decisions; `machine`: what the machine, cgroup and limits allow
//! * `cooperate`: makes the query engine yield and hear a stop

mod cooperate;
pub mod machine;
mod memory;
mod question;
#[cfg(test)]
mod tests;
mod threads;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use capstan_model::account::{self, Slot};
use capstan_model::{Failure, FailureKind};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub(crate) use self::cooperate::{Cooperate, check};
pub(crate) use self::memory::{Reserved, StoppablePool};
use self::question::{Asked, Question, Why};
use self::threads::Shared;
pub use self::threads::wait_for_all;

/// Stack that is enough to plan and run the longest statement that is taken (`MAX_LEVELS` in
/// `flight::statement`), bytes. Measured for chains of `+` in a build without optimisation: 500
/// levels fit into 16 MiB and 1,000 do not, 2,000 fit into 64 MiB.
const STACK_BYTES: usize = 64 << 20;

/// Messages that may wait for who takes them.
const WAITING: usize = 2;

/// Most threads that work for one question.
const MAX_THREADS: usize = 16;

/// What questions may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory for all questions and exports together, bytes.
    pub memory: usize,
    /// How long one question may work; for ever if none. While its rows wait to be taken it does
    /// not work, but neither may that take longer.
    pub time: Option<Duration>,
    /// Questions that run at the same time; others wait.
    pub running: usize,
    /// How long a question or an export waits for its turn before it is refused.
    pub patience: Duration,
    /// Threads that work for one question.
    pub threads: usize,
}

/// Questions that run at the same time unless said otherwise.
pub const RUNNING: usize = 32;

/// How long a question or an export waits for its turn unless said otherwise.
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

/// Runs questions; see the module.
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
    /// Runs questions within limits.
    pub fn new(limits: Limits) -> Questions {
        Questions { shared: Arc::new(Shared::new(limits)) }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Questions that run now.
    pub fn running(&self) -> usize {
        self.shared.running()
    }

    /// Stops all questions that run; those who wait for them are told that the server ends.
    pub fn stop_all(&self) {
        self.shared.stop_all(Why::Ending);
    }

    /// Does `work` on threads of its own. Dropping this future stops it.
    ///
    /// # Errors
    /// What the work says; its turn did not come; it was stopped at a limit; it crashed.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let (tell, told) = oneshot::channel();
        let asked = self
            .start(async move |_| {
                // Who asked may be gone; then nobody wants to know.
                let _ = tell.send(work.await);
            })
            .await?;
        asked.until_stopped(async { told.await.unwrap_or_else(|_| Err(crashed())) }).await
    }

    /// As [`Questions::ask`] for what comes in pieces: `start` gives what is known beforehand and
    /// the pieces. Dropping the stream stops the work. `weigh` says how much memory a piece takes.
    ///
    /// # Errors
    /// As [`Questions::ask`]; the stream ends with such a failure, too.
    pub(crate) async fn stream<H: Send + 'static, M: Send + 'static>(
        &self,
        weigh: fn(&M) -> usize,
        start: impl Future<Output = Result<(H, BoxStream<'static, M>), Failure>> + Send + 'static,
    ) -> Result<(H, BoxStream<'static, Result<M, Failure>>), Failure> {
        let (tell, told) = oneshot::channel();
        let (to, from) = mpsc::channel(WAITING);
        let asked = self
            .start(async move |question: Arc<Question>| {
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
                // A crash must not look like the end.
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

    /// Reserves memory of the budget, for what is no question; waits for it if need be.
    ///
    /// # Errors
    /// There was not so much within the time that is waited.
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
                "{what} needs {} MiB of memory and the server's {} MiB are in use: ask again \
                 later, or give the server more with --memory",
                bytes >> 20,
                limits.memory >> 20
            );
            Failure::new(FailureKind::Unavailable, what)
        })
    }

    async fn start<F>(
        &self,
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
        Shared::start(&self.shared, turn, work)
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
        format!("{running} questions are being answered, which is the most: ask again later"),
    )
}

fn crashed() -> Failure {
    Failure::new(FailureKind::Other, "the query crashed; the log has more")
}

/// Whether this thread works for a question that is to end.
pub(crate) fn is_stopped() -> bool {
    Slot::current().is_stopped()
}
