//! A survey of a catalog, readable or not.
//!
//! Memory use is a few bytes per commit, and about a kilobyte per generation and per slot.

mod checkpoints;
mod truncated;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use capstan_model::{Failure, FailureKind, Generation, GenerationId};
use futures::TryStreamExt;
use object_store::path::Path;
use roaring::RoaringTreemap;

use self::checkpoints::BadCheckpoint;
use super::named::NamedSegments;
use crate::catalog::entry::{Writer, sha256_hex};
use crate::catalog::facts::{Facts, slots_of};
use crate::catalog::hours::Hours;
use crate::catalog::manifest::Manifest;
use crate::catalog::names;
use crate::catalog::part::PartContent;
use crate::catalog::root::Root;
use crate::catalog::sums::Sums;
use crate::catalog::versions::{self, Versioned};
use crate::catalog::walk::{Walked, walk};
use crate::catalog::{
    CommitId, Fact, Gap, GapKind, GenerationState, Problem, Segment, TimeSlot, WriterKind,
};
use crate::store::{Store, is_store_gone};

/// Hours at this distance are taken to share facts. A fact may touch a few hours that are further apart.
const NEAR: u32 = 24;

/// Numbers of commits, by generation.
pub(super) type Commits = BTreeMap<GenerationId, RoaringTreemap>;

/// A sequence of versions.
#[derive(Debug)]
pub(super) struct Row<T> {
    /// The newest readable version.
    pub(super) readable: Option<T>,
    /// The highest existing number; 0 if there is none.
    pub(super) newest: u64,
    /// SHA-256 of its bytes, hex.
    pub(super) newest_sha256: String,
    /// Unreadable versions.
    pub(super) damaged: Vec<u64>,
    /// Readable versions before the newest one.
    older: Vec<u64>,
}

/// The required content of a readable manifest.
#[derive(Debug)]
pub(super) struct ManifestSurvey {
    pub(super) version: u64,
    pub(super) epoch: u64,
    /// Number of commits of each generation that it declares included.
    counted: BTreeMap<GenerationId, u64>,
}

/// The state of a slot.
#[derive(Debug)]
pub(super) struct SlotSurvey {
    pub(super) row: Row<ManifestSurvey>,
    /// Unreadable parts of the newest readable manifest.
    pub(super) unreadable: BTreeSet<String>,
    /// Commits whose facts are readable.
    present: Commits,
}

/// The kind of each generation's writer, and the generation that it continues.
#[derive(Debug, Default)]
pub(super) struct Kinds(BTreeMap<GenerationId, (WriterKind, Option<Generation>)>);

impl Kinds {
    /// The kind of a generation's writer, if known.
    pub(super) fn of(&self, owner: &GenerationId) -> Option<WriterKind> {
        self.0.get(owner).map(|(kind, _)| *kind)
    }

    /// The first generation of the import of a generation; none if the description of a generation in between is
    /// lost.
    pub(super) fn import(&self, of: GenerationId) -> Option<Generation> {
        let mut first = of.generation;
        while let Some(before) = self.0.get(&GenerationId::new(of.recorder, first))?.1 {
            // A generation continues an earlier one.
            first = Some(before).filter(|before| *before < first)?;
        }
        Some(first)
    }
}

