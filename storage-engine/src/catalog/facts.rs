//! Facts of commits, split by slot and merged again.
//!
//! In stored objects each of the first three kinds has its own list (`segments`, `listened`, `losses`), as in the
//! first version. All later kinds share one list, `facts`.

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::Time;
use capstan_model::coverage::{Listened, Loss};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::fact::{Bare, Fact, Holds};
use super::segment_entry::SegmentEntry;
use super::slot::TimeSlot;

/// A statement and its commit: the log (`by`) and the number in that log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attributed<T, By = capstan_model::GenerationId> {
    /// The generation; in manifests an index into the list of contributors.
    pub by: By,
    /// Number of the commit.
    pub seq: u64,
    /// The statement.
    pub fact: T,
}

impl<T, By> Attributed<T, By> {
    /// Converts the statement and keeps the commit.
    pub(crate) fn map<U>(self, of: impl FnOnce(T) -> U) -> Attributed<U, By> {
        Attributed { by: self.by, seq: self.seq, fact: of(self.fact) }
    }
}

/// Splits facts by slot. Every fact is in at least one slot.
pub fn split(facts: Vec<Fact>) -> BTreeMap<TimeSlot, Vec<Fact>> {
    let mut by_slot: BTreeMap<TimeSlot, Vec<Fact>> = BTreeMap::new();
    for fact in facts {
        let mut slots = fact.slots();
        let last = slots.pop();
        for slot in slots {
            by_slot.entry(slot).or_default().push(fact.clone());
        }
        if let Some(slot) = last {
            by_slot.entry(slot).or_default().push(fact);
        }
    }
    by_slot
}

/// The slots that [`split`] finds, without copying facts.
pub(crate) fn slots_of(facts: &[Fact]) -> BTreeSet<TimeSlot> {
    facts.iter().flat_map(Fact::slots).collect()
}

/// Facts of many commits about one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// SHA-256 of each commit with facts about this slot, hex; empty if it is lost.
    pub commits: Vec<Attributed<String, u32>>,
    /// The facts.
    pub facts: Vec<Attributed<Fact, u32>>,
}

impl Facts {
    /// Adds the facts of a commit.
    pub(crate) fn push(&mut self, by: u32, seq: u64, sha256: String, facts: Vec<Fact>) {
        self.commits.push(Attributed { by, seq, fact: sha256 });
        self.facts.extend(facts.into_iter().map(|fact| Attributed { by, seq, fact }));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.commits.len() + self.facts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The segments.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentEntry> {
        self.facts.iter().filter_map(|of| of.fact.segment())
    }

    /// Whether versions before this one would misread them.
    pub(crate) fn are_late(&self) -> bool {
        self.facts.iter().any(|of| of.fact.is_late())
    }

    /// Splits the facts by kind of part: segments that are found by address, facts that every query reads, and the
    /// rest.
    pub(crate) fn apart(self) -> [(Holds, Facts); 3] {
        let mut parts = [Holds::Segments, Holds::Both, Holds::Statements]
            .map(|holds| (holds, Facts::default()));
        for fact in self.facts {
            let holds = fact.fact.holds();
            if let Some((_, part)) = parts.iter_mut().find(|(of, _)| *of == holds) {
                part.facts.push(fact);
            }
        }
        parts[2].1.commits = self.commits;
        parts
    }

    /// The earliest and the latest time of the facts; none if one of them has no time.
    pub fn span(&self) -> Option<(Time, Time)> {
        self.facts.iter().map(|of| of.fact.span()).reduce(|a, b| {
            let (a, b) = a.zip(b)?;
            Some((a.0.min(b.0), a.1.max(b.1)))
        })?
    }

    /// Indexes of the contributors of these facts.
    pub(crate) fn contributors(&self) -> impl Iterator<Item = u32> {
        let commits = self.commits.iter().map(|of| of.by);
        commits.chain(self.facts.iter().map(|of| of.by))
    }
}

/// Facts in their stored lists.
#[derive(Serialize)]
pub(crate) struct Lists<T: Serialize> {
    segments: Vec<T>,
    listened: Vec<T>,
    losses: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    facts: Vec<T>,
}

impl<T: Serialize> Lists<T> {
    /// Sorts facts into their lists; `stored` gives the stored form of each.
    pub(crate) fn of<'a, F: 'a>(
        facts: &'a [F],
        fact: impl Fn(&'a F) -> &'a Fact,
        stored: impl Fn(&'a F, Bare<'a>) -> T,
    ) -> Lists<T> {
        let (segments, listened, losses, later) = Default::default();
        let mut lists = Lists { segments, listened, losses, facts: later };
        for of in facts {
            let list = match fact(of) {
                Fact::Segment(_) => &mut lists.segments,
                Fact::Listened(_) => &mut lists.listened,
                Fact::Loss(_) => &mut lists.losses,
                Fact::Change(_) | Fact::Unknown(_) => &mut lists.facts,
            };
            list.push(stored(of, Bare::of(fact(of))));
        }
        lists
    }
}

/// A fact of the list of later kinds.
pub(crate) struct Later(pub(crate) Fact);

impl<'de> Deserialize<'de> for Later {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Fact::of_json(Value::deserialize(from)?).map(Later).map_err(D::Error::custom)
    }
}

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Stored<'a> {
            commits: &'a [Attributed<String, u32>],
            #[serde(flatten)]
            lists: Lists<Attributed<Bare<'a>, u32>>,
        }
        let attributed =
            |of: &Attributed<Fact, u32>, fact| Attributed { by: of.by, seq: of.seq, fact };
        let lists = Lists::of(&self.facts, |of| &of.fact, attributed);
        Stored { commits: &self.commits, lists }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Stored {
            commits: Vec<Attributed<String, u32>>,
            segments: Vec<Attributed<SegmentEntry, u32>>,
            listened: Vec<Attributed<Listened, u32>>,
            losses: Vec<Attributed<Loss, u32>>,
            #[serde(default)]
            facts: Vec<Attributed<Later, u32>>,
        }
        let Stored { commits, segments, listened, losses, facts } = Stored::deserialize(from)?;
        let segments = segments.into_iter().map(|of| of.map(Fact::Segment));
        let listened = listened.into_iter().map(|of| of.map(Fact::Listened));
        let losses = losses.into_iter().map(|of| of.map(Fact::Loss));
        let later = facts.into_iter().map(|of| of.map(|Later(fact)| fact));
        let facts = segments.chain(listened).chain(losses).chain(later).collect();
        Ok(Facts { commits, facts })
    }
}

