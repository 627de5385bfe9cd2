//! Time-outs and retries of requests to a store, and the messages about them.
//!
//! Every request has a time-out that doubles with each try. So a lost request is retried soon, and a slow store still
//! gets enough time. An operation is retried for a limited time since its last sign of life: longer while nothing
//! answers than while the server refuses.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_model::metrics::Counter;
use capstan_model::{Failure, FailureKind};
use object_store::Error;
use tokio::time::{Instant, sleep, sleep_until};

use super::env::{Env, jitter_of};
use super::error::StoreError;
use super::failure::{no_answer, refusal};
use super::s3::renew::{Refusal, Renewing};

/// The time-outs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// For the first byte of a read, and between two pieces of it.
    read: Duration,
    /// For the answer to a write, in addition to the time to send its bytes; for a page of a listing.
    write: Duration,
    /// How long an operation is retried while the server refuses or breaks connections.
    trouble: Duration,
    /// How long it is retried while nothing answers.
    silence: Duration,
    /// Time without an answer after which the store counts as in trouble.
    worrying: Duration,
    /// Time until a message is logged.
    words: Duration,
    /// Wait before the second try; doubles with each try.
    wait: Duration,
    /// The longest such wait.
    longest_wait: Duration,
}

/// Two tries of a read without an answer take less than ten seconds together.
pub(super) const USUAL: Patience = Patience {
    read: Duration::from_secs(3),
    write: Duration::from_secs(8),
    trouble: Duration::from_secs(15),
    silence: Duration::from_secs(45),
    worrying: Duration::from_secs(2),
    words: Duration::from_secs(4),
    wait: Duration::from_millis(100),
    longest_wait: Duration::from_secs(2),
};

/// Minimum time between two log messages about one store.
const WORDS_APART: Duration = Duration::from_secs(30);

/// Minimum rates of sending and receiving, in bytes per second.
const SLOWEST_SENT: u64 = 500_000;
const SLOWEST_READ: u64 = 100_000;

/// Time-out of a whole read, in addition to the time for its bytes at the minimum rate.
const LONGEST_READ: Duration = Duration::from_secs(60);

/// Maximum number of doublings of a time-out.
const DOUBLED: u32 = 5;

/// Maximum number of doublings for the first try.
const PACE: u32 = 3;

/// The limits of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    first: Duration,
    trouble: Duration,
    silence: Duration,
    worrying: Duration,
    words: Duration,
}

impl Patience {
    /// A tenth of all times, for tests.
    #[cfg(test)]
    pub(super) fn hurried(self) -> Patience {
        let hurried = |time: Duration| time / 10;
        Patience {
            read: hurried(self.read),
            write: hurried(self.write),
            trouble: hurried(self.trouble),
            silence: hurried(self.silence),
            worrying: hurried(self.worrying),
            words: hurried(self.words),
            wait: hurried(self.wait),
            longest_wait: hurried(self.longest_wait),
        }
    }

    pub(super) fn reading(&self) -> Limits {
        self.limits(self.read, Duration::ZERO)
    }

    pub(super) fn listing(&self) -> Limits {
        self.limits(self.write, Duration::ZERO)
    }

    pub(super) fn writing(&self, bytes: u64) -> Limits {
        self.limits(self.write, Duration::from_secs(bytes / SLOWEST_SENT))
    }

    fn limits(&self, first: Duration, transfer: Duration) -> Limits {
        Limits {
            first: first + transfer,
            trouble: self.trouble,
            silence: self.silence + transfer * 3,
            worrying: self.worrying + transfer,
            words: self.words + transfer,
        }
    }

    fn wait_after(&self, tries: u32) -> Duration {
        self.wait.saturating_mul(1 << tries.min(16)).min(self.longest_wait)
    }
}

impl Limits {
    /// Time-out of a try without a sign of life, after that many failed tries.
    fn of_try(&self, failed: u32) -> Duration {
        self.first * (1 << failed.min(DOUBLED))
    }

    /// Whether to try again, that long after the last sign of life.
    fn goes_on(&self, silent: bool, waited: Duration) -> bool {
        waited < if silent { self.silence } else { self.trouble }
    }
}

/// Time-out for reading that many bytes in total.
fn longest_read(bytes: u64) -> Duration {
    LONGEST_READ + Duration::from_secs(bytes / SLOWEST_READ)
}

/// The operations that wait for one store, over all clones.
#[derive(Debug, Default)]
pub(super) struct Waits {
    troubled: AtomicUsize,
    /// Number of doublings that already apply to the first try: this store is slow.
    pace: AtomicU32,
    /// Tries after a failed one.
    pub(super) retries: Counter,
    said: Mutex<Option<Instant>>,
}

impl Waits {
    /// Whether an operation waits for a store that does not answer, or refuses.
    pub(super) fn in_trouble(&self) -> bool {
        self.troubled.load(Ordering::Relaxed) > 0
    }

