//! Values in memory, within a budget.

use std::fmt::{self, Debug};
use std::hash::Hash;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// Values by key, each with a weight, all of them within a budget.
///
/// Which ones go is S3-FIFO's to say: once there is no room, what is new waits in a tenth of it, and
/// goes from there unless it was asked for again meanwhile, or soon after. So a scan, however long,
/// passes through that tenth, while an LRU would give up everything for it. Of the algorithms that do
/// this it is the one whose hits change nothing but a counter.
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

/// What a value takes beside its own weight: key, counters, links, room to grow; measured.
const ENTRY_OVERHEAD: usize = 256;

/// The part of the room that is for what was asked for more than once.
const HOT_PART: f64 = 0.9;

/// What a value is taken to weigh, to say how many keys of those that went are remembered.
const TYPICAL_WEIGHT: usize = 32 * 1024;

impl<K: Eq + Hash, V: Clone> WeightedCache<K, V> {
    /// Nothing yet, and at most `budget` bytes.
    #[allow(clippy::expect_used)] // The builder wants two figures, and both are given.
    pub fn new(budget: usize) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(budget as u64)
            .estimated_items_capacity(budget / TYPICAL_WEIGHT)
            .hot_allocation(HOT_PART)
            // More would each have a part of the budget, and large values no place in it.
            .shards(1)
            .build()
            .expect("complete");
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        WeightedCache { values: Cache::with_options(options, ByWeight, hasher, lifecycle) }
    }

    /// The value of that key, if it is kept: it was asked for once more.
    pub fn get(&self, key: &K) -> Option<V> {
        self.values.get(key).map(|of| of.value)
    }

    /// Whether there is a value of that key; nobody asked for it.
    pub fn contains(&self, key: &K) -> bool {
        self.values.contains_key(key)
    }

    /// Keeps a value of so many bytes, unless it alone is more than nine tenths of the room.
    pub fn insert(&self, key: K, value: V, bytes: usize) {
        self.values.insert(key, Weighed { value, weight: bytes.saturating_add(ENTRY_OVERHEAD) });
    }

    /// The most that is kept, bytes.
    pub fn budget(&self) -> usize {
        usize::try_from(self.values.capacity()).unwrap_or(usize::MAX)
    }

    /// What is kept, bytes.
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
    fn what_is_kept_stays_within_the_budget() {
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
    fn what_a_value_takes_beside_itself_is_counted() {
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
    fn a_scan_of_twenty_times_the_room_leaves_what_was_asked_for_again() {
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
