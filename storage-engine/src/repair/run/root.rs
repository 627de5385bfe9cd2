//! Writes the root again, and the objects beside it: boundaries and ended generations.

use std::collections::BTreeSet;

use capstan_model::{Failure, GenerationId};

use super::Repair;
use crate::catalog::names;
use crate::catalog::root::{Mending, Root};
use crate::catalog::versions;
use crate::catalog::{Gap, TimeSlot, WriterKind};
use crate::repair::action::{Action, Watch};
use crate::repair::forgotten::as_rolled_up;
use crate::repair::survey::Survey;

impl<W: Watch> Repair<'_, W> {
    /// Writes unusable boundaries, ended generations and the root again. `gaps`: what hides facts of truncated commits.
    /// False if another process wrote a root.
    pub(super) async fn mend_root(
        &mut self,
        survey: &mut Survey,
        gaps: &[Gap],
    ) -> Result<bool, Failure> {
        let store = self.store;
        let real = !self.options.dry_run;
        for of in survey.lost_generations() {
            let of_root =
                survey.roots.readable.as_ref().and_then(|root| root.log(of).map(|log| &log.state));
            let of_log = survey.logs.generations.get(&of);
            let mut known = of_log.into_iter().chain(of_root);
            let ended = known.find(|state| state.chain().finished()).cloned();
            if real {
                store.delete(&names::ended_generation(of)).await?;
                if let Some(state) = &ended {
                    versions::put_ended(store, state).await?;
                }
            }
            self.did(Action::Generation(of));
            survey.generations.insert(of, ended);
        }

        for state in survey.ended_at_checkpoints() {
            if real {
                versions::put_ended(store, &state).await?;
            }
            self.did(Action::Generation(state.id()));
            survey.generations.insert(state.id(), Some(state));
        }
        self.end_forgotten(survey).await?;
        let homeless = survey.homeless();
        let readable = survey.roots.readable.clone();
        let is_newest = readable.as_ref().is_some_and(|of| of.version == survey.roots.newest);
        let lost = survey.boundaries.iter().filter(|(_, below)| below.is_none());
        let lost: Vec<u64> = lost.map(|(number, _)| *number).collect();
        let newest = survey.roots.newest;
        for number in lost {
            if real {
                store.delete(&names::boundary(number)).await?;
                // A process with an older root than the newest looks for it.
                let _taken = versions::put_boundary(store, number, newest).await?;
            }
            self.did(Action::Boundary(number));
        }
        let nothing_rolled_up =
            newest == 0 && survey.slots.is_empty() && survey.generations.is_empty();
        if !(is_newest || nothing_rolled_up) || !homeless.is_empty() {
            let base = readable.unwrap_or_else(Root::empty);
            let root = self.put_root(survey, &base, &homeless, gaps).await?;
            let Some(root) = root else { return Ok(false) };
            survey.roots.readable = Some(root);
        }
        self.remove_roots(survey).await?;
        Ok(true)
    }

    /// Stores generations of imports and repairs as ended if their last commits were rolled up and are lost now. The
    /// successor of an import checks its log. A recorder on an interface may still live: its log stays open.
    async fn end_forgotten(&mut self, survey: &mut Survey) -> Result<(), Failure> {
        for owner in survey.homeless() {
            let commits = survey.counted(&owner);
            let may_live = matches!(survey.kinds.of(&owner), None | Some(WriterKind::Live));
            let is_whole =
                survey.logs.generations.get(&owner).is_some_and(|of| of.commits() >= commits);
            if commits == 0 || may_live || is_whole {
                continue;
            }
            let state = as_rolled_up(self.store, survey, owner).await?;
            if !self.options.dry_run {
                versions::put_ended(self.store, &state).await?;
            }
            self.did(Action::Generation(owner));
            survey.generations.insert(owner, Some(state));
        }
        Ok(())
    }

    /// Removes unreadable roots if a newer readable one exists.
    async fn remove_roots(&mut self, survey: &Survey) -> Result<(), Failure> {
        let Some(newest) = &survey.roots.readable else { return Ok(()) };
        if survey.roots.damaged.is_empty() {
            return Ok(());
        }
        if !self.options.dry_run {
            // A process with an older root would take it for the newest if the next one is missing.
            let number = survey.boundary().saturating_add(1);
            let _taken = versions::put_boundary(self.store, number, newest.version).await?;
        }
        for version in &survey.roots.damaged {
            self.remove(names::root(*version)).await?;
        }
        Ok(())
    }

    /// Writes a root that continues from `base`; none if another process wrote it first.
    async fn put_root(
        &mut self,
        survey: &Survey,
        base: &Root,
        homeless: &BTreeSet<GenerationId>,
        gaps: &[Gap],
    ) -> Result<Option<Root>, Failure> {
        let mut logs = Vec::new();
        let is_unnamed = |owner: &&GenerationId| {
            base.log(**owner).is_none() && !survey.is_truncated_to_its_end(owner)
        };
        let unnamed = survey.open.iter().filter(is_unnamed);
        for owner in homeless.iter().chain(unnamed) {
            let mut state = as_rolled_up(self.store, survey, *owner).await?;
            if self.nameless.contains(owner) {
                state.forget_writer();
            }
            logs.push((state, survey.admitted.get(owner).copied()));
        }
        let many = logs.len() as u64;
        let manifests = || survey.slots.values().filter_map(|of| of.row.readable.as_ref());
        let epochs = manifests().map(|of| of.epoch).max().unwrap_or(0);
        // Each damaged root raised it by at most one.
        let damaged = survey.roots.newest.saturating_sub(base.version);
        let epoch = base.epoch.saturating_add(damaged).max(epochs).saturating_add(1);
        let below = survey.boundaries.values().flatten().max().copied().unwrap_or(0);
        let admitted = survey.admitted.values().max().copied().unwrap_or(0);
        // A number that was never used: a process that knows an older one may still continue from there.
        let newest = survey.roots.newest.max(admitted).max(below);
        let wide = survey.slots.get(&TimeSlot::Wide).and_then(|of| of.row.readable.as_ref());
        let previous = match newest == survey.roots.newest {
            true => survey.roots.newest_sha256.clone(),
            false => String::new(),
        };
        let mending = Mending {
            version: newest.saturating_add(1),
            previous,
            epoch,
            boundary: survey.boundary(),
            logs,
            wide: wide.map(|of| of.version),
            hours: survey.hours(),
            gaps: gaps.to_vec(),
            // The logs of earlier repairs may be rolled up: then nobody reads them again.
            replaced: survey.replaced(),
        };
        let root = base.mended(mending, self.store.nonce());
        let version = root.version;
        if !self.options.dry_run
            && versions::put_mended_root(self.store, root.clone()).await?.is_none()
        {
            return Ok(None);
        }
        self.did(Action::Root { version, from: base.version, logs: many });
        Ok(Some(root))
    }
}
