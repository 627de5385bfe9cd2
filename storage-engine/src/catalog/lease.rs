//! Leases: who reads for long says as of which root, and what that root names stays.
//!
//! What was replaced is removed after a grace ([`sweep`](super::sweep)). Most questions are answered long before. Who is
//! not done after a quarter of it creates a *lease*, an empty object whose name says the root, and another one every few
//! minutes. Each holds for [`HOLDS`] after it was made, by the store's clock, whoever made it and whatever became of
//! them; so a reader that dies keeps nothing for long.
//!
//! A sweeper lists leases once, and one may be made right after that. This does no harm if the root was replaced less
//! than the grace ago: then that sweeper leaves it alone anyway. So it is the reader who looks, once it has its
//! lease, that it came in time.
//!
//! Who may not write cannot lease: it has the grace and nothing more.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capstan_model::{Failure, FailureKind, Time};
use futures::TryStreamExt;
use object_store::path::Path;

use super::versions;
use super::view::CatalogView;
use crate::store::{Listed, Store, names};

/// How long a lease holds after it was made, by the store's clock.
pub const HOLDS: Duration = Duration::from_secs(600);

/// Time from one lease to the next.
const RENEWED_EVERY: Duration = Duration::from_secs(150);

/// A lease that follows one is made so long before that one ends, at least: listings may be late.
const SPARE: Duration = Duration::from_secs(150);

/// Time between two tries, on top of what the store tries by itself.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// Leases of one reader that stay: a listing may not show the newest yet.
const STAY: usize = 2;

/// What leases come to at some moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leases {
    /// The oldest root that somebody reads as of.
    pub(crate) oldest: Option<u64>,
    /// Those that hold no more.
    pub(crate) expired: Vec<Path>,
}

impl Leases {
    /// Tells those that hold at a time of the store from those that do not. Pure.
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

/// Whether a lease was made while the one before held, so that there is no gap between them. Pure.
fn follows(made: Time, before: Time) -> bool {
    made < before.saturating_add(HOLDS - SPARE)
}

/// Whether a lease was made so soon after its root was replaced that no sweeper can have missed it. Pure.
fn is_in_time(made: Time, replaced: Option<Time>, grace: Duration) -> bool {
    replaced.is_none_or(|replaced| made < replaced.saturating_add(grace / 2))
}

/// What keeps the root of a view, and what that names.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    reader: String,
    root: u64,
    grace: Duration,
    /// When the newest one was made, by the store's clock.
    newest: Option<Time>,
    /// Numbers of those that were made and not removed.
    made: VecDeque<u64>,
    next: u64,
}

impl Lease {
    /// For a view, where what was replaced stays for `grace`. Nothing is kept before it is
    /// [renewed](Lease::renew) for the first time.
    pub fn of(view: &CatalogView, grace: Duration) -> Lease {
        let store = view.store().clone();
        Lease {
            reader: store.nonce(),
            store,
            root: view.root().version,
            grace,
            newest: None,
            made: VecDeque::new(),
            next: 0,
        }
    }

    /// Keeps what the view's root names, for [`HOLDS`] from now on.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] if it comes too late, so that some of that may be gone;
    /// [`FailureKind::Permission`] if this reader may not write; else what the store says, and calling again is right.
    pub async fn renew(&mut self) -> Result<(), Failure> {
        let store = &self.store;
        // Each try has a name of its own: one that was long on its way would be older than it seems.
        let path = names::lease(&self.reader, self.root, self.next);
        self.made.push_back(self.next);
        self.next += 1;
        store.put_new(&path, Vec::new()).await?;
        let made = store.head(&path).await?.map(|object| object.modified).ok_or_else(|| {
            let what = format!("{path} was made in {} and is not there", store.place());
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

    /// When the root was replaced, by the store's clock; none if it is the newest one. One that is not there any
    /// more was replaced before all that are.
    async fn replaced(&self) -> Result<Option<Time>, Failure> {
        let roots = versions::listed_roots(&self.store).await?;
        let is_there = self.root == 0 || roots.iter().any(|(version, _)| *version == self.root);
        let next = roots.iter().find(|(version, _)| *version > self.root);
        Ok(if is_there { next.map(|(_, next)| next.modified) } else { Some(Time::MIN) })
    }

    fn too_late(&self) -> Failure {
        let what = format!(
            "what is read is older than {} minutes, as of version {} of the root of {}, and some of it may be \
             removed: ask again",
            (self.grace / 2).as_secs() / 60,
            self.root,
            self.store.place()
        );
        Failure::new(FailureKind::NotFound, what)
    }

    /// Gives it back.
    pub async fn give_back(mut self) {
        self.remove(self.made.len()).await;
    }

    /// Removes the oldest of those that were made. What stays is removed by a sweeper.
    async fn remove(&mut self, many: usize) {
        for number in self.made.drain(..many) {
            let path = names::lease(&self.reader, self.root, number);
            if let Err(failure) = self.store.delete(&path).await {
                tracing::debug!(%failure, "a lease stays until it ends");
            }
        }
    }
}

/// Keeps what a view's root names until `done` ends, if that takes longer than a quarter of the grace. `holds` says
/// whether it is kept.
///
/// # Errors
/// As [`Lease::renew`], but for a store that is away: that is waited for.
pub async fn keep(
    view: &CatalogView,
    grace: Duration,
    holds: &AtomicBool,
    done: impl Future,
) -> Result<(), Failure> {
    let mut done = pin!(done);
    let mut lease = Lease::of(view, grace);
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
            Err(failure) if failure.kind() == FailureKind::Unavailable => TRY_EVERY,
            Err(failure) => break Err(failure),
        };
    };
    lease.give_back().await;
    holds.store(false, Ordering::Relaxed);
    ended
}

#[cfg(test)]
mod tests;
