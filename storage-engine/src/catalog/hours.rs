//! A set of hours, stored as runs of consecutive hours. A recorder without pauses needs one run.

use capstan_model::Hour;
use serde::{Deserialize, Serialize};

/// Maximum number of runs. An hour that would start one more is dropped: 4,096 runs take about 60 kB of JSON.
const RUNS: usize = 4_096;

/// The first and the last hour of each run, ascending; at least one hour is missing between two runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hours {
    runs: Vec<(Hour, Hour)>,
}

impl Hours {
    /// Adds an hour.
    pub fn insert(&mut self, hour: Hour) {
        let after = self.runs.partition_point(|(first, _)| *first <= hour);
        let before = after.checked_sub(1);
        if before.is_some_and(|place| hour <= self.runs[place].1) {
            return;
        }
        let follows = before.filter(|place| self.runs[*place].1.0.checked_add(1) == Some(hour.0));
        let precedes =
            self.runs.get(after).is_some_and(|run| hour.0.checked_add(1) == Some(run.0.0));
        match (follows, precedes) {
            (Some(place), true) => {
                self.runs[place].1 = self.runs[after].1;
                self.runs.remove(after);
            }
            (Some(place), false) => self.runs[place].1 = hour,
            (None, true) => self.runs[after].0 = hour,
            (None, false) if self.runs.len() < RUNS => self.runs.insert(after, (hour, hour)),
            (None, false) => {}
        }
    }

    /// Whether the set contains an hour.
    pub fn contains(&self, hour: Hour) -> bool {
        let after = self.runs.partition_point(|(first, _)| *first <= hour);
        after.checked_sub(1).is_some_and(|place| hour <= self.runs[place].1)
    }

    /// Its hours, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Hour> + '_ {
        self.within(Hour(i32::MIN), Hour(i32::MAX))
    }

    /// The hours between two hours, both included, ascending.
    pub fn within(&self, first: Hour, last: Hour) -> impl Iterator<Item = Hour> + '_ {
        let runs = self.runs.iter().filter(move |run| run.0 <= last && first <= run.1);
        runs.flat_map(move |run| (run.0.max(first).0..=run.1.min(last).0).map(Hour))
    }

    /// Whether it contains all hours of another set.
    pub(super) fn includes(&self, other: &Hours) -> bool {
        // One run of the other set cannot span two runs here.
        other.runs.iter().all(|run| {
            let after = self.runs.partition_point(|(first, _)| *first <= run.0);
            after.checked_sub(1).is_some_and(|place| run.1 <= self.runs[place].1)
        })
    }
}

impl Extend<Hour> for Hours {
    fn extend<I: IntoIterator<Item = Hour>>(&mut self, hours: I) {
        hours.into_iter().for_each(|hour| self.insert(hour));
    }
}

impl FromIterator<Hour> for Hours {
    fn from_iter<I: IntoIterator<Item = Hour>>(hours: I) -> Hours {
        let mut all = Hours::default();
        all.extend(hours);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hours_behave_like_a_set(inserted in prop::collection::vec(-20_i32..20, 0..60)) {
            let mut hours = Hours::default();
            let mut expected = BTreeSet::new();
            for hour in inserted {
                let before = hours.clone();
                hours.insert(Hour(hour));
                expected.insert(Hour(hour));
                prop_assert!(hours.includes(&before));
            }
            let all: Vec<Hour> = hours.iter().collect();
            prop_assert!(all.iter().eq(expected.iter()), "{all:?}");
            for hour in (-21..21).map(Hour) {
                prop_assert_eq!(hours.contains(hour), expected.contains(&hour));
            }
            let some: Vec<Hour> = hours.within(Hour(-5), Hour(5)).collect();
            prop_assert!(some.iter().eq(expected.range(Hour(-5)..=Hour(5))));
            let apart = |pair: &[(Hour, Hour)]| pair[0].1.0 + 1 < pair[1].0.0;
            prop_assert!(hours.runs.windows(2).all(apart), "{hours:?}");
        }
    }

    #[test]
    fn first_and_last_hour_are_representable() {
        let hours: Hours = [Hour(i32::MAX), Hour(i32::MIN), Hour(i32::MAX)].into_iter().collect();
        assert!(hours.contains(Hour(i32::MAX)) && hours.contains(Hour(i32::MIN)));
        assert!(!hours.contains(Hour(0)));
    }

    #[test]
    fn consecutive_hours_are_stored_as_a_range() {
        let hours: Hours = (10..5_000).chain([6_000]).map(Hour).collect();
        let json = serde_json::to_string(&hours).unwrap();
        assert_eq!(json, "[[10,4999],[6000,6000]]");
        assert_eq!(serde_json::from_str::<Hours>(&json).unwrap(), hours);
    }

    #[test]
    fn ranges_over_the_limit_are_dropped() {
        let hours: Hours = (0..10_000).map(|hour| Hour(2 * hour)).collect();
        assert_eq!(hours.runs.len(), RUNS);
        assert!(hours.contains(Hour(0)) && !hours.contains(Hour(2 * 9_999)));
    }
}
