//! The catalog as readers see it: the newest root, the logs tailed from its positions, and the manifests of the
//! requested hours.
//!
//! A [`CatalogView`] is of one moment and never changes; [`CatalogView::refresh`] makes the next one. The cost of a
//! view follows the number of open logs. The cost of a [`CatalogView::window`] follows the number of requested hours.
//! Neither grows with the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind, GenerationId, TimeRange};
use futures::future::try_join;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::base::Base;
use super::chain::sorted_out;
use super::checkpoint;
use super::commit_id::CommitId;
use super::gap::{About, Gap, GapKind};
use super::generation::GenerationState;
use super::load::{FIRST_FORMAT, begin, open_logs};
use super::root::Root;
use super::slots::Slots;
use super::state::Catalog;
use super::sweep::GRACE;
use super::versions::{self, Versioned};
use super::window::{Asked, Window};
use crate::catalog::names;
use crate::store::Store;

/// Requests in flight.
const AT_ONCE: usize = 32;

/// Number of refreshes between checks for logs that continue after missing commits.
const GAPS_EVERY: u32 = 32;

/// How often a view is begun whose root is too old when all logs are read.
const TRIES: u32 = 4;

/// A generation that the root of a view does not name.
struct Begun {
    state: GenerationState,
    /// Faults of its writer object and of its checkpoint, as text.
    notes: Vec<String>,
    /// Its log is truncated.
    is_truncated: bool,
}

/// Generations by their ids.
type EndedGenerations = BTreeMap<GenerationId, Arc<GenerationState>>;

/// Every generation that ever existed.
#[derive(Debug, Clone, Default)]
pub struct Generations {
    /// By recorder and generation.
    pub generations: Vec<Arc<GenerationState>>,
    /// Gaps: unreadable generations, and facts hidden by commits.
    pub gaps: Vec<Gap>,
}

/// The catalog at a moment.
#[derive(Debug, Clone)]
pub struct CatalogView {
    store: Store,
    root: Arc<Versioned<Root>>,
    /// Facts that the root does not cover, and the generations of all open logs.
    tail: Arc<Catalog>,
    slots: Arc<Slots>,
    ended: Arc<Mutex<EndedGenerations>>,
    gaps: Arc<Vec<Gap>>,
    notes: Arc<BTreeSet<String>>,
    /// Commits that no longer count.
    replaced: Arc<BTreeSet<CommitId>>,
    /// The root is not a stored one: newer ones are unreadable.
    is_patched: bool,
    /// A version of the root that appeared after this view was made.
    seen: Arc<AtomicU64>,
    /// Number of refreshes.
    age: u32,
}

impl CatalogView {
    /// The current catalog.
    ///
    /// # Errors
    /// Errors of the store. Damaged objects are no errors: see [`CatalogView::gaps`] and [`CatalogView::notes`].
    pub async fn load(store: &Store) -> Result<CatalogView, Failure> {
        let nothing = Versioned { value: Root::empty(), sha256: String::new() };
        let view = CatalogView {
            store: store.clone(),
            root: Arc::new(nothing),
            tail: Arc::default(),
            slots: Arc::default(),
            ended: Arc::default(),
            gaps: Arc::default(),
            notes: Arc::default(),
            replaced: Arc::default(),
            is_patched: false,
            seen: Arc::default(),
            age: 0,
        };
        view.next(None).await
    }

    /// The current catalog. It shares known data with this view.
    ///
    /// # Errors
    /// Like [`CatalogView::load`]; this view stays valid.
    pub async fn refresh(&self) -> Result<CatalogView, Failure> {
        self.next((!self.is_patched).then(|| (*self.root).clone())).await
    }

    async fn next(&self, mut known: Option<Versioned<Root>>) -> Result<CatalogView, Failure> {
        for _ in 0..TRIES {
            if let Some(view) = self.try_next(known.take()).await? {
                return Ok(view);
            }
        }
        let what = format!("reading the logs of {} takes too long: retry", self.store.place());
        Err(Failure::new(FailureKind::Unavailable, what))
    }

