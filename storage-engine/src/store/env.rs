//! What a store needs from outside: the time, and numbers that nobody else draws.
//!
//! Nothing else in this crate may read a clock or chance (clippy sees to it), so that a simulation can
//! repeat what happened.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use capstan_model::Time;

/// Time and chance.
pub trait Env: fmt::Debug + Send + Sync {
    /// The time.
    fn now(&self) -> Time;

    /// A number that no other process and no other call gets. Unique, not secret.
    fn draw(&self) -> u64;

    /// A fault that is deliberately made, to see that the simulation finds it.
    #[cfg(feature = "planted")]
    fn planted(&self) -> Option<Planted> {
        None
    }
}

/// Faults of the protocol that a simulation must find. Never in a build that somebody uses.
#[cfg(feature = "planted")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The root says that commits are rolled up before manifests have them.
    RootFirst,
    /// "It exists" is taken for one's own earlier try, without a look.
    TakenIsOurs,
    /// Who creates a root does not look for a boundary.
    NoBoundary,
    /// What readers lease is removed all the same.
    NoLeases,
    /// Who goes on with an import does not end the generation before.
    NoFence,
}

/// This machine's clock, and what the system gives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemEnv;

impl Env for SystemEnv {
    #[allow(clippy::disallowed_methods)] // Here, and nowhere else.
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Hashed under keys that the standard library draws from the system once a thread.
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

/// 32 hex digits that no other call has: they mark whose write an object is.
pub(crate) fn nonce_of(env: &dyn Env) -> String {
    format!("{:016x}{:016x}", env.draw(), env.draw())
}

/// A wait between half of `full` and `full`, so that many who failed together do not
/// come back together.
pub(crate) fn jitter_of(env: &dyn Env, full: Duration) -> Duration {
    let half = full / 2;
    half + half.mul_f64((env.draw() % 1_024) as f64 / 1_024.0)
}

/// As a store's nonces are, for names that are of no store.
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
