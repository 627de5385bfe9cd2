//! The rollup: moves the facts of logs into manifests, one per hour.
//!
//! One rollup at a time is intended, but two are safe: the holder of the newest epoch of the root commits, and the
//! other one fails when it tries. A step is
//!
//! 1. admit new logs: write a root that names them, from their first commit on;
//! 2. follow each open log, and write the facts of its commits into manifests, slot by slot;
//! 3. store generations that have ended;
//! 4. write a root with the new positions.
//!
//! After a crash at any point, the next rollup repeats the step from the last root and skips facts that manifests
//! already have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use capstan_model::{Failure, FailureKind, GenerationId};
use futures::{StreamExt, TryStreamExt, stream};

use super::chain::Problem;
use super::chain::sorted_out;
use super::checkpoint;
use super::entry::sha256_hex;
use super::facts::split;
use super::gap::Gap;
use super::generation::GenerationState;
use super::load::{Behind, FIRST_FORMAT, begin, behind_gap, open_logs};
use super::manifest::{Manifest, SlotCommit};
use super::root::{Listed, Root, Step};
use super::slot::TimeSlot;
use super::sweep;
use super::versions::{self, Versioned};
use crate::catalog::names;
#[cfg(feature = "planted")]
use crate::store::Planted;
use crate::store::Store;

mod mend;
pub mod silent;
pub mod truncate;

pub(crate) use mend::MendingSlot;

/// Requests in flight.
const AT_ONCE: usize = 32;

/// Maximum number of commits of one log per step. It bounds memory.
const COMMITS: usize = 256;

/// Number of steps between checks for logs that continue after a missing commit. The first step checks.
const GAPS_EVERY: u32 = 32;

/// Counts of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RollupStats {
    /// Logs admitted.
    pub logs: u64,
    /// Commits that were rolled up.
    pub commits: u64,
    /// Manifests written.
    pub manifests: u64,
    /// Generations that ended.
    pub ended: u64,
    /// Some log has more commits than one step takes.
    pub more: bool,
}

/// Outcome of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The step is complete.
    Done(RollupStats),
    /// Another process took over; this rollup must stop.
    Fenced {
        /// Its name.
        by: String,
    },
}

/// The process that rolls up, in one epoch.
#[derive(Debug)]
pub struct Rollup {
    store: Store,
    root: Versioned<Root>,
    /// The newest boundary.
    boundary: u64,
    /// The newest manifests of slots that changed in the previous step.
    manifests: BTreeMap<TimeSlot, Versioned<Manifest>>,
    /// Slots that changed since the last sweep.
    unswept: BTreeSet<TimeSlot>,
    /// Logs of which all commits below these numbers are removed, as far as they may be.
    truncated: BTreeMap<GenerationId, u64>,
    /// Steps so far.
    steps: u32,
}

/// How long a process intends to roll up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// For as long as it can.
    Keeps,
    /// Only the existing commits.
    Leaves,
}

/// Counts of removed objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Versions of the root.
    pub roots: u64,
    /// Versions of manifests.
    pub manifests: u64,
    /// Expired leases.
    pub leases: u64,
}

/// A followed log, up to the limit of a step.
struct Followed {
    state: GenerationState,
    by_slot: Vec<(TimeSlot, SlotCommit)>,
    commits: u64,
    problems: Vec<String>,
    gaps: Vec<Gap>,
    replaced: Vec<String>,
    more: bool,
}

/// Another rollup made the step: this one is fenced.
struct Fenced;

impl Rollup {
    /// Takes over the rollup: raises the epoch. `holder` is the name of this process, shown to operators.
    ///
    /// # Errors
    /// Errors of the store; [`FailureKind::Usage`] for a store of a format without a rollup.
    pub async fn claim(store: &Store, holder: &str, stay: Stay) -> Result<Rollup, Failure> {
        if store.format().format < FIRST_FORMAT {
            let what = format!(
                "{} has format {}, which has no manifests: it is read from its logs",
                store.place(),
                store.format().format
            );
            return Err(Failure::new(FailureKind::Usage, what));
        }
        let mut known = None;
        loop {
            let root = versions::newest_root(store, known).await?;
            let (holder, keeps) = (holder.to_owned(), stay == Stay::Keeps);
            let hours = match &root.value.hours {
                Some(_) => None,
                None => Some(versions::hours(store).await?),
            };
            let ended = match &root.value.untruncated {
                Some(_) => None,
                None => Some(versions::listed_ended(store).await?),
            };
            let listed = Listed { hours, ended };
            let next = root.value.claim(holder, keeps, listed, root.sha256.clone(), store.nonce());
            if let Some(root) = versions::put_root(store, &root.value, next).await?
                && let Some(boundary) = versions::newest_boundary(store, &root.value).await?
            {
                // The previous rollup may not have swept these slots.
                let unswept = root.value.slots.iter().map(|of| of.slot).collect();
                let (manifests, truncated) = (BTreeMap::new(), BTreeMap::new());
                let store = store.clone();
                let steps = 0;
                return Ok(Rollup { store, root, boundary, manifests, unswept, truncated, steps });
            }
            known = Some(root);
        }
    }

