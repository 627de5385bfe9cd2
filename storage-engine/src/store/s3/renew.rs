//! Renewal of credentials: some time before they expire, and when a server refuses them.
//!
//! Fetches are single-flight: a request that needs credentials meanwhile waits for the fetch, or uses the old ones
//! while they are valid. A pure function of times decides whether to fetch ([`need`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::time::Instant;

use super::fetch::{Fetched, NoCredentials, Source};
use crate::store::env::now;

/// Credentials are renewed this long before they expire, or at half of their life.
const BEFORE_EXPIRY: Duration = Duration::from_secs(300);

/// Minimum time between two fetches.
const APART: Duration = Duration::from_secs(1);

/// Minimum time between two fetches after refusals that may be about permissions, not credentials.
const APART_IN_DOUBT: Duration = Duration::from_secs(60);

/// Maximum time that a request waits until credentials may be renewed.
const WORTH_A_WAIT: Duration = Duration::from_secs(2);

/// How certainly a refusal means bad credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Bad credentials: expired, unknown.
    Certain,
    /// It may be about permissions.
    Doubtful,
}

/// The credentials of a bucket.
#[derive(Debug)]
pub(crate) struct Renewing {
    source: Source,
    state: Mutex<State>,
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of successful fetches.
    generation: u64,
    held: Option<Held>,
    /// The last fetch, if it failed.
    failed: Option<(Instant, NoCredentials)>,
    /// Number of consecutive fetches that returned the refused credentials.
    unchanged: u32,
}

#[derive(Debug, Clone)]
struct Held {
    keys: Arc<AwsCredential>,
    fetched: Instant,
    /// When to renew the credentials, and when they expire.
    times: Option<(Instant, Instant)>,
    refused: bool,
}

/// The action before a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing.
    None,
    /// Renew soon; the current credentials are still valid.
    Soon,
    /// Renew now: there are no valid credentials.
    Now,
}

fn need(held: Option<&Held>, failed: Option<Instant>, now: Instant) -> Need {
    let Some(held) = held else { return Need::Now };
    if held.refused {
        return Need::Now;
    }
    match held.times {
        Some((_, expires)) if now >= expires => Need::Now,
        Some((renew, _)) if now >= renew => {
            let lately = failed.is_some_and(|at| now < at + APART) || now < held.fetched + APART;
            if lately { Need::None } else { Need::Soon }
        }
        _ => Need::None,
    }
}

/// The age at which credentials are renewed, from their life.
fn renewed_after(life: Duration) -> Duration {
    life.saturating_sub(BEFORE_EXPIRY).max(life / 2)
}

/// How long to wait until credentials may be renewed after a refusal; `None` if the wait is too long.
fn wait_for_renewal(age: Duration, refusal: Refusal, unchanged: u32) -> Option<Duration> {
    let apart = match refusal {
        Refusal::Certain => APART.saturating_mul(1 << unchanged.min(6)),
        Refusal::Doubtful => APART_IN_DOUBT,
    };
    Some(apart.saturating_sub(age)).filter(|wait| *wait <= WORTH_A_WAIT)
}

