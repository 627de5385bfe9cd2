//! The segments that the catalog names, kept on disk by slot: only one hour is in memory.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use capstan_model::{Failure, Generation, GenerationId, Hour, RecorderId, Time};
use serde::{Deserialize, Serialize};

use super::adopt::Taken;
use crate::catalog::by_slot::BySlot;
use crate::catalog::{CommitId, Fact, Segment, TimeSlot, What};
use crate::segment::Layers;

/// A segment that a commit names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    /// Its name.
    #[serde(rename = "s")]
    pub(super) segment: String,
    /// The generation that recorded it.
    #[serde(rename = "r")]
    of: GenerationId,
    /// The commit that names it. It is of another generation if the segment was repaired.
    #[serde(rename = "b")]
    pub(super) by: CommitId,
    /// Lowest ordinal.
    #[serde(rename = "f")]
    first: u64,
    /// The hour that its objects lie in.
    #[serde(rename = "h")]
    hour: Hour,
    /// Highest ordinal.
    #[serde(rename = "l")]
    last: u64,
    /// Times of its earliest and latest packet.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    times: Option<(Time, Time)>,
    /// Names and lengths of its layers that are known.
    #[serde(rename = "y")]
    pub(super) layers: Vec<(String, u64)>,
}

/// Retired layers of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RetiredLayers {
    /// The segment.
    #[serde(rename = "s")]
    segment: String,
    /// Names of the layers.
    #[serde(rename = "y")]
    layers: Vec<String>,
}

impl Named {
    fn of(segment: &Segment) -> Named {
        let Segment { of, by, entry, .. } = segment;
        let known = entry.layers.iter().filter(|of| Layers::KNOWN.named(&of.layer).is_some());
        Named {
            segment: entry.name.clone(),
            of: *of,
            by: *by,
            first: entry.first_ordinal,
            hour: entry.hour,
            last: entry.last_ordinal,
            times: entry.first.zip(entry.last),
            layers: known.map(|of| (of.layer.clone(), of.bytes)).collect(),
        }
    }
}

impl From<Named> for Taken {
    fn from(of: Named) -> Taken {
        let Named { segment, of, first, last, times, .. } = of;
        Taken { segment, generation: of.generation, import: None, first, last, times }
    }
}

/// The packets of segments, by their recorder.
type ByRecorder = BTreeMap<RecorderId, Vec<Taken>>;

/// All segments that the catalog names.
#[derive(Debug)]
pub(super) struct NamedSegments {
    slots: BySlot<Named>,
    /// Layers that were retired.
    retired: BySlot<RetiredLayers>,
    /// Generations that have segments.
    generations: BTreeMap<RecorderId, BTreeSet<Generation>>,
    /// Slots that are in memory for comparison.
    loaded: BTreeMap<TimeSlot, ByRecorder>,
}

impl NamedSegments {
    /// Creates an empty set.
    ///
    /// # Errors
    /// A temporary file cannot be created.
    pub(super) fn new() -> Result<NamedSegments, Failure> {
        let (generations, loaded) = (BTreeMap::new(), BTreeMap::new());
        let (slots, retired) = (BySlot::new()?, BySlot::new()?);
        Ok(NamedSegments { slots, retired, generations, loaded })
    }

