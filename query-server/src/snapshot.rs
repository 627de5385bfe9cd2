//! The store at a moment: what the catalog says, and segments opened for reading.
//!
//! A [`Snapshot`] never changes, so all parts of one answer are of one moment.
//! [`Snapshot::refresh`] makes the next one, and costs little when nothing was committed.
//! Opened segments are shared by all snapshots of a store.
//!
//! * [`plan`]: which requests are sent for some byte ranges, and what that costs
//! * `open`: one opened segment; `cache`: those kept open; `latest`: the newest snapshot

mod cache;
mod latest;
mod open;
pub mod plan;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use capstan_model::coverage::{Listened, Loss};
use capstan_model::{Failure, Generation, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{Catalog, Finished, Segment, SourceMark, Writer, WriterKind};
use capstan_storage_engine::store::Store;
use tokio::sync::{Mutex, Semaphore};

use self::cache::Cache;
pub use self::latest::{FRESHNESS, Latest};
pub use self::open::OpenSegment;
pub use self::plan::{Cost, Plan};

/// Bytes of opened segments that are kept for the next question, unless said otherwise.
pub const CACHE_BYTES: usize = 64 << 20;

/// GETs in flight, of everything that reads from one store in this process.
const GETS_IN_FLIGHT: usize = 32;

/// The store at a moment; see the module.
#[derive(Debug)]
pub struct Snapshot {
    shared: Arc<Shared>,
    /// In the order of their commits within a log.
    segments: Vec<Arc<Segment>>,
    lives: BTreeMap<(RecorderId, Generation), Arc<Life>>,
    problems: Vec<Arc<str>>,
}

/// What all snapshots of a store have in common.
#[derive(Debug)]
struct Shared {
    store: Store,
    /// As far as it was followed: at least as far as any snapshot.
    catalog: Mutex<Catalog>,
    opened: Cache<OpenSegment>,
    gets: Arc<Semaphore>,
}

/// One life of a recorder, as of a snapshot.
#[derive(Debug, Clone)]
pub struct Life {
    /// Who.
    pub recorder: RecorderId,
    /// In which life.
    pub generation: Generation,
    /// What it says of itself; none if its object is missing or damaged.
    pub writer: Option<Writer>,
    /// How it ended, if it said so.
    pub finished: Option<Finished>,
    /// When and where it listened.
    pub listened: Vec<Listened>,
    /// What it knows to be missing.
    pub losses: Vec<Loss>,
    /// How many commits its log has.
    pub commits: u64,
    /// Packets committed.
    pub packets: u64,
    /// Of an import: how far its source was read.
    pub source_read: Option<SourceMark>,
    /// When it committed last, by its own clock.
    pub last_commit: Option<Time>,
    /// What its commits noted for people.
    pub notes: Vec<String>,
}

impl Life {
    /// Whether it records what happens now, as opposed to reading a capture that exists.
    pub fn is_live(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.info.kind == WriterKind::Live)
    }
}

impl Snapshot {
    /// Reads the catalog of a store.
    ///
    /// # Errors
    /// What the store says. Damaged entries are no errors: see [`Snapshot::problems`].
    pub async fn load(store: Store) -> Result<Arc<Snapshot>, Failure> {
        Snapshot::load_with(store, CACHE_BYTES).await
    }

    /// As [`Snapshot::load`], keeping at most `cache_bytes` of opened segments.
    ///
    /// # Errors
    /// As [`Snapshot::load`].
    pub async fn load_with(store: Store, cache_bytes: usize) -> Result<Arc<Snapshot>, Failure> {
        let catalog = Catalog::load(&store).await?;
        let nothing = Snapshot {
            shared: Arc::new(Shared {
                store,
                catalog: Mutex::default(),
                opened: Cache::new(cache_bytes),
                gets: Arc::new(Semaphore::new(GETS_IN_FLIGHT)),
            }),
            segments: Vec::new(),
            lives: BTreeMap::new(),
            problems: Vec::new(),
        };
        let snapshot = nothing.next(&catalog);
        *nothing.shared.catalog.lock().await = catalog;
        Ok(Arc::new(snapshot))
    }

