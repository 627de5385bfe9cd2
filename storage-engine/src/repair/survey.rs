//! What there is of a catalog, readable or not.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use capstan_model::{Failure, FailureKind, Generation, RecorderId, TimeRange};
use futures::TryStreamExt;
use object_store::path::Path;

use crate::catalog::entry::sha256_hex;
use crate::catalog::facts::Facts;
use crate::catalog::manifest::Manifest;
use crate::catalog::part::PartContent;
use crate::catalog::root::Root;
use crate::catalog::versions::{self, Versioned};
use crate::catalog::{Catalog, Life, Segment, Slot};
use crate::store::{Store, names};

/// A life of a recorder.
pub(super) type Owner = (RecorderId, Generation);

/// A row of versions.
#[derive(Debug)]
pub(super) struct Row<T> {
    /// The newest that can be read.
    pub(super) readable: Option<Versioned<T>>,
    /// The highest number there is; 0 if there is none.
    pub(super) newest: u64,
    /// SHA-256 of its bytes, hex.
    pub(super) newest_sha256: String,
    /// Versions that cannot be read.
    pub(super) damaged: Vec<u64>,
}

/// What there is of a slot.
#[derive(Debug)]
pub(super) struct SlotSurvey {
    pub(super) row: Row<Manifest>,
    /// Parts that the newest readable manifest names and that cannot be read.
    pub(super) unreadable: BTreeSet<String>,
    /// Commits whose facts can be read.
    pub(super) present: BTreeSet<(Owner, u64)>,
}

/// What there is.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) logs: Catalog,
    pub(super) roots: Row<Root>,
    pub(super) slots: BTreeMap<Slot, SlotSurvey>,
    /// Ended lives; none where the object cannot be read.
    pub(super) lives: BTreeMap<Owner, Option<Life>>,
    /// Logs that are marked as open.
    pub(super) open: BTreeSet<Owner>,
    /// Boundaries; none where the object cannot be read.
    pub(super) boundaries: BTreeMap<u64, Option<u64>>,
    /// When lives were taken in, by the root's versions, as manifests say.
    pub(super) admitted: BTreeMap<Owner, u64>,
    /// Segments that manifests name.
    pub(super) segments: Vec<Arc<Segment>>,
}

/// None if an object is damaged, so that what else is there is read.
fn sound<T>(read: Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Err(failure) if failure.kind() == FailureKind::Damaged => Ok(None),
        read => read,
    }
}

impl<T> Row<T> {
    async fn read<F>(
        store: &Store,
        there: BTreeSet<u64>,
        name: impl Fn(u64) -> Path,
        read: impl Fn(u64) -> F,
    ) -> Result<Row<T>, Failure>
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
}

impl Survey {
    /// Reads all of the catalog.
    ///
    /// # Errors
    /// What the store says; of kind `TooNew` if a newer version wrote any of it, which is then not to be
    /// touched.
    pub(super) async fn take(store: &Store) -> Result<Survey, Failure> {
        let logs = Catalog::load(store).await?;
        let (mut roots, mut lives, mut slots) =
            (BTreeSet::new(), BTreeSet::new(), BTreeMap::<Slot, BTreeSet<u64>>::new());
        let mut listed = store.list(&names::catalog());
        while let Some(object) = listed.try_next().await? {
            roots.extend(names::parse_root(&object.path));
            lives.extend(names::parse_ended(&object.path));
            if let Some((slot, version)) = names::parse_manifest(&object.path) {
                slots.entry(slot).or_default().insert(version);
            }
        }
        drop(listed);
        let read = |version| versions::read_root(store, version);
        let mut survey = Survey {
            logs,
            roots: Row::read(store, roots, names::root, read).await?,
            slots: BTreeMap::new(),
            lives: BTreeMap::new(),
            open: BTreeSet::new(),
            boundaries: BTreeMap::new(),
            admitted: BTreeMap::new(),
            segments: Vec::new(),
        };
        for (recorder, generation) in lives {
            let life = sound(versions::read_ended(store, recorder, generation).await)?;
            survey.lives.insert((recorder, generation), life);
        }
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
        Ok(survey)
    }

