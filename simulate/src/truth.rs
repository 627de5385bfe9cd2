//! The expected state: commits recorded outside the bucket, and what a reader must see of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use capstan_model::{Generation, GenerationId, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{
    CommitDraft, CommitId, Fact, LayerEntry, SegmentEntry, TimeSlot, What, Window,
};

use crate::chance::Chance;

/// Whose log.
pub(crate) type Owner = GenerationId;

/// A commit that was tried.
#[derive(Debug, Clone)]
struct Tried {
    draft: CommitDraft,
    /// Its writer was told that it is there.
    acknowledged: bool,
    /// Facts that no readable object had any more when objects were damaged, by their identity. They may be missing.
    lost: BTreeSet<String>,
}

impl Tried {
    fn of(draft: CommitDraft, acknowledged: bool) -> Tried {
        Tried { draft, acknowledged, lost: BTreeSet::new() }
    }

    /// The facts that readers see as such. Every commit here has a coverage statement. Changes show in layers of
    /// segments.
    fn shown(&self) -> impl Iterator<Item = &Fact> {
        self.draft.facts.iter().filter(|fact| fact.change().is_none())
    }

    fn may_lack(&self, fact: &Fact) -> bool {
        !self.lost.is_empty() && self.lost.contains(&fact.identity())
    }
}

/// All commits that were tried, in the order of each log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth(Arc<Mutex<BTreeMap<Owner, Vec<Tried>>>>);

/// How many commits of each log.
pub(crate) type Counts = BTreeMap<Owner, u64>;

impl Truth {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<Owner, Vec<Tried>>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A commit is being tried: it may be there from now on.
    pub(crate) fn tries(&self, owner: Owner, draft: &CommitDraft) {
        let tried = Tried::of(draft.clone(), false);
        self.with(|all| all.entry(owner).or_default().push(tried));
    }

    /// The last commit that was tried is there.
    pub(crate) fn acknowledge(&self, owner: Owner) {
        self.with(|all| {
            if let Some(last) = all.entry(owner).or_default().last_mut() {
                last.acknowledged = true;
            }
        });
    }

    /// The last commit that was tried is there, in another log: its own was ended.
    pub(crate) fn moved(&self, from: Owner, to: Owner) {
        self.with(|all| {
            if let Some(last) = all.entry(from).or_default().pop() {
                all.entry(to).or_default().push(Tried::of(last.draft, true));
            }
        });
    }

    /// How many commits of each log are there for certain.
    pub(crate) fn acknowledged(&self) -> Counts {
        let count = |tried: &Vec<Tried>| tried.iter().filter(|of| of.acknowledged).count() as u64;
        self.with(|all| all.iter().map(|(owner, tried)| (*owner, count(tried))).collect())
    }

    /// How many commits of each log a reader who asked about all of time has seen.
    ///
    /// # Errors
    /// What it should not have seen, or seen otherwise.
    pub(crate) fn seen(&self, window: &Window) -> Result<Counts, String> {
        let mut names = BTreeSet::new();
        for segment in &window.segments {
            if !names.insert(segment.entry.name.as_str()) {
                return Err(format!("segment {} is there twice", segment.entry.name));
            }
        }
        let mut seen: BTreeMap<Owner, BTreeMap<u64, Vec<Fact>>> = BTreeMap::new();
        for segment in &window.segments {
            let log = seen.entry(segment.by.of).or_default();
            // Whose packets they are is no matter here: it is another one's after a log was ended.
            let entry = SegmentEntry { owner: None, ..segment.entry.clone() };
            log.entry(segment.by.seq).or_default().push(Fact::Segment(entry));
        }
        for said in &window.listened {
            let log = seen.entry(said.by).or_default();
            log.entry(said.seq).or_default().push(Fact::Listened(said.fact.clone()));
        }
        self.with(|all| {
            for owner in all.keys() {
                seen.entry(*owner).or_default();
            }
            let mut counts = Counts::new();
            for (owner, log) in &seen {
                let tried = tried_in(all, *owner);
                for (seq, found) in log {
                    let Some(tried) = tried.get(*seq as usize) else {
                        return Err(format!("{owner:?}: nobody made commit {seq}"));
                    };
                    let there = |fact: &&Fact| !tried.may_lack(fact) || found.contains(fact);
                    if !found.iter().eq(tried.shown().filter(there)) {
                        return Err(format!("{owner:?}: commit {seq} is there in part or changed"));
                    }
                }
                let is_seen = |(seq, tried): (u64, &Tried)| {
                    log.contains_key(&seq) || tried.shown().all(|fact| tried.may_lack(fact))
                };
                let count = (0..).zip(tried).take_while(|of| is_seen(*of)).count() as u64;
                if log.keys().next_back().is_some_and(|last| *last >= count) {
                    return Err(format!(
                        "{owner:?}: commit {count} is missing, later ones are there"
                    ));
                }
                if count > 0 {
                    counts.insert(*owner, count);
                }
            }
            Ok(counts)
        })
    }

