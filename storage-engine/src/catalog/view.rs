//! The catalog as readers see it: the newest root, the logs tailed from where it says, and the
//! manifests of the hours that a question is about.
//!
//! A [`CatalogView`] is of one moment and never changes; [`CatalogView::refresh`] makes the next. What it costs
//! to make one follows the number of open logs; what a [`CatalogView::window`] costs follows the hours
//! asked for. Neither grows with the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use capstan_model::coverage::{Listened, Loss};
use capstan_model::failure::with_causes;
use capstan_model::{Failure, GenerationId, Time, TimeRange};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::base::Base;
use super::chain::{Chain, sorted_out};
use super::entry::{WriterInfo, WriterKind};
use super::fact::Change;
use super::facts::Attributed;
use super::filter::AddressFilter;
use super::gap::{About, Gap, GapKind};
use super::generation::GenerationState;
use super::rollup::{FIRST_FORMAT, begin, open_logs};
use super::root::Root;
use super::segment_state;
use super::slots::Slots;
use super::state::{Catalog, CommitId, Known as KnownFact, Segment};
use super::versions::{self, Versioned};
use crate::store::{Store, names};

/// Requests in flight.
const AT_ONCE: usize = 32;

/// Refreshes after which it is looked again whether logs go on behind commits that are missing.
const GAPS_EVERY: u32 = 32;

/// Generations by their ids.
type Known = BTreeMap<GenerationId, Arc<GenerationState>>;

/// Every generation there ever was.
#[derive(Debug, Clone, Default)]
pub struct Generations {
    /// By recorder and generation.
    pub generations: Vec<Arc<GenerationState>>,
    /// Those that cannot be read, and what commits hide.
    pub gaps: Vec<Gap>,
}

/// The catalog at a moment.
#[derive(Debug, Clone)]
pub struct CatalogView {
    store: Store,
    root: Arc<Versioned<Root>>,
    /// What commits say that the root does not know, and the generations of all open logs.
    tail: Arc<Catalog>,
    slots: Arc<Slots>,
    ended: Arc<Mutex<Known>>,
    gaps: Arc<Vec<Gap>>,
    notes: Arc<BTreeSet<String>>,
    /// Commits that count no more.
    replaced: Arc<BTreeSet<CommitId>>,
    /// The root is not one that is stored: newer ones cannot be read.
    is_patched: bool,
    /// A version of the root that was there after this view was made.
    seen: Arc<AtomicU64>,
    /// How often it was refreshed.
    age: u32,
}

/// What is asked of the catalog.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// About which time.
    pub range: TimeRange,
    /// Which segments are wanted, told by the addresses that they may hold. The window may have
    /// others, too.
    pub addresses: Option<&'a (dyn Fn(&AddressFilter) -> bool + Send + Sync)>,
    /// Whether it is asked what was listened to and what was lost; if not, the window says nothing of it.
    pub statements: bool,
}

impl Asked<'_> {
    /// All about a range.
    pub fn all(range: TimeRange) -> Self {
        Asked { range, addresses: None, statements: true }
    }
}

/// What the catalog says about a range of time.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Segments that may hold packets of the range: by recorder, generation and commit, and in the
    /// order of the commit.
    pub segments: Vec<Arc<Segment>>,
    /// Segments with decryption secrets that packets of the range may need, wherever they lie.
    pub secrets: Vec<Arc<Segment>>,
    /// When and where was listened in it: statements that are not cut to the range.
    pub listened: Vec<Attributed<Listened>>,
    /// What is missing in it. A loss at a single moment has a range of one nanosecond or none.
    pub losses: Vec<Attributed<Loss>>,
    /// What became of segments.
    pub(super) changes: Vec<Change>,
    /// Whose all this is; none if what it said of itself cannot be read.
    pub writers: BTreeMap<GenerationId, Option<WriterInfo>>,
    /// Segments of its hours that were passed over together, as none of them has the addresses asked for.
    /// One that touches several hours counts in each.
    pub pruned_by_manifest: u64,
    /// What it should say and does not, as objects of the catalog cannot be used.
    pub gaps: Vec<Gap>,
    /// Who says something in its hours and was taken in after its root, and by which version.
    pub(super) newcomers: BTreeMap<GenerationId, u64>,
}

