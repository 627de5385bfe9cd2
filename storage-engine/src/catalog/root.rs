//! The root: the position of the rollup in every open log, the process that may roll up, and the manifests that
//! changed last.
//!
//! The root is a sequence of versions, each created if absent. It names open logs, not ended ones: its size follows
//! the number of recorders, not the history.
//!
//! A version is written *after* the manifests with the facts that it declares rolled up. So a reader that reads a
//! root first and manifests afterwards has every commit below the root's positions, and tails the logs from there.
//! Later facts in manifests are left out ([`Root::known`]), so that all parts of an answer are of one moment.
//!
//! This module is pure.

mod invariants;

use std::collections::BTreeSet;

use capstan_model::{GenerationId, Hour};
use serde::{Deserialize, Serialize};

use super::gap::{About, Gap};
use super::generation::GenerationState;
use super::hours::Hours;
use super::invariants::{Broken, check};
use super::manifest::Contributor;
use super::slot::TimeSlot;
use crate::catalog::names;

/// The newest format of roots that this version reads. It is written where an open log has a BLAKE3 hash of its
/// source: older readers expect a SHA-256.
pub const FORMAT: u32 = 2;

/// The format of all other roots, and of boundaries.
pub(crate) const PLAIN: u32 = 1;

/// Maximum number of recently changed slots in the root. For other slots, readers list the manifests.
const SLOTS: usize = 256;

/// Maximum number of problems kept as text.
const PROBLEMS: usize = 64;

/// Maximum number of gaps kept one by one.
const GAPS: usize = 1_024;

/// A version of the root: `catalog/roots/<version>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The format number, [`FORMAT`].
    pub format: u32,
    /// Its number, from 1 without gaps.
    pub version: u64,
    /// SHA-256 of the previous version, hex; empty for the first.
    pub previous: String,
    /// Marks the create request.
    pub nonce: String,
    /// Raised by each process that takes over the rollup: only the holder of the newest epoch may commit.
    pub epoch: u64,
    /// Name of the epoch's holder, shown to operators.
    pub holder: String,
    /// The holder keeps rolling up; otherwise it rolled up only the existing commits.
    pub keeps: bool,
    /// The newest boundary that the creator of this root knew.
    pub boundary: u64,
    /// Open logs, by recorder and generation.
    pub logs: Vec<OpenLog>,
    /// Manifests that changed last, by slot.
    pub slots: Vec<SlotVersion>,
    /// Slots that are not named have not changed in any version after this one.
    pub unnamed_since: u64,
    /// Hours that have a manifest; none if versions without this field created some of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// Faults of rolled-up objects that hide no facts, as text.
    pub problems: BTreeSet<String>,
    /// Rolled-up commits that were unreadable or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// Commits that a repair has replaced.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub replaced: BTreeSet<String>,
}

/// An open log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLog {
    /// The version of the root that admitted it.
    pub admitted: u64,
    /// Its last commit is rolled up and its ended generation is stored: readers need not follow it.
    pub ended: bool,
    /// Sums over its rolled-up commits.
    #[serde(rename = "life")]
    pub state: GenerationState,
}

/// The newest manifest of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotVersion {
    /// The slot.
    pub slot: TimeSlot,
    /// Its version.
    pub version: u64,
    /// The version of the root that first named it.
    pub since: u64,
}

/// Changes of a rollup since the previous root.
#[derive(Debug, Default)]
pub struct Step {
    /// New generations, and generations with a new position.
    pub generations: Vec<GenerationState>,
    /// Generations whose last commit is rolled up.
    pub ended: BTreeSet<GenerationId>,
    /// Ended generations whose open mark is removed.
    pub gone: BTreeSet<GenerationId>,
    /// Manifests written.
    pub slots: Vec<(TimeSlot, u64)>,
    /// Faults that hide no facts, as text.
    pub problems: Vec<String>,
    /// Gaps: faults that hide facts.
    pub gaps: Vec<Gap>,
    /// Names of commits that a repair has replaced.
    pub replaced: Vec<String>,
    /// A boundary that was raised.
    pub boundary: Option<u64>,
}

/// Input to write a root again when newer ones are unreadable.
#[derive(Debug)]
pub(crate) struct Mending {
    /// Its number, never used before.
    pub(crate) version: u64,
    /// SHA-256 of the bytes of the previous version, hex; empty if there are none.
    pub(crate) previous: String,
    /// An epoch above every possible earlier one.
    pub(crate) epoch: u64,
    /// The newest boundary.
    pub(crate) boundary: u64,
    /// Logs to add, before their first commit, and the version that admitted each, if known.
    pub(crate) logs: Vec<(GenerationState, Option<u64>)>,
    /// The manifest of the wide slot, which every query reads.
    pub(crate) wide: Option<u64>,
    /// Hours that have a manifest.
    pub(crate) hours: Hours,
}