    /// Checks that a reader of a range who sees so many commits has found exactly their segments.
    ///
    /// # Errors
    /// What was found, and what is there.
    pub(crate) fn has_segments(
        &self,
        window: &Window,
        counts: &Counts,
        range: TimeRange,
    ) -> Result<(), String> {
        let found: BTreeSet<&str> =
            window.segments.iter().map(|of| of.entry.name.as_str()).collect();
        self.with(|all| {
            let mut expected = BTreeSet::new();
            for (owner, count) in counts {
                for tried in tried_in(all, *owner).iter().take(*count as usize) {
                    let touching = tried.draft.segments().filter(|of| of.touches(&range));
                    let there = touching.filter(|of| {
                        !tried.lost.contains(&of.name) || found.contains(of.name.as_str())
                    });
                    expected.extend(there.map(|segment| segment.name.as_str()));
                }
            }
            match found == expected && found.len() == window.segments.len() {
                true => Ok(()),
                false => Err(format!("{found:?}, not {expected:?}")),
            }
        })
    }

    /// Facts are in no readable object any more: from now on they may be missing. Returns how many of them were there.
    pub(crate) fn lose<'a>(&self, facts: impl IntoIterator<Item = &'a (CommitId, String)>) -> u64 {
        self.with(|all| {
            let mut many = 0;
            for (CommitId { of, seq }, identity) in facts {
                if let Some(tried) = all.get_mut(of).and_then(|log| log.get_mut(*seq as usize)) {
                    many += u64::from(tried.lost.insert(identity.clone()));
                }
            }
            many
        })
    }

    /// The facts of all commits that were tried, with their slots.
    pub(crate) fn facts(&self) -> Vec<(CommitId, String, Vec<TimeSlot>)> {
        self.with(|all| {
            let mut facts = Vec::new();
            for (of, log) in all.iter() {
                for (seq, tried) in (0..).zip(log) {
                    let id = CommitId { of: *of, seq };
                    let of_commit = tried.draft.facts.iter();
                    facts.extend(of_commit.map(|fact| (id, fact.identity(), fact.slots())));
                }
            }
            facts
        })
    }

    /// The segments of a recorder that may be missing.
    pub(crate) fn lost_segments(&self, recorder: RecorderId) -> Vec<SegmentEntry> {
        self.with(|all| {
            let logs = all.iter().filter(|(of, _)| of.recorder == recorder);
            let tried = logs.flat_map(|(_, log)| log);
            let lost = tried
                .flat_map(|of| of.draft.segments().filter(|entry| of.lost.contains(&entry.name)));
            lost.cloned().collect()
        })
    }

    /// Checks that segments have exactly the layers that the commits a reader sees gave them and left them.
    ///
    /// # Errors
    /// A segment with other layers.
    pub(crate) fn has_layers(&self, window: &Window, counts: &Counts) -> Result<(), String> {
        let (added, retired) = self.with(|all| {
            let seen = counts
                .iter()
                .flat_map(|(owner, count)| tried_in(all, *owner).iter().take(*count as usize));
            layers(seen)
        });
        for segment in &window.segments {
            let entry = &segment.entry;
            let later = added.get(&entry.name).into_iter().flatten().map(|layer| &layer.layer);
            let committed = entry.layers.iter().map(|layer| &layer.layer);
            let gone = |name: &&String| {
                retired.get(&entry.name).is_some_and(|of| of.contains(name.as_str()))
            };
            let expected: BTreeSet<&String> =
                committed.chain(later).filter(|name| !gone(name)).collect();
            let found: BTreeSet<&String> = segment.layers().map(|layer| &layer.layer).collect();
            if found != expected {
                return Err(format!("{} has layers {found:?}, not {expected:?}", entry.name));
            }
        }
        Ok(())
    }

    /// A segment that is committed.
    pub(crate) fn any_segment(&self, chance: &Chance) -> Option<SegmentEntry> {
        self.with(|all| {
            let committed = all.values().flatten().filter(|of| of.acknowledged);
            any(committed.flat_map(|of| of.draft.segments()), chance).cloned()
        })
    }

    /// A layer that was added to a segment and not retired.
    pub(crate) fn any_added(&self, chance: &Chance) -> Option<(SegmentEntry, LayerEntry)> {
        self.with(|all| {
            let committed = || all.values().flatten().filter(|of| of.acknowledged);
            let (added, retired) = layers(committed());
            let present = added.iter().flat_map(|(segment, layers)| {
                let gone = retired.get(segment);
                let is_present =
                    move |of: &&LayerEntry| gone.is_none_or(|gone| !gone.contains(&of.layer));
                layers.iter().filter(is_present).map(move |layer| (segment, layer))
            });
            let (segment, layer) = any(present, chance)?;
            let mut segments = committed().flat_map(|of| of.draft.segments());
            Some((segments.find(|of| of.name == *segment)?.clone(), layer.clone()))
        })
    }

    /// How many commits were tried.
    pub(crate) fn commits(&self) -> u64 {
        self.with(|all| all.values().map(|log| log.len() as u64).sum())
    }
}

