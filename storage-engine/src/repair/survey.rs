//! What there is of a catalog, readable or not.
//!
//! What is kept of it in memory is some bytes a commit, and about a kilobyte a generation and a slot.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use capstan_model::{Failure, FailureKind, Generation, GenerationId};
use futures::TryStreamExt;
use object_store::path::Path;
use roaring::RoaringTreemap;

use super::named::NamedSegments;
use crate::catalog::entry::{Writer, sha256_hex};
use crate::catalog::facts::{Facts, slots_of};
use crate::catalog::hours::Hours;
use crate::catalog::manifest::Manifest;
use crate::catalog::part::PartContent;
use crate::catalog::root::Root;
use crate::catalog::versions::{self, Versioned};
use crate::catalog::walk::{Walked, walk};
use crate::catalog::{
    CommitId, Gap, GapKind, GenerationState, Problem, Segment, TimeSlot, WriterKind,
};
use crate::store::{Store, names};

/// Numbers of commits, by the generation they are of.
pub(super) type Commits = BTreeMap<GenerationId, RoaringTreemap>;

/// A row of versions.
#[derive(Debug)]
pub(super) struct Row<T> {
    /// The newest that can be read.
    pub(super) readable: Option<T>,
    /// The highest number there is; 0 if there is none.
    pub(super) newest: u64,
    /// SHA-256 of its bytes, hex.
    pub(super) newest_sha256: String,
    /// Versions that cannot be read.
    pub(super) damaged: Vec<u64>,
}

/// What is needed of a manifest that can be read.
#[derive(Debug)]
pub(super) struct ManifestSurvey {
    pub(super) version: u64,
    pub(super) epoch: u64,
    /// Commits that it says it has of each generation.
    counted: BTreeMap<GenerationId, u64>,
}

/// What there is of a slot.
#[derive(Debug)]
pub(super) struct SlotSurvey {
    pub(super) row: Row<ManifestSurvey>,
    /// Parts that the newest readable manifest names and that cannot be read.
    pub(super) unreadable: BTreeSet<String>,
    /// Commits whose facts can be read.
    present: Commits,
}

/// What kind of recorder each generation is of, and which generation it goes on with.
#[derive(Debug, Default)]
pub(super) struct Kinds(BTreeMap<GenerationId, (WriterKind, Option<Generation>)>);

impl Kinds {
    /// What kind of recorder a generation is of, if anything says so.
    pub(super) fn of(&self, owner: &GenerationId) -> Option<WriterKind> {
        self.0.get(owner).map(|(kind, _)| *kind)
    }

    /// The first generation of the import that a generation is of; none if a generation between them says nothing of itself.
    pub(super) fn import(&self, of: GenerationId) -> Option<Generation> {
        let mut first = of.generation;
        while let Some(before) = self.0.get(&GenerationId::new(of.recorder, first))?.1 {
            // A generation goes on with an earlier one.
            first = Some(before).filter(|before| *before < first)?;
        }
        Some(first)
    }
}

/// What there is.
#[derive(Debug)]
pub(super) struct Survey {
    /// What all logs come to.
    pub(super) logs: Walked,
    /// Commits that say something of a slot, as the logs do.
    logged: BTreeMap<TimeSlot, Commits>,
    pub(super) roots: Row<Root>,
    pub(super) slots: BTreeMap<TimeSlot, SlotSurvey>,
    /// Ended generations; none where the object cannot be read.
    pub(super) generations: BTreeMap<GenerationId, Option<GenerationState>>,
    /// Logs that are marked as open.
    pub(super) open: BTreeSet<GenerationId>,
    /// Boundaries; none where the object cannot be read.
    pub(super) boundaries: BTreeMap<u64, Option<u64>>,
    /// When generations were taken in, by the root's versions, as manifests say.
    pub(super) admitted: BTreeMap<GenerationId, u64>,
    /// Segments that logs or manifests name.
    pub(super) named: NamedSegments,
    /// Those that commits name which are not what was written: readers take them for real until these are rolled up.
    pub(super) named_by_changed: Vec<Segment>,
    /// Versions of manifests that the newest readable root names; of hours that had one and have none, and that it
    /// does not name, a version that is not lower than theirs was.
    pub(super) named_versions: BTreeMap<TimeSlot, u64>,
    /// How many commits of a generation manifests count.
    counted: BTreeMap<GenerationId, u64>,
    /// What kind of recorder a generation is of and which generation it goes on with, as logs, manifests, roots and ended generations
    /// say.
    pub(super) kinds: Kinds,
    /// Commits whose checksums are wrong, with the SHA-256 of the bytes that they have now.
    changed: BTreeMap<CommitId, String>,
    /// Those of them that were rolled up with these bytes.
    rolled_up_changed: BTreeSet<CommitId>,
    /// Generations that committed while the catalog was read: their logs are longer than what was read of them.
    grown: BTreeSet<GenerationId>,
}

