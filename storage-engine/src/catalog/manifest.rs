//! The manifest of a slot: the facts of all commits about one hour, rolled up.
//!
//! A manifest is a sequence of versions. Each is created if absent and never changes. It holds facts itself until
//! there are many; then they move into a *part*, an object of its own that later versions name. So the cost of a new
//! version does not grow with the hour, and a query about a minute reads only the parts that touch it.
//!
//! This module is pure. Rolling up is idempotent, even with two concurrent rollups: the commits of a contributor are
//! taken in order, and commits that are already present are skipped.

mod invariants;

use std::borrow::Cow;
use std::collections::BTreeSet;

use capstan_model::{Generation, GenerationId, RecorderId, TimeRange};
use serde::{Deserialize, Serialize};

use super::entry::WriterInfo;
use super::fact::Fact;
use super::fact::Holds;
use super::facts::{Attributed, Facts};
use super::invariants::{Broken, check};
use super::part::{Part, PartContent};
use super::slot::TimeSlot;
use crate::term_filters::{KnownTerms, TermFilter, TermFilters};

/// The newest format of manifests and parts that this version reads. It is written for facts that a reader of the
/// previous format would miss.
pub const FORMAT: u32 = 2;

/// The format of manifests and parts without such facts, and of all other rolled-up objects.
pub(crate) const BEFORE_CHANGES: u32 = 1;

/// The format of an object with these facts.
fn format(facts: &Facts) -> u32 {
    if facts.are_late() { FORMAT } else { BEFORE_CHANGES }
}

/// Maximum number of facts in the manifest itself. More facts move into a part.
const HELD_MOST: usize = 1_024;

/// A version of a slot's manifest: `catalog/<slot>/<version>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format number: the lowest one whose readers read this manifest correctly.
    pub format: u32,
    /// The slot that it describes.
    pub slot: TimeSlot,
    /// Its number, from 1 without gaps.
    pub version: u64,
    /// SHA-256 of the previous version, hex; empty for the first.
    pub previous: String,
    /// The epoch of the rollup that created it.
    pub epoch: u64,
    /// Marks the create request.
    pub nonce: String,
    /// The generations with facts in this slot.
    pub contributors: Vec<Contributor>,
    /// Objects with further facts.
    pub parts: Vec<Part>,
    /// The addresses in those of its parts that hold [only segments](Holds::Segments); none = any, or the next field
    /// has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_filter: Option<TermFilter>,
    /// The same filter, if it is larger than earlier versions can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_address_filter: Option<TermFilter>,
    /// The other terms in those parts.
    #[serde(default, skip_serializing_if = "TermFilters::is_empty")]
    pub term_filters: TermFilters,
    /// Facts in the manifest itself.
    pub held: Facts,
}

/// A generation with facts in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contributor {
    /// The recorder.
    pub recorder: RecorderId,
    /// Number of the generation.
    pub generation: Generation,
    /// The version of the root that admitted it. A reader with an older root ignores it.
    pub admitted: u64,
    /// The description of its writer, if readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<WriterInfo>,
    /// All its commits with lower numbers and facts about this slot are included.
    pub next: u64,
}

impl Contributor {
    /// The identity of the generation.
    pub fn of(&self) -> GenerationId {
        GenerationId::new(self.recorder, self.generation)
    }
}

/// The facts of a commit about this slot, to be rolled up into the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotCommit {
    /// The generation.
    pub of: GenerationId,
    /// The version of the root that admitted that generation.
    pub admitted: u64,
    /// The description of its writer.
    pub info: Option<WriterInfo>,
    /// The commit's number.
    pub seq: u64,
    /// SHA-256 of its bytes, hex; empty if it is lost.
    pub sha256: String,
    /// The facts.
    pub facts: Vec<Fact>,
}

impl Manifest {
    /// The state before the first version: no facts.
    pub fn empty(slot: TimeSlot) -> Manifest {
        Manifest {
            format: BEFORE_CHANGES,
            slot,
            version: 0,
            previous: String::new(),
            epoch: 0,
            nonce: String::new(),
            contributors: Vec::new(),
            parts: Vec::new(),
            address_filter: None,
            large_address_filter: None,
            term_filters: TermFilters::default(),
            held: Facts::default(),
        }
    }

