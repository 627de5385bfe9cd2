//! A view as a principal sees it: the only way from a store to its facts and flows.
//!
//! The mask of the principal narrows each lookup in the catalog and each segment that is opened, below everything that
//! selects, counts, plans or exports.

use std::borrow::Cow;
use std::sync::Arc;

use capstan_index::filter::FlowFilter;
use capstan_model::{Failure, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{Generations, Segment, SegmentEntry, Window};
use capstan_storage_engine::segment::Layers;
use capstan_storage_engine::store::Prices;

use super::{Plan, ScopedSegment, StoreView};
use crate::access::{self, Principal, Right};

/// See the module.
#[derive(Debug, Clone)]
pub struct ScopedView {
    view: Arc<StoreView>,
    who: Arc<Principal>,
}

impl StoreView {
    /// The view as a principal sees it.
    pub fn scoped(self: &Arc<Self>, who: &Arc<Principal>) -> ScopedView {
        ScopedView { view: Arc::clone(self), who: Arc::clone(who) }
    }
}

impl ScopedView {
    pub(super) fn view(&self) -> &Arc<StoreView> {
        &self.view
    }

    /// Whether both are the same view of the store, for whichever principals.
    pub fn is_same(&self, other: &ScopedView) -> bool {
        Arc::ptr_eq(&self.view, &other.view)
    }

    /// Who asks.
    pub fn who(&self) -> &Arc<Principal> {
        &self.who
    }

    /// The layers that are known.
    pub fn layers(&self) -> Layers {
        self.view.layers()
    }

    /// The place of the store: a folder, or a bucket with a prefix.
    pub fn place(&self) -> &str {
        self.view.store().place()
    }

    /// The cluster that the store is of.
    pub fn cluster(&self) -> &str {
        &self.view.store().format().cluster
    }

    /// Whether requests to the store take time, as those to a bucket.
    pub fn is_remote(&self) -> bool {
        self.view.store().is_remote()
    }

    /// The prices of requests to the store.
    pub fn prices(&self) -> &Prices {
        self.view.store().prices()
    }

    /// What the catalog says about a time range, as far as it does not depend on hidden flows. Sends requests only for
    /// hours that are not loaded yet.
    ///
    /// # Errors
    /// Any failure of the store. Damaged entries are not errors: see [`Window::gaps`].
    pub async fn window(&self, range: TimeRange) -> Result<Arc<Window>, Failure> {
        self.shown(self.view.window(range).await, range)
    }

    /// Like [`ScopedView::window`], but segments without matching flows may be pruned.
    ///
    /// # Errors
    /// As [`ScopedView::window`].
    pub async fn window_of(
        &self,
        range: TimeRange,
        flows: &FlowFilter,
    ) -> Result<Arc<Window>, Failure> {
        self.shown(self.view.window_of(range, &self.narrowed(flows)).await, range)
    }

    /// Like [`ScopedView::window_of`], but without coverage and losses.
    ///
    /// # Errors
    /// As [`ScopedView::window`].
    pub async fn segments_of(
        &self,
        range: TimeRange,
        flows: &FlowFilter,
    ) -> Result<Arc<Window>, Failure> {
        self.shown(self.view.segments_of(range, &self.narrowed(flows)).await, range)
    }

    fn narrowed<'a>(&self, flows: &'a FlowFilter) -> Cow<'a, FlowFilter> {
        match self.who.mask() {
            Some(mask) => Cow::Owned(mask.narrowed(flows)),
            None => Cow::Borrowed(flows),
        }
    }

    fn shown(
        &self,
        window: Result<Arc<Window>, Failure>,
        range: TimeRange,
    ) -> Result<Arc<Window>, Failure> {
        let window = window.map_err(|failure| self.redacted(failure))?;
        Ok(match self.who.is_masked() {
            true => Arc::new(access::visible(&window, range)),
            false => window,
        })
    }

    /// The facts of a window that an answer may state: for a masked principal, its segments say nothing.
    pub fn statements<'a>(&self, window: &'a Window) -> Cow<'a, Window> {
        match self.who.is_masked() {
            true => Cow::Owned(access::statements(window)),
            false => Cow::Borrowed(window),
        }
    }

    /// Whether a segment may have visible flows that match, decided from its catalog entry. False is certain.
    pub fn may_match(&self, entry: &SegmentEntry, flows: &FlowFilter) -> bool {
        entry.may_match(&self.narrowed(flows))
    }

    /// Every generation of every recorder.
    ///
    /// # Errors
    /// Any failure of the store; the principal lacks [`Right::CatalogRead`].
    pub async fn generations(&self) -> Result<Generations, Failure> {
        self.who.require(Right::CatalogRead, "the list of writers")?;
        self.view.generations().await
    }

    /// Problems of the catalog that hide nothing, in words. For problems that hide facts see [`Window`]. None without
    /// [`Right::CatalogRead`].
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        let told = self.who.require(Right::CatalogRead, "notes").is_ok();
        self.view.notes().filter(move |_| told)
    }

    /// When a recorder began its first generation, by its own clock; none if that cannot be read. Export uses it for
    /// the order of packets.
    ///
    /// # Errors
    /// Any failure of the store.
    pub async fn began(
        &self,
        recorder: RecorderId,
        window: &Window,
    ) -> Result<Option<Time>, Failure> {
        let began = self.view.began(recorder, window).await;
        began.map_err(|failure| self.redacted(failure))
    }

    /// A plan of reads from this store, without any.
    pub fn new_plan(&self) -> Plan {
        self.view.new_plan()
    }

    /// Opens a segment: one GET of its `index` layer, or none if that is [cached](ScopedView::is_kept).
    ///
    /// # Errors
    /// Any failure of the store; of kind `Damaged` if the layer is not what was committed.
    pub async fn open(&self, segment: &Segment) -> Result<Arc<ScopedSegment>, Failure> {
        let open = self.view.open(segment).await?;
        Ok(Arc::new(ScopedSegment::new(open, &self.who)?))
    }

    /// Whether a segment is open, or the cache has its `index` layer.
    pub fn is_kept(&self, segment: &Segment) -> bool {
        self.view.is_kept(segment)
    }

    /// A failure as the principal gets it: the text of a failure of the store may be about hidden flows.
    pub fn redacted(&self, failure: Failure) -> Failure {
        self.who.told(failure)
    }
}
