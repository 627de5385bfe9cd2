//! Time as Capstan keeps it: 64-bit nanoseconds since 1970, UTC.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

/// Nanoseconds in an hour.
pub const HOUR_NANOS: i64 = 3_600_000_000_000;

/// A moment, nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub i64);

/// An hour of UTC, hours since 1970. Packets without a usable time are in [`Hour::UNKNOWN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hour(pub i32);

/// From `start` (included) to `end` (not included).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeRange {
    /// First nanosecond inside.
    pub start: Time,
    /// First nanosecond after.
    pub end: Time,
}

/// Why a time a person wrote was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Neither a date nor a distance.
    #[error(
        "'{0}' is not a time: write RFC 3339 such as 2026-11-21T14:23:00Z, a date such as 2026-11-21, \
         or a distance from now such as -15m, -2h, -3d"
    )]
    NotATime(String),
    /// A valid time that 64-bit nanoseconds since 1970 cannot express.
    #[error("'{0}' is outside the years 1678 to 2261 that can be stored")]
    OutOfRange(String),
    /// The range's end is not after its start.
    #[error("the time range is upside down: from {from} is not before to {to}")]
    UpsideDown {
        /// Where it should start.
        from: Time,
        /// Where it should end.
        to: Time,
    },
}

impl Time {
    /// The earliest moment there is.
    pub const MIN: Time = Time(i64::MIN);
    /// The latest moment there is.
    pub const MAX: Time = Time(i64::MAX);

    /// The hour this moment is in.
    pub fn hour(self) -> Hour {
        // i64 nanoseconds span 2.6 million hours either way: always fits.
        Hour(self.0.div_euclid(HOUR_NANOS) as i32)
    }

    /// Reads what a person wrote: RFC 3339 with any offset, a bare date or a
    /// date and time without offset (both UTC), `now`, or a signed distance
    /// from `now` in s, m, h, d or w (`-15m`).
    pub fn parse(text: &str, now: Time) -> Result<Time, TimeError> {
        let text = text.trim();
        if text == "now" {
            return Ok(now);
        }
        if text.starts_with(['-', '+']) {
            return parse_distance(text, now);
        }
        let stamp = text
            .parse::<Timestamp>()
            .or_else(|_| {
                text.parse::<jiff::civil::DateTime>()
                    .and_then(|civil| Offset::UTC.to_timestamp(civil))
            })
            .or_else(|_| {
                text.parse::<Date>().and_then(|date| Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)))
            })
            .map_err(|_| TimeError::NotATime(text.to_owned()))?;
        i64::try_from(stamp.as_nanosecond())
            .map(Time)
            .map_err(|_| TimeError::OutOfRange(text.to_owned()))
    }

    /// `self` moved by `by` towards the future, at most to the latest time.
    pub fn saturating_add(self, by: Duration) -> Time {
        Time(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }
}

fn parse_distance(text: &str, now: Time) -> Result<Time, TimeError> {
    let not_a_time = || TimeError::NotATime(text.to_owned());
    let (sign, rest) = text.split_at(1);
    let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(not_a_time)?;
    let (digits, unit) = rest.split_at(unit_at);
    let seconds: i64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(not_a_time()),
    };
    let count: i64 = digits.parse().map_err(|_| not_a_time())?;
    let nanos = count.checked_mul(seconds).and_then(|s| s.checked_mul(1_000_000_000));
    nanos
        .and_then(
            |nanos| if sign == "-" { now.0.checked_sub(nanos) } else { now.0.checked_add(nanos) },
        )
        .map(Time)
        .ok_or_else(|| TimeError::OutOfRange(text.to_owned()))
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC, without trailing zeros in the decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(stamp) => stamp.fmt(f),
            Err(_) => write!(f, "{} ns", self.0),
        }
    }
}

impl fmt::Display for TimeRange {
    /// As text that follows a verb: `from … to …`; without the part for a bound that the range does not have.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.start == Time::MIN, self.end == Time::MAX) {
            (true, true) => f.write_str("at any time"),
            (true, false) => write!(f, "before {}", self.end),
            (false, true) => write!(f, "from {} on", self.start),
            (false, false) => write!(f, "from {} to {}", self.start, self.end),
        }
    }
}

impl Hour {
    /// The hour of packets without a time, or with one that nanoseconds cannot express.
    pub const UNKNOWN: Hour = Hour(i32::MIN);

    /// The moments of this hour; [`Hour::UNKNOWN`] has none.
    pub fn range(self) -> Option<TimeRange> {
        if self == Hour::UNKNOWN {
            return None;
        }
        let start = i64::from(self.0).saturating_mul(HOUR_NANOS);
        Some(TimeRange { start: Time(start), end: Time(start.saturating_add(HOUR_NANOS)) })
    }

    /// The two path elements of this hour: `date=2026-11-21/hour=14`, or
    /// `date=unknown/hour=unknown`.
    pub fn path(self) -> String {
        let start = self.range().and_then(|range| {
            Timestamp::from_second(i64::from(self.0) * 3_600).ok().map(|stamp| (stamp, range))
        });
        match start {
            Some((stamp, _)) => {
                let civil = Offset::UTC.to_datetime(stamp);
                format!("date={}/hour={:02}", civil.date(), civil.hour())
            }
            None => "date=unknown/hour=unknown".to_owned(),
        }
    }

