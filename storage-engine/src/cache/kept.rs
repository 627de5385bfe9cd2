//! Values in memory, within a budget.

use std::fmt::Debug;
use std::hash::Hash;

use foyer_memory::{Cache, CacheBuilder, S3FifoConfig};

/// Values by key, each with a weight, all of them within a budget.
///
/// Which ones go is S3-FIFO's to say: what is new waits in a tenth of the room, and goes from there
/// unless it was asked for again meanwhile, or soon after. So a scan, however long, passes through that
/// tenth, while an LRU would give up everything for it. Of the algorithms that do this it is the
/// one whose hits change nothing but a counter.
#[derive(Debug)]
pub struct Kept<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    values: Cache<K, Weighed<V>>,
}

#[derive(Debug)]
struct Weighed<V> {
    value: V,
    weight: usize,
}

/// What a value takes beside its own weight: key, counters, links; measured.
const BESIDE: usize = 256;

impl<K, V> Kept<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Nothing yet, and at most `budget` bytes.
    pub fn new(budget: usize) -> Self {
        let values = CacheBuilder::new(budget)
            // More would each have a part of the budget, and large values no place in it.
            .with_shards(1)
            .with_eviction_config(S3FifoConfig::default())
            .with_weighter(|_: &K, of: &Weighed<V>| of.weight)
            .build();
        Kept { values }
    }

    /// The value of that key, if it is kept: it was asked for once more.
    pub fn get(&self, key: &K) -> Option<V> {
        self.values.get(key).map(|entry| entry.value().value.clone())
    }

    /// Whether there is a value of that key; nobody asked for it.
    pub fn contains(&self, key: &K) -> bool {
        self.values.contains(key)
    }

    /// Keeps a value of so many bytes, unless it alone is more than there is room.
    pub fn insert(&self, key: K, value: V, bytes: usize) {
        let weight = bytes.saturating_add(BESIDE);
        if weight <= self.budget() {
            self.values.insert(key, Weighed { value, weight });
        }
    }

    /// The most that is kept, bytes.
    pub fn budget(&self) -> usize {
        self.values.capacity()
    }

    /// What is kept, bytes.
    pub fn bytes(&self) -> usize {
        self.values.usage()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: usize = 1_000 - BESIDE;

    #[test]
    fn what_is_kept_stays_within_the_budget() {
        let kept = Kept::new(10_000);
        for key in 0..100 {
            kept.insert(key, key, VALUE);
            assert!(kept.bytes() <= 10_000);
            assert_eq!(kept.get(&key), Some(key));
        }
        kept.insert(100, 100, 10_000);
        assert!(!kept.contains(&100) && kept.contains(&99));
    }

    #[test]
    fn a_scan_of_twenty_times_the_room_leaves_what_was_asked_for_again() {
        let kept = Kept::new(100_000);
        for round in 0..3 {
            for key in 0..60 {
                if round == 0 {
                    kept.insert(key, key, VALUE);
                }
                assert_eq!(kept.get(&key), Some(key));
            }
        }
        for key in 1_000..3_000 {
            assert_eq!(kept.get(&key), None);
            kept.insert(key, key, VALUE);
        }
        let left = (0..60).filter(|key| kept.contains(key)).count();
        assert_eq!(left, 60);
    }
}
