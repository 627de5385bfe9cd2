//! The directory of cached files, with least-recently-used eviction. Every file here was read twice,
//! so a scan evicts nothing.

use std::collections::BTreeMap;

use crate::cache::extent::Key;

/// Overhead of a file, and the allocation unit, bytes.
const PAGE: u64 = 4_096;

/// Maximum number of files. Each takes about a hundred bytes of memory here, whatever its size.
const FILES: usize = 1 << 18;

/// See the module.
#[derive(Debug)]
pub(super) struct Directory {
    room: u64,
    files: usize,
    bytes: u64,
    /// Last access of each file, as an access counter.
    used: BTreeMap<Key, u64>,
    order: BTreeMap<u64, Key>,
    clock: u64,
}

impl Directory {
    pub(super) fn new(room: u64) -> Directory {
        let (used, order) = (BTreeMap::new(), BTreeMap::new());
        Directory { room, files: FILES, bytes: 0, used, order, clock: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn room(&self) -> u64 {
        self.room
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.used.contains_key(key)
    }

    /// Adds a file and returns the files to evict.
    pub(super) fn add(&mut self, key: Key) -> Vec<Key> {
        self.forget(&key);
        let mut surplus = Vec::new();
        self.bytes = self.bytes.saturating_add(taken(&key));
        while (self.bytes > self.room || self.used.len() >= self.files)
            && let Some((_, gone)) = self.order.pop_first()
        {
            self.used.remove(&gone);
            self.bytes = self.bytes.saturating_sub(taken(&gone));
            surplus.push(gone);
        }
        self.clock += 1;
        self.order.insert(self.clock, key);
        self.used.insert(key, self.clock);
        surplus
    }

    /// Whether a file exists. Marks it as most recently used.
    pub(super) fn touch(&mut self, key: &Key) -> bool {
        let Some(used) = self.used.get_mut(key) else { return false };
        self.clock += 1;
        self.order.remove(used);
        self.order.insert(self.clock, *key);
        *used = self.clock;
        true
    }

    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(used) = self.used.remove(key) {
            self.order.remove(&used);
            self.bytes = self.bytes.saturating_sub(taken(key));
        }
    }
}

/// Disk space of a file, bytes.
fn taken(key: &Key) -> u64 {
    key.len().saturating_add(super::TRAILER as u64).div_ceil(PAGE).saturating_mul(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        let start = number * PAGE;
        Key::parse(&format!("{}-{start:x}-{:x}", "ab".repeat(16), start + 10)).unwrap()
    }

    #[test]
    fn entries_not_used_again_are_evicted() {
        let mut directory = Directory::new(3 * PAGE);
        assert!((0..3).all(|number| directory.add(key(number)).is_empty()));
        assert!(directory.touch(&key(0)) && !directory.touch(&key(7)));
        assert_eq!(directory.add(key(3)), [key(1)]);
        assert_eq!(directory.add(key(3)), []);
        assert_eq!(directory.bytes(), 3 * PAGE);
        directory.files = 2;
        assert_eq!(directory.add(key(4)), [key(2), key(0)]);
        directory.forget(&key(3));
        assert!(!directory.contains(&key(3)) && directory.contains(&key(4)));
        assert_eq!(directory.bytes(), PAGE);
        assert_eq!(directory.order.len(), directory.used.len());
    }
}
