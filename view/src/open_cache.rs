//! A cache of opened segments, so that their `index` layers are not parsed again. The byte cache holds raw
//! bytes; this one holds parsed values, so the byte cache keeps no copy in memory. Concurrent requests for one
//! segment share one opening (single-flight).

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capstan_storage_engine::cache::WeightedCache;
use tokio::sync::OnceCell;

/// Values by name, within a memory budget; see the module.
#[derive(Debug)]
pub(super) struct OpenCache<T: Send + Sync + 'static> {
    kept: WeightedCache<Arc<str>, Arc<T>>,
    opening: Mutex<HashMap<Arc<str>, Cell<T>>>,
}

type Cell<T> = Arc<OnceCell<Arc<T>>>;

/// One caller that opens, or waits for the opener. The first to finish or give up removes the name.
struct Opening<'a, T: Send + Sync + 'static> {
    of: &'a OpenCache<T>,
    name: Arc<str>,
    cell: Cell<T>,
}

impl<T: Send + Sync + 'static> OpenCache<T> {
    pub(super) fn new(budget: usize) -> Self {
        OpenCache { kept: WeightedCache::new(budget), opening: Mutex::default() }
    }

    fn opening(&self) -> MutexGuard<'_, HashMap<Arc<str>, Cell<T>>> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a value of that name is cached. Does not count as a use of it.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.kept.contains(&name.into())
    }

    /// The value of that name. `open` makes it, with its weight in bytes. If that fails nothing is cached, and
    /// each waiting caller tries itself.
    pub(super) async fn get<E, F>(&self, name: &str, open: impl FnOnce() -> F) -> Result<Arc<T>, E>
    where
        F: Future<Output = Result<(T, usize), E>>,
    {
        let opening = match self.begin(name.into()) {
            Ok(kept) => return Ok(kept),
            Err(opening) => opening,
        };
        let opened = opening.cell.get_or_try_init(|| async {
            let (value, bytes) = open().await?;
            let value = Arc::new(value);
            self.kept.insert(Arc::clone(&opening.name), Arc::clone(&value), bytes);
            Ok(value)
        });
        opened.await.cloned()
    }

    fn begin(&self, name: Arc<str>) -> Result<Arc<T>, Opening<'_, T>> {
        let mut opening = self.opening();
        // Checked while no other caller can remove a name: the one that removed it has cached the value.
        if let Some(kept) = self.kept.get(&name) {
            return Ok(kept);
        }
        let cell = Arc::clone(opening.entry(Arc::clone(&name)).or_default());
        Err(Opening { of: self, name, cell })
    }
}

impl<T: Send + Sync + 'static> Drop for Opening<'_, T> {
    fn drop(&mut self) {
        let mut opening = self.of.opening();
        if opening.get(&self.name).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell)) {
            opening.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    async fn get(opened: &OpenCache<String>, name: &str, count: &AtomicUsize) -> Arc<String> {
        let open = || async {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok::<_, ()>((name.to_owned(), 10))
        };
        opened.get(name, open).await.unwrap()
    }

    #[tokio::test]
    async fn concurrent_queries_share_one_opening_of_a_segment() {
        let (opened, count) = (OpenCache::new(1_000), AtomicUsize::new(0));
        let all = (0..8).map(|_| get(&opened, "a", &count));
        futures::future::join_all(all).await;
        get(&opened, "a", &count).await;
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(opened.contains("a") && opened.opening().is_empty());
    }

    #[tokio::test]
    async fn value_larger_than_the_cache_is_returned_and_not_cached() {
        let (opened, count) = (OpenCache::new(5), AtomicUsize::new(0));
        for _ in 0..2 {
            assert_eq!(*get(&opened, "a", &count).await, "a");
        }
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn failed_and_cancelled_openings_are_not_cached() {
        let opened: OpenCache<String> = OpenCache::new(1_000);
        let failed = opened.get("a", || async { Err("away") }).await;
        assert_eq!(failed, Err("away"));
        let never = opened.get("a", std::future::pending::<Result<_, &str>>);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), never).await.is_err());
        assert!(opened.opening().is_empty());
        get(&opened, "a", &AtomicUsize::new(0)).await;
    }
}
