//! Values that are not made while a statement is optimized.
//!
//! Optimizing computes what does not hang on rows, once for each of its rules, and puts it into the
//! plan, which is copied again and again: six values of 60 MB are gigabytes before anything could
//! be said. So longer values are left to be made when the statement runs.

use std::cell::Cell;

/// Most bytes that a function makes while a statement is optimized.
pub(super) const MOST_PLANNED: u64 = 1 << 10;

thread_local! {
    /// The longest value that was left, bytes; none if this thread does not optimize.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Does `optimize`, which leaves long values, and tells how long the longest of them would have
/// been, bytes: 0 if there were none. Of values made of such that are left, nobody knows.
pub(crate) fn leaving_long_values<T>(optimize: impl FnOnce() -> T) -> (T, u64) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            LEFT.set(None);
        }
    }
    LEFT.set(Some(0));
    let _reset = Reset;
    let done = optimize();
    (done, LEFT.get().unwrap_or(0))
}

/// Whether a value of so many bytes is left for later.
pub(super) fn is_left(bytes: u64) -> bool {
    match LEFT.get() {
        Some(longest) if bytes > MOST_PLANNED => {
            LEFT.set(Some(longest.max(bytes)));
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_values_are_left_and_only_while_optimizing() {
        assert!(!is_left(u64::MAX));
        let (left, longest) = leaving_long_values(|| [10, MOST_PLANNED, 3_000, 2_000].map(is_left));
        assert_eq!((left, longest), ([false, false, true, true], 3_000));
        assert!(!is_left(u64::MAX));
    }
}