impl CatalogView {
    /// The catalog as it is now.
    ///
    /// # Errors
    /// What the store says. Damaged objects are no errors: see [`CatalogView::gaps`] and [`CatalogView::notes`].
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

    /// The catalog as it is now, what is known already shared with this view.
    ///
    /// # Errors
    /// As [`CatalogView::load`]; this view stays good.
    pub async fn refresh(&self) -> Result<CatalogView, Failure> {
        self.next((!self.is_patched).then(|| (*self.root).clone())).await
    }

    async fn next(&self, known: Option<Versioned<Root>>) -> Result<CatalogView, Failure> {
        let store = &self.store;
        // Names of logs first: one that is not there any more has ended, and the root says so.
        let mut open = open_logs(store).await?;
        let Base { root, newer, gap, note } = Base::find(store, known).await?;
        if newer.is_some() {
            // A generation that was taken in by a root that cannot be read is open, or has ended and is rolled up.
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
        for (state, found) in self.begin(new.collect()).await? {
            notes.extend(found);
            tail.add_generation(state);
        }
        let age = self.age.wrapping_add(1);
        tail.follow(store, self.age.is_multiple_of(GAPS_EVERY)).await?;
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
                let generations = tail
                    .generations()
                    .map(|(of, _)| GenerationState::new(None, Chain::new(of, None)));
                let value = root.value.patched(newer.version, newer.wide, generations.collect());
                Versioned { value, sha256: root.sha256 }
            }
        };
        Ok(CatalogView {
            root: Arc::new(root),
            tail: Arc::new(tail),
            gaps: Arc::new(gaps),
            notes: Arc::new(notes),
            replaced: Arc::new(replaced),
            is_patched,
            age,
            ..self.clone()
        })
    }

    /// Generations that the root does not name, before their first commit, and what is wrong with them.
    async fn begin(
        &self,
        owners: Vec<GenerationId>,
    ) -> Result<Vec<(GenerationState, Vec<String>)>, Failure> {
        let store = &self.store;
        let read = stream::iter(owners).map(|of| async move {
            // Without a first commit nothing was committed, or it was all removed since: then the name
            // is one that could not be.
            let first = names::commit(of, 0);
            if store.head(&first).await?.is_none() {
                match versions::read_ended(store, of).await {
                    Ok(Some(_)) => return Ok(None),
                    Err(failure) if GapKind::of(&failure).is_none() => return Err(failure),
                    Ok(None) | Err(_) => {}
                }
            }
            Ok::<_, Failure>(Some(begin(store, of).await?))
        });
        read.buffered(AT_ONCE).try_filter_map(|begun| async move { Ok(begun) }).try_collect().await
    }

    /// The store it is of.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the catalog hides whatever is asked, or of times that are asked about; a [`Window`] has that of its
    /// own, these included.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// What is wrong with the catalog and hides nothing, in words.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str)
    }

    /// The root it begins with.
    pub fn root(&self) -> &Root {
        &self.root.value
    }

    /// Logs with commits that are not rolled up, and the number of the first of these.
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

    /// All that the catalog says about a range.
    ///
    /// # Errors
    /// What the store says.
    pub async fn window(&self, range: TimeRange) -> Result<Window, Failure> {
        self.window_of(Asked::all(range)).await
    }

    /// What the catalog says that is asked for.
    ///
    /// # Errors
    /// What the store says.
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

    /// Whoever was taken in after the root of this view was taken in by a newer one: if there is none, roots
    /// are lost, and what they said.
    async fn look_for_newer_root(&self, window: &mut Window) -> Result<(), Failure> {
        let newcomers = std::mem::take(&mut window.newcomers).into_iter();
        let unknown = newcomers.filter(|(owner, _)| self.tail.state(*owner).is_none());
        let Some(newest) = unknown.map(|(_, admitted)| admitted).max() else { return Ok(()) };
        if newest <= self.seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = names::root(newest);
        // By its name first: a listing may not have a root that was put seconds ago. Once newer ones replaced it
        // for long it is not there any more, and these are listed.
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
    /// What the store says.
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

    /// Ended generations that are not among those that are stored as such. What each writer says of itself stays, so that one
    /// which neither goes on nor has ended is missed.
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
            // Of one that was killed before its first commit there is nothing to say. It was marked as open before that,
            // and is stored as ended before the mark goes. A listing may not show yet what was put just now.
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

    /// Every generation there ever was: as many requests as have ended since this was asked last.
    ///
    /// # Errors
    /// What the store says.
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
        // What this view followed itself is of its moment.
        for (of, state) in self.tail.generations() {
            generations.insert(of, Arc::new(state.clone()));
        }
        Ok(Generations { generations: generations.into_values().collect(), gaps })
    }
}

