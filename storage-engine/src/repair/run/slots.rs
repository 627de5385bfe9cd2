//! Writes the manifests of slots again.

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::Failure;
use roaring::RoaringTreemap;

use super::Repair;
#[cfg(feature = "planted")]
use crate::catalog::Fact;
use crate::catalog::entry::{self, Commit, sha256_hex};
use crate::catalog::facts::split;
use crate::catalog::manifest::{Manifest, SlotCommit};
use crate::catalog::names;
use crate::catalog::rollup::MendingSlot;
use crate::catalog::root::Root;
use crate::catalog::versions;
use crate::catalog::{Gap, Rollup, Stay, TimeSlot};
use crate::repair::action::{Action, Watch};
use crate::repair::doubt::Doubtful;
use crate::repair::elsewhere::elsewhere;
use crate::repair::survey::{Commits, Survey};
#[cfg(feature = "planted")]
use crate::store::Store;

impl<W: Watch> Repair<'_, W> {
    /// Writes manifests again that are unreadable or lack facts. `lost`: what hides facts of truncated commits. False if
    /// another process rolls up.
    pub(super) async fn mend_slots(
        &mut self,
        survey: &Survey,
        doubtful: &Doubtful,
        lost: &[Gap],
    ) -> Result<bool, Failure> {
        let empty = Root::empty();
        let root = survey.roots.readable.as_ref().unwrap_or(&empty);
        let mut missing = survey.missing(root);
        for (slot, found) in &survey.slots {
            if found.is_damaged() {
                missing.entry(*slot).or_default();
            }
        }
        // A missing manifest may have had the same facts as its predecessor, but readers ask for it.
        for (slot, version) in &survey.named_versions {
            if survey.newest(*slot) < *version {
                missing.entry(*slot).or_default();
            }
        }
        let mut waste = Vec::new();
        for (slot, found) in &survey.slots {
            waste.extend(found.unreadable.iter().map(|name| names::part(*slot, name)));
            let damaged = found.row.damaged.iter();
            waste.extend(damaged.map(|version| names::manifest(*slot, *version)));
        }
        let told: BTreeSet<String> = root.hidden().into_iter().map(|gap| gap.object).collect();
        let is_untold = lost.iter().any(|gap| !told.contains(&gap.object));
        let gaps = doubtful.values().chain(lost).cloned().collect();
        if (is_untold || !missing.is_empty())
            && !self.put_slots(survey, root, &missing, gaps).await?
        {
            return Ok(false);
        }
        for path in waste {
            self.remove(path).await?;
        }
        Ok(true)
    }

    /// Writes manifests with the commits that they lack, one after the other. `gaps`: facts that they cannot have any
    /// more. False if another process rolls up.
    async fn put_slots(
        &mut self,
        survey: &Survey,
        root: &Root,
        missing: &BTreeMap<TimeSlot, Commits>,
        gaps: Vec<Gap>,
    ) -> Result<bool, Failure> {
        let steps = missing.values().flat_map(BTreeMap::values).map(RoaringTreemap::len).sum();
        self.watch.begin("reading commits", steps);
        let mut rollup = match self.options.dry_run {
            true => None,
            false => Some(Rollup::claim(self.store, "repair", Stay::Leaves).await?),
        };
        // The new manifests lack the facts that the old ones had of unreadable and of removed commits. A repair that is
        // killed after it has written one must be told about them.
        if let Some(rollup) = &mut rollup
            && !gaps.is_empty()
            && !rollup.name_mended(Vec::new(), gaps).await?
        {
            return Ok(false);
        }
        let mut put = Vec::new();
        for (slot, commits) in missing {
            let (mut commits, lost) = self.commits_of(survey, root, *slot, commits).await?;
            commits.extend(elsewhere(self.store, survey, *slot).await?);
            let many = commits.len() as u64;
            if let Some(rollup) = &rollup {
                let Some(mending) = self.mending(survey, *slot, commits).await? else {
                    return Ok(false);
                };
                let Some(mended) = rollup.mend(&mending).await? else { return Ok(false) };
                put.push(mended);
            }
            self.did(Action::Manifest { slot: *slot, commits: many, lost });
        }
        match &mut rollup {
            Some(rollup) if !put.is_empty() => rollup.name_mended(put, Vec::new()).await,
            _ => Ok(true),
        }
    }

    /// The base for a new manifest; none if another process rolled it up and removed it meanwhile.
    async fn mending(
        &self,
        survey: &Survey,
        slot: TimeSlot,
        commits: Vec<SlotCommit>,
    ) -> Result<Option<MendingSlot>, Failure> {
        let found = survey.slots.get(&slot);
        let readable = found.and_then(|found| found.row.readable.as_ref());
        let base = match readable {
            None => Manifest::empty(slot),
            Some(of) => match versions::read_manifest(self.store, slot, of.version).await? {
                Some(manifest) => manifest.value,
                None => return Ok(None),
            },
        };
        let there = survey.newest(slot);
        // The number of a missing manifest is not reused.
        let newest = there.max(survey.named_versions.get(&slot).copied().unwrap_or(0));
        let previous = found.filter(|_| there == newest).map(|of| of.row.newest_sha256.clone());
        let previous = previous.unwrap_or_default();
        let unreadable = found.map(|found| found.unreadable.clone()).unwrap_or_default();
        Ok(Some(MendingSlot { base, newest, previous, unreadable, commits }))
    }

    /// The facts of commits about a slot, and how many of the commits are unreadable.
    async fn commits_of(
        &self,
        survey: &Survey,
        root: &Root,
        slot: TimeSlot,
        commits: &Commits,
    ) -> Result<(Vec<SlotCommit>, u64), Failure> {
        let (mut read, mut lost) = (Vec::new(), 0);
        let commits = commits.iter().flat_map(|(owner, seqs)| seqs.iter().map(|seq| (*owner, seq)));
        for (owner, seq) in commits {
            self.watch.step();
            let path = names::commit(owner, seq);
            let bytes = self.store.get_if_present(&path).await?.unwrap_or_default();
            let Ok(commit) = entry::read::<Commit>(&bytes) else {
                lost += 1;
                continue;
            };
            let Some(facts) = split(commit.content.facts).remove(&slot) else { continue };
            #[cfg(feature = "planted")]
            let facts = without_changes(self.store, facts);
            let known = survey.admitted.get(&owner).copied();
            let named = root.log(owner).map(|log| log.admitted);
            let state = survey.logs.generations.get(&owner);
            read.push(SlotCommit {
                of: owner,
                admitted: known.or(named).unwrap_or(root.version),
                info: state.and_then(|state| state.writer()).map(|writer| writer.info.clone()),
                seq,
                sha256: sha256_hex(&bytes),
                facts,
            });
        }
        Ok((read, lost))
    }
}

/// Drops the changes of segments, if that fault is planted.
#[cfg(feature = "planted")]
fn without_changes(store: &Store, mut facts: Vec<Fact>) -> Vec<Fact> {
    if store.planted(crate::store::Planted::Resurrects) {
        facts.retain(|fact| fact.change().is_none());
    }
    facts
}
