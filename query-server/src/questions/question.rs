//! One query: when its work began, and why it ends.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use capstan_model::account::Slot;
use capstan_model::{Failure, FailureKind};
use capstan_view::access::Principal;
use tokio::sync::watch;

/// Why a query is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The client is gone.
    Left,
    /// The work reached the deadline.
    Deadline(Duration),
    /// The client did not take rows for as long as a query may work.
    NotTaken(Duration),
    /// It held the most memory when the budget was used up, bytes.
    Memory { held: usize, budget: usize },
    /// The server shuts down.
    Ending,
}

impl Why {
    pub(super) fn failure(self) -> Failure {
        let (kind, what) = match self {
            Why::Left => (FailureKind::Interrupted, "the client has disconnected".to_owned()),
            Why::Deadline(limit) => (
                FailureKind::Full,
                format!(
                    "the query was stopped at its time limit of {} seconds: select less, or raise \
                     --query-seconds",
                    limit.as_secs_f64()
                ),
            ),
            Why::NotTaken(limit) => (
                FailureKind::Full,
                format!(
                    "the query was stopped because the client took no rows for {} seconds; \
                     --query-seconds raises the limit",
                    limit.as_secs_f64()
                ),
            ),
            Why::Memory { held, budget } => (
                FailureKind::Full,
                format!(
                    "the query exceeds its memory limit: it used {} MiB when all {} MiB of the \
                     shared budget were in use; select less, or raise --memory",
                    held >> 20,
                    budget >> 20
                ),
            ),
            Why::Ending => (
                FailureKind::Unavailable,
                "the server is shutting down: the answer is incomplete".to_owned(),
            ),
        };
        Failure::new(kind, what)
    }
}

/// How long a query has worked, or waited for the client to take rows.
#[derive(Debug, Clone, Copy)]
struct Clock {
    worked: Duration,
    since: Instant,
    waits: bool,
}

impl Clock {
    /// Why it ends now, if it has to.
    fn over(&self, now: Instant, limit: Duration) -> Option<Why> {
        let passed = now.saturating_duration_since(self.since);
        match self.waits {
            true => (passed > limit).then_some(Why::NotTaken(limit)),
            false => (self.worked + passed > limit).then_some(Why::Deadline(limit)),
        }
    }

    fn turn(&mut self, now: Instant, waits: bool) {
        if !self.waits {
            self.worked += now.saturating_duration_since(self.since);
        }
        (self.since, self.waits) = (now, waits);
    }
}

#[derive(Debug)]
struct State {
    clock: Clock,
    /// Its threads are gone: another query may have the slot.
    over: bool,
}

/// A running query.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) slot: Slot,
    why: watch::Sender<Option<Why>>,
    state: Mutex<State>,
}

impl Question {
    pub(super) fn new(slot: Slot) -> Question {
        let clock = Clock { worked: Duration::ZERO, since: Instant::now(), waits: false };
        let (why, _) = watch::channel(None);
        Question { slot, why, state: Mutex::new(State { clock, over: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops it. The first reason counts; returns whether this is the first.
    pub(super) fn stop(&self, why: Why) -> bool {
        let state = self.state();
        if !state.over {
            self.slot.set_stopped(true);
        }
        self.why.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(why);
            }
            first
        })
    }

    pub(super) fn why(&self) -> Option<Why> {
        *self.why.borrow()
    }

    /// Waits until it is stopped; returns why.
    pub(super) async fn stopped(&self) -> Why {
        let mut why = self.why.subscribe();
        // The query owns the sender, so it exists.
        why.wait_for(Option::is_some).await.ok().and_then(|why| *why).unwrap_or(Why::Left)
    }

    /// Records whether it waits for the client to take rows.
    pub(super) fn waits(&self, waits: bool) {
        self.state().clock.turn(Instant::now(), waits);
    }

    /// Stops it if its deadline has passed.
    pub(super) fn check(&self, now: Instant, limit: Duration) {
        let over = self.state().clock.over(now, limit);
        if let Some(why) = over {
            self.stop(why);
        }
    }

    /// Its threads are gone; `give_back` returns its slot.
    pub(super) fn end(&self, give_back: impl FnOnce(Slot)) {
        let mut state = self.state();
        state.over = true;
        give_back(self.slot);
    }
}

/// A caller waits for a query; dropping this cancels the query.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Arc<Question>,
    /// Who asked it.
    pub(super) who: Arc<Principal>,
}

impl Asked {
    /// The result of the future, unless the query is stopped first.
    pub(super) async fn until_stopped<T>(
        &self,
        coming: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            why = self.question.stopped() => Err(self.told(why)),
            came = coming => match self.question.why() {
                // Work that was cancelled does not know why.
                Some(why) if came.is_err() => Err(self.told(why)),
                _ => came,
            },
        }
    }

    fn told(&self, why: Why) -> Failure {
        match why {
            Why::Memory { .. } => self.who.told_of_memory(why.failure()),
            Why::Left | Why::Deadline(_) | Why::NotTaken(_) | Why::Ending => why.failure(),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.question.stop(Why::Left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spent_waiting_for_the_client_has_a_separate_limit() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let limit = Duration::from_secs(10);
        let mut clock = Clock { worked: Duration::ZERO, since: start, waits: false };
        assert_eq!(clock.over(at(10), limit), None);
        assert_eq!(clock.over(at(11), limit), Some(Why::Deadline(limit)));
        clock.turn(at(6), true);
        assert_eq!(clock.over(at(16), limit), None);
        assert_eq!(clock.over(at(17), limit), Some(Why::NotTaken(limit)));
        clock.turn(at(15), false);
        assert_eq!(clock.over(at(19), limit), None);
        assert_eq!(clock.over(at(20), limit), Some(Why::Deadline(limit)));
    }

    #[test]
    fn first_stop_reason_counts_and_a_released_slot_is_not_stopped() {
        let slot = Slot::all().last().expect("there are some");
        let question = Question::new(slot);
        question.stop(Why::Ending);
        question.stop(Why::Left);
        assert_eq!(question.why(), Some(Why::Ending));
        assert!(slot.is_stopped());
        let over = Question::new(slot);
        over.end(Slot::clear);
        over.stop(Why::Left);
        assert!(!slot.is_stopped());
    }
}
