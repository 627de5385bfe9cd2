//! Slots: a fact is kept in the hours that it touches, or in the wide slot beside them.

use std::fmt;

use capstan_model::coverage::UNKNOWN_TIME;
use capstan_model::{Hour, Time, TimeRange};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Maximum number of hours that one fact is kept in. A fact that touches more is wide: kept once, where every reader
/// looks.
pub(super) const HOURS: i64 = 24;

/// The slot of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeSlot {
    /// An hour; [`Hour::UNKNOWN`] holds the packets without a time.
    Hour(Hour),
    /// Facts that touch too many hours for their manifests, and facts that readers of any hour may need.
    Wide,
}

impl TimeSlot {
    /// `date=…/hour=…`, or `wide`.
    pub fn path(self) -> String {
        match self {
            TimeSlot::Hour(hour) => hour.path(),
            TimeSlot::Wide => "wide".to_owned(),
        }
    }

    /// Parses a path.
    pub fn from_path(path: &str) -> Option<TimeSlot> {
        match path {
            "wide" => Some(TimeSlot::Wide),
            _ => Hour::from_path(path).map(TimeSlot::Hour),
        }
    }

    /// Number of hours between two hours; none if one of the slots is no hour.
    pub(crate) fn hours_to(self, other: TimeSlot) -> Option<u32> {
        match (self, other) {
            (TimeSlot::Hour(a), TimeSlot::Hour(b)) => Some(a.0.abs_diff(b.0)),
            (TimeSlot::Wide, _) | (_, TimeSlot::Wide) => None,
        }
    }

    /// Whether a question about a range needs the facts of this slot.
    pub fn touches(self, range: &TimeRange) -> bool {
        match self {
            TimeSlot::Wide => true,
            TimeSlot::Hour(hour) => {
                range.is_all() || hour.range().is_some_and(|of| of.intersect(range).is_some())
            }
        }
    }

    /// The slots that a fact about a range is kept in. A range without length is a moment.
    pub fn of_range(range: &TimeRange) -> Vec<TimeSlot> {
        if *range == UNKNOWN_TIME {
            return vec![TimeSlot::Hour(Hour::UNKNOWN)];
        }
        let last = Time(range.end.0.saturating_sub(1)).max(range.start);
        let (first, last) = (range.start.hour(), last.hour());
        if i64::from(last.0) - i64::from(first.0) >= HOURS {
            return vec![TimeSlot::Wide];
        }
        (first.0..=last.0).map(|hour| TimeSlot::Hour(Hour(hour))).collect()
    }
}

impl fmt::Display for TimeSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl Serialize for TimeSlot {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeSlot {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<TimeSlot, D::Error> {
        let path = String::deserialize(from)?;
        let unknown = || serde::de::Error::custom(format!("'{path}' is no hour"));
        TimeSlot::from_path(&path).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = capstan_model::HOUR_NANOS;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange { start: Time(start), end: Time(end) }
    }

    #[test]
    fn time_range_maps_to_its_hours_or_to_wide() {
        let hour = |hour| TimeSlot::Hour(Hour(hour));
        assert_eq!(TimeSlot::of_range(&range(0, 1)), [hour(0)]);
        assert_eq!(TimeSlot::of_range(&range(5, 5)), [hour(0)]);
        assert_eq!(TimeSlot::of_range(&range(HOUR - 1, HOUR + 1)), [hour(0), hour(1)]);
        assert_eq!(TimeSlot::of_range(&range(0, HOUR)), [hour(0)]);
        assert_eq!(TimeSlot::of_range(&range(0, 24 * HOUR)).len(), 24);
        assert_eq!(TimeSlot::of_range(&range(0, 24 * HOUR + 1)), [TimeSlot::Wide]);
        assert_eq!(TimeSlot::of_range(&TimeRange::ALL), [TimeSlot::Wide]);
        assert_eq!(TimeSlot::of_range(&UNKNOWN_TIME), [TimeSlot::Hour(Hour::UNKNOWN)]);
    }

    #[test]
    fn query_reads_each_slot_of_a_matching_fact() {
        for (start, end) in [(0, 1), (-HOUR, HOUR), (0, 100 * HOUR), (i64::MIN, i64::MAX)] {
            let fact = range(start, end);
            for slot in TimeSlot::of_range(&fact) {
                assert!(slot.touches(&fact), "{slot}");
            }
        }
        assert!(!TimeSlot::Hour(Hour::UNKNOWN).touches(&range(0, HOUR)));
        assert!(TimeSlot::Hour(Hour::UNKNOWN).touches(&TimeRange::ALL));
    }

    #[test]
    fn slot_round_trips_through_its_path() {
        for slot in [TimeSlot::Wide, TimeSlot::Hour(Hour(14)), TimeSlot::Hour(Hour::UNKNOWN)] {
            let json = serde_json::to_string(&slot).unwrap();
            assert_eq!(serde_json::from_str::<TimeSlot>(&json).unwrap(), slot);
        }
        assert!(serde_json::from_str::<TimeSlot>("\"root\"").is_err());
    }
}
