//! Executes a repair, step by step. IO only: other modules decide what to do.

mod logs;
mod orphans;
mod root;
mod slots;
mod verdict;

use std::collections::BTreeSet;

use capstan_model::{Failure, FailureKind, GenerationId};
use object_store::path::Path;

use super::action::{Action, Options, Report, Watch};
use super::doubt::doubtful;
use super::survey::Survey;
use crate::catalog::CommitId;
use crate::catalog::load::FIRST_FORMAT;
use crate::catalog::names;
use crate::store::Store;

/// Maximum number of restarts when another process rolls up meanwhile.
const TRIES: u32 = 4;

struct Repair<'a, W> {
    store: &'a Store,
    options: &'a Options,
    watch: &'a W,
    report: Report,
    /// Generations whose writer's description is unknown.
    nameless: BTreeSet<GenerationId>,
}

/// Repairs a store.
///
/// # Errors
/// Errors of the store; of kind `TooNew` if a newer version wrote some of the catalog, of kind `Unavailable` if other
/// processes roll up all the time. Work done until then stays, and the caller may retry.
pub async fn repair(
    store: &Store,
    options: &Options,
    watch: &impl Watch,
) -> Result<Report, Failure> {
    let mut repair =
        Repair { store, options, watch, report: Report::default(), nameless: BTreeSet::new() };
    for _ in 0..TRIES {
        if repair.once().await? {
            return Ok(repair.report);
        }
    }
    let what = format!(
        "other processes keep rolling up the catalog of {}: stop its recorders, and repair again",
        store.place()
    );
    Err(Failure::new(FailureKind::Unavailable, what))
}

impl<W: Watch> Repair<'_, W> {
    /// One attempt; false if another process rolls up meanwhile.
    async fn once(&mut self) -> Result<bool, Failure> {
        self.watch.begin("reading the catalog", 0);
        let mut survey = Survey::take(self.store).await?;
        let is_rolled_up = self.store.format().format >= FIRST_FORMAT;
        let (was_sound, forgotten) = (survey.is_sound(), survey.forgotten());
        let lost = survey.lost_of_truncated();
        self.mend_writers(&survey).await?;
        // The root continues logs from their checkpoints.
        self.mend_checkpoints(&survey).await?;
        if is_rolled_up && !self.mend_root(&mut survey, &lost).await? {
            return Ok(false);
        }
        let doubtful = doubtful(&survey, was_sound, &forgotten);
        if is_rolled_up {
            if !self.mend_slots(&survey, &doubtful, &lost).await? {
                return Ok(false);
            }
            let needless = survey.needless(&doubtful).into_iter();
            let needless =
                Vec::from_iter(needless.map(|CommitId { of, seq }| names::commit(of, seq)));
            if !self.options.dry_run {
                self.store.delete_many(&needless).await?;
            }
            for path in needless {
                self.did(Action::Needless(path.to_string()));
            }
        }
        let named = self.adopt(survey, &doubtful, lost).await?;
        if is_rolled_up && !self.options.dry_run && (named || self.report.repaired > 0) {
            self.watch.begin("rolling up", 0);
            // If another process took over, it rolls up.
            crate::catalog::rollup::roll_up_all(self.store, "repair").await?;
        }
        Ok(true)
    }

    fn did(&mut self, action: Action) {
        match &action {
            Action::Adopted { packets, .. } => {
                self.report.adopted.0 += 1;
                self.report.adopted.1 += packets;
            }
            Action::Left { bytes, why, .. } => {
                self.report.left.0 += 1;
                self.report.left.1 += bytes;
                self.report.beyond += u64::from(why.is_beyond());
            }
            Action::Waste { bytes, .. } => {
                self.report.removed.0 += 1;
                self.report.removed.1 += bytes;
            }
            Action::Manifest { lost, .. } => {
                self.report.repaired += 1;
                self.report.beyond += lost;
            }
            Action::Unresolved(_)
            | Action::Incomplete { .. }
            | Action::NoWriter(..)
            | Action::NoCheckpoint(..) => {
                self.report.beyond += 1;
            }
            Action::Boundary(..)
            | Action::Checkpoint(..)
            | Action::Generation(..)
            | Action::Root { .. }
            | Action::Removed(..)
            | Action::Needless(..)
            | Action::Writer(..)
            | Action::Replaced(..) => self.report.repaired += 1,
        }
        self.watch.did(&action);
    }

    /// Removes an unreadable object, unless this is a dry run.
    async fn remove(&mut self, path: Path) -> Result<(), Failure> {
        if !self.options.dry_run {
            self.store.delete(&path).await?;
        }
        self.did(Action::Removed(path.to_string()));
        Ok(())
    }
}
