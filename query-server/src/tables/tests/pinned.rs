//! What a running statement reads stays in the store.

use std::sync::Arc;

use capstan_fixtures::{Recording, traffic};
use capstan_view::access::Principal;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use crate::flight::session_config;
use crate::testing::view_of;

#[tokio::test(flavor = "multi_thread")]
async fn running_statement_pins_the_view() {
    let view = view_of(Recording::of(1), traffic(1, 100, 0, 1_000)).await;
    let scoped = view.scoped(&Principal::everything());
    let state = crate::tables::session(&scoped, session_config(), Arc::default());
    let context = SessionContext::new_with_state(state.unwrap());
    assert!(!view.is_pinned());
    let frame = context.sql("SELECT ordinal FROM packets").await.unwrap();
    let mut rows = frame.execute_stream().await.unwrap();
    assert!(view.is_pinned());
    while rows.try_next().await.unwrap().is_some() {}
    drop(rows);
    assert!(!view.is_pinned());
}