    /// The next version, with commits that are not in it yet; none if it has them all. The commits of one generation
    /// must be in order and complete since the last rollup. `previous` is the SHA-256 of this version.
    pub fn roll_up(
        &self,
        commits: &[SlotCommit],
        epoch: u64,
        previous: String,
        nonce: String,
    ) -> Option<Manifest> {
        let mut next = self.clone();
        let mut changed = false;
        for commit in commits {
            let by = next.contributor(commit);
            let Some(contributor) = next.contributors.get_mut(by as usize) else { continue };
            if commit.seq < contributor.next {
                continue;
            }
            contributor.next = commit.seq.saturating_add(1);
            next.held.push(by, commit.seq, commit.sha256.clone(), commit.facts.clone());
            changed = true;
        }
        next.version = self.version.saturating_add(1);
        next.epoch = epoch;
        next.previous = if self.version == 0 { String::new() } else { previous };
        next.nonce = nonce;
        changed.then_some(next)
    }

    /// The version after `newest`, the highest existing number; this version is the newest readable one. It gains
    /// `commits` and loses the unreadable parts. `previous` is the SHA-256 of the bytes of the highest version.
    pub(crate) fn mended(
        &self,
        newest: u64,
        unreadable: &BTreeSet<String>,
        commits: &[SlotCommit],
        epoch: u64,
        previous: String,
        nonce: String,
    ) -> Manifest {
        let mut next = self.clone();
        next.parts.retain(|part| !unreadable.contains(&part.name));
        for commit in commits {
            let by = next.contributor(commit);
            if let Some(contributor) = next.contributors.get_mut(by as usize) {
                contributor.next = contributor.next.max(commit.seq.saturating_add(1));
                next.held.push(by, commit.seq, commit.sha256.clone(), commit.facts.clone());
            }
        }
        Manifest { version: newest.saturating_add(1), epoch, previous, nonce, ..next }
    }

    /// The format for this content: the oldest format whose readers read it correctly.
    pub(crate) fn needed_format(&self) -> u32 {
        format(&self.held)
    }