    /// The current root of the rollup.
    pub fn root(&self) -> &Root {
        &self.root.value
    }

    /// Makes a step.
    ///
    /// # Errors
    /// Errors of the store; the caller may retry.
    pub async fn step(&mut self) -> Result<Outcome, Failure> {
        match self.try_step().await? {
            Ok(rolled_up) => Ok(Outcome::Done(rolled_up)),
            Err(Fenced) => Ok(Outcome::Fenced { by: self.successor().await? }),
        }
    }

    /// Name of the process that rolls up instead.
    async fn successor(&self) -> Result<String, Failure> {
        let newest = versions::newest_root(&self.store, Some(self.root.clone())).await?;
        Ok(newest.value.holder)
    }

    /// Makes steps until everything is rolled up; returns the sums.
    ///
    /// # Errors
    /// Errors of the store; the caller may retry.
    pub async fn roll_up_all(&mut self) -> Result<Outcome, Failure> {
        let mut all = RollupStats::default();
        loop {
            let step = match self.step().await? {
                Outcome::Done(step) => step,
                fenced => return Ok(fenced),
            };
            all.logs += step.logs;
            all.commits += step.commits;
            all.manifests += step.manifests;
            all.ended += step.ended;
            if !step.more {
                return Ok(Outcome::Done(all));
            }
        }
    }

    async fn try_step(&mut self) -> Result<Result<RollupStats, Fenced>, Failure> {
        let open = open_logs(&self.store).await?;
        let mut rolled_up = RollupStats::default();
        let mut step = Step::default();
        step.gone.extend(self.ended().filter(|owner| !open.contains(owner)));

        let new = open.iter().filter(|owner| self.root.value.log(**owner).is_none());
        let taken_in = self.take_in(new.copied().collect(), &mut step.problems).await?;
        if !taken_in.is_empty() {
            rolled_up.logs = taken_in.len() as u64;
            let taken_in = Step { generations: taken_in, ..Step::default() };
            if self.advance(taken_in).await?.is_err() {
                return Ok(Err(Fenced));
            }
        }

        let mut by_slot: BTreeMap<TimeSlot, Vec<SlotCommit>> = BTreeMap::new();
        for followed in self.follow().await? {
            rolled_up.commits += followed.commits;
            rolled_up.more |= followed.more;
            step.problems.extend(followed.problems);
            step.gaps.extend(followed.gaps);
            step.replaced.extend(followed.replaced);
            for (slot, commit) in followed.by_slot {
                by_slot.entry(slot).or_default().push(commit);
            }
            if followed.commits > 0 {
                step.generations.push(followed.state);
            }
        }
        #[cfg(feature = "planted")]
        if self.store.planted(Planted::RootFirst) && !step.generations.is_empty() {
            let generations = std::mem::take(&mut step.generations);
            if self.advance(Step { generations, ..Step::default() }).await?.is_err() {
                return Ok(Err(Fenced));
            }
        }
        let Ok(slots) = self.roll_up(by_slot).await? else { return Ok(Err(Fenced)) };
        rolled_up.manifests = slots.len() as u64;
        step.slots = slots;
        for state in step.generations.iter().filter(|state| state.chain().finished()) {
            versions::put_ended(&self.store, state).await?;
            step.ended.insert(state.id());
            rolled_up.ended += 1;
        }
        if !step.is_empty() && self.advance(step).await?.is_err() {
            return Ok(Err(Fenced));
        }
        self.unmark(&open).await;
        Ok(Ok(rolled_up))
    }