    /// Adapts to an answered try: how many tries before it had no answer, and whether it was quick.
    fn pace(&self, unanswered: u32, quick: bool) {
        if unanswered > 0 {
            self.pace.fetch_max(unanswered.min(PACE), Ordering::Relaxed);
        } else if quick {
            let slower = |pace: u32| pace.checked_sub(1);
            // An error means that the value is at its minimum.
            let _ = self.pace.fetch_update(Ordering::Relaxed, Ordering::Relaxed, slower);
        }
    }

    /// Whether to log now: many operations wait for one store, and one logs.
    fn may_speak(&self, now: Instant) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let may = said.is_none_or(|at| now.saturating_duration_since(at) >= WORDS_APART);
        if may {
            *said = Some(now);
        }
        may
    }

    /// Whether a warning was logged that is now obsolete.
    fn take_back(&self) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

/// A try that failed.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) error: StoreError,
    refusal: Option<Refusal>,
    silent: bool,
}

impl Tried {
    /// A failure that a retry may fix.
    pub(super) fn broken_off(what: String) -> Tried {
        let error = StoreError::InDoubt(Failure::new(FailureKind::Unavailable, what));
        Tried { error, refusal: None, silent: false }
    }

    /// A permanent failure.
    pub(super) fn finally(error: StoreError) -> Tried {
        Tried { error, refusal: None, silent: false }
    }
}

/// What an operation needs to retry.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) patience: Patience,
    pub(super) waits: Arc<Waits>,
    /// The credentials that sign requests.
    pub(super) credentials: Option<Arc<Renewing>>,
    pub(super) env: Arc<dyn Env>,
}

