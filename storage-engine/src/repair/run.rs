//! Executes a repair, step by step. IO only: other modules decide what to do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use capstan_model::{Failure, FailureKind, Generation, GenerationId, Hour, Time};
use futures::TryStreamExt;
use object_store::path::Path;
use roaring::RoaringTreemap;

use super::action::{Action, Options, Report, Watch};
use super::adopt::{Log, Stray, Unnamed, Why, judge};
use super::doubt::{Doubtful, doubtful, logs};
use super::elsewhere::elsewhere;
use super::forgotten::as_rolled_up;
use super::log::{RepairLog, repairer};
use super::named::NamedSegments;
use super::survey::{Commits, Kinds, Survey};
#[cfg(feature = "planted")]
use crate::catalog::Fact;
use crate::catalog::checkpoint;
use crate::catalog::entry::{self, Commit, sha256_hex};
use crate::catalog::facts::split;
use crate::catalog::load::FIRST_FORMAT;
use crate::catalog::manifest::{Manifest, SlotCommit};
use crate::catalog::names;
use crate::catalog::rollup::MendingSlot;
use crate::catalog::root::{Mending, Root};
use crate::catalog::versions;
use crate::catalog::{CommitId, Gap, Rollup, Segment, SegmentEntry, Stay, TimeSlot, WriterKind};
use crate::segment::{Layer, Layers};
use crate::store::{Listed, Store, checked};
use crate::verify::run::hours_with_data;

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
        if is_rolled_up && !self.mend_root(&mut survey, &lost).await? {
            return Ok(false);
        }
        self.mend_checkpoints(&survey).await?;
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

    /// Writes missing or damaged writer objects again if their content is still known. It must match the hash in the
    /// first commit of the log.
    async fn mend_writers(&mut self, survey: &Survey) -> Result<(), Failure> {
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
    async fn mend_checkpoints(&mut self, survey: &Survey) -> Result<(), Failure> {
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

    /// Writes unusable boundaries, ended generations and the root again. `gaps`: what hides facts of truncated commits.
    /// False if another process wrote a root.
    async fn mend_root(&mut self, survey: &mut Survey, gaps: &[Gap]) -> Result<bool, Failure> {
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
            let state = as_rolled_up(self.store, owner, commits).await?;
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
            let mut state = as_rolled_up(self.store, *owner, survey.counted(owner)).await?;
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

    /// Writes manifests again that are unreadable or lack facts. `lost`: what hides facts of truncated commits. False if
    /// another process rolls up.
    async fn mend_slots(
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

    /// Names orphan segments where needed; returns whether there were any. `lost`: what hides facts of truncated
    /// commits.
    async fn adopt(
        &mut self,
        survey: Survey,
        doubtful: &Doubtful,
        lost: Vec<Gap>,
    ) -> Result<bool, Failure> {
        let logs = logs(&survey, doubtful, &lost);
        let truncated: BTreeSet<GenerationId> = survey.logs.truncated.keys().copied().collect();
        let Survey { mut named, named_by_changed, kinds, .. } = survey;
        for of in &named_by_changed {
            if doubtful.contains_key(&of.by) {
                named.add(of)?;
            }
        }
        let mut hours = hours_with_data(self.store).await?;
        hours.extend(named.hours());
        self.watch.begin("looking for orphan segments", hours.len() as u64);
        let (mut log, mut left) = (RepairLog::new(self.store, self.options), BTreeSet::new());
        // Segments that a commit in doubt names: readers find them there while it counts.
        let mut pending: Vec<(CommitId, Box<Adopted>)> = Vec::new();
        for hour in hours {
            if self.watch.is_stopped() {
                self.report.stopped = true;
                break;
            }
            let (mut sure, mut in_doubt) = (BTreeMap::new(), BTreeMap::new());
            for of in named.of_hour(hour)? {
                match doubtful.contains_key(&of.by) {
                    true => drop(in_doubt.insert(of.segment, of.by)),
                    false => drop(sure.insert(of.segment, of.layers)),
                };
            }
            let mut there = segments_in(self.store, hour).await?;
            let retired = named.retired_in(hour)?;
            for (segment, mut layers) in sure {
                let objects = there.remove(&segment).unwrap_or_default();
                // Retired layers may be deleted already.
                if let Some(retired) = retired.get(&segment) {
                    layers.retain(|(layer, _)| !retired.contains(layer));
                }
                self.check_named(hour, segment, &layers, &objects);
            }
            // Readers ignore a segment with a retired index, so it is not named again.
            for (segment, layers) in &retired {
                if layers.contains(Layer::Index.name()) {
                    there.remove(segment);
                }
            }
            let strays = there.into_iter().map(|(name, objects)| Stray { name, hour, objects });
            let mut strays: Vec<Stray> = strays.collect();
            // Of two segments with the same packets the first is named: a committed one first, then the larger one.
            strays.sort_by_key(|of| (!in_doubt.contains_key(&of.name), Reverse(of.bytes())));
            for stray in strays {
                let by = in_doubt.get(&stray.name).copied();
                let judged = self.judge(&stray, by.is_some(), &kinds, &logs, &mut named, doubtful);
                match (judged.await?, by) {
                    (Verdict::Adopted(adopted), None) => {
                        self.did(adopted.action());
                        log.name(adopted.entry).await?;
                    }
                    (Verdict::Adopted(adopted), Some(commit)) => pending.push((commit, adopted)),
                    (Verdict::Left, _) => left.extend(owner_of(&stray.name)),
                    (Verdict::Waste, _) => {}
                }
            }
            named.unload();
            self.watch.step();
        }
        let replaced = match self.report.stopped {
            true => BTreeMap::new(),
            false => self.replaced(doubtful, &left),
        };
        // A commit that is not replaced still counts: readers find its segments in it.
        pending.retain(|(commit, _)| replaced.contains_key(commit));
        pending.iter().for_each(|(_, adopted)| self.did(adopted.action()));
        let in_doubt = pending.into_iter().map(|(_, adopted)| adopted.entry);
        let mut replaced: Vec<String> = replaced.into_values().collect();
        if !self.report.stopped {
            replaced.extend(self.given_up(lost, left.is_disjoint(&truncated)));
        }
        log.end(in_doubt, replaced).await
    }

    /// Reports named segments with layers that are missing or have another length.
    fn check_named(
        &mut self,
        hour: Hour,
        segment: String,
        layers: &[(String, u64)],
        there: &[Listed],
    ) {
        let is_gone = |(name, bytes): &(String, u64)| {
            let layer = Layers::KNOWN.named(name)?;
            let path = names::layer(hour, &segment, layer.file());
            let is_it = |object: &Listed| object.path == path && object.bytes == *bytes;
            (!there.iter().any(is_it)).then_some(layer.name())
        };
        let missing: Vec<_> = layers.iter().filter_map(is_gone).collect();
        if !missing.is_empty() {
            self.did(Action::Incomplete { segment, missing });
        }
    }

    /// The commits that no longer count: all orphan segments of their generations were judged, and none was left that
    /// may still be named.
    fn replaced(
        &mut self,
        doubtful: &Doubtful,
        left: &BTreeSet<GenerationId>,
    ) -> BTreeMap<CommitId, String> {
        let mut replaced = BTreeMap::new();
        for (commit, gap) in doubtful {
            let object = gap.object.clone();
            if left.contains(&commit.of) {
                self.did(Action::Unresolved(object));
            } else {
                self.did(Action::Replaced(object.clone()));
                replaced.insert(*commit, object);
            }
        }
        replaced
    }

    /// The lost objects with facts of truncated commits that no longer count, if all segments are named again that
    /// they may have named.
    fn given_up(&mut self, lost: Vec<Gap>, all_named: bool) -> Vec<String> {
        let objects: Vec<String> = lost.into_iter().map(|gap| gap.object).collect();
        for object in objects.iter().cloned() {
            self.did(match all_named {
                true => Action::Replaced(object),
                false => Action::Unresolved(object),
            });
        }
        if all_named { objects } else { Vec::new() }
    }

    /// Decides about an orphan segment.
    async fn judge(
        &mut self,
        stray: &Stray,
        is_in_doubt: bool,
        kinds: &Kinds,
        logs: &BTreeMap<GenerationId, Log>,
        named: &mut NamedSegments,
        doubtful: &Doubtful,
    ) -> Result<Verdict, Failure> {
        let young = !self.options.nobody_writes && is_young(stray.put(), self.store.now());
        let opened = match stray.open(self.store).await? {
            Ok(opened) => opened,
            // An upload in progress may have no index layer yet.
            Err(Why::NoIndex) if young && !is_in_doubt => {
                return self.leave(stray, Why::Young).await;
            }
            Err(Why::NoIndex) if is_in_doubt || may_be_committed(&stray.name, logs) => {
                let why = Why::Unreadable("its index layer is missing".to_owned());
                return self.leave(stray, why).await;
            }
            Err(why) => return self.leave(stray, why).await,
        };
        let owner = opened.owner();
        let in_doubt = |commit: &CommitId| doubtful.contains_key(commit);
        let mut taken = named.of_other_generations(owner, &opened.hours(), in_doubt)?;
        taken.iter_mut().for_each(|of| {
            of.import = kinds.import(GenerationId::new(owner.recorder, of.generation))
        });
        let unnamed = Unnamed { holds: opened.holds(), young, is_in_doubt };
        if let Err(why) = judge(&unnamed, logs.get(&owner), &taken) {
            return self.leave(stray, why).await;
        }
        let entry = match opened.entry(self.store, stray.hour).await {
            Ok(entry) => entry,
            Err(failure) if failure.kind() == FailureKind::Damaged => {
                return self.leave(stray, Why::Unreadable(failure.to_string())).await;
            }
            Err(failure) => return Err(failure),
        };
        let of = GenerationId::new(repairer(self.store), Generation(0));
        named.add(&Segment::of(CommitId { of, seq: 0 }, entry.clone()))?;
        let absent = opened.absent.iter().copied().map(Layer::name).collect();
        Ok(Verdict::Adopted(Box::new(Adopted { entry, absent })))
    }

    async fn leave(&mut self, stray: &Stray, why: Why) -> Result<Verdict, Failure> {
        let (segment, bytes) = (stray.name.clone(), stray.bytes());
        let remove = self.options.remove_waste && why.is_waste();
        if remove && !self.options.dry_run {
            let paths = Vec::from_iter(stray.objects.iter().map(|object| object.path.clone()));
            self.store.delete_many(&paths).await?;
        }
        // Duplicates of existing packets are not missed.
        let is_settled = remove || matches!(why, Why::Double { .. });
        self.did(match remove {
            true => Action::Waste { segment, bytes, why },
            false => Action::Left { segment, bytes, why },
        });
        Ok(if is_settled { Verdict::Waste } else { Verdict::Left })
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

/// A segment that is named again.
struct Adopted {
    entry: SegmentEntry,
    /// Layers that are missing for an unknown reason.
    absent: Vec<&'static str>,
}

impl Adopted {
    fn action(&self) -> Action {
        let Adopted { entry, absent } = self;
        let (segment, packets) = (entry.name.clone(), entry.packets);
        Action::Adopted { segment, packets, absent: absent.clone() }
    }
}

/// Decision about an orphan segment.
enum Verdict {
    /// Name it with this entry.
    Adopted(Box<Adopted>),
    /// Leave it; answers may lack its packets.
    Left,
    /// It is useless.
    Waste,
}

/// Whether a lost commit may have named a segment, judging by its name.
fn may_be_committed(segment: &str, logs: &BTreeMap<GenerationId, Log>) -> bool {
    let owner = owner_of(segment);
    owner.is_some_and(|owner| logs.get(&owner).is_none_or(|log| log.has_hole))
}

/// The generation in a segment's name.
fn owner_of(segment: &str) -> Option<GenerationId> {
    let mut parts = segment.split('-');
    let recorder = parts.next()?.parse().ok()?;
    let generation = parts.next()?.parse().ok().map(Generation)?;
    Some(GenerationId::new(recorder, generation))
}

fn is_young(put: Time, now: Time) -> bool {
    now < put.saturating_add(crate::verify::listing::YOUNG)
}

/// The segments in an hour's folder and their objects.
async fn segments_in(store: &Store, hour: Hour) -> Result<BTreeMap<String, Vec<Listed>>, Failure> {
    let folder = names::data_of(hour);
    let mut found: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    let mut listed = store.list(&folder);
    while let Some(object) = listed.try_next().await? {
        let below = object.path.as_ref().strip_prefix(folder.as_ref());
        let name = below.and_then(|below| below.strip_prefix('/')?.split_once('/'));
        if let Some((name, _)) = name {
            let name = name.to_owned();
            found.entry(name).or_default().push(object);
        }
    }
    Ok(found)
}
