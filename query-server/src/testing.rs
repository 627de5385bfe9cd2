//! Views of stores for tests.

use std::sync::Arc;

use capstan_fixtures::{Given, Recording, store_of};
use capstan_view::StoreView;

/// A view of a store with one recording.
pub(crate) async fn view_of(recording: Recording, given: Vec<Given>) -> Arc<StoreView> {
    StoreView::load(store_of(recording, given).await).await.expect("a view")
}