/// The state of the catalog.
#[derive(Debug)]
pub(super) struct Survey {
    /// The state of all logs.
    pub(super) logs: Walked,
    /// Commits with facts about a slot, according to the logs.
    logged: BTreeMap<TimeSlot, Commits>,
    pub(super) roots: Row<Root>,
    pub(super) slots: BTreeMap<TimeSlot, SlotSurvey>,
    /// Ended generations; none where the object is unreadable.
    pub(super) generations: BTreeMap<GenerationId, Option<GenerationState>>,
    /// Logs with an open mark.
    pub(super) open: BTreeSet<GenerationId>,
    /// Boundaries; none where the object is unreadable.
    pub(super) boundaries: BTreeMap<u64, Option<u64>>,
    /// The version of the root that admitted each generation, according to manifests.
    pub(super) admitted: BTreeMap<GenerationId, u64>,
    /// Segments that logs or manifests name.
    pub(super) named: NamedSegments,
    /// Segments that changed commits name: readers trust them until these commits are rolled up.
    pub(super) named_by_changed: Vec<Segment>,
    /// Versions of manifests that the newest readable root names. Also, for hours whose manifest is gone and that the
    /// root does not name: a version that is not lower than the lost one.
    pub(super) named_versions: BTreeMap<TimeSlot, u64>,
    /// Number of commits of a generation that manifests count.
    counted: BTreeMap<GenerationId, u64>,
    /// The kind of each writer and the generation that it continues, from logs, manifests, roots and ended
    /// generations.
    pub(super) kinds: Kinds,
    /// Commits with wrong checksums, and the SHA-256 of their current bytes.
    changed: BTreeMap<CommitId, String>,
    /// Those of them that were rolled up with these bytes.
    rolled_up_changed: BTreeSet<CommitId>,
    /// Generations that committed during the survey: their logs are longer than surveyed.
    grown: BTreeSet<GenerationId>,
    /// Checkpoints that are unreadable or lost.
    pub(super) bad_checkpoints: BTreeMap<GenerationId, BadCheckpoint>,
    /// What manifests have of the commits of truncated logs.
    sums: Sums,
    /// Slots that share facts, beside those within a day of each other: the manifests of the second ones have facts of the
    /// first one, too.
    far: BTreeMap<TimeSlot, BTreeSet<TimeSlot>>,
}

/// None if an object is damaged, so that the survey continues.
fn sound<T>(read: Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Err(failure) if failure.kind() == FailureKind::Damaged => Ok(None),
        read => read,
    }
}

impl<T> Row<Versioned<T>> {
    async fn read<F>(
        store: &Store,
        there: BTreeSet<u64>,
        name: impl Fn(u64) -> Path,
        read: impl Fn(u64) -> F,
    ) -> Result<Self, Failure>
    where
        F: Future<Output = Result<Option<Versioned<T>>, Failure>>,
    {
        let newest = there.last().copied().unwrap_or(0);
        let (mut readable, mut damaged, mut older) = (None, Vec::new(), Vec::new());
        for version in there {
            match sound(read(version).await)? {
                Some(found) => {
                    readable = Some(found);
                    older.push(version);
                }
                None => damaged.push(version),
            }
        }
        older.pop();
        let newest_sha256 = match (&readable, damaged.last() == Some(&newest)) {
            (Some(found), false) => found.sha256.clone(),
            _ if newest == 0 => String::new(),
            _ => sha256_hex(&store.get_if_present(&name(newest)).await?.unwrap_or_default()),
        };
        Ok(Row { readable, newest, newest_sha256, damaged, older })
    }

    /// Keeps only the required content of the readable version.
    fn map<U>(self, needed: impl FnOnce(T) -> U) -> Row<U> {
        let Row { readable, newest, newest_sha256, damaged, older } = self;
        Row { readable: readable.map(|of| needed(of.value)), newest, newest_sha256, damaged, older }
    }
}

