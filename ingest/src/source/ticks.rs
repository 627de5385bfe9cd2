//! Converts file time stamps (ticks with a unit and an offset) to nanoseconds since 1970.

use capstan_model::Time;
use capstan_model::packet::Stamp;

const NANOS_A_SECOND: u64 = 1_000_000_000;

/// What one tick of an interface's clock is worth, and where the clock starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    unit: Unit,
    offset_seconds: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A tick is this many nanoseconds (a second down to a nanosecond).
    Nanos(u64),
    /// This many ticks make a nanosecond; none if more than 128 bits can say.
    Part(Option<u128>),
    /// A tick is a second divided by two to this power.
    Binary(u8),
}

impl Clock {
    /// The clock of an interface with this `if_tsresol` and `if_tsoffset`
    /// (draft-ietf-opsawg-pcapng section 4.2).
    pub(super) fn new(resolution: u8, offset_seconds: i64) -> Clock {
        let power = resolution & 0x7f;
        let unit = match (resolution & 0x80 != 0, power) {
            (true, power) => Unit::Binary(power),
            (false, 0..=9) => Unit::Nanos(10u64.pow(u32::from(9 - power))),
            (false, power) => Unit::Part(10u128.checked_pow(u32::from(power - 9))),
        };
        Clock { unit, offset_seconds }
    }

    /// The moment `ticks` stands for. [`Stamp::Raw`] if nanoseconds cannot say it
    /// exactly or 64 bits of them do not reach.
    #[inline]
    pub(super) fn stamp(self, ticks: u64) -> Stamp {
        if let Unit::Nanos(nanos) = self.unit
            && self.offset_seconds == 0
            && let Some(total) = ticks.checked_mul(nanos)
            && let Ok(total) = i64::try_from(total)
        {
            return Stamp::At(Time(total));
        }
        self.odd_stamp(ticks)
    }

    /// The moment `ticks` stands for in a field in which zero means that there is none, if nanoseconds can say it.
    pub(super) fn time(self, ticks: u64) -> Option<Time> {
        if ticks == 0 { None } else { self.stamp(ticks).time() }
    }

    fn odd_stamp(self, ticks: u64) -> Stamp {
        let (nanos, exact) = match self.unit {
            Unit::Nanos(nanos) => (u128::from(ticks) * u128::from(nanos), true),
            Unit::Part(Some(part)) => (u128::from(ticks) / part, u128::from(ticks) % part == 0),
            Unit::Part(None) => (0, ticks == 0),
            Unit::Binary(power) => {
                // 64 bits by 30 bits: no overflow; `power` is below 128.
                let scaled = u128::from(ticks) * u128::from(NANOS_A_SECOND);
                let nanos = scaled >> power;
                (nanos, nanos << power == scaled)
            }
        };
        // Below 2^94 plus less than 2^94 either way: fits in i128.
        let total = nanos as i128 + i128::from(self.offset_seconds) * i128::from(NANOS_A_SECOND);
        match (i64::try_from(total), exact) {
            (Ok(total), true) => Stamp::At(Time(total)),
            (Ok(total), false) => Stamp::Raw { ticks, time: Some(Time(total)) },
            (Err(_), _) => Stamp::Raw { ticks, time: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_resolutions_are_exact() {
        let micro = Clock::new(6, 0);
        assert_eq!(micro.stamp(1_700_000_000_123_456), Stamp::At(Time(1_700_000_000_123_456_000)));
        assert_eq!(Clock::new(9, 0).stamp(7), Stamp::At(Time(7)));
        assert_eq!(Clock::new(0, 0).stamp(7), Stamp::At(Time(7_000_000_000)));
        assert_eq!(Clock::new(6, -100).stamp(1_000_000), Stamp::At(Time(-99_000_000_000)));
    }

    #[test]
    fn resolution_finer_than_nanoseconds_keeps_raw_ticks() {
        let pico = Clock::new(12, 0);
        assert_eq!(pico.stamp(5_000), Stamp::At(Time(5)));
        assert_eq!(pico.stamp(5_999), Stamp::Raw { ticks: 5_999, time: Some(Time(5)) });
        // The same file read by tshark 4.0.17 says 287445236.491844241.
        let binary = Clock::new(0xa0, 0);
        assert_eq!(
            binary.stamp(1_234_567_890_123_456_789),
            Stamp::Raw {
                ticks: 1_234_567_890_123_456_789,
                time: Some(Time(287_445_236_491_844_241))
            }
        );
    }

    #[test]
    fn time_that_does_not_fit_keeps_raw_ticks() {
        let far = Stamp::Raw { ticks: u64::MAX, time: None };
        assert_eq!(Clock::new(6, 0).stamp(u64::MAX), far);
        assert_eq!(Clock::new(0, i64::MAX).stamp(u64::MAX), far);
        assert_eq!(Clock::new(0, i64::MIN).stamp(u64::MAX), far);
        assert_eq!(Clock::new(0x7f, 0).stamp(0), Stamp::At(Time(0)));
    }

    proptest! {
        #[test]
        fn no_clock_panics(resolution: u8, offset: i64, ticks: u64) {
            let stamp = Clock::new(resolution, offset).stamp(ticks);
            if let Stamp::Raw { ticks: kept, .. } = stamp {
                prop_assert_eq!(kept, ticks);
            }
        }
    }
}