/// None if an object is damaged, so that what else is there is read.
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
        let (mut readable, mut damaged) = (None, Vec::new());
        for version in there {
            match sound(read(version).await)? {
                Some(found) => readable = Some(found),
                None => damaged.push(version),
            }
        }
        let newest_sha256 = match (&readable, damaged.last() == Some(&newest)) {
            (Some(found), false) => found.sha256.clone(),
            _ if newest == 0 => String::new(),
            _ => sha256_hex(&store.get_if_present(&name(newest)).await?.unwrap_or_default()),
        };
        Ok(Row { readable, newest, newest_sha256, damaged })
    }

    /// Keeps only what is needed of the one that can be read.
    fn map<U>(self, needed: impl FnOnce(T) -> U) -> Row<U> {
        let Row { readable, newest, newest_sha256, damaged } = self;
        Row { readable: readable.map(|of| needed(of.value)), newest, newest_sha256, damaged }
    }
}

impl Survey {
    /// Reads all of the catalog.
    ///
    /// # Errors
    /// What the store says; of kind `TooNew` if a newer version wrote any of it, which is then not to be
    /// touched.
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
        };
        for of in generations {
            let state = sound(versions::read_ended(store, of).await)?;
            survey.generations.insert(of, state);
        }
        if let Some(root) = &survey.roots.readable {
            survey.named_versions = root.slots.iter().map(|of| (of.slot, of.version)).collect();
            let gone = root.hours().map(TimeSlot::Hour).filter(|slot| !slots.contains_key(slot));
            // A slot gets at most one version with each root.
            for slot in gone {
                survey.named_versions.entry(slot).or_insert(root.version);
            }
        }
        survey.take_kinds();
        survey.take_changed(store).await?;
        for (slot, there) in slots {
            survey.take_slot(store, slot, there).await?;
        }
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

    /// Takes in what kinds of recorders generations are of.
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

    /// Takes in which bytes the commits have that are not what was written.
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
            // Parts that were put together have the facts of the same commits, so they stay or go together.
            for together in manifest.parts.chunk_by(|a, b| a.stem() == b.stem()) {
                let mut contents = Vec::new();
                for part in together {
                    match versions::read_part(store, slot, part).await {
                        // Of another one who asks for some addresses would not be told.
                        Ok(content) if manifest.includes(part.holds, &content.facts) => {
                            contents.push(content);
                        }
                        Ok(_) => {}
                        Err(failure)
                            if matches!(
                                failure.kind(),
                                FailureKind::Damaged | FailureKind::NotFound
                            ) => {}
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

    /// Takes in which commits facts are of, and the segments they name.
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
            if let Some(owner) = owner(of.by) {
                self.named.take(CommitId { of: owner, seq: of.seq }, of.fact)?;
            }
        }
        Ok(())
    }

    /// Finds out which logs only look shorter than what was rolled up of them. Logs are read before the rest of the
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

    /// Generations that have ended and are not stored as such: their objects cannot be read, or are gone while the
    /// root, which is about to forget them, names them still.
    pub(super) fn lost_generations(&self) -> BTreeSet<GenerationId> {
        let unreadable = self.generations.iter().filter(|(_, state)| state.is_none());
        let root = self.roots.readable.as_ref();
        let ended = root.into_iter().flat_map(|root| &root.logs).filter(|log| log.ended);
        let gone =
            ended.map(|log| log.state.id()).filter(|owner| !self.generations.contains_key(owner));
        unreadable.map(|(owner, _)| *owner).chain(gone).collect()
    }

    /// Generations of which neither the root nor an ended generation nor a mark says anything: nobody finds their
    /// logs.
    pub(super) fn homeless(&self) -> BTreeSet<GenerationId> {
        let root = self.roots.readable.as_ref();
        let known = |owner: &GenerationId| {
            self.open.contains(owner)
                || self.generations.get(owner).is_some_and(Option::is_some)
                || root.is_some_and(|root| root.log(*owner).is_some())
        };
        self.logs.generations.keys().copied().filter(|owner| !known(owner)).collect()
    }

    /// Generations that no root names, and of which manifests have facts.
    pub(super) fn forgotten(&self) -> BTreeSet<GenerationId> {
        let root = self.roots.readable.as_ref();
        let is_unnamed = |owner: &GenerationId| root.is_none_or(|root| root.log(*owner).is_none());
        let unnamed = self.open.iter().copied().filter(is_unnamed);
        unnamed.chain(self.homeless()).filter(|owner| self.counted(owner) > 0).collect()
    }

    /// The highest boundary's number; 0 if there is none.
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

    /// The highest version of a slot's manifest that is there, readable or not; 0 if there is none.
    pub(super) fn newest(&self, slot: TimeSlot) -> u64 {
        self.slots.get(&slot).map_or(0, |found| found.row.newest)
    }

    /// Whether all that is rolled up can be read: there is a root, every manifest that it names is there, and none
    /// is damaged.
    pub(super) fn is_sound(&self) -> bool {
        self.roots.readable.is_some()
            && self.slots.values().all(|found| !found.is_damaged())
            && self.named_versions.iter().all(|(slot, version)| self.newest(*slot) >= *version)
    }

    /// How many commits of a generation manifests count; 0 if none says anything of it.
    pub(super) fn counted(&self, owner: &GenerationId) -> u64 {
        self.counted.get(owner).copied().unwrap_or(0)
    }

    /// Generations whose writer's object is missing, or is not what was written.
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

    /// What a generation says of itself, as the rolled-up catalog keeps it; if that can be checked, also as its damaged object
    /// says it.
    pub(super) fn writers(
        &self,
        owner: &GenerationId,
        is_checked: bool,
    ) -> impl Iterator<Item = &Writer> {
        let of_root = self.roots.readable.as_ref().and_then(|root| root.log(*owner));
        let ended = self.generations.get(owner).and_then(Option::as_ref);
        let of_log = self.logs.generations.get(owner).filter(|_| is_checked);
        let generations = of_root.map(|log| &log.state).into_iter().chain(ended).chain(of_log);
        generations.filter_map(GenerationState::writer)
    }

    /// Commits that are not what was written, though what was written is rolled up.
    pub(super) fn needless(&self, doubtful: &BTreeMap<CommitId, Gap>) -> BTreeSet<CommitId> {
        let Some(root) = &self.roots.readable else { return BTreeSet::new() };
        let of_logs = self.logs.problems.iter().filter_map(Problem::gap);
        let damaged = of_logs.filter(|gap| gap.kind == GapKind::Damaged);
        let is_rolled_up = |id: &CommitId| id.seq < self.rolled_up(root, &id.of);
        let ids = damaged.filter_map(|gap| gap.commit()).filter(is_rolled_up);
        ids.filter(|id| !doubtful.contains_key(id) && !self.logs.replaced.contains(id)).collect()
    }

    /// Whether manifests have facts of a commit, as it was written.
    pub(super) fn is_rolled_up_as_written(&self, id: &CommitId) -> bool {
        let has = |found: &SlotSurvey| {
            found.present.get(&id.of).is_some_and(|seqs| seqs.contains(id.seq))
        };
        !self.rolled_up_changed.contains(id) && self.slots.values().any(has)
    }

    /// Generations whose logs are shorter than what was rolled up of them, and the first commit that is missing.
    pub(super) fn cut_logs(&self) -> impl Iterator<Item = CommitId> + '_ {
        let root = self.roots.readable.as_ref();
        let ended = self.logs.generations.iter().filter(|(owner, _)| !self.grown.contains(owner));
        ended.filter_map(move |(owner, state)| {
            let of_root = root.map_or(0, |root| self.rolled_up(root, owner));
            let next = state.commits();
            (next < self.counted(owner).max(of_root)).then_some(CommitId { of: *owner, seq: next })
        })
    }

    /// How many commits of a generation `root` says are rolled up.
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

    /// Commits by slot that `root`, or the slot's manifest, says are rolled up, and whose facts are in none
    /// that can be read.
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
    /// Whether a newer manifest is there than the newest that can be read, or a part of that one cannot be.
    pub(super) fn is_damaged(&self) -> bool {
        !self.unreadable.is_empty()
            || self.row.readable.as_ref().map_or(0, |of| of.version) < self.row.newest
    }

    /// Commits of a generation that the manifest says it has.
    fn counted(&self, owner: &GenerationId) -> u64 {
        let manifest = self.row.readable.as_ref();
        manifest.and_then(|of| of.counted.get(owner)).copied().unwrap_or(0)
    }
}