impl Survey {
    /// Reads the whole catalog.
    ///
    /// # Errors
    /// Errors of the store; of kind `TooNew` if a newer version wrote any object: a repair must not touch it then.
    pub(super) async fn take(store: &Store) -> Result<Survey, Failure> {
        let mut named = NamedSegments::new()?;
        let mut logged = BTreeMap::<TimeSlot, Commits>::new();
        let mut named_by_changed = Vec::new();
        let logs = walk(store, |met| {
            let (id, content) = (met.id, met.commit.content);
            if met.is_changed {
                let segments = content.segments().cloned();
                named_by_changed.extend(segments.map(|entry| Segment::of(id, entry)));
                return Ok(());
            }
            for slot in slots_of(&content.facts) {
                let commits = logged.entry(slot).or_default();
                commits.entry(id.of).or_default().insert(id.seq);
            }
            content.facts.into_iter().try_for_each(|fact| named.take(id, fact))
        })
        .await?;
        let (mut roots, mut generations, mut slots) =
            (BTreeSet::new(), BTreeSet::new(), BTreeMap::<TimeSlot, BTreeSet<u64>>::new());
        let mut listed = store.list(&names::catalog());
        while let Some(object) = listed.try_next().await? {
            roots.extend(names::parse_root(&object.path));
            generations.extend(names::parse_ended(&object.path));
            if let Some((slot, version)) = names::parse_manifest(&object.path) {
                slots.entry(slot).or_default().insert(version);
            }
        }
        drop(listed);
        let read = |version| versions::read_root(store, version);
        let mut survey = Survey {
            logs,
            logged,
            roots: Row::read(store, roots, names::root, read).await?.map(|root| root),
            slots: BTreeMap::new(),
            generations: BTreeMap::new(),
            open: BTreeSet::new(),
            boundaries: BTreeMap::new(),
            admitted: BTreeMap::new(),
            named,
            named_by_changed,
            named_versions: BTreeMap::new(),
            counted: BTreeMap::new(),
            kinds: Kinds::default(),
            changed: BTreeMap::new(),
            rolled_up_changed: BTreeSet::new(),
            grown: BTreeSet::new(),
            bad_checkpoints: BTreeMap::new(),
            sums: Sums::default(),
            far: BTreeMap::new(),
        };
        for of in generations {
            let state = sound(versions::read_ended(store, of).await)?;
            survey.generations.insert(of, state);
        }
        if let Some(root) = &survey.roots.readable {
            survey.named_versions = root.slots.iter().map(|of| (of.slot, of.version)).collect();
            let gone = root.hours().map(TimeSlot::Hour).filter(|slot| !slots.contains_key(slot));
            // Each root adds at most one version to a slot.
            for slot in gone {
                survey.named_versions.entry(slot).or_insert(root.version);
            }
        }
        survey.take_kinds();
        survey.take_changed(store).await?;
        survey.take_checkpoints(store).await?;
        survey.sums = Sums::of(survey.logs.truncated.values());
        for (slot, there) in slots {
            survey.take_slot(store, slot, there).await?;
        }
        survey.take_cut_logs(store).await?;
        let open: Vec<_> = store.list(&names::open_logs()).try_collect().await?;
        survey.open = open.iter().filter_map(|object| names::parse_open(&object.path)).collect();
        let boundaries: Vec<_> = store.list(&names::boundaries()).try_collect().await?;
        for number in boundaries.iter().filter_map(|object| names::parse_boundary(&object.path)) {
            let below = sound(versions::read_boundary(store, number).await)?;
            survey.boundaries.insert(number, below);
        }
        survey.find_grown_logs(store).await?;
        Ok(survey)
    }

    /// Collects the kinds of the generations' writers.
    fn take_kinds(&mut self) {
        let of_root = self.roots.readable.iter().flat_map(|root| &root.logs).map(|log| &log.state);
        let known = self
            .logs
            .generations
            .values()
            .chain(of_root)
            .chain(self.generations.values().flatten());
        let kind = |state: &GenerationState| {
            let info = &state.writer()?.info;
            Some((state.id(), (info.kind, info.resumes)))
        };
        self.kinds = Kinds(known.filter_map(kind).collect());
    }

    /// Collects the current hashes of changed commits.
    async fn take_changed(&mut self, store: &Store) -> Result<(), Failure> {
        let changed =
            |problem: &Problem| matches!(problem, Problem::Changed { .. } | Problem::Broken { .. });
        let problems = self.logs.problems.iter().filter(|problem| changed(problem));
        for id in problems.filter_map(|problem| problem.gap()?.commit()).collect::<BTreeSet<_>>() {
            let bytes = store.get_if_present(&names::commit(id.of, id.seq)).await?;
            self.changed.insert(id, sha256_hex(&bytes.unwrap_or_default()));
        }
        Ok(())
    }