    /// The current catalog; none if its root was replaced so long ago, when all logs are read, that commits after the
    /// positions in it may be removed.
    async fn try_next(
        &self,
        known: Option<Versioned<Root>>,
    ) -> Result<Option<CatalogView>, Failure> {
        let store = &self.store;
        let began = store.now();
        // Lists open marks before it reads the root: a log whose mark is gone has ended, and the root names its end.
        let mut open = open_logs(store).await?;
        let Base { root, newer, gap, note } = Base::find(store, known).await?;
        if newer.is_some() {
            // A generation admitted by an unreadable root is open, or it has ended and is rolled up.
            open.extend(open_logs(store).await?);
        }
        let mut notes: BTreeSet<String> = note.into_iter().collect();
        notes.extend(root.value.notes().cloned());
        let is_same = newer.is_none() && self.root.value.version == root.value.version;
        let mut tail = if is_same {
            (*self.tail).clone()
        } else {
            Catalog::of_generations(root.value.logs.iter().map(|log| log.state.clone()))
        };
        let new = open.into_iter().filter(|owner| tail.state(*owner).is_none());
        let mut begun = Vec::new();
        let mut unnamed = None;
        for of in self.begin(new.collect()).await? {
            notes.extend(of.notes);
            if of.is_truncated && newer.is_none() {
                unnamed = Some(of.state.id());
            }
            begun.push(of.state.clone());
            tail.add_generation(of.state);
        }
        let age = self.age.wrapping_add(1);
        let is_current = tail.follow(store, self.age.is_multiple_of(GAPS_EVERY)).await?;
        if !is_current || began.saturating_add(GRACE / 2) < store.now() {
            return Ok(None);
        }
        // Logs are truncated only if roots name them or count all of their commits.
        let gap = gap.or_else(|| {
            let log = names::log_of(unnamed?);
            let what = format!("{log} is truncated, and the root that names it is missing");
            Some(Gap::new(&names::roots(), GapKind::Missing, About::AnyTime, what))
        });
        let (of_tail, words) = sorted_out(tail.problems());
        notes.extend(words);
        let mut replaced = tail.replaced().clone();
        let of_root = root.value.replaced.iter();
        replaced.extend(of_root.filter_map(|name| names::parse_commit(&name.as_str().into())));
        let mut gaps: Vec<Gap> =
            gap.into_iter().chain(root.value.hidden()).chain(of_tail).collect();
        gaps.retain(|gap| gap.commit().is_none_or(|commit| !replaced.contains(&commit)));
        let is_patched = newer.is_some();
        let root = match newer {
            None => root,
            Some(newer) => {
                let value = root.value.patched(newer.version, newer.wide, begun);
                Versioned { value, sha256: root.sha256 }
            }
        };
        Ok(Some(CatalogView {
            root: Arc::new(root),
            tail: Arc::new(tail),
            gaps: Arc::new(gaps),
            notes: Arc::new(notes),
            replaced: Arc::new(replaced),
            is_patched,
            age,
            ..self.clone()
        }))
    }

    /// Generations that the root does not name, at their checkpoints or before their first commits.
    async fn begin(&self, owners: Vec<GenerationId>) -> Result<Vec<Begun>, Failure> {
        let store = &self.store;
        let may_be_truncated = store.format().format >= FIRST_FORMAT;
        let read = stream::iter(owners).map(|of| async move {
            let first = names::commit(of, 0);
            let checkpoint = async {
                match may_be_truncated {
                    true => checkpoint::newest(store, of).await,
                    false => Ok(None),
                }
            };
            let (first, checkpoint) = try_join(store.head(&first), checkpoint).await?;
            let is_truncated = checkpoint.is_some();
            // Without a first commit nothing was committed, or the log is truncated and has ended: then its open mark
            // could not be removed.
            if first.is_none() || is_truncated {
                match versions::read_ended(store, of).await {
                    Ok(Some(_)) => return Ok(None),
                    Err(failure) if GapKind::of(&failure).is_none() => return Err(failure),
                    Ok(None) | Err(_) => {}
                }
            }
            let (state, notes) = begin(store, of, checkpoint).await?;
            Ok::<_, Failure>(Some(Begun { state, notes, is_truncated }))
        });
        read.buffered(AT_ONCE).try_filter_map(|begun| async move { Ok(begun) }).try_collect().await
    }

