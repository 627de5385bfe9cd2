//! What is on its way from the store, so that two who want the same send one request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::extent::Key;
use super::runs::Runs;

/// Tells those who wait what was fetched; dropped without a word if that failed.
type Announcer = watch::Sender<Option<Arc<Runs>>>;

/// Requests in flight, by key: who wants the same waits for them (single flight).
#[derive(Debug, Default)]
pub(super) struct InFlight {
    by_key: Mutex<BTreeMap<Key, Arc<Announcer>>>,
}

/// Some keys that one task fetches. Whoever drops it lets others try for themselves.
#[derive(Debug)]
pub(super) struct Fetching {
    in_flight: Arc<InFlight>,
    keys: Vec<Key>,
    announcer: Arc<Announcer>,
}

/// Waits for a request of another one.
#[derive(Debug)]
pub(super) struct Waiting(watch::Receiver<Option<Arc<Runs>>>);

/// Who fetches what is missing.
#[derive(Debug)]
pub(super) struct Joined {
    /// A new request, perhaps for no key.
    pub(super) fetching: Fetching,
    /// Who asks waits for it too, and by that alone keeps it up.
    pub(super) waiting: Waiting,
    /// What others fetch.
    pub(super) others: Vec<(Key, Waiting)>,
}

impl InFlight {
    fn by_key(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Announcer>>> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Divides keys into those that somebody fetches already and those of a new request.
    /// Those that have `arrived` by now are in neither.
    pub(super) fn join(
        self: &Arc<Self>,
        keys: &[Key],
        mut arrived: impl FnMut(&Key) -> bool,
    ) -> Joined {
        let (sender, receiver) = watch::channel(None);
        let announcer = Arc::new(sender);
        let (mut own, mut others) = (Vec::new(), Vec::new());
        let mut by_key = self.by_key();
        for key in keys {
            // Asked while no request can end: one that did has kept what it brought.
            if arrived(key) {
                continue;
            }
            match by_key.get(key) {
                Some(other) => others.push((*key, Waiting(other.subscribe()))),
                None => {
                    by_key.insert(*key, Arc::clone(&announcer));
                    own.push(*key);
                }
            }
        }
        drop(by_key);
        let fetching = Fetching { in_flight: Arc::clone(self), keys: own, announcer };
        Joined { fetching, waiting: Waiting(receiver), others }
    }

    /// Keys on their way.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.by_key().len()
    }
}

impl Fetching {
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Ends when nobody waits any more.
    pub(super) async fn abandoned(&self) {
        self.announcer.closed().await;
    }

    /// Gives what came to all who wait.
    pub(super) fn arrive(self, came: Arc<Runs>) {
        self.announcer.send_replace(Some(came));
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let mut by_key = self.in_flight.by_key();
        for key in &self.keys {
            if by_key.get(key).is_some_and(|announcer| Arc::ptr_eq(announcer, &self.announcer)) {
                by_key.remove(key);
            }
        }
    }
}

impl Waiting {
    /// What came; none if the fetching failed.
    pub(super) async fn wait(mut self) -> Option<Arc<Runs>> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|came| came.clone())
    }
}
