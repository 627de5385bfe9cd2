//! The store at a moment: what the catalog says, and segments opened for reading.
//!
//! A [`StoreView`] never changes, so all parts of one answer are of one moment.
//! [`StoreView::refresh`] makes the next one, and costs little when nothing was committed.
//! OpenCache segments are shared by all views of a store.
//!
//! * [`plan`]: which requests are sent for some byte ranges, and what that costs
//! * `open`: one opened segment; `open_cache`: those kept open; `objects`: the way to their bytes, through the cache
//! * `latest`: the newest view
//! * `pinned`: keeping what a view names while an answer is made from it

mod latest;
mod objects;
mod open;
mod open_cache;
mod pinned;
pub mod plan;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, Weak};

use capstan_model::{Failure, Generation, GenerationId, RecorderId, Time, TimeRange};
use capstan_storage_engine::cache::Cache;
use capstan_storage_engine::catalog::{
    self, AddressFilter, Asked, CatalogView, Generations, Segment, Window,
};
use capstan_storage_engine::store::Store;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

pub use self::latest::{FRESHNESS, LatestView};
use self::objects::Objects;
pub use self::open::OpenSegment;
use self::open_cache::OpenCache;
pub use self::pinned::PinnedView;
pub use self::plan::{Cost, Plan};
use crate::select::FlowFilter;

/// Memory for opened segments, bytes.
const OPEN_CACHE_BYTES: usize = 64 << 20;

/// Memory for pieces of objects where no cache is given, bytes: what one question reads twice.
pub const CACHE_BYTES: usize = 8 << 20;

/// Windows that are kept for the next part of an answer.
const WINDOWS: usize = 4;

/// The store at a moment; see the module.
#[derive(Debug)]
pub struct StoreView {
    shared: Arc<Shared>,
    catalog: CatalogView,
    /// Windows that are known or being asked for, the newest first.
    windows: std::sync::Mutex<VecDeque<(Question, Place)>>,
    pinned: std::sync::Mutex<Weak<PinnedView>>,
}

/// Where a window comes to be known.
type Place = Arc<OnceCell<Arc<Window>>>;

/// What a window was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    range: TimeRange,
    flows: FlowFilter,
    statements: bool,
}

/// What all views of a store have in common.
#[derive(Debug)]
struct Shared {
    objects: Arc<Objects>,
    opened: OpenCache<OpenSegment>,
    /// It was told that the store lets this process lease nothing.
    was_refused: AtomicBool,
    /// Where the store was opened: tasks that may outlive a question run there.
    home: Handle,
}

impl StoreView {
    fn of(shared: Arc<Shared>, catalog: CatalogView) -> Arc<StoreView> {
        let (windows, pinned) = (std::sync::Mutex::default(), std::sync::Mutex::default());
        Arc::new(StoreView { shared, catalog, windows, pinned })
    }

    /// Reads the catalog of a store, for one question.
    ///
    /// # Errors
    /// What the store says. Damaged entries are no errors: see [`Window::gaps`] and [`StoreView::notes`].
    pub async fn load(store: Store) -> Result<Arc<StoreView>, Failure> {
        StoreView::load_with(store, Cache::in_memory(CACHE_BYTES)).await
    }

    /// As [`StoreView::load`], with a cache for what is read of segments.
    ///
    /// # Errors
    /// As [`StoreView::load`].
    pub async fn load_with(store: Store, cache: Cache) -> Result<Arc<StoreView>, Failure> {
        let catalog = CatalogView::load(&store).await?;
        let objects = Arc::new(Objects::new(store, cache));
        let (opened, was_refused) = (OpenCache::new(OPEN_CACHE_BYTES), AtomicBool::new(false));
        let home = Handle::current();
        Ok(StoreView::of(Arc::new(Shared { objects, opened, was_refused, home }), catalog))
    }

    /// The store as it is now: this view itself if nothing was committed since.
    ///
    /// # Errors
    /// What the store says; this view stays good.
    pub async fn refresh(self: &Arc<Self>) -> Result<Arc<StoreView>, Failure> {
        let catalog = self.catalog.refresh().await?;
        if catalog.is_same(&self.catalog) {
            return Ok(Arc::clone(self));
        }
        Ok(StoreView::of(Arc::clone(&self.shared), catalog))
    }

    /// The store it is of.
    pub fn store(&self) -> &Store {
        &self.shared.objects.store
    }

