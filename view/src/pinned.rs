//! A view that is pinned while an answer is made from it: what it names stays in the store until then.
//!
//! Replaced versions are swept after an hour (the grace), so a longer answer takes a lease. An answer that takes
//! less than a quarter of that sends no request for a lease.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::lease;
use capstan_storage_engine::catalog::sweep::GRACE;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{ScopedView, StoreView};

/// Answers that begin within this time share a lease. Later ones take their own: otherwise an endless series of
/// short answers would look like one long answer.
const SHARED_FOR: Duration = Duration::from_secs(60);

/// A view for a principal, pinned; see the module.
#[derive(Debug)]
pub struct PinnedView {
    view: ScopedView,
    pin: Arc<Pin>,
}

/// What answers that begin at about the same time share: the age of the oldest, and a lease.
#[derive(Debug)]
pub(super) struct Pin {
    began: Instant,
    grace: Duration,
    /// Whether the view is leased.
    holds: Arc<AtomicBool>,
    done: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
}

impl ScopedView {
    /// Pins the view for an answer. The pin ends when its last clone is dropped or ended.
    pub fn begin(&self) -> Arc<PinnedView> {
        Arc::new(PinnedView { view: self.clone(), pin: self.view().pin() })
    }
}

impl StoreView {
    /// Whether an answer is being made from the view.
    pub fn is_pinned(&self) -> bool {
        self.last_pin().upgrade().is_some()
    }

    fn last_pin(&self) -> MutexGuard<'_, Weak<Pin>> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin(&self) -> Arc<Pin> {
        let mut known = self.last_pin();
        let young = known.upgrade().filter(|of| of.began.elapsed() < SHARED_FOR);
        young.unwrap_or_else(|| {
            let new = Arc::new(Pin::of(self, GRACE));
            *known = Arc::downgrade(&new);
            new
        })
    }
}

impl Deref for PinnedView {
    type Target = ScopedView;

    fn deref(&self) -> &ScopedView {
        &self.view
    }
}

impl PinnedView {
    /// A failure as its principal gets it. If a missing object may have been swept meanwhile, the failure says so.
    pub fn note_sweep(&self, failure: Failure) -> Failure {
        self.view.redacted(self.pin.note_sweep(failure))
    }

    /// Drops the pin. If this was the last clone, waits until the lease is given back. Call it before the
    /// process exits.
    pub async fn end(self: Arc<Self>) {
        if let Some(PinnedView { view: _, pin }) = Arc::into_inner(self) {
            pin.end().await;
        }
    }
}

impl Pin {
    fn of(view: &StoreView, grace: Duration) -> Pin {
        let (done, ended) = oneshot::channel();
        let holds = Arc::new(AtomicBool::new(false));
        let (catalog, shared) = (view.catalog.clone(), Arc::clone(&view.shared));
        let kept = Arc::clone(&holds);
        // Other answers may share the lease, so it must outlive the threads of the query that took it.
        let home = view.shared.home.clone();
        let keeper = home.spawn(async move {
            match lease::keep(catalog.store(), catalog.root().version, grace, &kept, ended).await {
                Err(failure) if failure.kind() == FailureKind::Permission => {
                    if !shared.was_refused.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            %failure,
                            "no permission for leases: objects that long answers read are kept \
                             for an hour only"
                        );
                    }
                }
                Err(failure) => tracing::warn!(%failure, "cannot take a lease for a long answer"),
                Ok(()) => {}
            }
        });
        Pin { began: Instant::now(), grace, holds, done, keeper }
    }

    /// If a missing object may have been swept meanwhile, the failure says so.
    fn note_sweep(&self, failure: Failure) -> Failure {
        let long = self.began.elapsed();
        let is_kept = long < self.grace || self.holds.load(Ordering::Relaxed);
        if failure.kind() != FailureKind::NotFound || is_kept {
            return failure;
        }
        let what = format!(
            "an object was removed during the answer: the answer began {} minutes ago and had no \
             lease; retry",
            long.as_secs() / 60
        );
        Failure::caused_by(FailureKind::NotFound, what, failure)
    }

    /// As [`PinnedView::end`].
    async fn end(self: Arc<Self>) {
        if let Some(Pin { done, keeper, .. }) = Arc::into_inner(self) {
            drop(done);
            // If the task crashed there is nothing to wait for.
            let _ = keeper.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use capstan_fixtures::{Recording, traffic};
    use capstan_storage_engine::catalog::names;
    use futures::TryStreamExt;

    use super::*;
    use crate::testing::{view_of, whole};

    async fn view() -> Arc<StoreView> {
        view_of(Recording::of(1), traffic(1, 100, 0, 1_000)).await
    }

    async fn leases(view: &StoreView) -> usize {
        let listed = view.store().list(&names::leases());
        listed.try_collect::<Vec<_>>().await.unwrap().len()
    }

    #[tokio::test]
    async fn long_answer_takes_and_releases_a_lease() {
        let view = view().await;
        let long = Arc::new(Pin::of(&view, Duration::from_secs(2)));
        let other = Arc::clone(&long);
        while leases(&view).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        long.end().await;
        assert_eq!(leases(&view).await, 1, "somebody still reads");
        other.end().await;
        assert_eq!(leases(&view).await, 0);
    }

    #[tokio::test]
    async fn short_answer_takes_no_lease() {
        let view = view().await;
        let before = view.store().requests();
        let (one, other) = (view.pin(), view.pin());
        assert!(Arc::ptr_eq(&one, &other));
        drop(one);
        other.end().await;
        let again = view.pin();
        tokio::task::yield_now().await;
        drop(again);
        assert_eq!(view.store().requests(), before);
    }

    #[tokio::test]
    async fn view_is_pinned_until_the_last_clone_is_dropped() {
        let view = view().await;
        assert!(!view.is_pinned());
        let one = whole(&view).begin();
        let other = Arc::clone(&one);
        drop(one);
        assert!(view.is_pinned());
        other.end().await;
        assert!(!view.is_pinned());
    }

    #[tokio::test]
    async fn removed_object_error_mentions_the_missing_lease() {
        let view = view().await;
        let missing = || Failure::new(FailureKind::NotFound, "x is not there");
        let young = view.pin();
        assert_eq!(young.note_sweep(missing()).to_string(), "x is not there");
        let old = Pin::of(&view, Duration::ZERO);
        assert!(
            old.note_sweep(missing())
                .to_string()
                .starts_with("an object was removed during the answer")
        );
        let damaged = old.note_sweep(Failure::new(FailureKind::Damaged, "y is damaged"));
        assert_eq!(damaged.to_string(), "y is damaged");
        old.holds.store(true, Ordering::Relaxed);
        assert_eq!(old.note_sweep(missing()).to_string(), "x is not there");
    }
}