    async fn take_slot(
        &mut self,
        store: &Store,
        slot: TimeSlot,
        there: BTreeSet<u64>,
    ) -> Result<(), Failure> {
        let name = |version| names::manifest(slot, version);
        let read = |version| versions::read_manifest(store, slot, version);
        let mut row = Row::read(store, there, name, read).await?;
        let mut unreadable = BTreeSet::new();
        let mut present = Commits::new();
        if let Some(Versioned { value: manifest, .. }) = &mut row.readable {
            for of in &manifest.contributors {
                let owner = of.of();
                self.admitted.entry(owner).or_insert(of.admitted);
                let counted = self.counted.entry(owner).or_default();
                *counted = of.next.max(*counted);
                if let Some(info) = &of.info {
                    self.kinds.0.entry(owner).or_insert((info.kind, info.resumes));
                }
            }
            let held = std::mem::take(&mut manifest.held);
            self.take_facts(manifest, held, &mut present)?;
            // Parts that were written together have the facts of the same commits, so they are kept or dropped
            // together.
            for together in manifest.parts.chunk_by(|a, b| a.stem() == b.stem()) {
                let mut contents = Vec::new();
                for part in together {
                    match versions::read_part(store, slot, part).await {
                        // The filter of the manifest does not cover other content, and queries by address would skip
                        // it.
                        Ok(content) if manifest.includes(part.holds, &content.facts) => {
                            contents.push(content);
                        }
                        Ok(_) => {}
                        Err(failure)
                            if matches!(
                                failure.kind(),
                                FailureKind::Damaged | FailureKind::NotFound
                            ) && !is_store_gone(&failure) => {}
                        Err(failure) => return Err(failure),
                    }
                }
                if contents.len() < together.len() {
                    unreadable.extend(together.iter().map(|part| part.name.clone()));
                    continue;
                }
                for PartContent { facts, .. } in contents {
                    self.take_facts(manifest, facts, &mut present)?;
                }
            }
        }
        let row = row.map(|manifest| ManifestSurvey {
            version: manifest.version,
            epoch: manifest.epoch,
            counted: manifest.contributors.iter().map(|of| (of.of(), of.next)).collect(),
        });
        self.slots.insert(slot, SlotSurvey { row, unreadable, present });
        Ok(())
    }

    /// Collects the commits of facts, and the segments that they name.
    fn take_facts(
        &mut self,
        manifest: &Manifest,
        facts: Facts,
        present: &mut Commits,
    ) -> Result<(), Failure> {
        let owner = |by| manifest.owner(by).map(|of| of.of());
        for of in &facts.commits {
            let Some(owner) = owner(of.by) else { continue };
            present.entry(owner).or_default().insert(of.seq);
            let id = CommitId { of: owner, seq: of.seq };
            if self.changed.get(&id) == Some(&of.fact) {
                self.rolled_up_changed.insert(id);
            }
        }
        for of in facts.facts {
            let Some(owner) = owner(of.by) else { continue };
            let id = CommitId { of: owner, seq: of.seq };
            match &of.fact {
                Fact::Segment(entry) => self.sums.add_segment(manifest.slot, id, entry),
                Fact::Loss(loss) => self.sums.add_loss(manifest.slot, id, loss),
                Fact::Listened(_) | Fact::Change(_) | Fact::Unknown(_) => {}
            }
            for slot in of.fact.slots() {
                if slot.hours_to(manifest.slot).is_some_and(|hours| hours > NEAR) {
                    self.far.entry(slot).or_default().insert(manifest.slot);
                }
            }
            self.named.take(id, of.fact)?;
        }
        Ok(())
    }

    /// Finds logs that only look shorter than their rolled-up part. The survey reads logs before the rest of the
    /// catalog, and recorders commit and roll up meanwhile.
    async fn find_grown_logs(&mut self, store: &Store) -> Result<(), Failure> {
        let cut: Vec<CommitId> = self.cut_logs().collect();
        for CommitId { of, seq } in cut {
            if store.head(&names::commit(of, seq)).await?.is_some() {
                self.grown.insert(of);
            }
        }
        Ok(())
    }

