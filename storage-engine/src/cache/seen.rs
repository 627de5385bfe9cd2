//! Admission filter of the disk cache.

use std::collections::BTreeSet;

use super::extent::Key;

/// Keys in one of the two halves, at most.
const KEYS: usize = 1 << 16;

/// Recently read keys, as many as the disk has room for. A second read admits an extent to the disk.
/// Two halves: when the younger is full, the older is dropped.
#[derive(Debug)]
pub(super) struct Seen {
    /// Total extent bytes of one half.
    room: u64,
    young: BTreeSet<Key>,
    young_bytes: u64,
    old: BTreeSet<Key>,
}

impl Seen {
    pub(super) fn new(room: u64) -> Seen {
        Seen { room: room / 2, young: BTreeSet::new(), young_bytes: 0, old: BTreeSet::new() }
    }

    /// Records a key and returns whether it was recorded before.
    pub(super) fn note(&mut self, key: Key) -> bool {
        if self.young.contains(&key) {
            return true;
        }
        if self.young_bytes.saturating_add(key.len()) > self.room || self.young.len() >= KEYS {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes = self.young_bytes.saturating_add(key.len());
        self.young.insert(key);
        self.old.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        Key::parse(&format!("{}-{:x}-{:x}", "ab".repeat(16), number * 10, number * 10 + 10))
            .unwrap()
    }

    #[test]
    fn second_access_is_recognized_within_the_history() {
        let mut seen = Seen::new(100);
        assert!(!seen.note(key(1)) && seen.note(key(1)));
        assert!((2..6).all(|number| !seen.note(key(number))));
        assert!((2..6).all(|number| seen.note(key(number))));
        // Five more fill the younger half.
        assert!((6..12).all(|number| !seen.note(key(number))));
        assert!(!seen.note(key(1)));
        assert!(seen.note(key(11)));
    }
}