impl Step {
    /// Whether the step changed nothing.
    pub fn is_empty(&self) -> bool {
        let Step { generations, ended, gone, slots, problems, gaps, replaced, boundary } = self;
        generations.is_empty()
            && ended.is_empty()
            && gone.is_empty()
            && slots.is_empty()
            && problems.is_empty()
            && gaps.is_empty()
            && replaced.is_empty()
            && boundary.is_none()
    }
}

impl Root {
    /// The state before the first version: nothing is rolled up.
    pub fn empty() -> Root {
        Root {
            format: PLAIN,
            version: 0,
            previous: String::new(),
            nonce: String::new(),
            epoch: 0,
            holder: String::new(),
            keeps: false,
            boundary: 0,
            logs: Vec::new(),
            slots: Vec::new(),
            unnamed_since: 0,
            hours: Some(Hours::default()),
            problems: BTreeSet::new(),
            gaps: Vec::new(),
            replaced: BTreeSet::new(),
        }
    }

    /// The next version, with the same content. `previous` is the SHA-256 of this one.
    fn next(&self, previous: String, nonce: String) -> Root {
        let previous = if self.version == 0 { String::new() } else { previous };
        Root { version: self.version.saturating_add(1), previous, nonce, ..self.clone() }
    }

    /// The version with which a process takes over. The caller has listed the hours with a manifest if this version
    /// does not name them.
    pub fn claim(
        &self,
        holder: String,
        keeps: bool,
        hours: Option<Hours>,
        previous: String,
        nonce: String,
    ) -> Root {
        let epoch = self.epoch.saturating_add(1);
        let hours = self.hours.clone().or(hours);
        Root { epoch, holder, keeps, hours, ..self.next(previous, nonce) }
    }

    /// The version after a step.
    pub fn advance(&self, step: Step, previous: String, nonce: String) -> Root {
        let mut next = self.next(previous, nonce);
        for state in step.generations {
            let owner = state.id();
            match next.place(owner) {
                Ok(place) => next.logs[place].state = state,
                Err(place) => {
                    let log = OpenLog { admitted: next.version, ended: false, state };
                    next.logs.insert(place, log);
                }
            }
        }
        for log in &mut next.logs {
            log.ended |= step.ended.contains(&log.state.id());
        }
        next.logs.retain(|log| !log.ended || !step.gone.contains(&log.state.id()));
        for (slot, version) in step.slots {
            if let (TimeSlot::Hour(hour), Some(hours)) = (slot, &mut next.hours) {
                hours.insert(hour);
            }
            let named = SlotVersion { slot, version, since: next.version };
            match next.slots.binary_search_by_key(&slot, |of| of.slot) {
                Ok(place) => next.slots[place] = named,
                Err(place) => next.slots.insert(place, named),
            }
        }
        next.forget_slots();
        for problem in step.problems {
            if next.problems.len() < PROBLEMS {
                next.problems.insert(problem);
            }
        }
        next.replaced.extend(step.replaced);
        step.gaps.into_iter().for_each(|gap| next.add_gap(gap));
        let replaced = std::mem::take(&mut next.replaced);
        next.gaps.retain(|gap| !replaced.contains(&gap.object));
        next.replaced = replaced;
        next.boundary = step.boundary.unwrap_or(next.boundary);
        next
    }

    /// A version that continues from this one, the newest readable one. Commits rolled up since are rolled up again.
    pub(crate) fn mended(&self, mending: Mending, nonce: String) -> Root {
        let Mending { version, previous, epoch, boundary, logs, wide, mut hours } = mending;
        let (holder, keeps) = ("repair".to_owned(), false);
        let before = self.clone();
        let mut next = Root { version, previous, nonce, epoch, holder, keeps, boundary, ..before };
        for (state, admitted) in logs {
            if let Err(place) = next.place(state.id()) {
                let admitted = admitted.unwrap_or(version);
                next.logs.insert(place, OpenLog { admitted, ended: false, state });
            }
        }
        // The slots that changed since are unknown.
        let named = |of| SlotVersion { slot: TimeSlot::Wide, version: of, since: version };
        next.slots = wide.map(named).into_iter().collect();
        next.unnamed_since = version;
        hours.extend(self.hours());
        next.hours = Some(hours);
        next
    }

    /// Adds a gap. Beyond the limit, records only that there are more.
    fn add_gap(&mut self, gap: Gap) {
        if self.gaps.iter().any(|known| known.object == gap.object) {
            return;
        }
        if self.gaps.len() < GAPS {
            self.gaps.push(gap);
        } else if self.gaps.len() == GAPS {
            let what = format!("more than {GAPS} commits cannot be read");
            self.gaps.push(Gap::new(&names::log(None), gap.kind, About::AnyTime, what));
        }
    }