    /// The hour of such path elements.
    pub fn from_path(path: &str) -> Option<Hour> {
        let (date, hour) = path.strip_prefix("date=")?.split_once("/hour=")?;
        let time = Time::parse(&format!("{date}T{hour}:00:00Z"), Time(0));
        let hour = time.map_or(Hour::UNKNOWN, Time::hour);
        // One spelling only.
        (hour.path() == path).then_some(hour)
    }
}

impl TimeRange {
    /// All of time.
    pub const ALL: TimeRange = TimeRange { start: Time::MIN, end: Time::MAX };

    /// The times of all ranges together: ascending, and ranges that touch or overlap are one.
    pub fn union(mut ranges: Vec<TimeRange>) -> Vec<TimeRange> {
        ranges.sort_unstable_by_key(|range| range.start);
        let mut union: Vec<TimeRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match union.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => union.push(range),
            }
        }
        union
    }

    /// From `start` to `end`, or why not.
    pub fn new(start: Time, end: Time) -> Result<TimeRange, TimeError> {
        if start < end {
            Ok(TimeRange { start, end })
        } else {
            Err(TimeError::UpsideDown { from: start, to: end })
        }
    }

    /// Whether the range is all of time: then packets without a time belong too.
    pub fn is_all(&self) -> bool {
        *self == TimeRange::ALL
    }

    /// Whether `time` is inside. The last nanosecond of all belongs to [`TimeRange::ALL`].
    pub fn contains(&self, time: Time) -> bool {
        self.start <= time && (time < self.end || self.end == Time::MAX)
    }

    /// Whether any moment from `first` to `last` (both included) is inside.
    pub fn touches(&self, first: Time, last: Time) -> bool {
        self.start <= last && (first < self.end || self.end == Time::MAX)
    }

    /// From the first start of two ranges to the last end, as far as they are known.
    pub fn hull(a: Option<TimeRange>, b: Option<TimeRange>) -> Option<TimeRange> {
        match a.zip(b) {
            Some((a, b)) => Some(TimeRange { start: a.start.min(b.start), end: a.end.max(b.end) }),
            None => a.or(b),
        }
    }

    /// What both ranges share, if anything.
    pub fn intersect(&self, other: &TimeRange) -> Option<TimeRange> {
        TimeRange::new(self.start.max(other.start), self.end.min(other.end)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_700_000_000_000_000_000);

    #[test]
    fn common_time_formats_parse() {
        assert_eq!(Time::parse("2023-11-14T22:13:20Z", NOW), Ok(NOW));
        assert_eq!(Time::parse("2023-11-14T23:13:20+01:00", NOW), Ok(NOW));
        assert_eq!(Time::parse("2023-11-14T22:13:20", NOW), Ok(NOW));
        assert_eq!(Time::parse("1970-01-02", NOW), Ok(Time(24 * HOUR_NANOS)));
        assert_eq!(Time::parse("now", NOW), Ok(NOW));
        assert_eq!(Time::parse("-15m", NOW), Ok(Time(NOW.0 - 900_000_000_000)));
        assert_eq!(Time::parse("+2h", NOW), Ok(Time(NOW.0 + 2 * HOUR_NANOS)));
    }

    #[test]
    fn invalid_times_are_refused() {
        for text in ["", "yesterday", "-15", "-m", "-15x", "2023-13-01", "-99999999999999w"] {
            assert!(Time::parse(text, NOW).is_err(), "{text}");
        }
        let upside_down = TimeRange::new(NOW, NOW).expect_err("empty");
        assert!(upside_down.to_string().contains("upside down"));
    }

    #[test]
    fn nine_decimals_survive_text() {
        let time = Time(1_700_000_000_123_456_789);
        assert_eq!(Time::parse(&time.to_string(), NOW), Ok(time));
    }

    #[test]
    fn unbounded_range_prints_without_bound() {
        let range = |start, end| TimeRange { start, end }.to_string();
        let text = "2023-11-14T22:13:20Z";
        assert_eq!(range(NOW, NOW), format!("from {text} to {text}"));
        assert_eq!(range(Time::MIN, NOW), format!("before {text}"));
        assert_eq!(range(NOW, Time::MAX), format!("from {text} on"));
        assert_eq!(TimeRange::ALL.to_string(), "at any time");
    }

    #[test]
    fn hours_before_1970_floor() {
        assert_eq!(Time(-1).hour(), Hour(-1));
        assert_eq!(Hour(-1).path(), "date=1969-12-31/hour=23");
        assert_eq!(Time::MIN.hour().path().len(), "date=1677-09-21/hour=00".len());
        assert_eq!(Hour::UNKNOWN.path(), "date=unknown/hour=unknown");
        for hour in [Hour(0), Hour(-1), Hour(498_800), Hour::UNKNOWN] {
            assert_eq!(Hour::from_path(&hour.path()), Some(hour));
        }
        for other in
            ["date=2026-11-21/hour=7", "date=2026-11-21/hour=24", "date=x/hour=unknown", ""]
        {
            assert_eq!(Hour::from_path(other), None, "{other}");
        }
    }

    #[test]
    fn all_of_time_contains_its_ends() {
        assert!(TimeRange::ALL.contains(Time::MAX));
        assert!(TimeRange::ALL.contains(Time::MIN));
        let range = TimeRange { start: Time(10), end: Time(20) };
        assert!(range.contains(Time(10)) && !range.contains(Time(20)));
        assert!(range.touches(Time(0), Time(10)) && !range.touches(Time(20), Time(30)));
    }
}