impl Renewing {
    pub(super) fn new(source: Source) -> Renewing {
        Renewing { source, state: Mutex::default(), fetching: tokio::sync::Mutex::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation of the credentials that sign a request which begins now, or an older one.
    pub(crate) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Records that a server has refused credentials of this generation. Returns the wait before a retry with new
    /// credentials; `None` if there will be none.
    pub(crate) fn refused(&self, generation: u64, refusal: Refusal) -> Option<Duration> {
        if !self.source.is_renewable() {
            return None;
        }
        let mut state = self.state();
        // A request that began without credentials was signed with the first ones.
        if generation != 0 && state.generation != generation {
            return Some(Duration::ZERO);
        }
        let unchanged = state.unchanged;
        let held = state.held.as_mut()?;
        if held.refused {
            return Some(Duration::ZERO);
        }
        let wait = wait_for_renewal(held.fetched.elapsed(), refusal, unchanged)?;
        held.refused = true;
        Some(wait)
    }

    /// The source of the credentials, for messages, if they are renewable.
    pub(crate) fn renewable_from(&self) -> Option<&'static str> {
        self.source.is_renewable().then(|| self.source.credentials.whose())
    }

    fn take(&self, fetched: Fetched) -> Arc<AwsCredential> {
        let mut state = self.state();
        let at = Instant::now();
        let life = fetched.expires.map(|expires| {
            let nanos = expires.0.saturating_sub(now().0);
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
        });
        let times = life
            .and_then(|life| Some((at.checked_add(renewed_after(life))?, at.checked_add(life)?)));
        let same =
            state.held.as_ref().is_some_and(|held| held.refused && *held.keys == *fetched.keys);
        state.unchanged = if same { state.unchanged.saturating_add(1) } else { 0 };
        state.generation += 1;
        state.failed = None;
        let keys = Arc::clone(&fetched.keys);
        state.held = Some(Held { keys: fetched.keys, fetched: at, times, refused: false });
        keys
    }

    async fn fetch(&self) -> Result<Arc<AwsCredential>, NoCredentials> {
        match self.source.fetch().await {
            Ok(fetched) => Ok(self.take(fetched)),
            Err(error) => {
                self.state().failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

#[async_trait]
impl CredentialProvider for Renewing {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let look = || {
            let state = self.state();
            let failed = state.failed.as_ref().map(|(at, _)| *at);
            let need = need(state.held.as_ref(), failed, Instant::now());
            (need, state.held.as_ref().map(|held| Arc::clone(&held.keys)), state.generation)
        };
        let (need, held, generation) = look();
        if let (Need::None, Some(keys)) = (need, &held) {
            return Ok(Arc::clone(keys));
        }
        if let (Need::Soon, Some(keys)) = (need, held) {
            // A fetch is in flight, and the current credentials are still valid.
            let Ok(_only) = self.fetching.try_lock() else { return Ok(keys) };
            return match self.fetch().await {
                Ok(keys) => Ok(keys),
                Err(error) => {
                    tracing::warn!("credentials expire soon, and their renewal failed: {error}");
                    Ok(keys)
                }
            };
        }
        let waited_from = Instant::now();
        let _only = self.fetching.lock().await;
        let (need, held, now_held) = look();
        if let (true, true, Some(keys)) = (now_held != generation, need != Need::Now, held) {
            return Ok(keys);
        }
        // If the fetch that this request waited for fails, this request fails too.
        let failed = self.state().failed.clone().filter(|(at, _)| *at >= waited_from);
        let outcome = match failed {
            Some((_, error)) => Err(error),
            None => self.fetch().await,
        };
        outcome.map_err(|error| object_store::Error::Generic {
            store: "credentials",
            source: Box::new(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(fetched: Instant, times: Option<(u64, u64)>, refused: bool) -> Held {
        let keys = AwsCredential { key_id: "k".into(), secret_key: "s".into(), token: None };
        let after = |seconds| fetched + Duration::from_secs(seconds);
        let times = times.map(|(renew, expires)| (after(renew), after(expires)));
        Held { keys: Arc::new(keys), fetched, times, refused }
    }

    #[test]
    fn credentials_are_fetched_on_first_use() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let hour = Some((3_300, 3_600));
        for (times, refused, failed, at, expected) in [
            (None, false, None, 0, Need::None),
            (None, false, None, 1_000_000, Need::None),
            (None, true, None, 5, Need::Now),
            (hour, false, None, 3_299, Need::None),
            (hour, false, None, 3_300, Need::Soon),
            (hour, false, Some(3_300), 3_300, Need::None),
            (hour, false, Some(3_300), 3_301, Need::Soon),
            (hour, false, None, 3_600, Need::Now),
            (hour, true, None, 10, Need::Now),
            // One that is handed out at the end of its life is not asked for again at once.
            (Some((0, 5)), false, None, 0, Need::None),
            (Some((0, 5)), false, None, 1, Need::Soon),
        ] {
            let held = held(start, times, refused);
            let found = need(Some(&held), failed.map(after), after(at));
            assert_eq!(found, expected, "{times:?} {refused} {failed:?} {at}");
        }
        assert_eq!(need(None, None, start), Need::Now);
    }

    #[test]
    fn short_credentials_are_renewed_at_half_of_their_lifetime_and_long_ones_minutes_before() {
        let seconds = |life| renewed_after(Duration::from_secs(life)).as_secs();
        assert_eq!([10, 600, 3_600].map(seconds), [5, 300, 3_300]);
        assert_eq!(renewed_after(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn refused_credentials_do_not_cause_many_fetches() {
        use Refusal::{Certain, Doubtful};
        let ms = Duration::from_millis;
        for (age, refusal, unchanged, expected) in [
            (0, Certain, 0, Some(1_000)),
            (700, Certain, 0, Some(300)),
            (5_000, Certain, 0, Some(0)),
            (700, Certain, 1, Some(1_300)),
            (0, Certain, 2, None),
            (63_000, Certain, 6, Some(1_000)),
            (10_000, Doubtful, 0, None),
            (60_000, Doubtful, 0, Some(0)),
        ] {
            let found = wait_for_renewal(ms(age), refusal, unchanged);
            assert_eq!(found, expected.map(ms), "{age} {refusal:?} {unchanged}");
        }
    }
}
