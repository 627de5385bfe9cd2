//! Opened segments, kept within a number of bytes, the longest unused leaving first.
//! Who asks for one that is being opened waits for it.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// Values by name; see the module.
#[derive(Debug)]
pub(super) struct Cache<T> {
    budget: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    slots: HashMap<Arc<str>, Slot<T>>,
    /// Names by when they were asked for last.
    order: BTreeMap<u64, Arc<str>>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Slot<T> {
    cell: Arc<OnceCell<Arc<T>>>,
    used: u64,
    /// 0 while it is being opened.
    bytes: usize,
}

impl<T> Cache<T> {
    pub(super) fn new(budget: usize) -> Self {
        let state = State { slots: HashMap::new(), order: BTreeMap::new(), bytes: 0, clock: 0 };
        Cache { budget, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // What is guarded makes sense after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of that name; `open` makes it, with its weight in bytes. When that fails
    /// nothing is kept, and each of those who wait tries for itself.
    pub(super) async fn get<E, F>(&self, name: &str, open: impl FnOnce() -> F) -> Result<Arc<T>, E>
    where
        F: Future<Output = Result<(T, usize), E>>,
    {
        let cell = self.state().touch(name);
        let mut weight = 0;
        let opened = cell
            .get_or_try_init(|| async {
                let (value, bytes) = open().await?;
                weight = bytes.max(1);
                Ok(Arc::new(value))
            })
            .await
            .cloned();
        match &opened {
            Ok(_) if weight > 0 => self.state().weigh(name, &cell, weight, self.budget),
            Ok(_) => {}
            Err(_) => self.state().forget_if_empty(name, &cell),
        }
        opened
    }

    /// Bytes kept.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }
}

impl<T> State<T> {
    /// The cell of that name, now the one used last.
    fn touch(&mut self, name: &str) -> Arc<OnceCell<Arc<T>>> {
        self.clock += 1;
        let now = self.clock;
        if let Some(slot) = self.slots.get_mut(name) {
            let before = std::mem::replace(&mut slot.used, now);
            if let Some(name) = self.order.remove(&before) {
                self.order.insert(now, name);
            }
            return Arc::clone(&slot.cell);
        }
        let name: Arc<str> = name.into();
        let cell = Arc::new(OnceCell::new());
        let slot = Slot { cell: Arc::clone(&cell), used: now, bytes: 0 };
        self.order.insert(now, Arc::clone(&name));
        self.slots.insert(name, slot);
        cell
    }

    /// Counts a value that was just opened, and lets others go for it.
    fn weigh(&mut self, name: &str, cell: &Arc<OnceCell<Arc<T>>>, bytes: usize, budget: usize) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.bytes > 0 || !Arc::ptr_eq(&slot.cell, cell) {
            return;
        }
        slot.bytes = bytes;
        self.bytes += bytes;
        let mut candidates: Vec<u64> = Vec::new();
        let mut left = self.bytes;
        for (used, candidate) in &self.order {
            if left <= budget {
                break;
            }
            let weight = self.slots.get(candidate).map_or(0, |slot| slot.bytes);
            // What is being opened has no weight yet and others wait for it.
            if weight > 0 && &**candidate != name {
                left -= weight;
                candidates.push(*used);
            }
        }
        for used in candidates {
            if let Some(slot) = self.order.remove(&used).and_then(|name| self.slots.remove(&name)) {
                self.bytes -= slot.bytes;
            }
        }
    }

    fn forget_if_empty(&mut self, name: &str, cell: &Arc<OnceCell<Arc<T>>>) {
        let empty = self
            .slots
            .get(name)
            .is_some_and(|slot| slot.bytes == 0 && Arc::ptr_eq(&slot.cell, cell));
        if empty
            && !cell.initialized()
            && let Some(slot) = self.slots.remove(name)
        {
            self.order.remove(&slot.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    async fn get(cache: &Cache<String>, name: &str, opened: &AtomicUsize) -> Arc<String> {
        let open = || async {
            opened.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok::<_, ()>((name.to_owned(), 10))
        };
        cache.get(name, open).await.unwrap()
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_opening() {
        let (cache, opened) = (Cache::new(100), AtomicUsize::new(0));
        let all = (0..8).map(|_| get(&cache, "a", &opened));
        futures::future::join_all(all).await;
        assert_eq!(opened.load(Ordering::SeqCst), 1);
        assert_eq!(cache.bytes(), 10);
    }

    #[tokio::test]
    async fn the_longest_unused_leaves() {
        let (cache, opened) = (Cache::new(20), AtomicUsize::new(0));
        for name in ["a", "b", "a", "c", "a", "c", "b"] {
            assert_eq!(*get(&cache, name, &opened).await, name);
            assert!(cache.bytes() <= 20);
        }
        // a, b, c, and b again: c pushed b out, as a was used after it.
        assert_eq!(opened.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn what_is_larger_than_all_room_is_still_given() {
        let (cache, opened) = (Cache::new(5), AtomicUsize::new(0));
        get(&cache, "a", &opened).await;
        get(&cache, "b", &opened).await;
        assert_eq!(cache.bytes(), 10);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let cache: Cache<String> = Cache::new(20);
        let failed = cache.get("a", || async { Err("away") }).await;
        assert_eq!(failed, Err("away"));
        assert!(cache.state().slots.is_empty() && cache.state().order.is_empty());
        let opened = AtomicUsize::new(0);
        get(&cache, "a", &opened).await;
    }
}
