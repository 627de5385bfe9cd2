//! The store at a moment: what the catalog says, and segments opened for reading.
//!
//! A [`Snapshot`] never changes, so all parts of one answer are of one moment.
//! [`Snapshot::refresh`] makes the next one, and costs little when nothing was committed.
//! Opened segments are shared by all snapshots of a store.
//!
//! * [`plan`]: which requests are sent for some byte ranges, and what that costs
//! * `open`: one opened segment; `cache`: those kept open; `latest`: the newest snapshot
//! * `in_use`: keeping what a snapshot names while an answer is made from it

mod cache;
mod in_use;
mod latest;
mod open;
pub mod plan;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use capstan_model::{Failure, Generation, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{self, Life, Segment, View, Window};
use capstan_storage_engine::store::Store;
use tokio::sync::{Mutex, Semaphore};

use self::cache::Cache;
pub use self::in_use::InUse;
pub use self::latest::{FRESHNESS, Latest};
pub use self::open::OpenSegment;
pub use self::plan::{Cost, Plan};

/// Bytes of opened segments that are kept for the next question, unless said otherwise.
pub const CACHE_BYTES: usize = 64 << 20;

/// GETs in flight, of everything that reads from one store in this process.
const GETS_IN_FLIGHT: usize = 32;

/// Windows that are kept for the next part of an answer.
const WINDOWS: usize = 4;

/// The store at a moment; see the module.
#[derive(Debug)]
pub struct Snapshot {
    shared: Arc<Shared>,
    view: View,
    windows: Mutex<VecDeque<(TimeRange, Arc<Window>)>>,
    in_use: std::sync::Mutex<Weak<InUse>>,
}

/// What all snapshots of a store have in common.
#[derive(Debug)]
struct Shared {
    store: Store,
    opened: Cache<OpenSegment>,
    gets: Arc<Semaphore>,
    /// It was told that the store lets this process lease nothing.
    was_refused: AtomicBool,
}

impl Snapshot {
    fn of(shared: Arc<Shared>, view: View) -> Arc<Snapshot> {
        let (windows, in_use) = (Mutex::default(), std::sync::Mutex::default());
        Arc::new(Snapshot { shared, view, windows, in_use })
    }

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
        let view = View::load(&store).await?;
        let opened = Cache::new(cache_bytes);
        let gets = Arc::new(Semaphore::new(GETS_IN_FLIGHT));
        let was_refused = AtomicBool::new(false);
        let shared = Arc::new(Shared { store, opened, gets, was_refused });
        Ok(Snapshot::of(shared, view))
    }

    /// The store as it is now: this snapshot itself if nothing was committed since.
    ///
    /// # Errors
    /// What the store says; this snapshot stays good.
    pub async fn refresh(self: &Arc<Self>) -> Result<Arc<Snapshot>, Failure> {
        let view = self.view.refresh().await?;
        if view.is_same(&self.view) {
            return Ok(Arc::clone(self));
        }
        Ok(Snapshot::of(Arc::clone(&self.shared), view))
    }

    /// The store it is of.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// What the catalog says about a range: requests for the hours that were not asked about
    /// before.
    ///
    /// # Errors
    /// What the store says. Damaged entries are no errors: see [`Window::problems`].
    pub async fn window(&self, range: TimeRange) -> Result<Arc<Window>, Failure> {
        let mut windows = self.windows.lock().await;
        if let Some((_, window)) = windows.iter().find(|(known, _)| *known == range) {
            return Ok(Arc::clone(window));
        }
        let window = Arc::new(self.view.window(range).await?);
        windows.truncate(WINDOWS - 1);
        windows.push_front((range, Arc::clone(&window)));
        Ok(window)
    }

    /// Every life of every recorder, by recorder and generation.
    ///
    /// # Errors
    /// What the store says.
    pub async fn lives(&self) -> Result<Vec<Arc<Life>>, Failure> {
        self.view.lives().await
    }

    /// When a recorder began its first life, by its own clock; none if that cannot be read.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn began(
        &self,
        recorder: RecorderId,
        window: &Window,
    ) -> Result<Option<Time>, Failure> {
        let first = Generation(1);
        let info = match window.writers.get(&(recorder, first)) {
            Some(known) => known.clone(),
            None => catalog::writer(self.store(), recorder, first).await?,
        };
        Ok(info.map(|info| info.started_at))
    }

    /// What is wrong with the catalog as a whole, in words; a [`Window`] has what is wrong with its
    /// hours.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.view.problems()
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