/// The layers that commits add to each segment, and the names of those that they retire.
fn layers<'a>(
    commits: impl Iterator<Item = &'a Tried>,
) -> (BTreeMap<String, Vec<LayerEntry>>, BTreeMap<String, BTreeSet<String>>) {
    let (mut added, mut retired) = (BTreeMap::new(), BTreeMap::new());
    for change in commits.flat_map(|of| of.draft.facts.iter().filter_map(Fact::change)) {
        let segment = change.segment.clone();
        match &change.what {
            What::LayerAdded { layer } => {
                added.entry(segment).or_insert_with(Vec::new).push(layer.clone());
            }
            What::LayersRetired { layers, .. } => {
                let names = layers.iter().map(|layer| layer.layer.clone());
                retired.entry(segment).or_insert_with(BTreeSet::new).extend(names);
            }
            _ => {}
        }
    }
    (added, retired)
}

/// One of some, none if there are none.
fn any<T>(of: impl Iterator<Item = T>, chance: &Chance) -> Option<T> {
    let mut all: Vec<T> = of.collect();
    let many = all.len() as u64;
    (many > 0).then(|| all.swap_remove(chance.of(0..many) as usize))
}

/// What was tried in a log. One that nobody knows is of a recorder whose log was ended and that was killed before it
/// could say where it went on: with what it had tried last.
fn tried_in(all: &BTreeMap<Owner, Vec<Tried>>, owner: Owner) -> &[Tried] {
    if let Some(tried) = all.get(&owner) {
        return tried;
    }
    let before = all.range(GenerationId::new(owner.recorder, Generation(0))..owner).next_back();
    let last = before.and_then(|(_, tried)| tried.last()).filter(|last| !last.acknowledged);
    last.map_or(&[][..], std::slice::from_ref)
}

/// Whether what was seen has all that had to be seen.
///
/// # Errors
/// What is missing.
pub(crate) fn has_all(seen: &Counts, must: &Counts, when: &str) -> Result<(), String> {
    for (owner, count) in must {
        let found = seen.get(owner).copied().unwrap_or(0);
        if found < *count {
            return Err(format!("{owner:?}: {found} commits are seen of {count} {when}"));
        }
    }
    Ok(())
}

/// An hour of a time, as a range of a minute within it.
pub(crate) fn minute_of(time: Time) -> TimeRange {
    let start = Time(time.0.div_euclid(60_000_000_000) * 60_000_000_000);
    TimeRange { start, end: Time(start.0 + 60_000_000_000) }
}
