//! Coverage of an imported capture, inferred from packet times.
//!
//! A capture file does not record when the capture ran. Packets at most [`LARGEST_GAP`] apart are in
//! one stretch of coverage. A longer silence is unknown, not empty.

use std::time::Duration;

use capstan_model::coverage::Listened;
use capstan_model::{Time, TimeRange};

/// The longest silence that still counts as coverage.
pub const LARGEST_GAP: Duration = Duration::from_secs(300);

/// Maximum stretches per import. A file of packets at random times has one stretch per packet.
const MOST: usize = 4_096;

/// Maximum interface names in all stretches together.
const MOST_NAMES: usize = 100_000;

/// First and last packet of a stretch.
type Stretch = (Time, Time);

/// Stretches of packet times. Packets may arrive in any order.
#[derive(Debug, Default)]
pub(super) struct Stretches {
    /// The stretch of the last packet.
    recent: Option<Stretch>,
    others: Vec<Stretch>,
    left_out: bool,
    /// First and last packet of each interface.
    interfaces: Vec<Option<Stretch>>,
}

impl Stretches {
    /// Records a packet. A time at the very beginning of 1970 is ignored: the writer had no clock.
    #[inline]
    pub(super) fn add(&mut self, interface: u32, time: Time) {
        if time == Time(0) {
            return;
        }
        let interface = interface as usize;
        if interface >= self.interfaces.len() {
            self.interfaces.resize(interface + 1, None);
        }
        if let Some(span) = self.interfaces.get_mut(interface) {
            let (first, last) = span.get_or_insert((time, time));
            *first = (*first).min(time);
            *last = (*last).max(time);
        }
        match &mut self.recent {
            Some((first, last)) if is_near(time, (*first, *last)) => {
                *first = (*first).min(time);
                *last = (*last).max(time);
            }
            _ => self.begin(time),
        }
    }

    #[cold]
    fn begin(&mut self, time: Time) {
        self.others.extend(self.recent.replace((time, time)));
        if self.others.len() >= 2 * MOST {
            self.join();
        }
    }

    /// Merges stretches that are close together. Keeps the longest if there are too many.
    fn join(&mut self) {
        self.others.sort_unstable();
        let mut joined: Vec<Stretch> = Vec::new();
        for (first, last) in self.others.drain(..) {
            match joined.last_mut() {
                Some(before) if is_near(first, *before) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        if joined.len() > MOST {
            self.left_out = true;
            joined.sort_unstable_by_key(|(first, last)| last.0.abs_diff(first.0));
            joined.drain(..joined.len() - MOST);
            joined.sort_unstable();
        }
        self.others = joined;
    }

    /// The stretches in ascending order, each with the interfaces active in it, and whether some
    /// were omitted by the limit.
    pub(super) fn take(mut self) -> (Vec<Listened>, bool) {
        self.others.extend(self.recent.take());
        self.join();
        let (mut claimed, mut names) = (Vec::new(), 0);
        for (first, last) in &self.others {
            let touches =
                |span: &Option<Stretch>| span.is_some_and(|of| of.0 <= *last && *first <= of.1);
            let all = self.interfaces.iter().enumerate();
            let interfaces: Vec<u32> =
                all.filter(|(_, span)| touches(span)).map(|(number, _)| number as u32).collect();
            names += interfaces.len();
            if names > MOST_NAMES {
                self.left_out = true;
                break;
            }
            let range = TimeRange { start: *first, end: Time(last.0.saturating_add(1)) };
            claimed.push(Listened { range, interfaces });
        }
        (claimed, self.left_out)
    }
}

/// Whether a time is in a stretch or within the largest gap of it.
fn is_near(time: Time, (first, last): Stretch) -> bool {
    let gap = LARGEST_GAP.as_nanos() as u64;
    let outside = if time < first {
        first.0.abs_diff(time.0)
    } else if time > last {
        time.0.abs_diff(last.0)
    } else {
        0
    };
    outside <= gap
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// What packets at these seconds come to, in seconds.
    fn of(times: &[i64]) -> Vec<(i64, i64)> {
        let mut stretches = Stretches::default();
        times.iter().for_each(|time| stretches.add(0, Time(time * SECOND)));
        let (claimed, left_out) = stretches.take();
        assert!(!left_out && claimed.iter().all(|of| of.interfaces == [0]));
        let ranges = claimed.iter().map(|of| of.range);
        ranges.map(|of| (of.start.0 / SECOND, (of.end.0 - 1) / SECOND)).collect()
    }

    #[test]
    fn long_silence_separates_two_coverage_ranges() {
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[7]), [(7, 7)]);
        assert_eq!(of(&[100, 400, 700]), [(100, 700)]);
        assert_eq!(of(&[100, 401]), [(100, 100), (401, 401)]);
        // In any order, and closed by a later packet.
        assert_eq!(of(&[1_000, 100, 1_100, 90]), [(90, 100), (1_000, 1_100)]);
        assert_eq!(of(&[100, 600, 350]), [(100, 600)]);
    }

    #[test]
    fn untimed_packet_claims_no_coverage() {
        assert_eq!(of(&[0, 1_700_000_000, 0, 1_700_000_001]), [(1_700_000_000, 1_700_000_001)]);
        assert_eq!(of(&[0]), []);
    }

    #[test]
    fn longest_of_too_many_coverage_ranges_are_stored() {
        let mut stretches = Stretches::default();
        let hour = 3_600 * SECOND;
        for number in 1..20_000 {
            stretches.add(0, Time(number * hour));
        }
        stretches.add(0, Time(20_000 * hour));
        stretches.add(0, Time(20_000 * hour + SECOND));
        assert!(stretches.others.len() <= 2 * MOST);
        let (claimed, left_out) = stretches.take();
        assert!(left_out && claimed.len() == MOST);
        assert!(claimed.is_sorted_by_key(|of| of.range.start));
        assert_eq!(claimed.last().unwrap().range.end, Time(20_000 * hour + SECOND + 1));
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let mut stretches = Stretches::default();
        for time in [i64::MIN, i64::MAX, i64::MIN + 1, -1] {
            stretches.add(0, Time(time));
        }
        let (claimed, _) = stretches.take();
        assert_eq!(claimed.len(), 3);
    }

    #[test]
    fn coverage_of_an_interface_spans_its_packets() {
        let mut stretches = Stretches::default();
        let hour = 3_600 * SECOND;
        for (interface, time) in [(0, hour), (2, hour), (3, 2 * hour), (2, 3 * hour), (4, 0)] {
            stretches.add(interface, Time(time));
        }
        let (claimed, _) = stretches.take();
        let interfaces: Vec<_> = claimed.iter().map(|of| of.interfaces.clone()).collect();
        // The third was quiet in between, and listened all the same.
        assert_eq!(interfaces, [vec![0, 2], vec![2, 3], vec![2]]);
    }

    #[test]
    fn claimed_interfaces_stay_below_the_limit_of_a_commit() {
        let mut stretches = Stretches::default();
        let hour = 3_600 * SECOND;
        for interface in 0..1_000 {
            stretches.add(interface, Time(hour));
            stretches.add(interface, Time(500 * hour));
        }
        (1..500).for_each(|number| stretches.add(0, Time(number * hour)));
        let (claimed, left_out) = stretches.take();
        let names: usize = claimed.iter().map(|of| of.interfaces.len()).sum();
        assert!(left_out && names <= MOST_NAMES, "{names}");
    }
}
