//! A time range of SQL conditions.

use std::fmt;

use capstan_model::{Time, TimeRange};
use capstan_storage_engine::catalog::SegmentEntry;
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::scalar::ScalarValue;

/// Moments from `first` to `last`, both included, nanoseconds since 1970; empty if `first` is above `last`. A
/// row without a time is never inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) first: i64,
    pub(super) last: i64,
}

impl Window {
    const EMPTY: Window = Window { first: i64::MAX, last: i64::MIN };

    /// `>= moment`
    pub(super) fn from(moment: i64) -> Self {
        Window { first: moment, last: i64::MAX }
    }

    /// `> moment`
    pub(super) fn after(moment: i64) -> Self {
        moment.checked_add(1).map_or(Window::EMPTY, Window::from)
    }

    /// `<= moment`
    pub(super) fn until(moment: i64) -> Self {
        Window { first: i64::MIN, last: moment }
    }

    /// `< moment`
    pub(super) fn before(moment: i64) -> Self {
        moment.checked_sub(1).map_or(Window::EMPTY, Window::until)
    }

    /// The intersection.
    pub(super) fn intersect(self, other: Window) -> Self {
        Window { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    /// Whether there is no moment inside.
    pub(super) fn is_empty(&self) -> bool {
        self.first > self.last
    }

    /// Whether something from `first` to `last` (both included) begins before the end and
    /// ends after the beginning: so it has a moment inside, or reaches over an empty window,
    /// as a long flow does that begins before noon and ends after one o'clock.
    pub(super) fn touches(&self, first: i64, last: i64) -> bool {
        first <= self.last && self.first <= last
    }

    /// The range in which all lies that touches it.
    pub(super) fn range(&self) -> TimeRange {
        // One that is empty is reached over by what has a moment at either side.
        let (first, last) = (self.first.min(self.last), self.last.max(self.first));
        TimeRange { start: Time(first), end: Time(last.saturating_add(1)) }
    }

    /// Whether a packet of the segment may be inside.
    pub(super) fn may_touch(&self, entry: &SegmentEntry) -> bool {
        match (entry.first, entry.last) {
            (Some(first), Some(last)) => self.touches(first.0, last.0),
            _ => false,
        }
    }

    /// Whether every packet of the segment that has a time is inside.
    pub(super) fn covers(&self, entry: &SegmentEntry) -> bool {
        match (entry.first, entry.last) {
            (Some(first), Some(last)) => self.first <= first.0 && last.0 <= self.last,
            _ => false,
        }
    }

    /// The window as conditions on the ends of flow parts: those that touch it.
    pub(super) fn conditions(&self) -> [Expr; 2] {
        let moment = |nanos| lit(ScalarValue::TimestampNanosecond(Some(nanos), Some("UTC".into())));
        [ident("last_time").gt_eq(moment(self.first)), ident("first_time").lt_eq(moment(self.last))]
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            _ if self.is_empty() => f.write_str("never"),
            (i64::MIN, i64::MAX) => f.write_str("any time"),
            (i64::MIN, last) => write!(f, "until {}", Time(last)),
            (first, i64::MAX) => write!(f, "from {}", Time(first)),
            (first, last) => write!(f, "{} to {}", Time(first), Time(last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_time_do_not_wrap() {
        assert_eq!(Window::after(i64::MAX), Window::EMPTY);
        assert_eq!(Window::before(i64::MIN), Window::EMPTY);
        assert!(Window::EMPTY.is_empty() && !Window::EMPTY.touches(0, 0));
        assert!(Window::after(5).touches(6, 6) && !Window::after(5).touches(0, 5));
    }

    #[test]
    fn window_prints_as_text() {
        assert_eq!(Window::EMPTY.to_string(), "never");
        assert_eq!(Window::from(0).to_string(), "from 1970-01-01T00:00:00Z");
        let second = Window::from(0).intersect(Window::before(1_000_000_000));
        assert_eq!(second.to_string(), "1970-01-01T00:00:00Z to 1970-01-01T00:00:00.999999999Z");
    }
}