    /// All that the catalog says about a range: requests for the hours that were not asked about
    /// before.
    ///
    /// # Errors
    /// What the store says. Damaged entries are no errors: see [`Window::gaps`].
    pub async fn window(&self, range: TimeRange) -> Result<Arc<Window>, Failure> {
        self.ask(Question { range, flows: FlowFilter::all(), statements: true }).await
    }

    /// As [`StoreView::window`], but segments without such flows may be missing.
    ///
    /// # Errors
    /// As [`StoreView::window`].
    pub async fn window_of(
        &self,
        range: TimeRange,
        flows: &FlowFilter,
    ) -> Result<Arc<Window>, Failure> {
        self.ask(Question { range, flows: flows.clone(), statements: true }).await
    }

    /// As [`StoreView::window_of`], but nothing is said of what was listened to and lost.
    ///
    /// # Errors
    /// As [`StoreView::window`].
    pub async fn segments_of(
        &self,
        range: TimeRange,
        flows: &FlowFilter,
    ) -> Result<Arc<Window>, Failure> {
        self.ask(Question { range, flows: flows.clone(), statements: false }).await
    }

    /// Who asks what is being asked for waits for that; nobody waits for another question.
    async fn ask(&self, question: Question) -> Result<Arc<Window>, Failure> {
        let window = self.place(&question);
        let Question { range, flows, statements } = question;
        let asking = async || {
            let addresses = |filter: &AddressFilter| flows.may_be_among(filter);
            let asked = Asked { range, addresses: Some(&addresses), statements };
            self.catalog.window_of(asked).await.map(Arc::new)
        };
        window.get_or_try_init(asking).await.cloned()
    }

    /// The place of a question's window, a new one if it was not asked lately.
    fn place(&self, question: &Question) -> Place {
        // The data is valid between statements, so a poisoned lock may be used.
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, window)) = windows.iter().find(|(known, _)| known == question) {
            return Arc::clone(window);
        }
        let window = Arc::new(OnceCell::new());
        windows.truncate(WINDOWS - 1);
        windows.push_front((question.clone(), Arc::clone(&window)));
        window
    }

    /// Every generation of every recorder.
    ///
    /// # Errors
    /// What the store says.
    pub async fn generations(&self) -> Result<Generations, Failure> {
        self.catalog.generations().await
    }

    /// When a recorder began its first generation, by its own clock; none if that cannot be read.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn began(
        &self,
        recorder: RecorderId,
        window: &Window,
    ) -> Result<Option<Time>, Failure> {
        let first = GenerationId::new(recorder, Generation(1));
        let info = match window.writers.get(&first) {
            Some(known) => known.clone(),
            None => catalog::writer(self.store(), first).await?,
        };
        Ok(info.map(|info| info.started_at))
    }

    /// What is wrong with the catalog and hides nothing, in words; a [`Window`] has what is hidden of it.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.catalog.notes()
    }

    /// Opens a segment: one GET of its `index` layer, or none if that [is kept](StoreView::is_kept).
    ///
    /// # Errors
    /// What the store says; of kind `Damaged` if the layer is not what was committed.
    pub async fn open(&self, segment: &Segment) -> Result<Arc<OpenSegment>, Failure> {
        let Shared { objects, opened, .. } = &*self.shared;
        let entry = segment.now();
        let open = || async {
            let segment = OpenSegment::open(&entry, objects).await?;
            let weight = segment.segment().memory();
            Ok((segment, weight))
        };
        opened.get(&opened_as(segment), open).await
    }

    /// Whether a segment is open, or the cache has its `index` layer.
    pub fn is_kept(&self, segment: &Segment) -> bool {
        let Shared { objects, opened, .. } = &*self.shared;
        opened.contains(&opened_as(segment)) || OpenSegment::is_kept(&segment.now(), objects)
    }
}

/// What an opened segment is kept by: its name, and what it has now. A view that knows of a layer that was retired does
/// not read it, and one that does not may.
fn opened_as(segment: &Segment) -> Cow<'_, str> {
    let name = &segment.entry.name;
    if segment.state.is_none() {
        return Cow::Borrowed(name);
    }
    let layers: Vec<&str> = segment.layers().map(|layer| layer.sha256.as_str()).collect();
    Cow::Owned(format!("{name} {}", layers.join(" ")))
}
