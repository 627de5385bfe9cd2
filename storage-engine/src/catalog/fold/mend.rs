//! Putting manifests that cannot be read, or lack facts, anew.

use std::collections::BTreeSet;

use capstan_model::Failure;

use super::{Fenced, Folder};
use crate::catalog::gap::Gap;
use crate::catalog::manifest::{Folding, Manifest};
use crate::catalog::root::Step;
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
    /// Commits that are folded, say something of this slot and are in none of its facts that can be read.
    pub(crate) commits: Vec<Folding>,
}

impl Folder {
    /// Puts manifests anew, and a root that names them and what they do not say; who folds now, if that is not this
    /// one any more.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn mend(
        &mut self,
        slots: &[MendingSlot],
        gaps: Vec<Gap>,
    ) -> Result<Option<String>, Failure> {
        let mut step = Step { gaps, ..Step::default() };
        for mending in slots {
            let Some(put) = self.put_mended(mending).await? else {
                return self.successor().await.map(Some);
            };
            step.slots.push((put.slot, put.version));
        }
        match self.advance(step).await? {
            Ok(()) => Ok(None),
            Err(Fenced) => self.successor().await.map(Some),
        }
    }

    async fn put_mended(&self, mending: &MendingSlot) -> Result<Option<Manifest>, Failure> {
        let MendingSlot { base, newest, previous, unreadable, commits } = mending;
        let (epoch, nonce) = (self.root.value.epoch, self.store.nonce());
        let next = base.mended(*newest, unreadable, commits, epoch, previous.clone(), nonce);
        // What cannot be read any more is not missed.
        let mut before = Manifest { version: *newest, ..base.clone() };
        before.parts.retain(|part| !unreadable.contains(&part.name));
        let put = versions::put_manifest(&self.store, &before, next).await?;
        Ok(put.map(|manifest| manifest.value))
    }
}
