//! Defers long values from planning to run time.
//!
//! The optimizer computes constant expressions, once for each of its rules, and puts the values into the plan,
//! which is copied again and again: six values of 60 MB become gigabytes before any limit applies. So longer
//! values are computed when the statement runs.

use std::cell::Cell;

/// Most bytes that a function makes while a statement is optimized.
pub(super) const MOST_PLANNED: u64 = 1 << 10;

thread_local! {
    /// The longest deferred value, bytes; none if this thread does not optimize.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs `optimize` with long values deferred. Also returns the length of the longest deferred value, bytes: 0 if
/// there is none. Values that depend on deferred ones are not counted.
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

/// Whether a value of so many bytes is deferred.
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
    fn only_long_values_are_not_computed_during_optimization() {
        assert!(!is_left(u64::MAX));
        let (left, longest) = leaving_long_values(|| [10, MOST_PLANNED, 3_000, 2_000].map(is_left));
        assert_eq!((left, longest), ([false, false, true, true], 3_000));
        assert!(!is_left(u64::MAX));
    }
}