/// One operation, with all its tries.
pub(super) struct Waiting<'a> {
    means: &'a Means,
    what: String,
    limits: Limits,
    began: Instant,
    /// Time of the last sign of life, or of the start.
    sign: Instant,
    until: Option<Instant>,
    tries: u32,
    /// Number of consecutive tries without an answer, among these.
    silent: u32,
    generation: u64,
    renewed: bool,
    troubled: bool,
    /// When a message was logged, by this operation or another.
    spoke: Option<Instant>,
    last: Option<String>,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(means: &'a Means, limits: Limits, what: String) -> Waiting<'a> {
        let now = Instant::now();
        Waiting {
            means,
            what,
            limits,
            began: now,
            sign: now,
            until: None,
            tries: 0,
            silent: 0,
            generation: 0,
            renewed: false,
            troubled: false,
            spoke: None,
            last: None,
        }
    }

    /// The operation, for messages.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Sets the number of expected bytes: it bounds the total time.
    pub(super) fn expects(&mut self, bytes: u64) {
        self.until = Some(self.began + longest_read(bytes));
    }

    /// Records a sign of life.
    pub(super) fn progressed(&mut self) {
        self.sign = Instant::now();
        self.tries = 0;
    }

    /// One try, or one step of it, within its time-out.
    pub(super) async fn attempt<T>(
        &mut self,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Tried> {
        self.generation = self.means.credentials.as_ref().map_or(0, |keys| keys.generation());
        let began = Instant::now();
        if self.tries == 0 {
            // The consumer of a listing may be slow between two names.
            self.sign = began;
        }
        let pace = self.means.waits.pace.load(Ordering::Relaxed);
        let limit = self.limits.of_try(self.silent.max(pace));
        let mut until = began + limit;
        // No try outlasts the operation's time limit.
        until = until.min(self.sign + self.limits.silence);
        if let Some(last) = self.until {
            until = until.min(last);
        }
        let mut operation = pin!(operation);
        loop {
            let notice = self.next_notice();
            tokio::select! {
                biased;
                outcome = &mut operation => return match outcome {
                    Ok(value) => {
                        self.means.waits.pace(self.silent, began.elapsed() * 4 < limit);
                        self.answered();
                        Ok(value)
                    }
                    Err(error) => {
                        let refusal = refusal(&error);
                        let error = StoreError::of(self.what.clone(), error);
                        if !matches!(error, StoreError::InDoubt(_)) {
                            self.answered();
                        }
                        Err(Tried { error, refusal, silent: false })
                    }
                },
                () = sleep_until(until) => {
                    let error = StoreError::InDoubt(no_answer(&self.what, self.sign.elapsed()));
                    return Err(Tried { error, refusal: None, silent: true });
                }
                () = sleep_until(notice) => self.notice(),
            }
        }
    }

    /// Waits before the next try, or gives up.
    pub(super) async fn again(&mut self, tried: Tried) -> Result<(), StoreError> {
        if let (Some(refusal), Some(keys)) = (tried.refusal, &self.means.credentials) {
            let whom = keys.renewable_from();
            if let (true, Refusal::Certain, Some(whom)) = (self.renewed, refusal, whom) {
                let what = format!(
                    "{}: credentials of {whom} were renewed, and the server refuses the new ones, too",
                    self.what
                );
                let failure = Failure::from(tried.error);
                let failure = Failure::caused_by(failure.kind(), what, failure);
                return Err(StoreError::of_failure(failure));
            }
            let wait = match self.renewed {
                true => None,
                false => keys.refused(self.generation, refusal),
            };
            if let Some(wait) = wait {
                tracing::info!("renewing credentials: {}", tried.error.failure());
                self.renewed = true;
                self.means.waits.retries.add(1);
                sleep(wait).await;
                return Ok(());
            }
        }
        let late = self.until.is_some_and(|until| Instant::now() >= until);
        let goes_on = self.limits.goes_on(tried.silent, self.sign.elapsed()) && !late;
        if !matches!(tried.error, StoreError::InDoubt(_)) || !goes_on {
            return Err(tried.error);
        }
        self.worry();
        let failure = tried.error.failure();
        tracing::debug!(%failure, tries = self.tries, "trying again");
        self.last = (!tried.silent).then(|| failure.to_string());
        let wait = self.means.patience.wait_after(self.tries);
        self.tries += 1;
        self.means.waits.retries.add(1);
        self.silent = if tried.silent { self.silent + 1 } else { 0 };
        sleep(jitter_of(&*self.means.env, wait)).await;
        Ok(())
    }

    fn next_notice(&self) -> Instant {
        match (self.troubled, self.spoke) {
            (false, _) => self.sign + self.limits.worrying,
            (true, None) => self.sign + self.limits.words,
            (true, Some(at)) => at + WORDS_APART,
        }
    }

    fn notice(&mut self) {
        self.worry();
        let now = Instant::now();
        let waited = now.saturating_duration_since(self.sign);
        if waited < self.limits.words {
            return;
        }
        self.spoke = Some(now);
        if self.means.waits.may_speak(now) {
            let why = self.last.clone().unwrap_or_else(|| format!("{}: no answer yet", self.what));
            tracing::warn!("{why}; retrying for {} s now", waited.as_secs());
        }
    }

    fn worry(&mut self) {
        if !self.troubled {
            self.troubled = true;
            self.means.waits.troubled.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn calm(&mut self) {
        if self.troubled {
            self.troubled = false;
            self.means.waits.troubled.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn answered(&mut self) {
        if self.spoke.is_some() && self.means.waits.take_back() {
            tracing::warn!("the store answers again, after {} s", self.began.elapsed().as_secs());
        }
        self.spoke = None;
        self.silent = 0;
        self.last = None;
        self.calm();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.calm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_grow_with_retries_and_bytes() {
        let reading = USUAL.reading();
        let seconds = |tries| reading.of_try(tries).as_secs();
        assert_eq!([0, 1, 2, 3, 9].map(seconds), [3, 6, 12, 24, 96]);
        // Two that are lost leave time for a third within ten seconds.
        assert!(seconds(0) + seconds(1) < 10);
        assert_eq!(USUAL.writing(0).of_try(0).as_secs(), 8);
        assert_eq!(USUAL.writing(64_000_000).of_try(0).as_secs(), 8 + 128);
        assert_eq!(longest_read(0).as_secs(), 60);
        assert_eq!(longest_read(64_000_000).as_secs(), 60 + 640);
    }

    #[test]
    fn silent_requests_are_retried_longer_than_failing_ones() {
        let limits = USUAL.reading();
        let seconds = Duration::from_secs;
        for (silent, waited, expected) in
            [(false, 14, true), (false, 15, false), (true, 44, true), (true, 45, false)]
        {
            assert_eq!(limits.goes_on(silent, seconds(waited)), expected, "{silent} {waited}");
        }
        let waits: Vec<_> = (0..7).map(|tries| USUAL.wait_after(tries).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 2_000, 2_000]);
        assert_eq!(USUAL.wait_after(u32::MAX).as_secs(), 2);
    }

    #[test]
    fn slow_store_gets_longer_time_limits() {
        let waits = Waits::default();
        let pace = |unanswered, quick| {
            waits.pace(unanswered, quick);
            waits.pace.load(Ordering::Relaxed)
        };
        assert_eq!([pace(0, true), pace(1, false), pace(0, false), pace(9, true)], [0, 1, 1, 3]);
        assert_eq!([pace(1, true), pace(0, true), pace(0, true), pace(0, true)], [3, 2, 1, 0]);
    }

    #[test]
    fn one_of_many_waiting_requests_logs() {
        let (waits, start) = (Waits::default(), Instant::now());
        assert!(waits.may_speak(start) && !waits.may_speak(start + WORDS_APART / 2));
        assert!(waits.may_speak(start + WORDS_APART));
        assert!(waits.take_back() && !waits.take_back());
    }
}
