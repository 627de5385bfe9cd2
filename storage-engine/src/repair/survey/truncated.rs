//! What a survey says about truncated logs.

use std::collections::BTreeSet;

use capstan_model::GenerationId;
use object_store::path::Path;

use super::Survey;
use crate::catalog::names;
use crate::catalog::{About, CommitId, Gap, GapKind, GenerationState, Problem, TimeSlot};

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

    /// Logs whose checkpoint is damaged, and the states that can replace it.
    pub(in crate::repair) fn bad_checkpoints(
        &self,
    ) -> Vec<(GenerationId, u64, Option<&GenerationState>)> {
        let is_newer = |path: &Path| {
            let is_it = |of: &Problem| match of {
                Problem::Checkpoint { object, is_newer, .. } => {
                    *is_newer && object.as_str() == path.as_ref()
                }
                _ => false,
            };
            self.logs.problems.iter().any(is_it)
        };
        let unreadable = self.logs.truncated.iter().filter(|(owner, of)| {
            of.state.is_none() && !is_newer(&names::checkpoint(**owner, of.seq))
        });
        let root = self.roots.readable.as_ref();
        let known = |owner: &GenerationId, seq: u64| {
            let of_root = root.and_then(|root| root.log(*owner)).map(|log| &log.state);
            let ended = self.generations.get(owner).and_then(Option::as_ref);
            of_root.into_iter().chain(ended).find(|state| state.chain().next() >= seq)
        };
        unreadable.map(|(owner, of)| (*owner, of.seq, known(owner, of.seq))).collect()
    }

    /// What hides facts of truncated commits: lost manifests and roots, now or in an earlier repair that was not
    /// completed.
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
        match &self.roots.readable {
            Some(root) => {
                let open = root.hidden().into_iter().filter(|gap| {
                    let object = Path::from(gap.object.as_str());
                    names::parse_manifest(&object).is_some() || names::parse_root(&object).is_some()
                });
                gaps.extend(open);
            }
            None => {
                let object = names::root(self.roots.newest);
                let what = format!(
                    "{object} and all roots before it are lost, and with them the names of manifests                      with facts of commits that were removed"
                );
                gaps.push(Gap::new(&object, GapKind::Damaged, About::AnyTime, what));
            }
        }
        gaps
    }
}
