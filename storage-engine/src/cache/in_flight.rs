//! Single-flight: concurrent reads of the same extents share one request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::extent::Key;
use super::runs::Runs;

/// Sends the fetched bytes to waiting reads. Dropped without a value if the fetch failed.
type Announcer = watch::Sender<Option<Arc<Runs>>>;

/// Requests in flight, by key (single flight).
#[derive(Debug, Default)]
pub(super) struct InFlight {
    by_key: Mutex<BTreeMap<Key, Arc<Announcer>>>,
}

/// Keys of one fetch task. Dropping it lets other reads retry.
#[derive(Debug)]
pub(super) struct Fetching {
    in_flight: Arc<InFlight>,
    keys: Vec<Key>,
    announcer: Arc<Announcer>,
}

/// Waits for another read's request.
#[derive(Debug)]
pub(super) struct Waiting(watch::Receiver<Option<Arc<Runs>>>);

/// How the missing extents are fetched.
#[derive(Debug)]
pub(super) struct Joined {
    /// A new request, possibly without keys.
    pub(super) fetching: Fetching,
    /// The caller's own wait, which keeps the request alive.
    pub(super) waiting: Waiting,
    /// Keys with a request in flight.
    pub(super) others: Vec<(Key, Waiting)>,
}

impl InFlight {
    fn by_key(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Announcer>>> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Splits keys into those with a request in flight and those for a new request. Keys that
    /// `arrived` meanwhile are in neither.
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
            // Checked under the lock, so no request can end now: a finished one has cached its bytes.
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

    /// Number of keys in flight.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.by_key().len()
    }
}

impl Fetching {
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Ends when no read waits any more.
    pub(super) async fn abandoned(&self) {
        self.announcer.closed().await;
    }

    /// Sends the bytes to all waiting reads.
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
    /// The fetched bytes; none if the fetch failed.
    pub(super) async fn wait(mut self) -> Option<Arc<Runs>> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|came| came.clone())
    }
}