    /// Ended generations without a readable object: it is damaged, or it is missing while the root still names the
    /// generation.
    pub(super) fn lost_generations(&self) -> BTreeSet<GenerationId> {
        let unreadable = self.generations.iter().filter(|(_, state)| state.is_none());
        let root = self.roots.readable.as_ref();
        let ended = root.into_iter().flat_map(|root| &root.logs).filter(|log| log.ended);
        let gone =
            ended.map(|log| log.state.id()).filter(|owner| !self.generations.contains_key(owner));
        unreadable.map(|(owner, _)| *owner).chain(gone).collect()
    }

    /// Generations without a root entry, ended generation or open mark: no reader finds their logs.
    pub(super) fn homeless(&self) -> BTreeSet<GenerationId> {
        let root = self.roots.readable.as_ref();
        let known = |owner: &GenerationId| {
            self.open.contains(owner)
                || self.generations.get(owner).is_some_and(Option::is_some)
                || root.is_some_and(|root| root.log(*owner).is_some())
        };
        self.logs.generations.keys().copied().filter(|owner| !known(owner)).collect()
    }

    /// Generations that no root names, but whose facts are in manifests.
    pub(super) fn forgotten(&self) -> BTreeSet<GenerationId> {
        let root = self.roots.readable.as_ref();
        let is_unnamed = |owner: &GenerationId| root.is_none_or(|root| root.log(*owner).is_none());
        let unnamed = self.open.iter().copied().filter(is_unnamed);
        unnamed.chain(self.homeless()).filter(|owner| self.counted(owner) > 0).collect()
    }

    /// The highest boundary; 0 if there is none.
    pub(super) fn boundary(&self) -> u64 {
        self.boundaries.keys().max().copied().unwrap_or(0)
    }

    /// Hours that have a manifest, readable or not.
    pub(super) fn hours(&self) -> Hours {
        let hour = |slot: &TimeSlot| match slot {
            TimeSlot::Hour(hour) => Some(*hour),
            TimeSlot::Wide => None,
        };
        self.slots.keys().filter_map(hour).collect()
    }

    /// The highest existing version of a slot's manifest, readable or not; 0 if there is none.
    pub(super) fn newest(&self, slot: TimeSlot) -> u64 {
        self.slots.get(&slot).map_or(0, |found| found.row.newest)
    }

    /// Whether all rolled-up objects are readable: a root exists, every manifest that it names exists, and none is
    /// damaged.
    pub(super) fn is_sound(&self) -> bool {
        self.roots.readable.is_some()
            && self.slots.values().all(|found| !found.is_damaged())
            && self.named_versions.iter().all(|(slot, version)| self.newest(*slot) >= *version)
    }

    /// Number of commits of a generation that manifests count; 0 if they have none.
    pub(super) fn counted(&self, owner: &GenerationId) -> u64 {
        self.counted.get(owner).copied().unwrap_or(0)
    }

    /// Generations whose writer object is missing or changed.
    pub(super) fn bad_writers(&self) -> BTreeSet<GenerationId> {
        let owner = |problem: &Problem| match problem {
            Problem::NoWriter { .. } | Problem::TooNew { .. } => None,
            Problem::Broken { before, .. } => names::parse_writer(&Path::from(before.as_str())),
            other => names::parse_writer(&Path::from(other.object())),
        };
        let changed = self.logs.problems.iter().filter_map(owner);
        let too_new = |owner: &GenerationId| {
            let path = names::writer(*owner).to_string();
            let is_it =
                |of: &Problem| matches!(of, Problem::TooNew { object, .. } if *object == path);
            self.logs.problems.iter().any(is_it)
        };
        let unread = self.logs.generations.iter().filter(|(_, state)| state.writer().is_none());
        let unread = unread.map(|(owner, _)| *owner).filter(|owner| !too_new(owner));
        changed.chain(unread).collect()
    }

