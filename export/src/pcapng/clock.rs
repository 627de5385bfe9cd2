//! From nanoseconds to the ticks of an interface.

use capstan_model::Time;
use capstan_model::link::Interface;

const NANOS_A_SECOND: i128 = 1_000_000_000;

/// Nanoseconds as `if_tsresol` writes them.
const NANOSECONDS: u8 = 9;

/// How an interface's time stamps are written: `if_tsresol` and `if_tsoffset`
/// (draft-ietf-opsawg-pcapng section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) resolution: u8,
    pub(super) offset_seconds: i64,
}

impl Clock {
    /// Nanoseconds since 1970.
    pub(super) const NANOS: Clock = Clock { resolution: NANOSECONDS, offset_seconds: 0 };

    /// Nanoseconds since before the first moment there is: reaches all before 1970.
    pub(super) const EARLY: Clock =
        Clock { resolution: NANOSECONDS, offset_seconds: i64::MIN / 1_000_000_000 - 1 };

    /// The clock the interface had in its source.
    pub(super) fn of(interface: &Interface) -> Clock {
        let Interface { resolution, offset_seconds, .. } = *interface;
        Clock { resolution, offset_seconds }
    }

    fn binary(self) -> bool {
        self.resolution & 0x80 != 0
    }

    fn power(self) -> u32 {
        u32::from(self.resolution & 0x7f)
    }

    /// Whether it can say what nanoseconds cannot: a nanosecond is not a whole number of
    /// its ticks. (10^9 is divisible by 2 nine times.)
    pub(super) fn is_finer_than_nanos(self) -> bool {
        self.power() > 9
    }

    /// `time` in ticks, if they say it exactly and fit.
    #[inline]
    pub(super) fn ticks(self, time: Time) -> Option<u64> {
        if self == Clock::NANOS {
            return u64::try_from(time.0).ok();
        }
        self.ticks_of_nanos(i128::from(time.0))
    }

    fn ticks_of_nanos(self, nanos: i128) -> Option<u64> {
        let since = nanos.checked_sub(i128::from(self.offset_seconds) * NANOS_A_SECOND)?;
        let (times, parts) = if self.binary() {
            (1i128.checked_shl(self.power()).filter(|times| *times > 0)?, NANOS_A_SECOND)
        } else {
            (10i128.checked_pow(self.power())?, NANOS_A_SECOND)
        };
        // In lowest terms by hand, so that a large power does not overflow for nothing.
        let common = gcd(times, parts);
        let scaled = since.checked_mul(times / common)?;
        let divisor = parts / common;
        (scaled % divisor == 0).then_some(())?;
        u64::try_from(scaled / divisor).ok()
    }

    /// What `ticks` of the clock `from` are in ticks of this one, if exactly so.
    pub(super) fn ticks_of(self, from: Clock, ticks: u64) -> Option<u64> {
        if self == from {
            return Some(ticks);
        }
        let seconds = if from.binary() {
            1i128.checked_shl(from.power()).filter(|seconds| *seconds > 0)?
        } else {
            10i128.checked_pow(from.power())?
        };
        let nanos = i128::from(ticks).checked_mul(NANOS_A_SECOND)?;
        (nanos % seconds == 0).then_some(())?;
        let offset = i128::from(from.offset_seconds) * NANOS_A_SECOND;
        self.ticks_of_nanos((nanos / seconds).checked_add(offset)?)
    }
}

fn gcd(mut one: i128, mut other: i128) -> i128 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(resolution: u8, offset_seconds: i64) -> Clock {
        Clock { resolution, offset_seconds }
    }

    #[test]
    fn ticks_are_exact_or_none() {
        let time = Time(1_700_000_000_123_456_789);
        assert_eq!(Clock::NANOS.ticks(time), Some(1_700_000_000_123_456_789));
        assert_eq!(clock(6, 0).ticks(time), None);
        assert_eq!(clock(6, 0).ticks(Time(1_000)), Some(1));
        assert_eq!(clock(6, 1_700_000_000).ticks(Time(1_700_000_000_000_001_000)), Some(1));
        assert_eq!(clock(10, 0).ticks(time), Some(17_000_000_001_234_567_890));
        assert_eq!(clock(12, 0).ticks(time), None);
        assert_eq!(clock(12, 1_699_999_999).ticks(time), Some(1_123_456_789_000));
        assert_eq!(clock(0x81, 0).ticks(Time(500_000_000)), Some(1));
        assert_eq!(clock(0xff, 0).ticks(Time(1)), None);
        assert_eq!(Clock::NANOS.ticks(Time(-1)), None);
        assert_eq!(clock(9, -1).ticks(Time(-1)), Some(999_999_999));
        for (clock, time) in [
            (Clock::EARLY, Time::MIN),
            (Clock::EARLY, Time(-1)),
            (Clock::NANOS, Time(0)),
            (Clock::NANOS, Time::MAX),
        ] {
            assert!(clock.ticks(time).is_some());
        }
        for resolution in 0..=255 {
            for offset in [i64::MIN, 0, i64::MAX] {
                for time in [Time::MIN, Time(0), Time::MAX] {
                    clock(resolution, offset).ticks(time);
                    clock(resolution, offset).ticks_of(clock(!resolution, 7), u64::MAX);
                }
            }
        }
    }

    #[test]
    fn ticks_of_another_clock() {
        assert_eq!(Clock::NANOS.ticks_of(clock(6, 10), 5), Some(10_000_005_000));
        assert_eq!(Clock::NANOS.ticks_of(clock(6, -10), 5), None);
        assert_eq!(Clock::NANOS.ticks_of(clock(12, 0), 5), None);
        assert_eq!(Clock::NANOS.ticks_of(clock(6, 0), u64::MAX), None);
        assert_eq!(clock(12, 3).ticks_of(clock(12, 3), 5), Some(5));
    }
}
