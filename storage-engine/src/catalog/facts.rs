//! Facts of commits, taken apart by slot and put together again.

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::coverage::{Listened, Loss};
use capstan_model::{Time, TimeRange};
use serde::{Deserialize, Serialize};

use super::entry::{CommitDraft, SegmentEntry};
use super::slot::TimeSlot;

/// What one commit says of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotFacts {
    /// Segments that lie there, or touch it.
    pub segments: Vec<SegmentEntry>,
    /// When and where was listened.
    pub listened: Vec<Listened>,
    /// What is missing.
    pub losses: Vec<Loss>,
}

/// Takes a commit apart. Every fact is in at least one slot.
pub fn split(content: CommitDraft) -> BTreeMap<TimeSlot, SlotFacts> {
    let mut by_slot: BTreeMap<TimeSlot, SlotFacts> = BTreeMap::new();
    for segment in content.segments {
        for slot in TimeSlot::of_segment(&segment) {
            by_slot.entry(slot).or_default().segments.push(segment.clone());
        }
    }
    for listened in content.listened {
        for slot in TimeSlot::of_range(&listened.range) {
            by_slot.entry(slot).or_default().listened.push(listened.clone());
        }
    }
    for loss in content.losses {
        for slot in TimeSlot::of_range(&loss.range) {
            by_slot.entry(slot).or_default().losses.push(loss.clone());
        }
    }
    by_slot
}

/// The slots that [`split`] finds in a commit, without copying its facts.
pub(crate) fn slots_of(content: &CommitDraft) -> BTreeSet<TimeSlot> {
    let segments = content.segments.iter().flat_map(TimeSlot::of_segment);
    let listened = content.listened.iter().flat_map(|of| TimeSlot::of_range(&of.range));
    let losses = content.losses.iter().flat_map(|of| TimeSlot::of_range(&of.range));
    segments.chain(listened).chain(losses).collect()
}

/// A fact in a manifest, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stated<T> {
    /// Who says it: a place in the manifest's list of contributors.
    pub by: u32,
    /// In which of its commits.
    pub seq: u64,
    /// What.
    pub fact: T,
}

/// Facts of many commits about one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// SHA-256 of each commit that says something here, hex.
    pub commits: Vec<Stated<String>>,
    /// Segments.
    pub segments: Vec<Stated<SegmentEntry>>,
    /// When and where was listened.
    pub listened: Vec<Stated<Listened>>,
    /// What is missing.
    pub losses: Vec<Stated<Loss>>,
}

impl Facts {
    /// Takes in what a commit says.
    pub(crate) fn push(&mut self, by: u32, seq: u64, sha256: String, facts: SlotFacts) {
        fn stated<T>(by: u32, seq: u64) -> impl Fn(T) -> Stated<T> {
            move |fact| Stated { by, seq, fact }
        }
        self.commits.push(stated(by, seq)(sha256));
        self.segments.extend(facts.segments.into_iter().map(stated(by, seq)));
        self.listened.extend(facts.listened.into_iter().map(stated(by, seq)));
        self.losses.extend(facts.losses.into_iter().map(stated(by, seq)));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.commits.len() + self.segments.len() + self.listened.len() + self.losses.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The segments, and all else.
    pub(crate) fn apart(self) -> (Facts, Facts) {
        let segments = Facts { segments: self.segments, ..Facts::default() };
        (segments, Facts { segments: Vec::new(), ..self })
    }

    /// The segments that can be found by their addresses, and the others. There is nothing else here.
    pub(crate) fn by_filter(self) -> (Facts, Facts) {
        let has_filter = |of: &Stated<SegmentEntry>| of.fact.address_filter.is_some();
        let (found, any) = self.segments.into_iter().partition(has_filter);
        let of = |segments| Facts { segments, ..Facts::default() };
        (of(found), of(any))
    }

    /// From the earliest to the latest time that a fact is about; none if one is about no time.
    pub fn span(&self) -> Option<(Time, Time)> {
        let of_range = |range: &TimeRange| Some((range.start, range.end));
        let segments = self.segments.iter().map(|of| of.fact.first.zip(of.fact.last));
        let listened = self.listened.iter().map(|of| of_range(&of.fact.range));
        let losses = self.losses.iter().map(|of| of_range(&of.fact.range));
        segments.chain(listened).chain(losses).reduce(|a, b| {
            let (a, b) = a.zip(b)?;
            Some((a.0.min(b.0), a.1.max(b.1)))
        })?
    }

    /// Whose facts these are, as far as they name contributors.
    pub(crate) fn contributors(&self) -> impl Iterator<Item = u32> {
        let commits = self.commits.iter().map(|of| of.by);
        let segments = self.segments.iter().map(|of| of.by);
        let listened = self.listened.iter().map(|of| of.by);
        let losses = self.losses.iter().map(|of| of.by);
        commits.chain(segments).chain(listened).chain(losses)
    }
}

#[cfg(test)]
mod tests {
    use capstan_model::Hour;
    use capstan_model::coverage::LossCause;

    use super::*;
    use crate::catalog::tests::segment;

    #[test]
    fn the_slots_of_a_commit_are_those_it_is_split_into() {
        let range = |start, end| TimeRange { start: Time(start), end: Time(end) };
        let hours = |many: i32| (0..many).map(Hour).collect::<Vec<_>>();
        let mut two_hours = segment("two-hours", 0);
        two_hours.hours = hours(2);
        let mut with_secrets = segment("with-secrets", 40_000);
        with_secrets.secrets = true;
        let loss = Loss {
            interface: None,
            range: range(5 * capstan_model::HOUR_NANOS, 7 * capstan_model::HOUR_NANOS),
            cause: LossCause::SourceDrop,
            packets: 1,
            bytes: 0,
            note: String::new(),
        };
        let content = CommitDraft {
            segments: vec![two_hours, with_secrets],
            listened: vec![Listened { interfaces: vec![0], range: TimeRange::ALL }],
            losses: vec![loss],
            ..CommitDraft::default()
        };
        let slots = slots_of(&content);
        assert_eq!(slots.len(), 6, "{slots:?}");
        assert!(slots.into_iter().eq(split(content).into_keys()));
    }
}
