//! Numbers that nobody else draws.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// 32 hex digits that no other process and no other call has: they mark whose write an
/// object is. Unique, not secret.
pub fn nonce() -> String {
    format!("{:016x}{:016x}", draw(), draw())
}

/// A wait between half of `full` and `full`, so that many who failed together do not
/// come back together.
pub(crate) fn jitter(full: Duration) -> Duration {
    let half = full / 2;
    half + half.mul_f64((draw() % 1_024) as f64 / 1_024.0)
}

/// Hashed under keys that the standard library draws from the system once a thread.
fn draw() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    CALLS.fetch_add(1, Ordering::Relaxed).hash(&mut hasher);
    std::process::id().hash(&mut hasher);
    SystemTime::now().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_draws_differ() {
        let mut seen: Vec<u64> = (0..1_000_000).map(|_| draw()).collect();
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
            let wait = jitter(full);
            assert!(wait >= full / 2 && wait <= full);
        }
    }
}
