//! Slots: their manifests and parts, and the facts that are readable.

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::{Failure, GenerationId};

use super::row::Row;
use super::{Commits, NEAR, Survey};
use crate::catalog::facts::Facts;
use crate::catalog::hours::Hours;
use crate::catalog::manifest::Manifest;
use crate::catalog::names;
use crate::catalog::part::PartContent;
use crate::catalog::root::Root;
use crate::catalog::versions::{self, Versioned};
use crate::catalog::{CommitId, Fact, GapKind, TimeSlot};
use crate::store::Store;

/// The required content of a readable manifest.
#[derive(Debug)]
pub(in crate::repair) struct ManifestSurvey {
    pub(in crate::repair) version: u64,
    pub(in crate::repair) epoch: u64,
    /// Number of commits of each generation that it declares included.
    pub(super) counted: BTreeMap<GenerationId, u64>,
}

/// The state of a slot.
#[derive(Debug)]
pub(in crate::repair) struct SlotSurvey {
    pub(in crate::repair) row: Row<ManifestSurvey>,
    /// Unreadable parts of the newest readable manifest.
    pub(in crate::repair) unreadable: BTreeSet<String>,
    /// Commits whose facts are readable.
    pub(super) present: Commits,
}

impl Survey {
    pub(super) async fn take_slot(
        &mut self,
        store: &Store,
        slot: TimeSlot,
        there: BTreeSet<u64>,
    ) -> Result<(), Failure> {
        let name = |version| names::manifest(slot, version);
        let read = |version| versions::read_manifest(store, slot, version);
        let mut row = Row::read(store, there, name, read).await?;
        let mut unreadable = BTreeSet::new();
        let mut present = Commits::new();
        if let Some(Versioned { value: manifest, .. }) = &mut row.readable {
            for of in &manifest.contributors {
                let owner = of.of();
                self.admitted.entry(owner).or_insert(of.admitted);
                let counted = self.counted.entry(owner).or_default();
                *counted = of.next.max(*counted);
                if let Some(info) = &of.info {
                    self.kinds.0.entry(owner).or_insert((info.kind, info.resumes));
                }
            }
            let held = std::mem::take(&mut manifest.held);
            self.take_facts(manifest, held, &mut present)?;
            // Parts that were written together have the facts of the same commits, so they are kept or dropped
            // together.
            for together in manifest.parts.chunk_by(|a, b| a.stem() == b.stem()) {
                let mut contents = Vec::new();
                for part in together {
                    match versions::read_part(store, slot, part).await {
                        // The filter of the manifest does not cover other content, and queries by address would skip
                        // it.
                        Ok(content) if manifest.includes(part.holds, &content.facts) => {
                            contents.push(content);
                        }
                        Ok(_) => {}
                        Err(failure) if is_lost(&failure) => {}
                        Err(failure) => return Err(failure),
                    }
                }
                if contents.len() < together.len() {
                    unreadable.extend(together.iter().map(|part| part.name.clone()));
                    continue;
                }
                for PartContent { facts, .. } in contents {
                    self.take_facts(manifest, facts, &mut present)?;
                }
            }
        }
        let row = row.map(|manifest| ManifestSurvey {
            version: manifest.version,
            epoch: manifest.epoch,
            counted: manifest.contributors.iter().map(|of| (of.of(), of.next)).collect(),
        });
        self.slots.insert(slot, SlotSurvey { row, unreadable, present });
        Ok(())
    }

    /// Collects the commits of facts, and the segments that they name.
    fn take_facts(
        &mut self,
        manifest: &Manifest,
        facts: Facts,
        present: &mut Commits,
    ) -> Result<(), Failure> {
        let owner = |by| manifest.owner(by).map(|of| of.of());
        for of in &facts.commits {
            let Some(owner) = owner(of.by) else { continue };
            present.entry(owner).or_default().insert(of.seq);
            let id = CommitId { of: owner, seq: of.seq };
            if self.changed.get(&id) == Some(&of.fact) {
                self.rolled_up_changed.insert(id);
            }
        }
        for of in facts.facts {
            let Some(owner) = owner(of.by) else { continue };
            let id = CommitId { of: owner, seq: of.seq };
            match &of.fact {
                Fact::Segment(entry) => self.sums.add_segment(manifest.slot, id, entry),
                Fact::Loss(loss) => self.sums.add_loss(manifest.slot, id, loss),
                Fact::Listened(_) | Fact::Change(_) | Fact::Unknown(_) => {}
            }
            for slot in of.fact.slots() {
                if slot.hours_to(manifest.slot).is_some_and(|hours| hours > NEAR) {
                    self.far.entry(slot).or_default().insert(manifest.slot);
                }
            }
            self.named.take(id, of.fact)?;
        }
        Ok(())
    }

    /// Hours that have a manifest, readable or not.
    pub(in crate::repair) fn hours(&self) -> Hours {
        let hour = |slot: &TimeSlot| match slot {
            TimeSlot::Hour(hour) => Some(*hour),
            TimeSlot::Wide => None,
        };
        self.slots.keys().filter_map(hour).collect()
    }

    /// The highest existing version of a slot's manifest, readable or not; 0 if there is none.
    pub(in crate::repair) fn newest(&self, slot: TimeSlot) -> u64 {
        self.slots.get(&slot).map_or(0, |found| found.row.newest)
    }

    /// Whether manifests have the original facts of a commit.
    pub(in crate::repair) fn is_rolled_up_as_written(&self, id: &CommitId) -> bool {
        let has = |found: &SlotSurvey| {
            found.present.get(&id.of).is_some_and(|seqs| seqs.contains(id.seq))
        };
        !self.rolled_up_changed.contains(id) && self.slots.values().any(has)
    }

    /// Commits by slot that are rolled up according to `root` or the slot's manifest, but whose facts are in no
    /// readable object.
    pub(in crate::repair) fn missing(&self, root: &Root) -> BTreeMap<TimeSlot, Commits> {
        let mut missing = BTreeMap::<TimeSlot, Commits>::new();
        for (slot, logged) in &self.logged {
            let found = self.slots.get(slot);
            for (owner, logged) in logged {
                let counted = found.map_or(0, |found| found.counted(owner));
                let mut of_generation = logged.clone();
                of_generation.remove_range(self.rolled_up(root, owner).max(counted)..);
                if let Some(present) = found.and_then(|found| found.present.get(owner)) {
                    of_generation -= present;
                }
                if !of_generation.is_empty() {
                    missing.entry(*slot).or_default().insert(*owner, of_generation);
                }
            }
        }
        missing
    }
}

impl SlotSurvey {
    /// Whether a manifest newer than the newest readable one exists, or one of its parts is unreadable.
    pub(in crate::repair) fn is_damaged(&self) -> bool {
        !self.unreadable.is_empty()
            || self.row.readable.as_ref().map_or(0, |of| of.version) < self.row.newest
    }

    /// Number of commits of a generation that the manifest declares included.
    fn counted(&self, owner: &GenerationId) -> u64 {
        let manifest = self.row.readable.as_ref();
        manifest.and_then(|of| of.counted.get(owner)).copied().unwrap_or(0)
    }
}

/// Whether a part is damaged or missing. One of a newer version is neither.
fn is_lost(failure: &Failure) -> bool {
    matches!(GapKind::of(failure), Some(GapKind::Damaged | GapKind::Missing))
}
