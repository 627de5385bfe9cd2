//! The rollup: from the logs of recorders into manifests, one an hour.
//!
//! One rollup at a time is meant to work, and nothing breaks if two do: who holds the newest
//! epoch of the root commits, the other finds out when it tries. A step is
//!
//! 1. new logs are taken in: a root that names them, from its first commit on;
//! 2. each open log is followed, and what its commits say is put into manifests, slot by slot;
//! 3. generations that have ended are stored;
//! 4. a root that says how far all this has come.
//!
//! When it breaks off anywhere, the next rollup does the same again from the last root and passes over
//! what manifests have already.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind, GenerationId};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::chain::{read_writer, sorted_out};
use super::entry::sha256_hex;
use super::facts::split;
use super::gap::Gap;
use super::generation::GenerationState;
use super::manifest::{Manifest, SlotCommit};
use super::root::{Root, Step};
use super::slot::TimeSlot;
use super::state::CommitId;
use super::sweep;
use super::versions::{self, Versioned};
use super::{Chain, Problem};
#[cfg(feature = "planted")]
use crate::store::Planted;
use crate::store::{Store, names};

mod mend;
pub mod silent;

pub(crate) use mend::MendingSlot;

/// Requests in flight.
const AT_ONCE: usize = 32;

/// Commits of one log that are rolled up in one step: what bounds its memory.
const COMMITS: usize = 256;

/// Steps after which it is looked whether a log goes on behind a commit that is missing. The first one
/// looks.
const GAPS_EVERY: u32 = 32;

/// The first store format whose writers say that their log may go on, which is how they are found.
pub(crate) const FIRST_FORMAT: u32 = 3;

/// What a step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RollupStats {
    /// Logs that were taken in.
    pub logs: u64,
    /// Commits that were rolled up.
    pub commits: u64,
    /// Manifests that were put.
    pub manifests: u64,
    /// Generations that ended.
    pub ended: u64,
    /// Some log has more commits than one step takes.
    pub more: bool,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done(RollupStats),
    /// Somebody else took over; this rollup must not go on.
    Fenced {
        /// Who.
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
    /// The newest manifests of slots that changed in the step before.
    manifests: BTreeMap<TimeSlot, Versioned<Manifest>>,
    /// Slots that changed since replaced versions were removed last.
    unswept: BTreeSet<TimeSlot>,
    /// Steps so far.
    steps: u32,
}

/// How long a process means to roll up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// For as long as it can.
    Keeps,
    /// What there is.
    Leaves,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Versions of the root.
    pub roots: u64,
    /// Versions of manifests.
    pub manifests: u64,
    /// Leases that held no more.
    pub leases: u64,
}

/// A log that was followed, as far as a step takes it.
struct Followed {
    state: GenerationState,
    by_slot: Vec<(TimeSlot, SlotCommit)>,
    commits: u64,
    problems: Vec<String>,
    gaps: Vec<Gap>,
    replaced: Vec<String>,
    more: bool,
}

/// A step that another rollup made.
struct Fenced;