    /// Index of the contributor of a commit; adds a new contributor.
    fn contributor(&mut self, commit: &SlotCommit) -> u32 {
        let same = |known: &Contributor| known.of() == commit.of;
        let place = self.contributors.iter().position(same).unwrap_or_else(|| {
            self.contributors.push(Contributor {
                recorder: commit.of.recorder,
                generation: commit.of.generation,
                admitted: commit.admitted,
                info: commit.info.clone(),
                next: 0,
            });
            self.contributors.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Moves all facts out if there are many. The caller must write the returned parts and name them before it writes
    /// this version. A part of segments may be ten times as large as a part of statements. Segments that do not fit
    /// into the filter go to a part that every query reads, so one flood of addresses leaves the filter unchanged.
    pub fn overflow(&mut self) -> Vec<(Holds, PartContent)> {
        if self.held.len() <= HELD_MOST {
            return Vec::new();
        }
        let mut parts = std::mem::take(&mut self.held).apart();
        let [(_, found), (_, any), _] = &mut parts;
        self.add_terms(found, any);
        match self.filter_with(found) {
            Some(filter) => self.set_filter(filter),
            // The existing filter still covers the earlier parts.
            None if self.filter().is_some() => any.facts.append(&mut found.facts),
            None => {}
        }
        let parts = parts.into_iter().filter(|(_, facts)| !facts.is_empty());
        let content = |facts| PartContent { format: format(&facts), slot: self.slot, facts };
        parts.map(|(holds, facts)| (holds, content(facts))).collect()
    }

    /// Whether a query may skip one of its parts.
    pub(crate) fn has_segment_parts(&self) -> bool {
        self.parts.iter().any(|part| part.holds == Holds::Segments)
    }

    /// Adds the terms of the segments that move into a part which queries may skip. A group of terms that nearly all of
    /// them have keeps its filter, and the others move into a part that every query reads.
    fn add_terms(&mut self, found: &mut Facts, any: &mut Facts) {
        if found.segments().next().is_none() {
            return;
        }
        let mut groups = TermFilters::common(found.segments().map(|of| &of.term_filters));
        if self.has_segment_parts() {
            groups.retain(|group| self.term_filters.has_all(std::slice::from_ref(group)));
        }
        let lacks = |of: &Attributed<Fact, u32>| {
            of.fact.segment().is_some_and(|entry| !entry.term_filters.has_all(&groups))
        };
        let (others, kept) = std::mem::take(&mut found.facts).into_iter().partition(lacks);
        found.facts = kept;
        any.facts.extend::<Vec<_>>(others);
        let known = self.has_segment_parts().then_some(&self.term_filters);
        let of_found = found.segments().map(|of| &of.term_filters);
        let all: Vec<&TermFilters> = known.into_iter().chain(of_found).collect();
        self.term_filters = TermFilters::union(&all).only(&groups);
    }

    /// The addresses of the segments in parts, and of these facts; none if unknown.
    fn filter_with(&self, more: &Facts) -> Option<TermFilter> {
        let known = self.filter()?;
        let of_more = more.segments().map(|of| of.address_filter.as_ref());
        let of_more: Vec<&TermFilter> = of_more.collect::<Option<_>>()?;
        TermFilter::union(of_more.into_iter().chain([&*known]))
    }

    /// The addresses of the segments in parts that a query may skip; none if unknown.
    pub(crate) fn filter(&self) -> Option<Cow<'_, TermFilter>> {
        if self.has_segment_parts() {
            let filter = self.large_address_filter.as_ref().or(self.address_filter.as_ref());
            return filter.map(Cow::Borrowed);
        }
        Some(Cow::Owned(TermFilter::default()))
    }

    fn set_filter(&mut self, filter: TermFilter) {
        let (small, large) =
            if filter.is_large() { (None, Some(filter)) } else { (Some(filter), None) };
        (self.address_filter, self.large_address_filter) = (small, large);
    }

    /// Calls a function with what is known of the segments in skippable parts.
    pub(super) fn known<T>(&self, ask: impl FnOnce(KnownTerms<'_>) -> T) -> T {
        let filter = self.filter();
        ask(KnownTerms { addresses: filter.as_deref(), terms: &self.term_filters })
    }

    /// Whether the filters cover the segments of a part.
    pub(crate) fn includes(&self, holds: Holds, facts: &Facts) -> bool {
        if holds != Holds::Segments {
            return true;
        }
        if !facts.segments().all(|of| self.term_filters.includes(&of.term_filters)) {
            return false;
        }
        let Some(filter) = self.filter() else { return true };
        let mut of_segments = facts.segments().map(|of| of.address_filter.as_ref());
        of_segments.all(|of| of.is_some_and(|of| filter.includes(of)))
    }

    /// The contributor at an index.
    pub fn owner(&self, by: u32) -> Option<&Contributor> {
        self.contributors.get(by as usize)
    }

    /// The parts that may have facts about a range.
    pub fn parts(&self, range: TimeRange) -> impl Iterator<Item = &Part> {
        let touches = move |part: &&Part| {
            range.is_all() || part.span.is_none_or(|(first, last)| range.touches(first, last))
        };
        self.parts.iter().filter(touches)
    }

    /// Checks the invariants of every version, and of every step between versions.
    ///
    /// # Errors
    /// The violated invariant.
    pub fn check(&self, before: &Manifest) -> Result<(), Broken> {
        check(invariants::ALL, before, self)
    }
}

#[cfg(test)]
mod tests {
    use capstan_index::filter::FlowFilter;
    use capstan_model::coverage::Listened;
    use capstan_model::{Address, HOUR_NANOS, Hour, Time};
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::SegmentEntry;
    use crate::catalog::tests::segment;

    const SLOT: TimeSlot = TimeSlot::Hour(Hour(0));

    fn commit(recorder: u64, seq: u64) -> SlotCommit {
        let range = TimeRange { start: Time(seq as i64), end: Time(HOUR_NANOS) };
        let listened = Listened { range, interfaces: Vec::new() };
        SlotCommit {
            of: GenerationId::new(RecorderId(recorder), Generation(1)),
            admitted: recorder,
            info: None,
            seq,
            sha256: format!("{recorder}-{seq}"),
            facts: vec![Fact::Listened(listened)],
        }
    }

    #[test]
    fn a_manifest_with_changes_has_a_format_that_older_readers_refuse() {
        let plain = step(&Manifest::empty(SLOT), &[commit(1, 0)]).unwrap();
        assert_eq!(plain.needed_format(), BEFORE_CHANGES);
        let pin = serde_json::json!({
            "kind": "pinned", "segment": "s", "slots": [SLOT], "at": 5, "pin": "p",
        });
        let facts = vec![Fact::of_json(pin).unwrap()];
        let changed = step(&plain, &[SlotCommit { facts, ..commit(1, 1) }]).unwrap();
        assert_eq!(changed.needed_format(), FORMAT);
        // The facts move into parts with formats of their own.
        let many: Vec<SlotCommit> = (2..2_000).map(|seq| commit(1, seq)).collect();
        let mut grown = changed.roll_up(&many, 1, "hash".to_owned(), "nonce".to_owned()).unwrap();
        let formats: Vec<u32> = grown.overflow().iter().map(|(_, part)| part.format).collect();
        assert!(formats.contains(&FORMAT) && grown.needed_format() == BEFORE_CHANGES);
    }

    fn step(before: &Manifest, commits: &[SlotCommit]) -> Option<Manifest> {
        let mut next = before.roll_up(commits, 1, "hash".to_owned(), "nonce".to_owned())?;
        for (holds, content) in next.overflow() {
            let facts = content.facts.len() as u64;
            let span = content.facts.span();
            let (name, sha256) = (format!("p{}-{holds:?}", next.version), String::new());
            next.parts.push(Part { name, bytes: 1, sha256, facts, holds, span });
        }
        next.check(before).unwrap();
        Some(next)
    }

    #[test]
    fn commits_are_not_rolled_up_twice() {
        let first = step(&Manifest::empty(SLOT), &[commit(1, 0), commit(2, 3)]).unwrap();
        assert_eq!((first.version, first.held.commits.len()), (1, 2));
        assert_eq!(step(&first, &[commit(2, 3), commit(1, 0)]), None);
        let second = step(&first, &[commit(1, 0), commit(1, 1)]).unwrap();
        assert_eq!((second.version, second.held.commits.len()), (2, 3));
        assert_eq!(second.contributors[0].next, 2);
        assert_eq!(second.previous, "hash");
    }

    #[test]
    fn many_facts_move_into_a_part_with_a_time_range() {
        let commits: Vec<_> = (0..600).map(|seq| commit(1, seq)).collect();
        let full = step(&Manifest::empty(SLOT), &commits).unwrap();
        assert!(full.held.is_empty());
        assert_eq!((full.parts.len(), full.parts[0].facts), (1, 1_200));
        assert_eq!(full.parts[0].span, Some((Time(0), Time(HOUR_NANOS))));
        let after = TimeRange { start: Time(HOUR_NANOS + 1), end: Time(HOUR_NANOS + 2) };
        assert_eq!(full.parts(after).count(), 0);
        assert_eq!(full.parts(TimeRange::ALL).count(), 1);
        assert_eq!(step(&full, &commits), None);
    }

    #[test]
    fn part_without_known_addresses_matches_any_address() {
        let busy = |from: u64, filter: Option<TermFilter>| {
            let mut commits: Vec<_> = (from..from + 600).map(|seq| commit(1, seq)).collect();
            let segment = SegmentEntry { address_filter: filter, ..segment("a", 0) };
            commits[0].facts.push(Fact::Segment(segment));
            commits
        };
        let address = |last: u8| Address::v4([10, 0, 0, last]);
        let of = |last: u8| TermFilter::of([address(last)]);
        let holds = |of: &Manifest, last: u8| of.may_match(&FlowFilter::host(address(last)));

        let first = step(&Manifest::empty(SLOT), &busy(0, of(1))).unwrap();
        assert_eq!([1, 2].map(|last| holds(&first, last)), [true, false]);
        let second = step(&first, &busy(600, of(2))).unwrap();
        assert_eq!([1, 2, 3].map(|last| holds(&second, last)), [true, true, false]);
        assert!(second.parts.iter().all(|part| part.holds != Holds::Both));
        // Of one segment nobody knows: it is in a part that is always read, and the others are found as before.
        let third = step(&second, &busy(1_200, None)).unwrap();
        assert_eq!([1, 2, 3].map(|last| holds(&third, last)), [true, true, false]);
        assert_eq!(third.parts.iter().filter(|part| part.holds == Holds::Both).count(), 1);
        let fourth = step(&third, &busy(1_800, of(4))).unwrap();
        assert_eq!([3, 4].map(|last| holds(&fourth, last)), [false, true]);
        // Those of an earlier version are always read, too, if they hold all, and else may hold any.
        let mut earlier = first.clone();
        earlier.address_filter = None;
        assert!(holds(&earlier, 3) && holds(&step(&earlier, &busy(600, of(2))).unwrap(), 3));
        earlier.parts.iter_mut().for_each(|part| part.holds = Holds::Both);
        let next = step(&earlier, &busy(600, of(2))).unwrap();
        assert_eq!([1, 2].map(|last| holds(&next, last)), [false, true]);
    }

    #[test]
    fn flood_of_addresses_keeps_the_filter_of_an_hour() {
        let many = |from: u32, count: u32| {
            let addresses: Vec<_> =
                (from..from + count).map(|number| Address::v4(number.to_be_bytes())).collect();
            TermFilter::of(&addresses)
        };
        let busy = |from: u64, filter: Option<TermFilter>| {
            let mut commits: Vec<_> = (from..from + 600).map(|seq| commit(1, seq)).collect();
            let segment = SegmentEntry { address_filter: filter, ..segment("a", 0) };
            commits[0].facts.push(Fact::Segment(segment));
            commits
        };
        let is_there = |of: &Manifest, number: u32| {
            of.may_match(&FlowFilter::host(Address::v4(number.to_be_bytes())))
        };
        let most = crate::term_filters::MAX_VALUES as u32;
        let mut manifest = Manifest::empty(SLOT);
        // More than a segment may have, and then more than an hour.
        for part in 0..10_u32 {
            manifest =
                step(&manifest, &busy(u64::from(part) * 600, many(part << 20, most))).unwrap();
        }
        assert!(manifest.address_filter.is_none() && manifest.large_address_filter.is_some());
        assert!(is_there(&manifest, 5) && is_there(&manifest, (7 << 20) + 5));
        assert!(!is_there(&manifest, 0xc000_0001), "what is in no segment is passed over still");
        let always = manifest.parts.iter().filter(|part| part.holds == Holds::Both).count();
        assert_eq!(always, 2, "what the filter cannot have is always read");
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    }

    #[test]
    fn manifest_check_rejects_each_violated_invariant() {
        let first = step(&Manifest::empty(SLOT), &[commit(1, 0), commit(1, 1)]).unwrap();
        let good = first.roll_up(&[commit(1, 2)], 1, String::new(), String::new()).unwrap();
        good.check(&first).unwrap();
        let bad = |change: fn(&mut Manifest)| {
            let mut manifest = good.clone();
            change(&mut manifest);
            manifest.check(&first).expect_err("broken").0
        };
        assert!(bad(|m| m.slot = TimeSlot::Wide).contains("the slot of a manifest changed"));
        assert!(bad(|m| m.version = 5).contains("not consecutive"));
        assert!(bad(|m| m.epoch = 0).contains("older epoch"));
        assert!(bad(|m| m.contributors.clear()).contains("lacks a contributor"));
        assert!(bad(|m| m.contributors[0].next = 1).contains("decreased"));
        assert!(bad(|m| m.contributors[0].recorder = RecorderId(9)).contains("was replaced"));
        assert!(bad(|m| m.contributors.push(m.contributors[0].clone())).contains("twice"));
        assert!(bad(|m| m.held.facts[0].by = 7).contains("no contributor"));
        assert!(bad(|m| m.held.commits.push(m.held.commits[0].clone())).contains("twice"));
        assert!(bad(|m| m.held.facts[0].seq = 9).contains("a commit that the manifest lacks"));
        assert!(bad(|m| m.contributors[0].next = 2).contains("does not count"));
        assert!(
            bad(|m| m.held = Facts::default())
                .contains("a manifest lacks facts of its predecessor")
        );
        let with = |of: &Manifest, last: u8| {
            let (name, sha256, holds) = (String::new(), String::new(), Holds::Segments);
            let part = Part { name, bytes: 1, sha256, facts: 1, holds, span: None };
            let address_filter = TermFilter::of([Address::v4([10, 0, 0, last])]);
            Manifest { parts: vec![part], address_filter, ..of.clone() }
        };
        with(&good, 1).check(&with(&first, 1)).unwrap();
        let gone = with(&good, 2).check(&with(&first, 1)).expect_err("broken").0;
        assert!(gone.contains("addresses"), "{gone}");
    }

    proptest! {
        /// Two rollups that take turns, each from where it thinks the rollup is, come to what one
        /// rollup comes to.
        #[test]
        fn rolling_up_twice_is_idempotent(
            steps in prop::collection::vec((any::<bool>(), 1..5_u64), 1..20)
        ) {
            let all: Vec<_> = (0..40).map(|seq| commit(1, seq)).collect();
            let mut manifest = Manifest::empty(SLOT);
            let mut at = [0_u64; 2];
            for (who, many) in steps {
                let place = &mut at[usize::from(who)];
                let end = (*place + many).min(40);
                if let Some(next) = step(&manifest, &all[*place as usize..end as usize]) {
                    manifest = next;
                }
                *place = end;
            }
            let rolled_up = at[0].max(at[1]);
            let seqs: Vec<u64> = manifest.held.commits.iter().map(|of| of.seq).collect();
            prop_assert_eq!(seqs, (0..rolled_up).collect::<Vec<_>>());
        }
    }
}
