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
use object_store::path::Path;
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

/// Maximum number of ended logs that wait to be truncated.
const UNTRUNCATED: usize = 4_096;

/// A version of the root: `catalog/roots/<version>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The format number: the lowest one whose readers read this root correctly.
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
    /// Rolled-up commits that were unreadable or changed, and lost manifests that had facts of truncated commits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// Commits that a repair has replaced, and lost manifests and roots whose segments it has named again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub replaced: BTreeSet<String>,
    /// Ended logs that are not truncated yet, in the order in which they were dropped from `logs`; the newest ones if
    /// there are many. None if versions without this field dropped some of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untruncated: Option<Vec<EndedLog>>,
}

/// A log that ended and is not named as an open one any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedLog {
    /// Its generation.
    #[serde(flatten)]
    pub of: GenerationId,
    /// The first version of the root that did not name it as open.
    pub since: u64,
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
    /// Ended logs that need not be truncated any more.
    pub truncated: BTreeSet<GenerationId>,
    /// A boundary that was raised.
    pub boundary: Option<u64>,
}

/// Lists of the catalog for a root that lacks them, because a version without these fields wrote it.
#[derive(Debug, Default)]
pub struct Listed {
    /// The hours with a manifest.
    pub hours: Option<Hours>,
    /// The ended generations.
    pub ended: Option<Vec<GenerationId>>,
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
    /// Facts that are lost.
    pub(crate) gaps: Vec<Gap>,
    /// Names of commits that repairs have replaced.
    pub(crate) replaced: Vec<String>,
}

impl Step {
    /// Whether the step changed nothing.
    pub fn is_empty(&self) -> bool {
        let Step { generations, ended, gone, slots, problems, gaps, .. } = self;
        let Step { replaced, truncated, boundary, .. } = self;
        generations.is_empty()
            && ended.is_empty()
            && gone.is_empty()
            && slots.is_empty()
            && problems.is_empty()
            && gaps.is_empty()
            && replaced.is_empty()
            && truncated.is_empty()
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
            untruncated: Some(Vec::new()),
        }
    }

    /// The next version, with the same content. `previous` is the SHA-256 of this one.
    fn next(&self, previous: String, nonce: String) -> Root {
        let previous = if self.version == 0 { String::new() } else { previous };
        Root { version: self.version.saturating_add(1), previous, nonce, ..self.clone() }
    }

    /// The version with which a process takes over. The caller has listed what this version lacks.
    pub fn claim(
        &self,
        holder: String,
        keeps: bool,
        listed: Listed,
        previous: String,
        nonce: String,
    ) -> Root {
        let epoch = self.epoch.saturating_add(1);
        let hours = self.hours.clone().or(listed.hours);
        let mut next = Root { epoch, holder, keeps, hours, ..self.next(previous, nonce) };
        if let (None, Some(ended)) = (&next.untruncated, listed.ended) {
            next.untruncated = Some(Vec::new());
            ended.into_iter().for_each(|of| next.add_untruncated(of));
        }
        next
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
        let is_gone = |log: &OpenLog| log.ended && step.gone.contains(&log.state.id());
        let gone: Vec<_> = next.logs.extract_if(.., |log| is_gone(log)).collect();
        gone.iter().for_each(|log| next.add_untruncated(log.state.id()));
        if let Some(untruncated) = &mut next.untruncated {
            untruncated.retain(|log| !step.truncated.contains(&log.of));
        }
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
        let Mending { version, previous, epoch, boundary, logs, wide, .. } = mending;
        let Mending { mut hours, gaps, replaced, .. } = mending;
        let (holder, keeps) = ("repair".to_owned(), false);
        let before = self.clone();
        let mut next = Root { version, previous, nonce, epoch, holder, keeps, boundary, ..before };
        for (state, admitted) in logs {
            if let Err(place) = next.place(state.id()) {
                let admitted = admitted.unwrap_or(version);
                next.logs.insert(place, OpenLog { admitted, ended: false, state });
            }
        }
        gaps.into_iter().for_each(|gap| next.add_gap(gap));
        next.gaps.retain(|gap| gap.commit().is_none() || !replaced.contains(&gap.object));
        next.replaced.extend(replaced);
        // The slots that changed since are unknown.
        let named = |of| SlotVersion { slot: TimeSlot::Wide, version: of, since: version };
        next.slots = wide.map(named).into_iter().collect();
        next.unnamed_since = version;
        hours.extend(self.hours());
        next.hours = Some(hours);
        if self.version == 0 {
            // The next process that takes over lists them.
            next.untruncated = None;
        }
        next
    }

    /// Adds an ended log that is not truncated, unless the list is incomplete anyway. Beyond the limit, forgets the
    /// oldest one: it stays as it is.
    fn add_untruncated(&mut self, of: GenerationId) {
        let Some(untruncated) = &mut self.untruncated else { return };
        if untruncated.len() == UNTRUNCATED {
            untruncated.remove(0);
        }
        untruncated.push(EndedLog { of, since: self.version });
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

    /// Whether facts of manifests are lost for good, or may be: more is unknown than single commits.
    pub(crate) fn lacks_facts(&self) -> bool {
        let gave_up = |name: &String| names::parse_commit(&Path::from(name.as_str())).is_none();
        self.replaced.iter().any(gave_up) || self.hidden().iter().any(|of| of.commit().is_none())
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
mod tests;
