//! The environment of a store: the clock, and unique random numbers.
//!
//! No other code in this crate may read a clock or random numbers (clippy enforces this), so that a simulation is
//! reproducible.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use capstan_model::Time;

/// Clock and random numbers.
pub trait Env: fmt::Debug + Send + Sync {
    /// The current time.
    fn now(&self) -> Time;

    /// A number that no other process and no other call draws. Unique, not secret.
    fn draw(&self) -> u64;

    /// A deliberate fault, to test that the simulation finds it.
    #[cfg(feature = "planted")]
    fn planted(&self) -> Option<Planted> {
        None
    }
}

/// Protocol faults that a simulation must find. Never in a release build.
#[cfg(feature = "planted")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The root declares commits rolled up before manifests have them.
    RootFirst,
    /// "It exists" is taken for an own earlier try, without a check.
    TakenIsOurs,
    /// The creator of a root does not look for a boundary.
    NoBoundary,
    /// The sweep ignores leases.
    NoLeases,
    /// The successor of an import does not end the previous generation.
    NoFence,
    /// A repair puts manifests again without the changes of segments: retired layers come back.
    Resurrects,
    /// Logs are truncated up to the positions of the newest root, although readers may have an older one.
    TruncatesAhead,
}

/// This machine's clock, and random numbers from the system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemEnv;

impl Env for SystemEnv {
    #[allow(clippy::disallowed_methods)] // Here, and nowhere else.
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Hashes under keys that the standard library draws from the system once per thread.
    #[allow(clippy::disallowed_methods)] // Here, and nowhere else.
    fn draw(&self) -> u64 {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let mut hasher = RandomState::new().build_hasher();
        CALLS.fetch_add(1, Ordering::Relaxed).hash(&mut hasher);
        std::process::id().hash(&mut hasher);
        SystemTime::now().hash(&mut hasher);
        hasher.finish()
    }
}

/// 32 hex digits that no other call draws: they identify the writer of an object.
pub(crate) fn nonce_of(env: &dyn Env) -> String {
    format!("{:016x}{:016x}", env.draw(), env.draw())
}

/// A random wait between half of `full` and `full`, so that clients that failed together do not retry together.
pub(crate) fn jitter_of(env: &dyn Env, full: Duration) -> Duration {
    let half = full / 2;
    half + half.mul_f64((env.draw() % 1_024) as f64 / 1_024.0)
}

/// Like a store's nonce, for names outside any store.
pub fn nonce() -> String {
    nonce_of(&SystemEnv)
}

/// The time of this machine's clock.
pub fn now() -> Time {
    SystemEnv.now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_draws_differ() {
        let mut seen: Vec<u64> = (0..1_000_000).map(|_| SystemEnv.draw()).collect();
        seen.sort_unstable();
        seen.dedup();
        // Two of a million 64-bit numbers are equal with a chance of 3 in 100 million.
        assert_eq!(seen.len(), 1_000_000);
        assert_eq!(nonce().len(), 32);
    }

    #[test]
    fn jitter_stays_in_its_bounds() {
        let full = Duration::from_millis(100);
        for _ in 0..1_000 {
            let wait = jitter_of(&SystemEnv, full);
            assert!(wait >= full / 2 && wait <= full);
        }
    }
}