/// The generations that objects below a folder are named by.
async fn owners(
    store: &Store,
    folder: &Path,
    parse: fn(&Path) -> Option<GenerationId>,
) -> Result<BTreeSet<GenerationId>, Failure> {
    let named = store.list(folder).try_filter_map(async |object| Ok(parse(&object.path)));
    named.try_collect().await
}

impl Window {
    /// Whether somebody records what happens now, as opposed to reading a capture that exists. Of whom nothing is
    /// known it is taken for true: then moments without it are told.
    pub fn is_live(&self, of: GenerationId) -> bool {
        let info = self.writers.get(&of).and_then(Option::as_ref);
        info.is_none_or(|info| info.kind == WriterKind::Live)
    }

    /// Adds what is hidden, if a question about a range is concerned. One object is told once.
    pub(super) fn add_gap(&mut self, gap: Option<&Gap>, asked: &TimeRange) {
        let concerns = |gap: &&Gap| {
            gap.about.touches(asked) && self.gaps.iter().all(|known| known.object != gap.object)
        };
        if let Some(gap) = gap.filter(concerns) {
            self.gaps.push(gap.clone());
        }
    }

    /// Takes in a fact, if it is asked for.
    pub(super) fn take(&mut self, fact: &KnownFact, asked: Asked<'_>) {
        let range = asked.range;
        match fact {
            KnownFact::Segment(segment) => {
                if segment.entry.touches(&range) {
                    self.segments.push(Arc::clone(segment));
                }
                if segment.entry.secrets {
                    self.secrets.push(Arc::clone(segment));
                }
            }
            KnownFact::Change(said) => self.changes.push(said.fact.clone()),
            KnownFact::Listened(said) if asked.statements => {
                if said.fact.range.intersect(&range).is_some() {
                    self.listened.push(said.clone());
                }
            }
            KnownFact::Loss(said) if asked.statements => {
                if said.fact.touches(&range) {
                    self.losses.push(said.clone());
                }
            }
            KnownFact::Listened(_) | KnownFact::Loss(_) => {}
        }
    }

    /// Sorts, leaves out what several slots say, and gives each segment what became of it.
    fn put_in_order(&mut self) {
        fn segment(of: &Segment) -> (GenerationId, u64, u64, &str) {
            (of.of, of.by.seq, of.entry.first_ordinal, &of.entry.name)
        }
        let changes = std::mem::take(&mut self.changes);
        for segments in [&mut self.segments, &mut self.secrets] {
            segments.sort_by(|a, b| segment(a).cmp(&segment(b)));
            segments.dedup_by(|a, b| segment(a) == segment(b));
            segment_state::apply(segments, &changes);
        }
        fn said<T>(of: &Attributed<T>, range: &TimeRange) -> (GenerationId, u64, Time, Time) {
            (of.by, of.seq, range.start, range.end)
        }
        self.listened.sort_by_key(|of| (said(of, &of.fact.range), of.fact.interfaces.clone()));
        self.listened.dedup();
        self.losses.sort_by_key(|of| {
            (said(of, &of.fact.range), of.fact.interface, of.fact.cause.name(), of.fact.packets)
        });
        self.losses.dedup();
    }
}
