//! What a survey says about truncated logs.

use std::collections::BTreeSet;

use capstan_model::GenerationId;
use object_store::path::Path;

use super::{NEAR, Survey};
use crate::catalog::names;
use crate::catalog::sums::Lacking;
use crate::catalog::{About, CommitId, Gap, GapKind, GenerationState, TimeSlot};

impl Survey {
    /// Generations whose logs are truncated to their ends, and that nothing else names.
    pub(in crate::repair) fn ended_at_checkpoints(&self) -> Vec<GenerationState> {
        let root = self.roots.readable.as_ref();
        let known = |owner: &GenerationId| {
            self.generations.get(owner).is_some_and(Option::is_some)
                || root.is_some_and(|root| root.log(*owner).is_some())
        };
        let states = self.logs.truncated.values().filter_map(|of| of.state.as_ref());
        states.filter(|of| of.chain().finished() && !known(&of.id())).cloned().collect()
    }

    /// Whether a commit of a truncated log is removed, or may be.
    pub(in crate::repair) fn is_removed(&self, id: &CommitId) -> bool {
        let is_covered = self.logs.truncated.get(&id.of).is_some_and(|of| id.seq < of.seq);
        let is_there = || {
            let of_logs = self.logged.values().filter_map(|commits| commits.get(&id.of));
            of_logs.into_iter().any(|seqs| seqs.contains(id.seq))
        };
        is_covered && !is_there()
    }

    /// Whether the manifest of a slot has the facts of a commit.
    pub(in crate::repair) fn is_present(&self, slot: TimeSlot, id: &CommitId) -> bool {
        let present = self.slots.get(&slot).and_then(|found| found.present.get(&id.of));
        present.is_some_and(|seqs| seqs.contains(id.seq))
    }

    /// The version of the newest readable manifest of a slot.
    pub(in crate::repair) fn readable(&self, slot: TimeSlot) -> Option<u64> {
        self.slots.get(&slot).and_then(|found| found.row.readable.as_ref()).map(|of| of.version)
    }

    /// Whether a part of the newest readable manifest of a slot is unreadable.
    pub(in crate::repair) fn is_unreadable(&self, slot: TimeSlot, part: &str) -> bool {
        self.slots.get(&slot).is_some_and(|found| found.unreadable.contains(part))
    }

    /// Whether a log is truncated to its end: its checkpoint says how it ended.
    pub(in crate::repair) fn is_truncated_to_its_end(&self, owner: &GenerationId) -> bool {
        let state = self.logs.truncated.get(owner).and_then(|of| of.state.as_ref());
        state.is_some_and(|state| state.chain().finished())
    }

    /// The other slots whose manifests may have facts about a slot.
    pub(in crate::repair) fn sharing(&self, slot: TimeSlot) -> Vec<TimeSlot> {
        let far = self.far.get(&slot);
        let may_share = |other: &TimeSlot| match slot.hours_to(*other) {
            Some(hours) => hours <= NEAR || far.is_some_and(|far| far.contains(other)),
            // A segment with secrets is in its hours and wide.
            None => true,
        };
        self.slots.keys().copied().filter(|other| *other != slot).filter(may_share).collect()
    }

    /// Readable manifests of a slot that have facts of unreadable parts: they were made before the parts.
    pub(in crate::repair) fn before_unreadable_parts(&self, slot: TimeSlot) -> &[u64] {
        match self.slots.get(&slot) {
            Some(found) if !found.unreadable.is_empty() => &found.row.older,
            _ => &[],
        }
    }

    /// What hides facts of truncated commits: lost manifests and roots, now or in an earlier repair that was not
    /// completed. If none of these is known to be lost, checkpoints with more packets than manifests have.
    pub(in crate::repair) fn lost_of_truncated(&self) -> Vec<Gap> {
        if self.logs.truncated.is_empty() {
            return Vec::new();
        }
        let slots = self.slots.iter().filter(|(_, found)| found.is_damaged()).map(|(of, _)| of);
        let gone =
            self.named_versions.iter().filter(|(slot, version)| self.newest(**slot) < **version);
        let slots: BTreeSet<TimeSlot> = slots.chain(gone.map(|(slot, _)| slot)).copied().collect();
        let lost = |slot: TimeSlot| {
            let named = self.named_versions.get(&slot).copied().unwrap_or(0);
            let object = names::manifest(slot, self.newest(slot).max(named));
            let what = format!("{object} is lost, with facts of commits that were removed");
            Gap::new(&object, GapKind::Damaged, About::slot(slot), what)
        };
        let mut gaps: Vec<Gap> = slots.into_iter().map(lost).collect();
        let root = self.roots.readable.as_ref();
        match root {
            Some(root) => {
                let open = root.hidden().into_iter().filter(|gap| {
                    let object = Path::from(gap.object.as_str());
                    names::parse_manifest(&object).is_some()
                        || names::parse_root(&object).is_some()
                        || names::parse_checkpoint(&object).is_some()
                });
                gaps.extend(open);
            }
            None => {
                let object = names::root(self.roots.newest);
                let what = format!(
                    "{object} and all roots before it are lost, and with them the names of \
                     manifests with facts of commits that were removed"
                );
                gaps.push(Gap::new(&object, GapKind::Damaged, About::AnyTime, what));
            }
        }
        if gaps.is_empty() && root.is_some_and(|root| !root.lacks_facts()) {
            gaps.extend(self.sums.lacking().map(|Lacking { checkpoint, what }| {
                Gap::new(&checkpoint, GapKind::Missing, About::AnyTime, what)
            }));
        }
        gaps
    }
}