    /// Removes versions of the root, and of manifests that changed since the last sweep, that were replaced at least
    /// `grace` ago and that no reader leases. Also removes expired leases. Returns the counts.
    ///
    /// # Errors
    /// Errors of the store; the caller may retry.
    pub async fn sweep(&mut self, grace: Duration) -> Result<Swept, Failure> {
        let mut swept = Swept::default();
        let Some(removable) = sweep::removable(&self.store, grace).await? else { return Ok(swept) };
        let sweep::Removable { roots, kept, expired } = removable;
        for slot in self.unswept.clone() {
            let (removed, some_left) = sweep::manifests(&self.store, slot, &kept).await?;
            swept.manifests += removed;
            if !some_left {
                self.unswept.remove(&slot);
            }
        }
        self.store.delete_many(&expired).await?;
        swept.leases = expired.len() as u64;
        if let Some((last, _)) = roots.last() {
            let (number, below) = (self.boundary.saturating_add(1), last.saturating_add(1));
            let raised = versions::put_boundary(&self.store, number, below).await?;
            // The process that raised another boundary decides which versions go; the next sweep sees which remain.
            self.boundary = number;
            if self.advance(Step::default()).await?.is_err() || !raised {
                return Ok(swept);
            }
            let roots = roots.into_iter().map(|(_, path)| path);
            swept.roots = sweep::remove(&self.store, roots).await?;
        }
        Ok(swept)
    }

    fn ended(&self) -> impl Iterator<Item = GenerationId> {
        self.root.value.logs.iter().filter(|log| log.ended).map(|log| log.state.id())
    }

    /// Writes the next root.
    async fn advance(&mut self, mut step: Step) -> Result<Result<(), Fenced>, Failure> {
        let before = &self.root;
        step.boundary = (self.boundary > before.value.boundary).then_some(self.boundary);
        let next = before.value.advance(step, before.sha256.clone(), self.store.nonce());
        let Some(root) = versions::put_root(&self.store, &before.value, next).await? else {
            return Ok(Err(Fenced));
        };
        // The number may have been free because all versions up to it were removed.
        let boundary = versions::newest_boundary(&self.store, &root.value).await?;
        let Some(boundary) = boundary else { return Ok(Err(Fenced)) };
        self.boundary = boundary;
        self.root = root;
        Ok(Ok(()))
    }

    /// Generations that no root has named yet.
    async fn take_in(
        &self,
        owners: Vec<GenerationId>,
        problems: &mut Vec<String>,
    ) -> Result<Vec<GenerationState>, Failure> {
        let store = &self.store;
        let mut read = stream::iter(owners)
            .map(|of| async move {
                // A listing may show a removed object.
                if versions::read_ended(store, of).await?.is_some() {
                    remove_open_mark(store, of).await;
                    return Ok(None);
                }
                // Roots named it before: they are lost.
                if checkpoint::newest(store, of).await?.is_some() {
                    let log = names::log_of(of);
                    let what =
                        format!("{log} is truncated, and no root names it: run capstan repair");
                    return Ok(Some(Err(what)));
                }
                Ok::<_, Failure>(Some(Ok(begin(store, of, None).await?)))
            })
            .buffered(AT_ONCE);
        let mut generations = Vec::new();
        while let Some(begun) = read.try_next().await? {
            match begun {
                None => {}
                Some(Err(what)) => problems.push(what),
                Some(Ok((state, found))) => {
                    problems.extend(found);
                    generations.push(state);
                }
            }
        }
        Ok(generations)
    }

