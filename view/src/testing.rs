//! Views of stores for tests.

use std::sync::Arc;

use capstan_fixtures::{Given, Recording, store_of};
use capstan_model::TimeRange;
use capstan_storage_engine::catalog::Segment;

use crate::access::Principal;
use crate::{ScopedView, StoreView};

/// A view as a principal with all rights and without a mask sees it.
pub(crate) fn whole(view: &Arc<StoreView>) -> ScopedView {
    view.scoped(&Principal::everything())
}

/// A view of a store with one recording.
pub(crate) async fn view_of(recording: Recording, given: Vec<Given>) -> Arc<StoreView> {
    StoreView::load(store_of(recording, given).await).await.unwrap()
}

/// Every segment that a view lists.
pub(crate) async fn segments(view: &StoreView) -> Vec<Arc<Segment>> {
    view.window(TimeRange::ALL).await.unwrap().segments.clone()
}