    /// Gaps of unreadable facts. Roots of earlier versions have only text for them.
    pub(crate) fn hidden(&self) -> Vec<Gap> {
        let of_words = self.problems.iter().filter_map(|words| Gap::of_words(words));
        self.gaps.iter().cloned().chain(of_words).collect()
    }

    /// Faults that hide no facts, as text.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &String> {
        self.problems.iter().filter(|words| Gap::of_words(words).is_none())
    }

    /// The root for reading manifests when newer roots up to `version` are unreadable. The newest manifests count;
    /// they are not older than the named ones. Generations that were admitted until then and are not open count with
    /// all their facts.
    pub(crate) fn patched(
        &self,
        version: u64,
        wide: Option<u64>,
        open: Vec<GenerationState>,
    ) -> Root {
        let mut next = self.clone();
        for state in open {
            if let Err(place) = next.place(state.id()) {
                next.logs.insert(place, OpenLog { admitted: version, ended: false, state });
            }
        }
        next.version = version;
        if let Some(wide) = wide {
            let of_wide = SlotVersion { slot: TimeSlot::Wide, version: wide, since: version };
            match next.slots.binary_search_by_key(&TimeSlot::Wide, |of| of.slot) {
                Ok(place) if next.slots[place].version < wide => next.slots[place] = of_wide,
                Ok(_) => {}
                Err(place) => next.slots.insert(place, of_wide),
            }
        }
        next.unnamed_since = version;
        next
    }

    /// The format for this content: the oldest format whose readers read it correctly.
    pub(crate) fn needed_format(&self) -> u32 {
        if self.logs.iter().any(|log| log.state.has_blake3()) { FORMAT } else { PLAIN }
    }

    /// Drops the slots whose last change is oldest. The wide slot stays: every query reads it.
    fn forget_slots(&mut self) {
        let mut since: Vec<u64> =
            self.slots.iter().filter(|of| of.slot != TimeSlot::Wide).map(|of| of.since).collect();
        let Some(over) = since.len().checked_sub(SLOTS).filter(|over| *over > 0) else { return };
        since.sort_unstable();
        // Slots that changed in the same version are dropped together, so that one number (`unnamed_since`) describes
        // the dropped slots.
        self.unnamed_since = since[over - 1];
        self.slots.retain(|of| of.slot == TimeSlot::Wide || of.since > since[over - 1]);
    }

    fn place(&self, owner: GenerationId) -> Result<usize, usize> {
        self.logs.binary_search_by_key(&owner, |log| log.state.id())
    }

    /// A log that it names.
    pub fn log(&self, owner: GenerationId) -> Option<&OpenLog> {
        self.place(owner).ok().and_then(|place| self.logs.get(place))
    }

    /// The hours with a manifest, as far as it knows.
    pub fn hours(&self) -> impl Iterator<Item = Hour> + '_ {
        self.hours.iter().flat_map(Hours::iter)
    }

    /// Whether it knows a manifest of an hour.
    pub fn has_hour(&self, hour: Hour) -> bool {
        self.hours.as_ref().is_some_and(|of| of.contains(hour))
    }

    /// The manifest version of a slot; none if the slot is not among the recently changed ones.
    pub fn slot(&self, slot: TimeSlot) -> Option<u64> {
        let place = self.slots.binary_search_by_key(&slot, |of| of.slot).ok()?;
        self.slots.get(place).map(|of| of.version)
    }

    /// How many commits of a contributor this root covers. They are in manifests, so a reader of this root does not
    /// meet them in the log.
    pub fn known(&self, contributor: &Contributor) -> u64 {
        match self.log(contributor.of()) {
            Some(log) => log.state.chain().next(),
            // A generation that was admitted and is no longer named has ended.
            None if contributor.admitted <= self.version => u64::MAX,
            None => 0,
        }
    }

    /// Checks the invariants of every version, and of every step between versions.
    ///
    /// # Errors
    /// The violated invariant.
    pub fn check(&self, before: &Root) -> Result<(), Broken> {
        check(invariants::ALL, before, self)
    }
}

#[cfg(test)]
mod tests {
    use capstan_model::{Generation, Hour, RecorderId};

    use super::*;
    use crate::catalog::Chain;

    fn state(recorder: u64) -> GenerationState {
        GenerationState::new(
            None,
            Chain::new(GenerationId::new(RecorderId(recorder), Generation(1)), None),
        )
    }

    /// As if the next commits of a log had been followed.
    fn followed(state: &GenerationState, next: u64, finished: bool) -> GenerationState {
        let mut json = serde_json::to_value(state).unwrap();
        json["chain"]["next"] = next.into();
        json["chain"]["finished"] = finished.into();
        serde_json::from_value(json).unwrap()
    }