    /// Follows all open logs.
    async fn follow(&mut self) -> Result<Vec<Followed>, Failure> {
        let gaps = self.steps.is_multiple_of(GAPS_EVERY);
        self.steps = self.steps.wrapping_add(1);
        let open = self.root.value.logs.iter().filter(|log| !log.state.chain().finished());
        let open: Vec<_> = open.map(|log| (log.admitted, log.state.clone())).collect();
        stream::iter(open)
            .map(|(admitted, state)| follow(&self.store, admitted, state, gaps))
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Writes commits into the manifests of their slots; returns the current manifests.
    async fn roll_up(
        &mut self,
        by_slot: BTreeMap<TimeSlot, Vec<SlotCommit>>,
    ) -> Result<Result<Vec<(TimeSlot, u64)>, Fenced>, Failure> {
        let known = std::mem::take(&mut self.manifests);
        let mut put = stream::iter(by_slot)
            .map(|(slot, commits)| {
                let known = known.get(&slot).cloned();
                let named = self.root.value.slot(slot).unwrap_or(0);
                roll_up(&self.store, self.root.value.epoch, slot, commits, known, named)
            })
            .buffered(AT_ONCE);
        let mut manifests = BTreeMap::new();
        while let Some(manifest) = put.try_next().await? {
            let Ok(manifest) = manifest else { return Ok(Err(Fenced)) };
            self.unswept.insert(manifest.value.slot);
            manifests.insert(manifest.value.slot, manifest);
        }
        drop(put);
        self.manifests = manifests;
        let versions = self.manifests.values().map(|of| (of.value.slot, of.value.version));
        Ok(Ok(versions.collect()))
    }

    /// Removes the open marks of logs whose end is in the root.
    async fn unmark(&self, open: &BTreeSet<GenerationId>) {
        for of in self.ended().filter(|owner| open.contains(owner)) {
            remove_open_mark(&self.store, of).await;
        }
    }
}

/// Removes the open mark of an ended log. Without delete permission the marks stay: they cost readers one name each,
/// and the root keeps naming the logs.
async fn remove_open_mark(store: &Store, of: GenerationId) {
    if let Err(failure) = store.delete(&names::open(of)).await {
        tracing::debug!(%failure, "cannot delete the open mark of an ended log");
    }
}

/// Follows one log to its end, or up to the commit limit of a step. With `gaps`, continues after missing commits.
async fn follow(
    store: &Store,
    admitted: u64,
    mut state: GenerationState,
    gaps: bool,
) -> Result<Followed, Failure> {
    let of = state.id();
    let mut by_slot = Vec::new();
    let (mut found, mut replaced) = (Vec::new(), Vec::new());
    let mut commits = 0;
    let mut more = false;
    while !state.chain().finished() {
        if commits == COMMITS as u64 {
            more = true;
            break;
        }
        let seq = state.chain().next();
        let path = names::commit(of, seq);
        let Some(bytes) = store.get_if_present(&path).await? else {
            match if gaps { behind_gap(store, &path).await? } else { None } {
                // A log is truncated behind the position of every root: this one is outdated, and cannot be replaced.
                None | Some(Behind::Checkpoint) => break,
                Some(Behind::Commit(later)) => {
                    state.skip(later - 1, &mut found);
                    commits += 1;
                    continue;
                }
            }
        };
        let mut of_commit = Vec::new();
        let mut next = state.clone();
        let commit = next.follow(seq, &bytes, &mut of_commit);
        if of_commit.iter().any(|problem| matches!(problem, Problem::TooNew { .. })) {
            // A newer version will roll it up. Readers tail the log until this commit.
            break;
        }
        found.extend(of_commit);
        commits += 1;
        state = next;
        let Some(commit) = commit else { continue };
        replaced.extend(commit.content.replaces.iter().cloned());
        let info = state.writer().map(|writer| writer.info.clone());
        let sha256 = sha256_hex(&bytes);
        by_slot.extend(split(commit.content.facts).into_iter().map(|(slot, facts)| {
            let (info, sha256) = (info.clone(), sha256.clone());
            (slot, SlotCommit { of, admitted, info, seq, sha256, facts })
        }));
    }
    let (gaps, problems) = sorted_out(&found);
    Ok(Followed { state, by_slot, commits, problems, gaps, replaced, more })
}

/// Writes the manifest of a slot with some commits; returns the existing one if it already has them.
async fn roll_up(
    store: &Store,
    epoch: u64,
    slot: TimeSlot,
    commits: Vec<SlotCommit>,
    known: Option<Versioned<Manifest>>,
    named: u64,
) -> Result<Result<Versioned<Manifest>, Fenced>, Failure> {
    let mut before = match known {
        Some(known) => known,
        None => versions::newest_manifest(store, slot, named).await?,
    };
    if before.value.version < named {
        let what = format!("cannot roll up the facts of {slot}: run capstan repair");
        return Err(Failure::caused_by(FailureKind::Damaged, what, versions::gone(slot, named)));
    }
    loop {
        if before.value.epoch > epoch {
            return Ok(Err(Fenced));
        }
        let next = before.value.roll_up(&commits, epoch, before.sha256.clone(), store.nonce());
        let Some(next) = next else { return Ok(Ok(before)) };
        if let Some(put) = versions::put_manifest(store, &before.value, next).await? {
            return Ok(Ok(put));
        }
        before = versions::newest_manifest(store, slot, before.value.version).await?;
    }
}

/// Rolls up everything once: for a process that has written and exits.
///
/// # Errors
/// Errors of the store.
pub async fn roll_up_all(store: &Store, holder: &str) -> Result<Outcome, Failure> {
    Rollup::claim(store, holder, Stay::Leaves).await?.roll_up_all().await
}

#[cfg(test)]
pub(in crate::catalog) mod tests;