    /// The store as it is now: this snapshot itself if nothing was committed since.
    ///
    /// # Errors
    /// What the store says; this snapshot stays good.
    pub async fn refresh(self: &Arc<Self>) -> Result<Arc<Snapshot>, Failure> {
        let mut catalog = self.shared.catalog.lock().await;
        catalog.refresh(&self.shared.store).await?;
        let same = catalog.problems().len() == self.problems.len()
            && catalog.lives().count() == self.lives.len()
            && catalog.lives().all(|(recorder, generation, life)| {
                let known = self.lives.get(&(recorder, generation));
                known.is_some_and(|known| known.commits == life.commits())
            });
        Ok(if same { Arc::clone(self) } else { Arc::new(self.next(&catalog)) })
    }

    /// The catalog, as it is now, as a snapshot; what this one has already is shared.
    fn next(&self, catalog: &Catalog) -> Snapshot {
        // A catalog only ever grows, at its end.
        let mut segments = self.segments.clone();
        let new = catalog.segments(TimeRange::ALL).skip(segments.len());
        segments.extend(new.map(|segment| Arc::new(segment.clone())));

        let mut lives = self.lives.clone();
        let mut changed = BTreeMap::new();
        for (recorder, generation, life) in catalog.lives() {
            let key = (recorder, generation);
            if lives.get(&key).is_some_and(|known| known.commits == life.commits()) {
                continue;
            }
            changed.insert(
                key,
                Life {
                    recorder,
                    generation,
                    writer: life.writer().cloned(),
                    finished: life.finished().cloned(),
                    listened: Vec::new(),
                    losses: Vec::new(),
                    commits: life.commits(),
                    packets: life.packets(),
                    source_read: life.source_read().cloned(),
                    last_commit: life.last_commit(),
                    notes: life.notes().to_vec(),
                },
            );
        }
        for (recorder, generation, listened) in catalog.coverage(TimeRange::ALL) {
            if let Some(life) = changed.get_mut(&(recorder, generation)) {
                life.listened.push(listened.clone());
            }
        }
        for (recorder, generation, loss) in catalog.losses(TimeRange::ALL) {
            if let Some(life) = changed.get_mut(&(recorder, generation)) {
                life.losses.push(loss.clone());
            }
        }
        lives.extend(changed.into_iter().map(|(key, life)| (key, Arc::new(life))));

        let mut problems = self.problems.clone();
        let new = catalog.problems().iter().skip(problems.len());
        problems.extend(new.map(|problem| match problem.source() {
            Some(source) => format!("{problem}: {source}").into(),
            None => problem.to_string().into(),
        }));
        Snapshot { shared: Arc::clone(&self.shared), segments, lives, problems }
    }

    /// The store it is of.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The segments that may hold packets of a range, in the order of their commits within
    /// a log. Those without any time belong to all of time only.
    pub fn segments(&self, range: TimeRange) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter().filter(move |segment| segment.entry.touches(&range))
    }

    /// Every life of every recorder, by recorder and generation.
    pub fn lives(&self) -> impl Iterator<Item = &Arc<Life>> {
        self.lives.values()
    }

    /// When and where was listened in a range: whose life, and its statement, not cut to
    /// the range.
    pub fn coverage(&self, range: TimeRange) -> impl Iterator<Item = (&Life, &Listened)> {
        self.lives.values().flat_map(move |life| {
            let inside = move |listened: &&Listened| listened.range.intersect(&range).is_some();
            life.listened.iter().filter(inside).map(move |listened| (&**life, listened))
        })
    }

    /// What is known to be missing in a range. A loss at a single moment has a range of one
    /// nanosecond or none; both are found.
    pub fn losses(&self, range: TimeRange) -> impl Iterator<Item = (&Life, &Loss)> {
        self.lives.values().flat_map(move |life| {
            life.losses
                .iter()
                .filter(move |loss| loss.touches(&range))
                .map(move |loss| (&**life, loss))
        })
    }

    /// What is wrong with the catalog, in words; empty if nothing is.
    pub fn problems(&self) -> &[Arc<str>] {
        &self.problems
    }

    /// Opens a segment: one GET of its `index` layer, or none if it is open already.
    ///
    /// # Errors
    /// What the store says; of kind `Damaged` if the layer is not what was committed.
    pub async fn open(&self, segment: &Segment) -> Result<Arc<OpenSegment>, Failure> {
        let Shared { store, opened, gets, .. } = &*self.shared;
        let entry = &segment.entry;
        let open = || async {
            let segment = OpenSegment::open(entry, store, gets).await?;
            let weight = segment.segment().memory();
            Ok((segment, weight))
        };
        opened.get(&entry.name, open).await
    }
}
