//! How long a store is waited for, and what is said meanwhile.
//!
//! Every request has a limit that doubles from try to try, so a request that was lost is soon sent
//! again and a slow store still gets its time. An operation is tried for a while: longer where nothing
//! answers than where somebody refuses, and never longer since its last sign of life.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_model::{Failure, FailureKind};
use object_store::Error;
use tokio::time::{Instant, sleep, sleep_until};

use super::env::{Env, jitter_of};
use super::failure::{failure, no_answer, refusal};
use super::s3::renew::{Refusal, Renewing};

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// For the first sign of an answer to a read, and between two pieces of it.
    read: Duration,
    /// For the answer to a write, beside what sending its bytes takes; for a page of a listing.
    write: Duration,
    /// How long an operation is tried while the server refuses or breaks off.
    trouble: Duration,
    /// How long it is tried while nothing answers.
    silence: Duration,
    /// After so long without an answer the store counts as in trouble.
    worrying: Duration,
    /// After so long it is said.
    words: Duration,
    /// Wait before the second try; doubles from there on.
    wait: Duration,
    /// The longest such wait.
    longest_wait: Duration,
}

/// Three reads that get no answer take less than ten seconds together.
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

/// Time between two words about one store.
const WORDS_APART: Duration = Duration::from_secs(30);

/// Bytes a second that are sent or come, at least.
const SLOWEST_SENT: u64 = 500_000;
const SLOWEST_READ: u64 = 100_000;

/// Time for reading anything, beside what its bytes take at the slowest.
const LONGEST_READ: Duration = Duration::from_secs(60);

/// How often a limit is doubled, at most.
const DOUBLED: u32 = 5;

/// How often a limit is doubled for the first try, at most.
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
    /// How long a try may be without a sign, after so many that failed.
    fn of_try(&self, failed: u32) -> Duration {
        self.first * (1 << failed.min(DOUBLED))
    }

    /// Whether there is another try, so long after the last sign of life.
    fn goes_on(&self, silent: bool, waited: Duration) -> bool {
        waited < if silent { self.silence } else { self.trouble }
    }
}

/// How long reading so many bytes may take in all.
fn longest_read(bytes: u64) -> Duration {
    LONGEST_READ + Duration::from_secs(bytes / SLOWEST_READ)
}

/// Those who wait for one store, of all clones.
#[derive(Debug, Default)]
pub(super) struct Waits {
    troubled: AtomicUsize,
    /// How often limits are doubled for the first try already: this store takes its time.
    pace: AtomicU32,
    said: Mutex<Option<Instant>>,
}

impl Waits {
    /// Whether somebody waits for a store that does not answer, or refuses.
    pub(super) fn in_trouble(&self) -> bool {
        self.troubled.load(Ordering::Relaxed) > 0
    }

    /// Learns from a try that was answered: how many before it were not, and whether it was quick.
    fn pace(&self, unanswered: u32, quick: bool) {
        if unanswered > 0 {
            self.pace.fetch_max(unanswered.min(PACE), Ordering::Relaxed);
        } else if quick {
            let slower = |pace: u32| pace.checked_sub(1);
            // An error means that it is as quick as it can be.
            let _ = self.pace.fetch_update(Ordering::Relaxed, Ordering::Relaxed, slower);
        }
    }

    /// Whether it is time for words: many wait for one store, and one speaks.
    fn may_speak(&self, now: Instant) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let may = said.is_none_or(|at| now.saturating_duration_since(at) >= WORDS_APART);
        if may {
            *said = Some(now);
        }
        may
    }

    /// Whether words were said that are now to be taken back.
    fn take_back(&self) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

/// A try that failed.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) failure: Failure,
    refusal: Option<Refusal>,
    silent: bool,
}

impl Tried {
    /// A failure that asking again may mend.
    pub(super) fn broken_off(what: String) -> Tried {
        let failure = Failure::new(FailureKind::Unavailable, what);
        Tried { failure, refusal: None, silent: false }
    }

    /// A failure for good.
    pub(super) fn finally(failure: Failure) -> Tried {
        Tried { failure, refusal: None, silent: false }
    }

    pub(super) fn kind(&self) -> FailureKind {
        self.failure.kind()
    }
}

/// What an operation needs to wait.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) patience: Patience,
    pub(super) waits: Arc<Waits>,
    /// Those that requests are signed with.
    pub(super) credentials: Option<Arc<Renewing>>,
    pub(super) env: Arc<dyn Env>,
}

