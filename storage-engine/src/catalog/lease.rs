//! Leases: a slow reader names the root that it uses, and everything that root names is retained.
//!
//! Replaced versions are removed after a grace period ([`sweep`](super::sweep)). Most queries end long before. A
//! reader that needs more than a quarter of it creates a *lease*: an empty object whose name holds the root version.
//! It renews the lease every few minutes. Each lease holds for [`HOLDS`] after its creation, by the store's clock, so
//! a crashed reader retains nothing for long.
//!
//! A sweeper lists the leases once, and a reader may create one right after. This race is harmless if the root was
//! replaced less than the grace period ago: then the sweeper keeps it anyway. So the reader checks, after it has
//! created its lease, that it was in time.
//!
//! A reader without write permission cannot create a lease: it has only the grace period.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capstan_model::{Failure, FailureKind, Time};
use futures::TryStreamExt;
use object_store::path::Path;

use super::versions;
use crate::catalog::names;
use crate::store::{Listed, Store, is_in_doubt};

/// How long a lease holds after its creation, by the store's clock.
pub const HOLDS: Duration = Duration::from_secs(600);

/// Renewal interval.
const RENEWED_EVERY: Duration = Duration::from_secs(150);

/// Minimum time between a renewal and the end of the previous lease: listings may lag.
const SPARE: Duration = Duration::from_secs(150);

/// Interval between retries, in addition to the retries of the store.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// Number of leases of one reader that are kept: a listing may not show the newest yet.
const STAY: usize = 2;

/// The state of all leases at some moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leases {
    /// The oldest leased root.
    pub(crate) oldest: Option<u64>,
    /// Expired leases.
    pub(crate) expired: Vec<Path>,
}

impl Leases {
    /// Separates valid leases from expired ones at a time of the store's clock. Pure.
    pub(crate) fn at(now: Time, listed: Vec<Listed>) -> Leases {
        let mut leases = Leases::default();
        for object in listed {
            let Some(root) = names::parse_lease(&object.path) else { continue };
            if object.modified.saturating_add(HOLDS) < now {
                leases.expired.push(object.path);
            } else {
                leases.oldest = Some(leases.oldest.map_or(root, |oldest| oldest.min(root)));
            }
        }
        leases
    }

    /// The leases of a store.
    pub(crate) async fn list(store: &Store, now: Time) -> Result<Leases, Failure> {
        Ok(Leases::at(now, store.list(&names::leases()).try_collect().await?))
    }
}

/// Whether a lease was created while the previous one was valid, so that there is no time without a lease. Pure.
fn follows(made: Time, before: Time) -> bool {
    made < before.saturating_add(HOLDS - SPARE)
}

/// Whether a lease was created so soon after its root was replaced that every sweeper sees it. Pure.
fn is_in_time(made: Time, replaced: Option<Time>, grace: Duration) -> bool {
    replaced.is_none_or(|replaced| made < replaced.saturating_add(grace / 2))
}

/// A lease on a version of the root, and on everything that it names.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    reader: String,
    root: u64,
    grace: Duration,
    /// Creation time of the newest lease object, by the store's clock.
    newest: Option<Time>,
    /// Numbers of the lease objects that were created and not removed.
    made: VecDeque<u64>,
    next: u64,
}

impl Lease {
    /// Creates a lease for a version of the root, in a store that keeps replaced versions for `grace`. The lease
    /// protects nothing until its first [renewal](Lease::renew).
    pub fn of(store: &Store, root: u64, grace: Duration) -> Lease {
        let store = store.clone();
        Lease {
            reader: store.nonce(),
            store,
            root,
            grace,
            newest: None,
            made: VecDeque::new(),
            next: 0,
        }
    }

    /// Retains everything that the root names, for [`HOLDS`] from now on.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] if the lease is too late, so that objects may be removed already;
    /// [`FailureKind::Permission`] if this reader may not write; otherwise errors of the store, after which the
    /// caller may retry.
    pub async fn renew(&mut self) -> Result<(), Failure> {
        let store = &self.store;
        // Each try has its own name: an object of a delayed request would be older than it seems.
        let path = names::lease(&self.reader, self.root, self.next);
        self.made.push_back(self.next);
        self.next += 1;
        store.put_new(&path, Vec::new()).await?;
        let made = store.head(&path).await?.map(|object| object.modified).ok_or_else(|| {
            let what = format!("{path} was created in {} and does not exist", store.place());
            Failure::new(FailureKind::Unavailable, what)
        })?;
        let follows = self.newest.is_some_and(|newest| follows(made, newest));
        if !follows && !is_in_time(made, self.replaced().await?, self.grace) {
            return Err(self.too_late());
        }
        self.newest = Some(made);
        let old = self.made.len().saturating_sub(STAY);
        self.remove(old).await;
        Ok(())
    }

    /// When the root was replaced, by the store's clock; none if it is the newest root. A root that was removed was
    /// replaced before all existing roots.
    async fn replaced(&self) -> Result<Option<Time>, Failure> {
        let roots = versions::listed_roots(&self.store).await?;
        let is_there = self.root == 0 || roots.iter().any(|(version, _)| *version == self.root);
        let next = roots.iter().find(|(version, _)| *version > self.root);
        Ok(if is_there { next.map(|(_, next)| next.modified) } else { Some(Time::MIN) })
    }

    fn too_late(&self) -> Failure {
        let what = format!(
            "the view is older than {} minutes (version {} of the root of {}), and some of its \
             objects may be removed: retry",
            (self.grace / 2).as_secs() / 60,
            self.root,
            self.store.place()
        );
        Failure::new(FailureKind::NotFound, what)
    }

    /// Releases the lease.
    pub async fn give_back(mut self) {
        self.remove(self.made.len()).await;
    }

    /// Removes the oldest lease objects. A sweeper removes those that remain.
    async fn remove(&mut self, many: usize) {
        for number in self.made.drain(..many) {
            let path = names::lease(&self.reader, self.root, number);
            if let Err(failure) = self.store.delete(&path).await {
                tracing::debug!(%failure, "cannot delete a lease; it stays until it expires");
            }
        }
    }
}

/// Keeps the lease on a version of the root until `done` ends, if that takes longer than a quarter of the grace period.
/// `holds` reports whether the lease is valid.
///
/// # Errors
/// Like [`Lease::renew`], except that it waits for an unavailable store.
pub async fn keep(
    store: &Store,
    root: u64,
    grace: Duration,
    holds: &AtomicBool,
    done: impl Future,
) -> Result<(), Failure> {
    let mut done = pin!(done);
    let mut lease = Lease::of(store, root, grace);
    let mut wait = grace / 4;
    let ended = loop {
        tokio::select! {
            biased;
            _ = &mut done => break Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        let renewed = lease.renew().await;
        holds.store(renewed.is_ok(), Ordering::Relaxed);
        wait = match renewed {
            Ok(()) => RENEWED_EVERY,
            Err(failure) if is_in_doubt(&failure) => TRY_EVERY,
            Err(failure) => break Err(failure),
        };
    };
    lease.give_back().await;
    holds.store(false, Ordering::Relaxed);
    ended
}

#[cfg(test)]
mod tests;
