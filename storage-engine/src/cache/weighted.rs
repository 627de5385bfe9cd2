//! An in-memory cache within a byte budget.

use std::fmt::{self, Debug};
use std::hash::Hash;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// Weighted values by key, within a budget.
///
/// Eviction uses S3-FIFO. In a full cache, new values enter a probation queue of a tenth of the
/// budget. They are evicted from there unless they are read again, or soon after eviction. So a scan
/// of any length passes through that tenth, while an LRU would evict everything for it. Of the
/// scan-resistant algorithms it is the one where a hit only changes a counter.
pub struct WeightedCache<K, V> {
    values: Cache<K, Weighed<V>, ByWeight>,
}

#[derive(Clone)]
struct Weighed<V> {
    value: V,
    weight: usize,
}

#[derive(Clone)]
struct ByWeight;

impl<K, V> Weighter<K, Weighed<V>> for ByWeight {
    fn weight(&self, _: &K, of: &Weighed<V>) -> u64 {
        of.weight as u64
    }
}

/// Measured overhead of an entry: key, counters, links, spare capacity.
const ENTRY_OVERHEAD: usize = 256;

/// The fraction of the budget for values read more than once.
const HOT_PART: f64 = 0.9;

/// Assumed weight of a value. It determines the number of remembered evicted keys.
const TYPICAL_WEIGHT: usize = 32 * 1024;

impl<K: Eq + Hash, V: Clone> WeightedCache<K, V> {
    /// An empty cache of at most `budget` bytes.
    #[allow(clippy::expect_used)] // The builder wants two figures, and both are given.
    pub fn new(budget: usize) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(budget as u64)
            .estimated_items_capacity(budget / TYPICAL_WEIGHT)
            .hot_allocation(HOT_PART)
            // With more shards each has a part of the budget, too small for large values.
            .shards(1)
            .build()
            .expect("complete");
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        WeightedCache { values: Cache::with_options(options, ByWeight, hasher, lifecycle) }
    }

    /// The value of a key, if cached. Counts as a read.
    pub fn get(&self, key: &K) -> Option<V> {
        self.values.get(key).map(|of| of.value)
    }

    /// Whether a key is cached. Does not count as a read.
    pub fn contains(&self, key: &K) -> bool {
        self.values.contains_key(key)
    }

    /// Caches a value of `bytes` bytes, unless it exceeds nine tenths of the budget.
    pub fn insert(&self, key: K, value: V, bytes: usize) {
        self.values.insert(key, Weighed { value, weight: bytes.saturating_add(ENTRY_OVERHEAD) });
    }

    /// The budget, bytes.
    pub fn budget(&self) -> usize {
        usize::try_from(self.values.capacity()).unwrap_or(usize::MAX)
    }

    /// Current weight, bytes.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.values.weight()).unwrap_or(usize::MAX)
    }
}

impl<K: Eq + Hash, V: Clone> Debug for WeightedCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.bytes(), self.budget())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: usize = 1_000 - ENTRY_OVERHEAD;

    #[test]
    fn memory_cache_stays_within_its_budget() {
        let kept = WeightedCache::new(10_000);
        for key in 0..100 {
            kept.insert(key, key, VALUE);
            assert!(kept.bytes() <= 10_000);
            assert_eq!(kept.get(&key), Some(key));
        }
        kept.insert(100, 100, 10_000);
        assert!(!kept.contains(&100) && kept.contains(&99));
    }

    #[test]
    fn overhead_of_a_value_is_counted() {
        // Keys and values as the cache has them, in a place that was full for long.
        let kept: WeightedCache<[u64; 4], bytes::Bytes> =
            WeightedCache::new(10_000 * ENTRY_OVERHEAD);
        (0..100_000).for_each(|key| kept.insert([key; 4], bytes::Bytes::new(), 0));
        let used = kept.values.memory_used().total();
        // What `Bytes` and the allocator have beside the bytes.
        let per_value = used / kept.values.len() + 48;
        assert!(kept.values.len() > 9_000 && per_value <= ENTRY_OVERHEAD, "{per_value}");
    }

    #[test]
    fn scan_larger_than_the_budget_keeps_values_read_twice() {
        let kept = WeightedCache::new(100_000);
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
