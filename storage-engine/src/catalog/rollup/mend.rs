//! Putting manifests that cannot be read, or lack facts, anew.

use std::collections::BTreeSet;

use capstan_model::Failure;

use super::Rollup;
use crate::catalog::gap::Gap;
use crate::catalog::manifest::{Manifest, SlotCommit};
use crate::catalog::root::Step;
use crate::catalog::slot::TimeSlot;
use crate::catalog::versions;

/// A slot whose manifest is to be put anew.
#[derive(Debug)]
pub(crate) struct MendingSlot {
    /// The newest manifest that can be read; an empty one if none can.
    pub(crate) base: Manifest,
    /// The highest version there is, or was.
    pub(crate) newest: u64,
    /// SHA-256 of its bytes, hex; empty if it is gone.
    pub(crate) previous: String,
    /// Parts that `base` names and that cannot be read.
    pub(crate) unreadable: BTreeSet<String>,
    /// Commits that are rolled up, say something of this slot and are in none of its facts that can be read.
    pub(crate) commits: Vec<SlotCommit>,
}

impl Rollup {
    /// Puts a manifest anew; none if another one rolls up. Readers see it once [`Rollup::name_mended`] is done.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn mend(
        &self,
        slot: &MendingSlot,
    ) -> Result<Option<(TimeSlot, u64)>, Failure> {
        let MendingSlot { base, newest, previous, unreadable, commits } = slot;
        let (epoch, nonce) = (self.root.value.epoch, self.store.nonce());
        let next = base.mended(*newest, unreadable, commits, epoch, previous.clone(), nonce);
        // What cannot be read any more is not missed.
        let mut before = Manifest { version: *newest, ..base.clone() };
        before.parts.retain(|part| !unreadable.contains(&part.name));
        let put = versions::put_manifest(&self.store, &before, next).await?;
        Ok(put.map(|manifest| (manifest.value.slot, manifest.value.version)))
    }

    /// Puts a root that names manifests that were put anew, and what they do not say; false if another one rolls up.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn name_mended(
        &mut self,
        slots: Vec<(TimeSlot, u64)>,
        gaps: Vec<Gap>,
    ) -> Result<bool, Failure> {
        let step = Step { slots, gaps, ..Step::default() };
        Ok(self.advance(step).await?.is_ok())
    }
}
