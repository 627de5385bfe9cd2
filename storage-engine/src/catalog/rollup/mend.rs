//! Writes manifests again that are unreadable or lack facts.

use std::collections::BTreeSet;

use capstan_model::Failure;

use super::Rollup;
use crate::catalog::gap::Gap;
use crate::catalog::manifest::{Manifest, SlotCommit};
use crate::catalog::root::Step;
use crate::catalog::slot::TimeSlot;
use crate::catalog::versions;

/// A slot whose manifest must be written again.
#[derive(Debug)]
pub(crate) struct MendingSlot {
    /// The newest readable manifest; an empty one if none is readable.
    pub(crate) base: Manifest,
    /// The highest version that exists or existed.
    pub(crate) newest: u64,
    /// SHA-256 of its bytes, hex; empty if it is gone.
    pub(crate) previous: String,
    /// Unreadable parts that `base` names.
    pub(crate) unreadable: BTreeSet<String>,
    /// Rolled-up commits with facts about this slot that are in no readable object of it.
    pub(crate) commits: Vec<SlotCommit>,
}

impl Rollup {
    /// Writes a manifest again; none if another process rolls up. Readers see it after [`Rollup::name_mended`].
    ///
    /// # Errors
    /// Errors of the store.
    pub(crate) async fn mend(
        &self,
        slot: &MendingSlot,
    ) -> Result<Option<(TimeSlot, u64)>, Failure> {
        let MendingSlot { base, newest, previous, unreadable, commits } = slot;
        let (epoch, nonce) = (self.root.value.epoch, self.store.nonce());
        let next = base.mended(*newest, unreadable, commits, epoch, previous.clone(), nonce);
        // The check does not require the unreadable parts.
        let mut before = Manifest { version: *newest, ..base.clone() };
        before.parts.retain(|part| !unreadable.contains(&part.name));
        let put = versions::put_manifest(&self.store, &before, next).await?;
        Ok(put.map(|manifest| (manifest.value.slot, manifest.value.version)))
    }

    /// Writes a root that names the repaired manifests, and the facts that they lack; false if another process rolls
    /// up.
    ///
    /// # Errors
    /// Errors of the store.
    pub(crate) async fn name_mended(
        &mut self,
        slots: Vec<(TimeSlot, u64)>,
        gaps: Vec<Gap>,
    ) -> Result<bool, Failure> {
        let step = Step { slots, gaps, ..Step::default() };
        Ok(self.advance(step).await?.is_ok())
    }
}
