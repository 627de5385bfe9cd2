//! The store at one moment, as a principal sees it: the contents of the catalog, and segments opened for reading.
//!
//! A [`StoreView`] is immutable, so all parts of one answer describe the same moment.
//! [`StoreView::refresh`] returns the next view; it is cheap when nothing was committed. All views of a store
//! share the opened segments.
//!
//! A view is read for a principal: [`StoreView::scoped`] is the only way to facts and flows.
//!
//! * [`access`]: who asks, and what they may see: principals, rights and masks
//! * [`select`]: which flows a command, a request or a URL selects
//! * [`ScopedView`]: a view as a principal sees it; [`ScopedSegment`]: an opened segment as a principal sees it
//! * [`Plan`]: which requests fetch a set of byte ranges, and their [`Cost`]
//! * `open`: one opened segment; `open_cache`: the cache of opened segments; `objects`: reads of data objects
//!   through the byte cache
//! * `ahead`: how many segments are opened before they are needed
//! * `latest`: the newest view
//! * `pinned`: a lease on what a view names while an answer is made from it
//! * `incomplete`: which failures an answer survives, and the failure that ends it
//! * [`Deleted`]: what retention deleted of the data of an answer

#![forbid(unsafe_code)]

pub mod access;
mod ahead;
mod deleted;
mod incomplete;
mod latest;
mod objects;
mod open;
mod open_cache;
mod pinned;
mod plan;
mod scoped;
mod segment;
pub mod select;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, Weak};

use capstan_index::filter::FlowFilter;
use capstan_model::{Failure, Generation, GenerationId, RecorderId, Time, TimeRange};
use capstan_storage_engine::cache::Cache;
use capstan_storage_engine::catalog::{self, Asked, CatalogView, Generations, Segment, Window};
use capstan_storage_engine::segment::Layers;
use capstan_storage_engine::store::Store;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

pub use self::ahead::Ahead;
pub use self::deleted::{Deleted, MAY_BE_DELETED};
pub use self::incomplete::{left_out, may_skip};
pub use self::latest::{FRESHNESS, LatestView};
use self::objects::Objects;
use self::open::OpenSegment;
use self::open_cache::OpenCache;
use self::pinned::Pin;
pub use self::pinned::PinnedView;
pub use self::plan::{Cost, Plan};
pub use self::scoped::ScopedView;
pub use self::segment::{Matching, ScopedSegment, VisibleFlows};

/// Memory for opened segments unless said otherwise, bytes.
pub const OPENED_BYTES: usize = 64 << 20;

/// Memory for pieces of objects when no cache is given, bytes. It covers what one query reads twice.
pub const CACHE_BYTES: usize = 8 << 20;

/// Windows that are kept for later parts of an answer.
const WINDOWS: usize = 4;

/// The store at a moment; see the module.
#[derive(Debug)]
pub struct StoreView {
    shared: Arc<Shared>,
    catalog: CatalogView,
    /// Windows that are loaded or being loaded, the newest first.
    windows: std::sync::Mutex<VecDeque<(Question, Place)>>,
    pinned: std::sync::Mutex<Weak<Pin>>,
}

/// A slot for one window, filled by single-flight loading.
type Place = Arc<OnceCell<Arc<Window>>>;

/// The parameters of a window lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    range: TimeRange,
    flows: FlowFilter,
    statements: bool,
}

/// State shared by all views of a store.
#[derive(Debug)]
struct Shared {
    objects: Arc<Objects>,
    opened: OpenCache<OpenSegment>,
    /// The store has refused this process a lease.
    was_refused: AtomicBool,
    /// Runtime that opened the store. Tasks that may outlive a query run on it.
    home: Handle,
}

impl StoreView {
    fn of(shared: Arc<Shared>, catalog: CatalogView) -> Arc<StoreView> {
        let (windows, pinned) = (std::sync::Mutex::default(), std::sync::Mutex::default());
        Arc::new(StoreView { shared, catalog, windows, pinned })
    }

    /// Reads the catalog of a store, for one query.
    ///
    /// # Errors
    /// Any failure of the store. Damaged entries are not errors: see [`Window::gaps`] and [`ScopedView::notes`].
    pub async fn load(store: Store) -> Result<Arc<StoreView>, Failure> {
        StoreView::load_with(store, Cache::in_memory(CACHE_BYTES)).await
    }

    /// Like [`StoreView::load`], with a cache for reads of segments.
    ///
    /// # Errors
    /// As [`StoreView::load`].
    pub async fn load_with(store: Store, cache: Cache) -> Result<Arc<StoreView>, Failure> {
        StoreView::load_within(store, cache, OPENED_BYTES).await
    }

    /// Like [`StoreView::load_with`], with so many bytes of memory for opened segments.
    ///
    /// # Errors
    /// As [`StoreView::load`].
    pub async fn load_within(
        store: Store,
        cache: Cache,
        opened: usize,
    ) -> Result<Arc<StoreView>, Failure> {
        StoreView::load_as(Layers::KNOWN, store, cache, opened).await
    }