    /// Adds a fact of a commit, if it is about segments.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(super) fn take(&mut self, by: CommitId, fact: Fact) -> Result<(), Failure> {
        match fact {
            Fact::Segment(entry) => self.add(&Segment::of(by, entry)),
            Fact::Change(change) => {
                let What::LayersRetired { layers, .. } = change.what else { return Ok(()) };
                let layers = layers.into_iter().map(|of| of.layer).collect();
                let retired = RetiredLayers { segment: change.segment, layers };
                change.slots.iter().try_for_each(|slot| self.retired.push(*slot, &retired))
            }
            Fact::Listened(_) | Fact::Loss(_) | Fact::Unknown(_) => Ok(()),
        }
    }

    /// The retired layers of segments in an hour, by the segment's name.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(super) fn retired_in(
        &self,
        hour: Hour,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, Failure> {
        let mut retired = BTreeMap::<String, BTreeSet<String>>::new();
        for slot in [TimeSlot::Hour(hour), TimeSlot::Wide] {
            for of in self.retired.read(slot)? {
                retired.entry(of.segment).or_default().extend(of.layers);
            }
        }
        Ok(retired)
    }

    /// Adds a segment: to the slots of its packets, and to the hour that its objects lie in.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(super) fn add(&mut self, segment: &Segment) -> Result<(), Failure> {
        self.generations.entry(segment.of.recorder).or_default().insert(segment.of.generation);
        let named = Named::of(segment);
        let mut slots: BTreeSet<TimeSlot> = segment.entry.slots().into_iter().collect();
        slots.insert(TimeSlot::Hour(segment.entry.hour));
        for slot in slots {
            self.slots.push(slot, &named)?;
            if let Some(loaded) = self.loaded.get_mut(&slot) {
                loaded.entry(named.of.recorder).or_default().push(named.clone().into());
            }
        }
        Ok(())
    }

    /// The hours in which objects of segments lie, or should.
    pub(super) fn hours(&self) -> impl Iterator<Item = Hour> + '_ {
        self.slots.slots().filter_map(|slot| match slot {
            TimeSlot::Hour(hour) => Some(hour),
            TimeSlot::Wide => None,
        })
    }

    /// The segments whose objects lie in an hour. A segment is repeated if several catalog objects name it.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(super) fn of_hour(&self, hour: Hour) -> Result<Vec<Named>, Failure> {
        let mut all = self.slots.read(TimeSlot::Hour(hour))?;
        all.retain(|of| of.hour == hour);
        Ok(all)
    }

    /// Segments of other generations of the same recorder that may hold the packets of one generation in some hours.
    /// A segment that only a commit in doubt names does not count.
    ///
    /// A packet has the same time in every import of its capture, so both segments are in its hour or wide.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(super) fn of_other_generations(
        &mut self,
        of: GenerationId,
        hours: &[Hour],
        in_doubt: impl Fn(&CommitId) -> bool,
    ) -> Result<Vec<Taken>, Failure> {
        let GenerationId { recorder, generation } = of;
        let generations = self.generations.get(&recorder).into_iter().flatten();
        if generations.filter(|of| **of != generation).count() == 0 {
            return Ok(Vec::new());
        }
        let mut taken = Vec::new();
        for slot in hours.iter().copied().map(TimeSlot::Hour).chain([TimeSlot::Wide]) {
            if let Entry::Vacant(place) = self.loaded.entry(slot) {
                let mut loaded = ByRecorder::new();
                let sure = self.slots.read(slot)?.into_iter().filter(|of| !in_doubt(&of.by));
                for named in sure {
                    loaded.entry(named.of.recorder).or_default().push(named.into());
                }
                place.insert(loaded);
            }
            let loaded = self.loaded.get(&slot).and_then(|of| of.get(&recorder));
            let others = loaded.into_iter().flatten().filter(|of| of.generation != generation);
            taken.extend(others.cloned());
        }
        Ok(taken)
    }

    /// Drops the slots from memory.
    pub(super) fn unload(&mut self) {
        self.loaded.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::SegmentEntry;

    const RECORDER: RecorderId = RecorderId(7);

    fn segment(generation: u32, hours: &[i32], first: u64, last: u64) -> Segment {
        let owner = GenerationId { recorder: RECORDER, generation: Generation(generation) };
        let entry = SegmentEntry {
            name: format!("{generation}-{first}"),
            hour: Hour(hours[0]),
            hours: if hours.len() > 1 { hours.iter().copied().map(Hour).collect() } else { vec![] },
            first: None,
            last: None,
            first_ordinal: first,
            last_ordinal: last,
            packets: 1 + last - first,
            flow_parts: 1,
            captured_bytes: 0,
            wire_bytes: 0,
            layers: Vec::new(),
            protocols: BTreeMap::new(),
            secrets: false,
            address_filter: None,
            term_filters: Default::default(),
            flow_ids: None,
            owner: Some(owner),
        };
        let of = GenerationId::new(RecorderId(1), Generation(1));
        Segment::of(CommitId { of, seq: first }, entry)
    }

    fn found(named: &mut NamedSegments, generation: u32, hours: &[i32]) -> Vec<String> {
        let hours: Vec<_> = hours.iter().copied().map(Hour).collect();
        let state = GenerationId::new(RECORDER, Generation(generation));
        let in_doubt = |commit: &CommitId| commit.seq == 666;
        let taken = named.of_other_generations(state, &hours, in_doubt).unwrap();
        let mut names: Vec<_> = taken.into_iter().map(|of| of.segment).collect();
        names.sort();
        names
    }

    #[test]
    fn overlapping_segments_are_found_by_their_hours() {
        let mut named = NamedSegments::new().unwrap();
        named.add(&segment(1, &[10], 0, 9)).unwrap();
        // Nobody else recorded anything.
        assert_eq!(found(&mut named, 1, &[10]), Vec::<String>::new());
        assert_eq!(found(&mut named, 2, &[10]), ["1-0"]);
        named.add(&segment(2, &[10, 11], 10, 19)).unwrap();
        named.add(&segment(2, &(0..100).collect::<Vec<_>>(), 20, 29)).unwrap();
        assert_eq!(found(&mut named, 2, &[10, 11]), ["1-0"]);
        // One that touches more than a day is wide. Hour 10 was loaded before these were added.
        assert_eq!(found(&mut named, 1, &[12]), ["2-20"]);
        assert_eq!(found(&mut named, 1, &[11]), ["2-10", "2-20"]);
        assert_eq!(found(&mut named, 1, &[10]), ["2-10", "2-20"]);
        named.unload();
        named.add(&segment(2, &[10], 666, 700)).unwrap();
        assert_eq!(found(&mut named, 1, &[10]), ["2-10", "2-20"], "one is in doubt");
        let names = |hour| {
            let of_hour = named.of_hour(Hour(hour)).unwrap();
            of_hour.into_iter().map(|of| of.segment).collect::<Vec<_>>()
        };
        assert_eq!(names(10), ["1-0", "2-10", "2-666"]);
        // Objects lie in one hour, wherever the packets are.
        assert_eq!(names(0), ["2-20"]);
        assert_eq!(names(50), Vec::<String>::new());
    }
}
