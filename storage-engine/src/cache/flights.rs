//! What is on its way from the store, so that two who want the same send one request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::extent::Key;
use super::runs::Runs;

/// Tells those who wait when a flight has landed; dropped unsaid if it failed.
type Landing = watch::Sender<Option<Arc<Runs>>>;

/// Keys that are on their way, and with which flight.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_key: Mutex<BTreeMap<Key, Arc<Landing>>>,
}

/// Some keys that one task fetches. Whoever drops it lets others try for themselves.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Arc<Flights>,
    keys: Vec<Key>,
    landing: Arc<Landing>,
}

/// Waits for a flight.
#[derive(Debug)]
pub(super) struct Waiting(watch::Receiver<Option<Arc<Runs>>>);

/// Who fetches what is missing.
#[derive(Debug)]
pub(super) struct Boarded {
    /// A new flight, perhaps for no key.
    pub(super) flight: Flight,
    /// Who asks waits for it too, and by that alone keeps it up.
    pub(super) waiting: Waiting,
    /// What others fetch.
    pub(super) others: Vec<(Key, Waiting)>,
}

impl Flights {
    fn by_key(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Landing>>> {
        // What is guarded makes sense after every statement.
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Divides keys into those that somebody fetches already and those of a new flight.
    /// Those that have `landed` by now are in neither.
    pub(super) fn board(
        self: &Arc<Self>,
        keys: &[Key],
        mut landed: impl FnMut(&Key) -> bool,
    ) -> Boarded {
        let (sender, receiver) = watch::channel(None);
        let landing = Arc::new(sender);
        let (mut own, mut others) = (Vec::new(), Vec::new());
        let mut by_key = self.by_key();
        for key in keys {
            // Asked while no flight can end: one that did has kept what it brought.
            if landed(key) {
                continue;
            }
            match by_key.get(key) {
                Some(other) => others.push((*key, Waiting(other.subscribe()))),
                None => {
                    by_key.insert(*key, Arc::clone(&landing));
                    own.push(*key);
                }
            }
        }
        drop(by_key);
        let flight = Flight { flights: Arc::clone(self), keys: own, landing };
        Boarded { flight, waiting: Waiting(receiver), others }
    }

    /// Keys on their way.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.by_key().len()
    }
}

impl Flight {
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Ends when nobody waits any more.
    pub(super) async fn abandoned(&self) {
        self.landing.closed().await;
    }

    /// Gives what came to all who wait.
    pub(super) fn land(self, came: Arc<Runs>) {
        self.landing.send_replace(Some(came));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut by_key = self.flights.by_key();
        for key in &self.keys {
            if by_key.get(key).is_some_and(|landing| Arc::ptr_eq(landing, &self.landing)) {
                by_key.remove(key);
            }
        }
    }
}

impl Waiting {
    /// What came; none if the flight failed.
    pub(super) async fn wait(mut self) -> Option<Arc<Runs>> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|came| came.clone())
    }
}
