//! The newest view of a store, with a bounded age.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_model::Failure;
use capstan_storage_engine::cache::Cache;
use capstan_storage_engine::store::Store;
use tokio::sync::Mutex;

use super::{OPENED_BYTES, StoreView};

/// Default for the maximal age of a server's answer.
pub const FRESHNESS: Duration = Duration::from_secs(1);

/// Keeps the newest view of a store. Concurrent callers share one refresh and its result.
#[derive(Debug)]
pub struct LatestView {
    store: Store,
    cache: Cache,
    freshness: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    view: Arc<StoreView>,
    loaded: Instant,
}

impl LatestView {
    /// Loads a store, with reads through a cache. Views that it returns later are at most `freshness` old.
    ///
    /// # Errors
    /// Any failure of the store.
    pub async fn load(
        store: Store,
        cache: Cache,
        freshness: Duration,
    ) -> Result<LatestView, Failure> {
        LatestView::load_within(store, cache, OPENED_BYTES, freshness).await
    }

    /// Like [`LatestView::load`], with so many bytes of memory for opened segments.
    ///
    /// # Errors
    /// Any failure of the store.
    pub async fn load_within(
        store: Store,
        cache: Cache,
        opened: usize,
        freshness: Duration,
    ) -> Result<LatestView, Failure> {
        let loaded = Instant::now();
        let view = StoreView::load_within(store.clone(), cache.clone(), opened).await?;
        let state = Mutex::new(State { view, loaded });
        Ok(LatestView { store, cache, freshness, state })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// A view of the store that is at most `freshness` (see [`LatestView::load`]) old.
    ///
    /// # Errors
    /// Any failure of the store; the next call tries again.
    pub async fn get(&self) -> Result<Arc<StoreView>, Failure> {
        let mut state = self.state.lock().await;
        // The age counts from the start of the request.
        let now = Instant::now();
        if now.duration_since(state.loaded) >= self.freshness {
            state.view = state.view.refresh().await?;
            state.loaded = now;
        }
        Ok(Arc::clone(&state.view))
    }
}

#[cfg(test)]
mod tests {
    use capstan_fixtures::{Recording, record, traffic};

    use super::*;
    use crate::testing::segments;

    #[tokio::test(flavor = "multi_thread")]
    async fn queries_within_the_refresh_interval_share_a_view() {
        let store = capstan_fixtures::store().await;
        record(&store, Recording::of(1), traffic(1, 100, 0, 1_000)).await;
        let (cache, hour) = (Cache::in_memory(0), Duration::from_secs(3_600));
        let latest = LatestView::load(store.clone(), cache.clone(), hour).await.unwrap();
        let before = store.requests();
        let all = futures::future::join_all((0..20).map(|_| latest.get())).await;
        let first = latest.get().await.unwrap();
        assert!(all.iter().all(|one| Arc::ptr_eq(one.as_ref().unwrap(), &first)));
        assert_eq!(store.requests() - before, store.requests() - store.requests());

        let fresh = LatestView::load(store.clone(), cache, Duration::ZERO).await.unwrap();
        let known = fresh.get().await.unwrap();
        assert!(Arc::ptr_eq(&known, &fresh.get().await.unwrap()), "nothing was committed");
        record(&store, Recording::of(2), traffic(2, 100, 0, 1_000)).await;
        let fresh = segments(&fresh.get().await.unwrap()).await;
        let known = segments(&known).await;
        assert!(fresh.len() > known.len());
        assert_eq!(segments(&latest.get().await.unwrap()).await, known);
    }
}