    /// Its store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Gaps that affect every question, or the questions about some times; a [`Window`] has its own gaps, these
    /// included.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Faults of the catalog that hide no facts, as text.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str)
    }

    /// The root it begins with.
    pub fn root(&self) -> &Root {
        &self.root.value
    }

    /// Logs with commits that are not rolled up, and the number of the first such commit.
    pub fn waiting(&self) -> impl Iterator<Item = CommitId> {
        self.tail.generations().filter_map(|(of, state)| {
            let log = self.root.value.log(of);
            let rolled_up = log.map_or(0, |log| log.state.chain().next());
            (state.chain().next() > rolled_up).then_some(CommitId { of, seq: rolled_up })
        })
    }

    /// Whether two views are of the same state.
    pub fn is_same(&self, other: &CatalogView) -> bool {
        self.root.value.version == other.root.value.version
            && self.gaps == other.gaps
            && self.notes == other.notes
            && self.tail.generations().eq(other.tail.generations())
    }

    /// All facts about a range.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn window(&self, range: TimeRange) -> Result<Window, Failure> {
        self.window_of(Asked::all(range)).await
    }

    /// The requested facts.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn window_of(&self, asked: Asked<'_>) -> Result<Window, Failure> {
        let range = asked.range;
        let mut window = Window::default();
        for read in self.slots.read(&self.store, &self.root.value, self.is_patched, asked).await? {
            read.take(&self.root.value, &self.replaced, asked, &mut window);
        }
        self.gaps.iter().for_each(|gap| window.add_gap(Some(gap), &range));
        self.look_for_newer_root(&mut window).await?;
        for (of, state) in self.tail.generations() {
            let info = state.writer().map(|writer| writer.info.clone());
            window.writers.insert(of, info);
        }
        for fact in self.tail.facts() {
            if !self.replaced.contains(&fact.commit()) {
                window.take(fact, asked);
            }
        }
        window.put_in_order();
        Ok(window)
    }

    /// A generation that was admitted after the root of this view was admitted by a newer root. If none exists, roots
    /// are lost, with their content.
    async fn look_for_newer_root(&self, window: &mut Window) -> Result<(), Failure> {
        let newcomers = std::mem::take(&mut window.newcomers).into_iter();
        let unknown = newcomers.filter(|(owner, _)| self.tail.state(*owner).is_none());
        let Some(newest) = unknown.map(|(_, admitted)| admitted).max() else { return Ok(()) };
        if newest <= self.seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = names::root(newest);
        // Checks by name first: a listing may lag by seconds. A root replaced long ago is removed; then the newer
        // ones are listed.
        let there = match self.store.head(&path).await? {
            Some(_) => newest,
            None => versions::listed_roots(&self.store).await?.pop().map_or(0, |(of, _)| of),
        };
        if newest <= there {
            self.seen.fetch_max(there, Ordering::Relaxed);
            return Ok(());
        }
        let what = format!("{path} is missing, as are all after it");
        let gap = Gap::new(&path, GapKind::Missing, About::AnyTime, what);
        window.add_gap(Some(&gap), &TimeRange::ALL);
        Ok(())
    }

    /// How many commits of a log are rolled up: one request if the root does not name it.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn rolled_up(&self, of: GenerationId) -> Result<u64, Failure> {
        if let Some(log) = self.root.value.log(of) {
            return Ok(log.state.chain().next());
        }
        match versions::read_ended(&self.store, of).await {
            Ok(state) => Ok(state.map_or(0, |state| state.chain().next())),
            Err(failure) if GapKind::of(&failure).is_some() => Ok(0),
            Err(failure) => Err(failure),
        }
    }

    /// Ended generations that are not stored as such. Writer objects stay, so a generation that is neither open nor
    /// ended is detected.
    async fn lost_generations(&self, ended: &BTreeSet<GenerationId>) -> Result<Vec<Gap>, Failure> {
        let store = &self.store;
        if store.format().format < FIRST_FORMAT {
            return Ok(Vec::new());
        }
        let mut lost = owners(store, &names::writers(None), names::parse_writer).await?;
        lost.retain(|owner| self.tail.state(*owner).is_none() && !ended.contains(owner));
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        let open = owners(store, &names::open_logs(), names::parse_open).await?;
        let mut gaps = Vec::new();
        for of in lost.difference(&open) {
            // A process killed before its first commit has no data. Its open mark exists before the first commit, and
            // its ended generation is stored before the mark is removed. A listing may lag.
            let path = names::ended_generation(*of);
            let log = names::log_of(*of);
            let mark = names::open(*of);
            let is_lost = store.list(&log).next().await.transpose()?.is_some()
                && store.head(&mark).await?.is_none()
                && store.head(&path).await?.is_none();
            if is_lost {
                let what = format!("{path} is missing");
                gaps.push(Gap::new(&path, GapKind::Missing, About::AnyTime, what));
            }
        }
        Ok(gaps)
    }

    /// Every generation that ever existed. The number of requests is the number of generations that ended since the
    /// last call.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn generations(&self) -> Result<Generations, Failure> {
        let store = &self.store;
        let listed = owners(store, &names::ended_generations(), names::parse_ended).await?;
        let known = || self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gaps = self.gaps.to_vec();
        gaps.extend(self.lost_generations(&listed).await?);
        let unknown: Vec<_> = {
            let known = known();
            listed.into_iter().filter(|owner| !known.contains_key(owner)).collect()
        };
        let mut read = stream::iter(unknown)
            .map(|of| async move {
                let read = versions::read_ended(store, of).await;
                (names::ended_generation(of), read)
            })
            .buffered(AT_ONCE);
        while let Some((path, state)) = read.next().await {
            match state {
                Ok(state) => known().extend(state.map(|state| (state.id(), Arc::new(state)))),
                Err(failure) => match GapKind::of(&failure) {
                    Some(kind) => {
                        let what = with_causes(&failure);
                        gaps.push(Gap::new(&path, kind, About::AnyTime, what));
                    }
                    None => return Err(failure),
                },
            }
        }
        let mut generations = known().clone();
        // Generations that this view followed itself are of its moment.
        for (of, state) in self.tail.generations() {
            generations.insert(of, Arc::new(state.clone()));
        }
        Ok(Generations { generations: generations.into_values().collect(), gaps })
    }
}

/// The generations in the names of objects below a folder.
async fn owners(
    store: &Store,
    folder: &Path,
    parse: fn(&Path) -> Option<GenerationId>,
) -> Result<BTreeSet<GenerationId>, Failure> {
    let named = store.list(folder).try_filter_map(async |object| Ok(parse(&object.path)));
    named.try_collect().await
}