impl Rollup {
    /// Takes over the rollup: raises the epoch. `holder` says who, for people.
    ///
    /// # Errors
    /// What the store says; [`FailureKind::Usage`] for a store of a format that is read from its logs.
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
            let next = root.value.claim(holder, keeps, hours, root.sha256.clone(), store.nonce());
            if let Some(root) = versions::put_root(store, &root.value, next).await?
                && let Some(boundary) = versions::newest_boundary(store, &root.value).await?
            {
                // The rollup before may not have come to it.
                let unswept = root.value.slots.iter().map(|of| of.slot).collect();
                let manifests = BTreeMap::new();
                let store = store.clone();
                return Ok(Rollup { store, root, boundary, manifests, unswept, steps: 0 });
            }
            known = Some(root);
        }
    }

    /// How far the rollup has come.
    pub fn root(&self) -> &Root {
        &self.root.value
    }

    /// Makes a step.
    ///
    /// # Errors
    /// What the store says; calling again is right.
    pub async fn step(&mut self) -> Result<Outcome, Failure> {
        match self.try_step().await? {
            Ok(rolled_up) => Ok(Outcome::Done(rolled_up)),
            Err(Fenced) => Ok(Outcome::Fenced { by: self.successor().await? }),
        }
    }

    /// The process that rolls up instead.
    async fn successor(&self) -> Result<String, Failure> {
        let newest = versions::newest_root(&self.store, Some(self.root.clone())).await?;
        Ok(newest.value.holder)
    }

    /// Makes steps until all there is is rolled up; what they did together.
    ///
    /// # Errors
    /// What the store says; calling again is right.
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

    /// Removes versions that newer ones have replaced for `grace` and that nobody leases, of the root and of the
    /// manifests that changed since this was done last, and leases that hold no more; how many.
    ///
    /// # Errors
    /// What the store says; calling again is right.
    pub async fn sweep(&mut self, grace: Duration) -> Result<Swept, Failure> {
        let mut swept = Swept::default();
        let Some(look) = sweep::look(&self.store, grace).await? else { return Ok(swept) };
        let sweep::Look { roots, kept, expired } = look;
        for slot in self.unswept.clone() {
            let (removed, some_left) = sweep::manifests(&self.store, slot, &kept).await?;
            swept.manifests += removed;
            if !some_left {
                self.unswept.remove(&slot);
            }
        }
        swept.leases = sweep::remove(&self.store, expired).await?;
        if let Some((last, _)) = roots.last() {
            let (number, below) = (self.boundary.saturating_add(1), last.saturating_add(1));
            let raised = versions::put_boundary(&self.store, number, below).await?;
            // Whoever raised another one says which versions may go; the next round sees which are left.
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

    /// Puts the next root.
    async fn advance(&mut self, mut step: Step) -> Result<Result<(), Fenced>, Failure> {
        let before = &self.root;
        step.boundary = (self.boundary > before.value.boundary).then_some(self.boundary);
        let next = before.value.advance(step, before.sha256.clone(), self.store.nonce());
        let Some(root) = versions::put_root(&self.store, &before.value, next).await? else {
            return Ok(Err(Fenced));
        };
        // The number may have been free because all up to it were removed.
        let boundary = versions::newest_boundary(&self.store, &root.value).await?;
        let Some(boundary) = boundary else { return Ok(Err(Fenced)) };
        self.boundary = boundary;
        self.root = root;
        Ok(Ok(()))
    }

    /// Generations that no root named so far.
    async fn take_in(
        &self,
        owners: Vec<GenerationId>,
        problems: &mut Vec<String>,
    ) -> Result<Vec<GenerationState>, Failure> {
        let store = &self.store;
        let mut read = stream::iter(owners)
            .map(|of| async move {
                // A listing may show what was removed.
                if versions::read_ended(store, of).await?.is_some() {
                    store.delete(&names::open(of)).await?;
                    return Ok(None);
                }
                Ok::<_, Failure>(Some(begin(store, of).await?))
            })
            .buffered(AT_ONCE);
        let mut generations = Vec::new();
        while let Some(begun) = read.try_next().await? {
            let Some((state, found)) = begun else { continue };
            problems.extend(found);
            generations.push(state);
        }
        Ok(generations)
    }

    /// Follows all logs that may go on.
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

    /// Puts commits into the manifests of their slots; gives the manifests that there are now.
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

    /// Lets nobody look for logs any more whose end is in the root. Where this is not allowed they
    /// stay, and cost who looks a name.
    async fn unmark(&self, open: &BTreeSet<GenerationId>) {
        for of in self.ended().filter(|owner| open.contains(owner)) {
            if let Err(failure) = self.store.delete(&names::open(of)).await {
                tracing::debug!(%failure, "the name of an ended log stays");
            }
        }
    }
}

/// The logs that may go on, as their writers say.
pub(crate) async fn open_logs(store: &Store) -> Result<BTreeSet<GenerationId>, Failure> {
    let first = store.format().format >= FIRST_FORMAT;
    let (prefix, parse): (_, fn(&Path) -> _) = if first {
        (names::open_logs(), names::parse_open)
    } else {
        (names::writers(None), names::parse_writer)
    };
    store
        .list(&prefix)
        .try_filter_map(|object| async move { Ok(parse(&object.path)) })
        .try_collect()
        .await
}

/// A generation before its first commit, and what is wrong with its writer, in words.
pub(crate) async fn begin(
    store: &Store,
    of: GenerationId,
) -> Result<(GenerationState, Vec<String>), Failure> {
    let mut problems = Vec::new();
    let (writer, chain) = match store.get_if_present(&names::writer(of)).await? {
        Some(bytes) => read_writer(of, &bytes, &mut problems),
        None => {
            let object = names::commit(of, 0).to_string();
            problems.push(Problem::NoWriter { object });
            (None, Chain::new(of, None))
        }
    };
    Ok((
        GenerationState::new(writer, chain),
        problems.iter().map(|problem| with_causes(problem)).collect(),
    ))
}

/// Follows one log until it ends, or for as many commits as a step takes. `gaps`: goes on behind
/// commits that are missing.
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
            let later = if gaps { behind_gap(store, &path).await? } else { None };
            let Some(later) = later else { break };
            state.skip(later - 1, &mut found);
            commits += 1;
            continue;
        };
        let mut of_commit = Vec::new();
        let mut next = state.clone();
        let commit = next.follow(seq, &bytes, &mut of_commit);
        if of_commit.iter().any(|problem| matches!(problem, Problem::TooNew { .. })) {
            // A newer version will roll it up. Readers go on to meet it in the log.
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

/// The first commit that is there behind one that is not; none if that is the end of its log, or it
/// came meanwhile.
pub(super) async fn behind_gap(store: &Store, missing: &Path) -> Result<Option<u64>, Failure> {
    let Some(CommitId { of, seq }) = names::parse_commit(missing) else { return Ok(None) };
    let log = names::log_of(of);
    let mut after = store.list_after(&log, missing);
    let mut first: Option<u64> = None;
    while let Some(listed) = after.try_next().await? {
        // A listing gives them in any order.
        let later = names::parse_commit(&listed.path).map(|of| of.seq).filter(|of| *of > seq);
        first = later.into_iter().chain(first).min();
    }
    // Commits are made one after the other: with a later one there, this one was there or is.
    match first {
        Some(first) if store.get_if_present(missing).await?.is_none() => Ok(Some(first)),
        _ => Ok(None),
    }
}

/// Puts the manifest of a slot that has some commits; the one there is if it has them.
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
        let what = format!("what commits say of {slot} cannot be rolled up: capstan repair helps");
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

/// Rolls up everything there is, once: for who has written and goes away.
///
/// # Errors
/// What the store says.
pub async fn roll_up_all(store: &Store, holder: &str) -> Result<Outcome, Failure> {
    Rollup::claim(store, holder, Stay::Leaves).await?.roll_up_all().await
}

#[cfg(test)]
pub(in crate::catalog) mod tests;