    async fn take_slot(
        &mut self,
        store: &Store,
        slot: Slot,
        there: BTreeSet<u64>,
    ) -> Result<(), Failure> {
        let name = |version| names::manifest(slot, version);
        let read = |version| versions::read_manifest(store, slot, version);
        let row = Row::read(store, there, name, read).await?;
        let mut found = SlotSurvey { row, unreadable: BTreeSet::new(), present: BTreeSet::new() };
        if let Some(Versioned { value: manifest, .. }) = &found.row.readable {
            for of in &manifest.contributors {
                self.admitted.entry((of.recorder, of.generation)).or_insert(of.admitted);
            }
            take_facts(manifest, &manifest.held, &mut found.present, &mut self.segments);
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
                    found.unreadable.extend(together.iter().map(|part| part.name.clone()));
                    continue;
                }
                for PartContent { facts, .. } in &contents {
                    take_facts(manifest, facts, &mut found.present, &mut self.segments);
                }
            }
        }
        self.slots.insert(slot, found);
        Ok(())
    }

    /// Lives that have ended and are not stored as such: their objects cannot be read, or are gone while the
    /// root, which is about to forget them, names them still.
    pub(super) fn lost_lives(&self) -> BTreeSet<Owner> {
        let unreadable = self.lives.iter().filter(|(_, life)| life.is_none());
        let root = self.roots.readable.as_ref().map(|root| &root.value);
        let ended = root.into_iter().flat_map(|root| &root.logs).filter(|log| log.ended);
        let gone =
            ended.map(|log| log.life.owner()).filter(|owner| !self.lives.contains_key(owner));
        unreadable.map(|(owner, _)| *owner).chain(gone).collect()
    }

    /// Lives of which neither the root nor an ended life nor a mark says anything: nobody finds their
    /// logs.
    pub(super) fn homeless(&self) -> BTreeSet<Owner> {
        let root = self.roots.readable.as_ref().map(|root| &root.value);
        let known = |owner: &Owner| {
            self.open.contains(owner)
                || self.lives.get(owner).is_some_and(Option::is_some)
                || root.is_some_and(|root| root.log(*owner).is_some())
        };
        let lives = self.logs.lives().map(|(recorder, generation, _)| (recorder, generation));
        lives.filter(|owner| !known(owner)).collect()
    }

    /// The highest boundary's number; 0 if there is none.
    pub(super) fn boundary(&self) -> u64 {
        self.boundaries.keys().max().copied().unwrap_or(0)
    }

    /// The highest version of a slot's manifest that is there, readable or not; 0 if there is none.
    pub(super) fn newest(&self, slot: Slot) -> u64 {
        self.slots.get(&slot).map_or(0, |found| found.row.newest)
    }

    /// Whether every manifest that the root names is there, and a root.
    pub(super) fn are_all_there(&self) -> bool {
        let named = |root: &Root| root.slots.iter().all(|of| self.newest(of.slot) >= of.version);
        self.roots.readable.as_ref().is_some_and(|root| named(&root.value))
    }

    /// All segments that something names.
    pub(super) fn named(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.logs.segments(TimeRange::ALL).chain(&self.segments)
    }

    /// Commits by slot that `root`, or the slot's manifest, says are folded, and whose facts are in none
    /// that can be read.
    pub(super) fn missing(&self, root: &Root) -> BTreeMap<Slot, BTreeSet<(Owner, u64)>> {
        let folded = |owner: &Owner| match root.log(*owner) {
            Some(log) => log.life.chain().next(),
            None => self.lives.get(owner).and_then(Option::as_ref).map_or(0, Life::commits),
        };
        let mut missing: BTreeMap<Slot, BTreeSet<(Owner, u64)>> = BTreeMap::new();
        let mut look = |slots: Vec<Slot>, owner: Owner, seq: u64| {
            for slot in slots {
                let found = self.slots.get(&slot);
                let counted = found.map_or(0, |found| found.counted(owner));
                let present = found.is_some_and(|found| found.present.contains(&(owner, seq)));
                if !present && seq < folded(&owner).max(counted) {
                    missing.entry(slot).or_default().insert((owner, seq));
                }
            }
        };
        for of in self.logs.segments(TimeRange::ALL) {
            look(Slot::of_segment(&of.entry), of.by, of.seq);
        }
        for of in self.logs.coverage(TimeRange::ALL) {
            look(Slot::of_range(&of.what.range), (of.recorder, of.generation), of.seq);
        }
        for of in self.logs.losses(TimeRange::ALL) {
            look(Slot::of_range(&of.what.range), (of.recorder, of.generation), of.seq);
        }
        missing
    }
}

impl SlotSurvey {
    /// Whether a newer manifest is there than the newest that can be read, or a part of that one cannot be.
    pub(super) fn is_damaged(&self) -> bool {
        !self.unreadable.is_empty()
            || self.row.readable.as_ref().map_or(0, |of| of.value.version) < self.row.newest
    }

    /// Commits of a life that the manifest says it has.
    fn counted(&self, owner: Owner) -> u64 {
        let manifest = self.row.readable.as_ref().map(|of| &of.value);
        let mut contributors = manifest.into_iter().flat_map(|of| &of.contributors);
        let found = contributors.find(|of| (of.recorder, of.generation) == owner);
        found.map_or(0, |of| of.next)
    }
}

fn take_facts(
    manifest: &Manifest,
    facts: &Facts,
    present: &mut BTreeSet<(Owner, u64)>,
    segments: &mut Vec<Arc<Segment>>,
) {
    let owner = |by| manifest.owner(by).map(|of| (of.recorder, of.generation));
    present.extend(facts.commits.iter().filter_map(|of| Some((owner(of.by)?, of.seq))));
    for of in &facts.segments {
        if let Some((recorder, generation)) = owner(of.by) {
            let segment = Segment::of(recorder, generation, of.seq, of.fact.clone());
            segments.push(Arc::new(segment));
        }
    }
}
