//! Coverage and loss. Coverage is positive: a time without coverage is *unknown*, never *empty*.

use serde::{Deserialize, Serialize};

use crate::time::{Time, TimeRange};

/// The range of a [`Loss`] without a known time. Like packets without a time, it matches only
/// queries over all time.
pub const UNKNOWN_TIME: TimeRange = TimeRange { start: Time::MIN, end: Time::MIN };

/// A time range in which interfaces were captured, even without packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listened {
    /// From the first moment to (not including) the last.
    pub range: TimeRange,
    /// The interfaces, by number in the recorder's generation.
    pub interfaces: Vec<u32>,
}

/// Why packets or bytes are missing. The names are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossCause {
    /// The kernel had no room in the capture ring.
    KernelDrop,
    /// The source reports that it dropped packets (pcapng statistics).
    SourceDrop,
    /// The source is damaged from some byte on.
    SourceDamaged,
}

/// A loss within coverage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// From the last time without loss to the time of detection; [`UNKNOWN_TIME`] if both are unknown.
    pub range: TimeRange,
    /// The interface, by number in the recorder's generation; none if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<u32>,
    /// The cause.
    pub cause: LossCause,
    /// Packets lost; 0 if unknown.
    pub packets: u64,
    /// Bytes lost; 0 if unknown.
    pub bytes: u64,
    /// A description.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Loss {
    /// The range of a loss from the last time without loss to the detection, if one or both are
    /// known. The detection time is inside the range.
    pub fn range_of(since: Option<Time>, noticed: Option<Time>) -> TimeRange {
        let Some((since, noticed)) = since.or(noticed).zip(noticed.or(since)) else {
            return UNKNOWN_TIME;
        };
        // Clocks may be set back.
        let (first, last) = (since.min(noticed), since.max(noticed));
        TimeRange { start: first, end: Time(last.0.saturating_add(1)) }
    }

    /// The time range, if known.
    pub fn time(&self) -> Option<TimeRange> {
        (self.range != UNKNOWN_TIME).then_some(self.range)
    }

    /// Extends it by `range`. An unknown range changes nothing.
    pub fn extend(&mut self, range: TimeRange) {
        self.range = match (self.time(), range == UNKNOWN_TIME) {
            (_, true) => self.range,
            (None, false) => range,
            (Some(own), false) => {
                TimeRange { start: own.start.min(range.start), end: own.end.max(range.end) }
            }
        };
    }

    /// Whether the loss overlaps a range. A loss at one moment has a range of one nanosecond or none.
    pub fn touches(&self, range: &TimeRange) -> bool {
        range.is_all()
            || self.time().is_some_and(|time| {
                let last = Time(time.end.0.saturating_sub(1)).max(time.start);
                range.touches(time.start, last)
            })
    }
}

impl LossCause {
    /// The name in commits, SQL and messages.
    pub fn name(self) -> &'static str {
        match self {
            LossCause::KernelDrop => "kernel-drop",
            LossCause::SourceDrop => "source-drop",
            LossCause::SourceDamaged => "source-damaged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_range_uses_the_known_times() {
        let range = |start, end| TimeRange { start: Time(start), end: Time(end) };
        for (since, noticed, expected) in [
            (Some(5), Some(9), range(5, 10)),
            (None, Some(9), range(9, 10)),
            (Some(5), None, range(5, 6)),
            (Some(9), Some(5), range(5, 10)),
            (None, None, UNKNOWN_TIME),
            (Some(i64::MAX), Some(i64::MAX), range(i64::MAX, i64::MAX)),
        ] {
            let found = Loss::range_of(since.map(Time), noticed.map(Time));
            assert_eq!(found, expected, "{since:?} {noticed:?}");
        }
    }

    #[test]
    fn a_loss_without_a_time_is_in_no_window() {
        let cause = LossCause::SourceDrop;
        let note = String::new();
        let mut loss =
            Loss { range: UNKNOWN_TIME, interface: None, cause, packets: 7, bytes: 0, note };
        let until = TimeRange { start: Time::MIN, end: Time(0) };
        assert!(loss.touches(&TimeRange::ALL) && !loss.touches(&until));
        loss.extend(TimeRange { start: Time(-5), end: Time(-4) });
        assert!(loss.touches(&TimeRange::ALL) && loss.touches(&until));
        assert_eq!(loss.time(), Some(TimeRange { start: Time(-5), end: Time(-4) }));
        loss.extend(UNKNOWN_TIME);
        loss.extend(TimeRange { start: Time(-9), end: Time(-8) });
        assert_eq!(loss.time(), Some(TimeRange { start: Time(-9), end: Time(-4) }));
    }
}