    fn step(before: &Root, step: Step) -> Root {
        let next = before.advance(step, "hash".to_owned(), "nonce".to_owned());
        next.check(before).unwrap();
        next
    }

    fn slot(hour: i32) -> TimeSlot {
        TimeSlot::Hour(Hour(hour))
    }

    fn contributor(recorder: u64, admitted: u64) -> Contributor {
        let (recorder, generation) = (RecorderId(recorder), Generation(1));
        Contributor { recorder, generation, admitted, info: None, next: 10 }
    }

    #[test]
    fn root_admits_follows_and_closes_a_log() {
        let claimed =
            Root::empty().claim("me".to_owned(), true, None, String::new(), String::new());
        claimed.check(&Root::empty()).unwrap();
        let taken = step(&claimed, Step { generations: vec![state(7)], ..Step::default() });
        assert_eq!((taken.version, taken.epoch, taken.logs[0].admitted), (2, 1, 2));
        assert_eq!(taken.known(&contributor(7, 2)), 0);

        let generations = vec![followed(&state(7), 3, true)];
        let slots = vec![(slot(1), 1), (TimeSlot::Wide, 1)];
        let owner = GenerationId::new(RecorderId(7), Generation(1));
        let ended = [owner].into();
        let rolled_up = step(&taken, Step { generations, slots, ended, ..Step::default() });
        assert_eq!(rolled_up.known(&contributor(7, 2)), 3);
        assert_eq!((rolled_up.slot(slot(1)), rolled_up.slot(slot(2))), (Some(1), None));
        assert!(rolled_up.has_hour(Hour(1)) && !rolled_up.has_hour(Hour(2)));

        let gone = step(&rolled_up, Step { gone: [owner].into(), ..Step::default() });
        assert!(gone.logs.is_empty());
        assert_eq!(gone.known(&contributor(7, 2)), u64::MAX, "it was taken in before, and ended");
        assert_eq!(gone.known(&contributor(8, 5)), 0, "it is newer than this root");
    }

    #[test]
    fn root_names_only_recently_changed_slots() {
        let mut root =
            step(&Root::empty(), Step { slots: vec![(TimeSlot::Wide, 1)], ..Step::default() });
        for hour in 0..SLOTS as i32 + 3 {
            root = step(&root, Step { slots: vec![(slot(hour), 1)], ..Step::default() });
        }
        assert_eq!((root.slot(slot(2)), root.slot(slot(3))), (None, Some(1)));
        assert_eq!(root.slot(TimeSlot::Wide), Some(1));
        assert_eq!(root.unnamed_since, 4);
        // Many in one step: none of them, and not some.
        let slots = (0..SLOTS as i32 + 1).map(|hour| (slot(1_000 + hour), 1)).collect();
        let many = step(&root, Step { slots, ..Step::default() });
        assert_eq!((many.slots.len(), many.unnamed_since), (1, many.version));
    }

    #[test]
    fn root_check_rejects_each_violated_invariant() {
        let slots = vec![(slot(1), 2)];
        let before =
            step(&Root::empty(), Step { generations: vec![state(1), state(2)], ..Step::default() });
        let before = step(
            &before,
            Step { generations: vec![followed(&state(1), 5, true)], slots, ..Step::default() },
        );
        let good = before.advance(Step::default(), String::new(), String::new());
        good.check(&before).unwrap();
        let bad = |change: fn(&mut Root)| {
            let mut root = good.clone();
            change(&mut root);
            root.check(&before).expect_err("broken").0
        };
        assert!(bad(|root| root.version += 1).contains("root versions"));
        assert!(bad(|root| root.epoch += 2).contains("epochs"));
        assert!(
            bad(|root| {
                root.logs[0].ended = true;
                root.epoch += 1
            })
            .contains("takeover")
        );
        assert!(bad(|root| root.logs.reverse()).contains("order"));
        assert!(
            bad(|root| {
                root.logs.remove(0);
            })
            .contains("a log is gone")
        );
        assert!(bad(|root| root.logs[0].state = state(1)).contains("position of a log decreased"));
        assert!(bad(|root| root.logs[0].admitted = 0).contains("admitted twice"));
        assert!(bad(|root| root.logs[1].ended = true).contains("does not say so"));
        assert!(bad(|root| root.slots.clear()).contains("lacks a slot"));
        assert!(bad(|root| root.hours = Some(Hours::default())).contains("lacks a manifest"));
        assert!(bad(|root| root.slots[0].version = 1).contains("version of a manifest decreased"));
        let new = |root: &mut Root| {
            let state = followed(&state(3), 1, false);
            root.logs.push(OpenLog { admitted: root.version, ended: false, state });
        };
        assert!(bad(new).contains("in the step that admits it"));
        let raised = Root { boundary: 1, ..before.clone() };
        assert!(good.check(&raised).expect_err("broken").0.contains("boundary"));
    }
}
