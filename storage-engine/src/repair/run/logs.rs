//! Writes writer objects and checkpoints of logs again.

use bytes::Bytes;
use capstan_model::Failure;

use super::Repair;
use crate::catalog::CommitId;
use crate::catalog::checkpoint;
use crate::catalog::entry::{self, Commit, sha256_hex};
use crate::catalog::names;
use crate::repair::action::{Action, Watch};
use crate::repair::survey::Survey;
use crate::store::checked;

impl<W: Watch> Repair<'_, W> {
    /// Writes missing or damaged writer objects again if their content is still known. It must match the hash in the
    /// first commit of the log.
    pub(super) async fn mend_writers(&mut self, survey: &Survey) -> Result<(), Failure> {
        for owner in survey.bad_writers() {
            let first = names::commit(owner, 0);
            let first = self.store.get_if_present(&first).await?.unwrap_or_default();
            let follows = match entry::read::<Commit>(&first) {
                Ok(of)
                    if of.id() == (CommitId { of: owner, seq: 0 })
                        && !checked::is_changed(of.format, &first) =>
                {
                    Some(of.previous)
                }
                _ => None,
            };
            let was = |bytes: &Bytes| follows.as_ref().is_none_or(|of| *of == sha256_hex(bytes));
            let known = survey.writers(&owner, follows.is_some()).map(entry::to_json);
            let known = known.collect::<Result<Vec<Bytes>, Failure>>()?;
            let Some(bytes) = known.into_iter().find(was) else {
                self.nameless.insert(owner);
                self.did(Action::NoWriter(owner));
                continue;
            };
            if !self.options.dry_run {
                let path = names::writer(owner);
                self.store.delete(&path).await?;
                // If another process wrote it meanwhile, the content is the same.
                let _created = self.store.create(&path, bytes).await?;
            }
            self.did(Action::Writer(owner));
        }
        Ok(())
    }

    /// Writes damaged and lost checkpoints again.
    pub(super) async fn mend_checkpoints(&mut self, survey: &Survey) -> Result<(), Failure> {
        for (of, bad) in &survey.bad_checkpoints {
            let Some(state) = &bad.state else {
                self.did(Action::NoCheckpoint(*of));
                continue;
            };
            if !self.options.dry_run {
                if bad.is_there {
                    self.store.delete(&names::checkpoint(*of, bad.seq)).await?;
                }
                checkpoint::put(self.store, state).await?;
            }
            self.did(Action::Checkpoint(*of));
        }
        Ok(())
    }
}