#[cfg(test)]
mod tests {
    use capstan_model::coverage::LossCause;
    use capstan_model::{HOUR_NANOS, Hour, TimeRange};
    use serde_json::json;

    use super::*;
    use crate::catalog::tests::segment;

    fn facts() -> Vec<Fact> {
        let range = |start, end| TimeRange { start: Time(start), end: Time(end) };
        let mut two_hours = segment("two-hours", 0);
        two_hours.hours = (0..2).map(Hour).collect();
        let mut with_secrets = segment("with-secrets", 40_000);
        with_secrets.secrets = true;
        let loss = Loss {
            interface: None,
            range: range(5 * HOUR_NANOS, 7 * HOUR_NANOS),
            cause: LossCause::SourceDrop,
            packets: 1,
            bytes: 0,
            note: String::new(),
        };
        let later = json!({"kind": "named", "slots": ["date=1970-01-01/hour=09"], "x": 1});
        vec![
            Fact::Segment(two_hours),
            Fact::Segment(with_secrets),
            Fact::Listened(Listened { interfaces: vec![0], range: TimeRange::ALL }),
            Fact::Loss(loss),
            Fact::of_json(later).unwrap(),
        ]
    }

    #[test]
    fn facts_are_split_into_their_slots() {
        let slots = slots_of(&facts());
        assert_eq!(slots.len(), 7, "{slots:?}");
        assert!(slots.into_iter().eq(split(facts()).into_keys()));
    }

    #[test]
    fn facts_are_stored_in_lists_by_kind() {
        let mut all = Facts::default();
        all.push(3, 7, "hash".to_owned(), facts());
        let stored = serde_json::to_value(&all).unwrap();
        let many = |name: &str| stored[name].as_array().unwrap().len();
        let lists = ["commits", "segments", "listened", "losses", "facts"];
        assert_eq!(lists.map(many), [1, 2, 1, 1, 1]);
        assert_eq!(stored["losses"][0]["by"], 3);
        assert_eq!(stored["facts"][0]["fact"]["x"], 1);
        assert_eq!(serde_json::from_value::<Facts>(stored).unwrap(), all);
        // As versions wrote it that knew no later kinds.
        all.facts.pop();
        let stored = serde_json::to_value(&all).unwrap();
        assert!(stored.get("facts").is_none());
        assert_eq!(serde_json::from_value::<Facts>(stored).unwrap(), all);
    }

    #[test]
    fn each_fact_is_in_exactly_one_part() {
        let mut all = Facts::default();
        all.push(0, 0, "hash".to_owned(), facts());
        let [(_, found), (_, any), (_, statements)] = all.clone().apart();
        assert_eq!(found.len() + any.len() + statements.len(), all.len());
        assert!(any.facts.iter().any(|of| matches!(of.fact, Fact::Unknown(_))));
        assert_eq!((statements.commits.len(), statements.facts.len()), (1, 2));
    }
}
