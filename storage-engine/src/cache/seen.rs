//! What was asked for once.

use std::collections::BTreeSet;

use super::extent::Key;

/// Keys in one of the two halves, at most.
const KEYS: usize = 1 << 16;

/// Keys that were asked for lately, as many as a disk has room for: what is asked for a second time is worth
/// writing there. Two halves, of which the older is forgotten when the younger is full.
#[derive(Debug)]
pub(super) struct Seen {
    /// Bytes that the keys of one half stand for.
    room: u64,
    young: BTreeSet<Key>,
    young_bytes: u64,
    old: BTreeSet<Key>,
}

impl Seen {
    pub(super) fn new(room: u64) -> Seen {
        Seen { room: room / 2, young: BTreeSet::new(), young_bytes: 0, old: BTreeSet::new() }
    }

    /// Notes a key; whether it had been noted before.
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
    fn the_second_time_is_told_from_the_first_until_it_is_long_ago() {
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
