//! The catalog as readers see it: the newest root, the logs tailed from where it says, and the
//! manifests of the hours that a question is about.
//!
//! A [`View`] is of one moment and never changes; [`View::refresh`] makes the next. What it costs
//! to make one follows the number of open logs; what a [`View::window`] costs follows the hours
//! asked for. Neither grows with the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use capstan_model::coverage::{Listened, Loss};
use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind, Generation, RecorderId, Time, TimeRange};
use futures::{StreamExt, TryStreamExt, stream};

use super::entry::{WriterInfo, WriterKind};
use super::filter::AddressFilter;
use super::fold::{begin, open_logs};
use super::life::Life;
use super::root::Root;
use super::slots::Slots;
use super::state::{Catalog, Said, Segment};
use super::versions::{self, Versioned};
use crate::store::{Store, names};

/// Requests in flight.
const AT_ONCE: usize = 32;

/// Roots that are tried when the newest ones are damaged.
const OLDER_ROOTS: usize = 8;

/// Lives by who lived them.
type Lives = BTreeMap<(RecorderId, Generation), Arc<Life>>;

/// The catalog at a moment.
#[derive(Debug, Clone)]
pub struct View {
    store: Store,
    root: Arc<Versioned<Root>>,
    /// What commits say that the root does not know, and the lives of all open logs.
    tail: Arc<Catalog>,
    slots: Arc<Slots>,
    ended: Arc<Mutex<Lives>>,
    problems: Arc<BTreeSet<String>>,
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
    pub listened: Vec<Said<Listened>>,
    /// What is missing in it. A loss at a single moment has a range of one nanosecond or none.
    pub losses: Vec<Said<Loss>>,
    /// Whose all this is; none if what it said of itself cannot be read.
    pub writers: BTreeMap<(RecorderId, Generation), Option<WriterInfo>>,
    /// Segments of its hours that were passed over together, as none of them has the addresses asked for.
    /// One that touches several hours counts in each.
    pub passed_over: u64,
    /// What is wrong with the objects that were read for it, in words.
    pub problems: Vec<String>,
}

impl View {
    /// The catalog as it is now.
    ///
    /// # Errors
    /// What the store says. Damaged objects are no errors: see [`View::problems`].
    pub async fn load(store: &Store) -> Result<View, Failure> {
        let nothing = Versioned { value: Root::empty(), sha256: String::new() };
        let view = View {
            store: store.clone(),
            root: Arc::new(nothing),
            tail: Arc::default(),
            slots: Arc::default(),
            ended: Arc::default(),
            problems: Arc::default(),
        };
        view.next(None).await
    }

    /// The catalog as it is now, what is known already shared with this view.
    ///
    /// # Errors
    /// As [`View::load`]; this view stays good.
    pub async fn refresh(&self) -> Result<View, Failure> {
        self.next(Some((*self.root).clone())).await
    }

    async fn next(&self, known: Option<Versioned<Root>>) -> Result<View, Failure> {
        let store = &self.store;
        // Names of logs first: one that is not there any more has ended, and the root says so.
        let open = open_logs(store).await?;
        let mut problems = BTreeSet::new();
        let root = match versions::newest_root(store, known).await {
            Err(failure) if failure.kind() == FailureKind::Damaged => {
                problems.insert(failure.to_string());
                versions::older_root(store, OLDER_ROOTS).await?
            }
            root => root?,
        };
        problems.extend(root.value.problems.iter().cloned());
        let mut tail = if self.root.value.version == root.value.version {
            (*self.tail).clone()
        } else {
            Catalog::of_lives(root.value.logs.iter().map(|log| log.life.clone()))
        };
        let new = open.into_iter().filter(|owner| tail.life(*owner).is_none());
        for (life, found) in self.begin(new.collect()).await? {
            problems.extend(found);
            tail.add_life(life);
        }
        tail.follow(store).await?;
        problems.extend(tail.problems().iter().map(|problem| with_causes(problem)));
        Ok(View {
            root: Arc::new(root),
            tail: Arc::new(tail),
            problems: Arc::new(problems),
            ..self.clone()
        })
    }

    /// Lives that the root does not name, before their first commit, and what is wrong with them.
    async fn begin(
        &self,
        owners: Vec<(RecorderId, Generation)>,
    ) -> Result<Vec<(Life, Vec<String>)>, Failure> {
        let store = &self.store;
        let read = stream::iter(owners).map(|(recorder, generation)| async move {
            // Without a first commit nothing was committed, or it was all removed since: then the name
            // is one that could not be.
            let first = names::commit(recorder, generation, 0);
            if store.head(&first).await?.is_none()
                && versions::read_ended(store, recorder, generation).await?.is_some()
            {
                return Ok(None);
            }
            Ok::<_, Failure>(Some(begin(store, recorder, generation).await?))
        });
        read.buffered(AT_ONCE).try_filter_map(|begun| async move { Ok(begun) }).try_collect().await
    }