    /// The descriptions of a generation's writer in the rolled-up catalog. If it can be verified, also the one in its
    /// damaged object.
    pub(super) fn writers(
        &self,
        owner: &GenerationId,
        is_checked: bool,
    ) -> impl Iterator<Item = &Writer> {
        let of_root = self.roots.readable.as_ref().and_then(|root| root.log(*owner));
        let ended = self.generations.get(owner).and_then(Option::as_ref);
        let of_log = self.logs.generations.get(owner).filter(|_| is_checked);
        let checkpoint = self.logs.truncated.get(owner).and_then(|of| of.state.as_ref());
        let generations = of_root.map(|log| &log.state).into_iter().chain(ended);
        let generations = generations.chain(checkpoint).chain(of_log);
        generations.filter_map(GenerationState::writer)
    }

    /// Changed commits whose original facts are rolled up.
    pub(super) fn needless(&self, doubtful: &BTreeMap<CommitId, Gap>) -> BTreeSet<CommitId> {
        let Some(root) = &self.roots.readable else { return BTreeSet::new() };
        let of_logs = self.logs.problems.iter().filter_map(Problem::gap);
        let damaged = of_logs.filter(|gap| gap.kind == GapKind::Damaged);
        let is_rolled_up = |id: &CommitId| id.seq < self.rolled_up(root, &id.of);
        let ids = damaged.filter_map(|gap| gap.commit()).filter(is_rolled_up);
        ids.filter(|id| !doubtful.contains_key(id) && !self.logs.replaced.contains(id)).collect()
    }

    /// Whether manifests have the original facts of a commit.
    pub(super) fn is_rolled_up_as_written(&self, id: &CommitId) -> bool {
        let has = |found: &SlotSurvey| {
            found.present.get(&id.of).is_some_and(|seqs| seqs.contains(id.seq))
        };
        !self.rolled_up_changed.contains(id) && self.slots.values().any(has)
    }

    /// Generations whose logs are shorter than their rolled-up part, and the first missing commit.
    pub(super) fn cut_logs(&self) -> impl Iterator<Item = CommitId> + '_ {
        let root = self.roots.readable.as_ref();
        let ended = self.logs.generations.iter().filter(|(owner, _)| !self.grown.contains(owner));
        ended.filter_map(move |(owner, state)| {
            let of_root = root.map_or(0, |root| self.rolled_up(root, owner));
            let next = state.commits();
            (next < self.counted(owner).max(of_root)).then_some(CommitId { of: *owner, seq: next })
        })
    }

    /// Number of rolled-up commits of a generation, according to `root`.
    pub(super) fn rolled_up(&self, root: &Root, owner: &GenerationId) -> u64 {
        match root.log(*owner) {
            Some(log) => log.state.chain().next(),
            None => self
                .generations
                .get(owner)
                .and_then(Option::as_ref)
                .map_or(0, GenerationState::commits),
        }
    }

    /// Commits by slot that are rolled up according to `root` or the slot's manifest, but whose facts are in no
    /// readable object.
    pub(super) fn missing(&self, root: &Root) -> BTreeMap<TimeSlot, Commits> {
        let mut missing = BTreeMap::<TimeSlot, Commits>::new();
        for (slot, logged) in &self.logged {
            let found = self.slots.get(slot);
            for (owner, logged) in logged {
                let counted = found.map_or(0, |found| found.counted(owner));
                let mut of_generation = logged.clone();
                of_generation.remove_range(self.rolled_up(root, owner).max(counted)..);
                if let Some(present) = found.and_then(|found| found.present.get(owner)) {
                    of_generation -= present;
                }
                if !of_generation.is_empty() {
                    missing.entry(*slot).or_default().insert(*owner, of_generation);
                }
            }
        }
        missing
    }
}

impl SlotSurvey {
    /// Whether a manifest newer than the newest readable one exists, or one of its parts is unreadable.
    pub(super) fn is_damaged(&self) -> bool {
        !self.unreadable.is_empty()
            || self.row.readable.as_ref().map_or(0, |of| of.version) < self.row.newest
    }

    /// Number of commits of a generation that the manifest declares included.
    fn counted(&self, owner: &GenerationId) -> u64 {
        let manifest = self.row.readable.as_ref();
        manifest.and_then(|of| of.counted.get(owner)).copied().unwrap_or(0)
    }
}