/// One operation, over all its tries.
pub(super) struct Waiting<'a> {
    means: &'a Means,
    what: String,
    limits: Limits,
    began: Instant,
    /// The last sign of life, or the beginning.
    sign: Instant,
    until: Option<Instant>,
    tries: u32,
    /// Of these, those without an answer, one after the other.
    silent: u32,
    generation: u64,
    renewed: bool,
    troubled: bool,
    /// When words were said, or another spoke.
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

    /// What is tried, for messages.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// How many bytes will come: that bounds the whole.
    pub(super) fn expects(&mut self, bytes: u64) {
        self.until = Some(self.began + longest_read(bytes));
    }

    /// Something came.
    pub(super) fn progressed(&mut self) {
        self.sign = Instant::now();
        self.tries = 0;
    }

    /// One try, or one step of it, within its limit.
    pub(super) async fn attempt<T>(
        &mut self,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Tried> {
        self.generation = self.means.credentials.as_ref().map_or(0, |keys| keys.generation());
        let began = Instant::now();
        if self.tries == 0 {
            // Who reads a listing may take its time between two names.
            self.sign = began;
        }
        let pace = self.means.waits.pace.load(Ordering::Relaxed);
        let limit = self.limits.of_try(self.silent.max(pace));
        let mut until = began + limit;
        // No try goes on after the whole is given up.
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
                        let failure = failure(self.what.clone(), error);
                        if failure.kind() != FailureKind::Unavailable {
                            self.answered();
                        }
                        Err(Tried { failure, refusal, silent: false })
                    }
                },
                () = sleep_until(until) => {
                    let failure = no_answer(&self.what, self.sign.elapsed());
                    return Err(Tried { failure, refusal: None, silent: true });
                }
                () = sleep_until(notice) => self.notice(),
            }
        }
    }

    /// Waits before the next try, or gives the operation up.
    pub(super) async fn again(&mut self, tried: Tried) -> Result<(), Failure> {
        if let (Some(refusal), Some(keys)) = (tried.refusal, &self.means.credentials) {
            let whom = keys.renewable_from();
            if let (true, Refusal::Certain, Some(whom)) = (self.renewed, refusal, whom) {
                let what = format!(
                    "{}: credentials of {whom} were fetched anew, and are refused, too",
                    self.what
                );
                return Err(Failure::caused_by(tried.kind(), what, tried.failure));
            }
            let wait = match self.renewed {
                true => None,
                false => keys.refused(self.generation, refusal),
            };
            if let Some(wait) = wait {
                tracing::info!("credentials are fetched anew: {}", tried.failure);
                self.renewed = true;
                sleep(wait).await;
                return Ok(());
            }
        }
        let late = self.until.is_some_and(|until| Instant::now() >= until);
        let goes_on = self.limits.goes_on(tried.silent, self.sign.elapsed()) && !late;
        if tried.kind() != FailureKind::Unavailable || !goes_on {
            return Err(tried.failure);
        }
        self.worry();
        tracing::debug!(failure = %tried.failure, tries = self.tries, "trying again");
        self.last = (!tried.silent).then(|| tried.failure.to_string());
        let wait = self.means.patience.wait_after(self.tries);
        self.tries += 1;
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
            tracing::warn!("{why}; still trying, since {} s", waited.as_secs());
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
    fn limits_grow_from_try_to_try_and_with_bytes() {
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
    fn silence_is_borne_longer_than_trouble() {
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
    fn a_store_that_takes_its_time_is_given_it() {
        let waits = Waits::default();
        let pace = |unanswered, quick| {
            waits.pace(unanswered, quick);
            waits.pace.load(Ordering::Relaxed)
        };
        assert_eq!([pace(0, true), pace(1, false), pace(0, false), pace(9, true)], [0, 1, 1, 3]);
        assert_eq!([pace(1, true), pace(0, true), pace(0, true), pace(0, true)], [3, 2, 1, 0]);
    }

    #[test]
    fn of_many_who_wait_one_speaks() {
        let (waits, start) = (Waits::default(), Instant::now());
        assert!(waits.may_speak(start) && !waits.may_speak(start + WORDS_APART / 2));
        assert!(waits.may_speak(start + WORDS_APART));
        assert!(waits.take_back() && !waits.take_back());
    }
}