    /// Like [`StoreView::load_within`], as a build that knows these layers.
    ///
    /// # Errors
    /// As [`StoreView::load`].
    pub async fn load_as(
        layers: Layers,
        store: Store,
        cache: Cache,
        opened: usize,
    ) -> Result<Arc<StoreView>, Failure> {
        let catalog = CatalogView::load(&store).await?;
        let objects = Arc::new(Objects::new(store, cache, layers));
        let (opened, was_refused) = (OpenCache::new(opened), AtomicBool::new(false));
        let home = Handle::current();
        Ok(StoreView::of(Arc::new(Shared { objects, opened, was_refused, home }), catalog))
    }

    /// Returns the current view: this view itself if nothing was committed since.
    ///
    /// # Errors
    /// Any failure of the store; this view stays usable.
    pub async fn refresh(self: &Arc<Self>) -> Result<Arc<StoreView>, Failure> {
        let catalog = self.catalog.refresh().await?;
        if catalog.is_same(&self.catalog) {
            return Ok(Arc::clone(self));
        }
        Ok(StoreView::of(Arc::clone(&self.shared), catalog))
    }

    /// The store behind this view.
    pub fn store(&self) -> &Store {
        &self.shared.objects.store
    }

    /// The layers that are known.
    fn layers(&self) -> Layers {
        self.shared.objects.layers
    }

    /// Everything that the catalog says about a time range. Sends requests only for hours that are not loaded
    /// yet.
    ///
    /// # Errors
    /// Any failure of the store. Damaged entries are not errors: see [`Window::gaps`].
    async fn window(&self, range: TimeRange) -> Result<Arc<Window>, Failure> {
        self.ask(Question { range, flows: FlowFilter::all(), statements: true }).await
    }

    /// Like [`StoreView::window`], but segments without matching flows may be pruned.
    ///
    /// # Errors
    /// As [`StoreView::window`].
    async fn window_of(
        &self,
        range: TimeRange,
        flows: &FlowFilter,
    ) -> Result<Arc<Window>, Failure> {
        self.ask(Question { range, flows: flows.clone(), statements: true }).await
    }

    /// Like [`StoreView::window_of`], but without coverage and losses.
    ///
    /// # Errors
    /// As [`StoreView::window`].
    async fn segments_of(
        &self,
        range: TimeRange,
        flows: &FlowFilter,
    ) -> Result<Arc<Window>, Failure> {
        self.ask(Question { range, flows: flows.clone(), statements: false }).await
    }

    /// Identical requests share one lookup; different ones do not wait for each other.
    async fn ask(&self, question: Question) -> Result<Arc<Window>, Failure> {
        let window = self.place(&question);
        let Question { range, flows, statements } = question;
        let asking = async || {
            let asked = Asked { range, flows: Some(&flows), statements };
            self.catalog.window_of(asked).await.map(Arc::new)
        };
        window.get_or_try_init(asking).await.cloned()
    }

    /// The slot of a window lookup; a new one if the window is not cached.
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
    /// Any failure of the store.
    async fn generations(&self) -> Result<Generations, Failure> {
        self.catalog.generations().await
    }

    /// When a recorder began its first generation, by its own clock; none if that cannot be read.
    ///
    /// # Errors
    /// Any failure of the store.
    async fn began(&self, recorder: RecorderId, window: &Window) -> Result<Option<Time>, Failure> {
        let first = GenerationId::new(recorder, Generation(1));
        let info = match window.writers.get(&first) {
            Some(known) => known.clone(),
            None => catalog::writer(self.store(), first).await?,
        };
        Ok(info.map(|info| info.started_at))
    }

    /// Problems of the catalog that hide nothing, in words. For problems that hide facts see [`Window`].
    fn notes(&self) -> impl Iterator<Item = &str> {
        self.catalog.notes()
    }

    /// A plan of reads from this store, without any.
    fn new_plan(&self) -> Plan {
        Plan::new(self.shared.objects.gaps)
    }

    /// Opens a segment: one GET of its `index` layer, or none if that [is cached](StoreView::is_kept).
    ///
    /// # Errors
    /// Any failure of the store; of kind `Damaged` if the layer is not what was committed.
    async fn open(&self, segment: &Segment) -> Result<Arc<OpenSegment>, Failure> {
        let Shared { objects, opened, .. } = &*self.shared;
        let open = || async {
            let segment = OpenSegment::open(segment, objects).await?;
            let weight = segment.segment().memory();
            Ok((segment, weight))
        };
        opened.get(&opened_as(segment), open).await
    }

    /// Whether a segment is open, or the cache has its `index` layer.
    fn is_kept(&self, segment: &Segment) -> bool {
        let Shared { objects, opened, .. } = &*self.shared;
        opened.contains(&opened_as(segment)) || OpenSegment::is_kept(&segment.now(), objects)
    }
}

/// The cache key of an opened segment: its name and its present layers. A view that knows that a layer was
/// retired does not read it; an older view may.
fn opened_as(segment: &Segment) -> Cow<'_, str> {
    let name = &segment.entry.name;
    if segment.state.is_none() {
        return Cow::Borrowed(name);
    }
    let layers: Vec<&str> = segment.layers().map(|layer| layer.sha256.as_str()).collect();
    Cow::Owned(format!("{name} {}", layers.join(" ")))
}