    /// The store it is of.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What is wrong with the catalog, in words; empty if nothing is. What is wrong with one hour is
    /// said by its [`Window`].
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().map(String::as_str)
    }

    /// The root it begins with.
    pub fn root(&self) -> &Root {
        &self.root.value
    }

    /// Logs with commits that are not folded, and the number of the first of these.
    pub fn waiting(&self) -> impl Iterator<Item = (RecorderId, Generation, u64)> {
        self.tail.lives().filter_map(|(recorder, generation, life)| {
            let log = self.root.value.log((recorder, generation));
            let folded = log.map_or(0, |log| log.life.chain().next());
            (life.chain().next() > folded).then_some((recorder, generation, folded))
        })
    }

    /// Whether two views are of the same state.
    pub fn is_same(&self, other: &View) -> bool {
        self.root.value.version == other.root.value.version
            && self.problems == other.problems
            && self.tail.lives().eq(other.tail.lives())
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
        for read in self.slots.read(&self.store, &self.root.value, asked).await? {
            read.take(&self.root.value, asked, &mut window);
        }
        for (recorder, generation, life) in self.tail.lives() {
            let info = life.writer().map(|writer| writer.info.clone());
            window.writers.insert((recorder, generation), info);
        }
        window.segments.extend(self.tail.segments(range).cloned());
        let secrets = self.tail.segments(TimeRange::ALL).filter(|of| of.entry.secrets);
        window.secrets.extend(secrets.cloned());
        if asked.statements {
            window.listened.extend(self.tail.coverage(range).cloned());
            window.losses.extend(self.tail.losses(range).cloned());
        }
        window.put_in_order();
        Ok(window)
    }

    /// Every life there ever was, by recorder and generation: as many requests as have ended since
    /// this was asked last.
    ///
    /// # Errors
    /// What the store says.
    pub async fn lives(&self) -> Result<Vec<Arc<Life>>, Failure> {
        let store = &self.store;
        let listed: BTreeSet<_> = store
            .list(&names::lives())
            .try_filter_map(|object| async move { Ok(names::parse_ended(&object.path)) })
            .try_collect()
            .await?;
        let known = || self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown: Vec<_> = {
            let known = known();
            listed.into_iter().filter(|owner| !known.contains_key(owner)).collect()
        };
        let mut read = stream::iter(unknown)
            .map(|(recorder, generation)| versions::read_ended(store, recorder, generation))
            .buffered(AT_ONCE);
        while let Some(life) = read.try_next().await? {
            known().extend(life.map(|life| (life.owner(), Arc::new(life))));
        }
        let mut lives = known().clone();
        // What this view followed itself is of its moment.
        for (recorder, generation, life) in self.tail.lives() {
            lives.insert((recorder, generation), Arc::new(life.clone()));
        }
        Ok(lives.into_values().collect())
    }
}

impl Window {
    /// Whether somebody records what happens now, as opposed to reading a capture that exists.
    pub fn is_live(&self, recorder: RecorderId, generation: Generation) -> bool {
        let info = self.writers.get(&(recorder, generation)).and_then(Option::as_ref);
        info.is_some_and(|info| info.kind == WriterKind::Live)
    }

    /// Sorts, and leaves out what several slots say.
    fn put_in_order(&mut self) {
        fn segment(of: &Segment) -> (RecorderId, Generation, u64, u64, &str) {
            (of.recorder, of.generation, of.seq, of.entry.first_ordinal, &of.entry.name)
        }
        for segments in [&mut self.segments, &mut self.secrets] {
            segments.sort_by(|a, b| segment(a).cmp(&segment(b)));
            segments.dedup_by(|a, b| segment(a) == segment(b));
        }
        fn said<T>(of: &Said<T>, range: &TimeRange) -> (RecorderId, Generation, u64, Time, Time) {
            (of.recorder, of.generation, of.seq, range.start, range.end)
        }
        self.listened.sort_by_key(|of| (said(of, &of.what.range), of.what.interfaces.clone()));
        self.listened.dedup();
        self.losses.sort_by_key(|of| {
            (said(of, &of.what.range), of.what.interface, of.what.cause.name(), of.what.packets)
        });
        self.losses.dedup();
    }
}
