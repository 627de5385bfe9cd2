//! Removing versions that newer ones have replaced.
//!
//! What a version says is said by every later one, so nobody needs it who can read a later one.
//! Some are kept all the same: the newest few, in case one is damaged, and those that were
//! replaced only just now, for who is about to read them. How long ago that was is told by the
//! store's own clock. And so does what somebody reads as of an older root and has a
//! [lease](super::lease) for: that root, the manifests that it names, and all that was replaced after it was made.
//!
//! Before versions of the root are removed a *boundary* is raised. Somebody who was away for long
//! may create a number that was removed and take itself for the newest; it looks for the next boundary
//! after that, and finds out.

use std::time::Duration;

use capstan_model::{Failure, FailureKind, Time};
use object_store::path::Path;

use super::lease::Leases;
use super::root::Root;
use super::slot::TimeSlot;
use super::versions;
use crate::store::{Listed, Store};

/// How long versions stay after they were replaced.
pub const GRACE: Duration = Duration::from_secs(3_600);

/// Versions that stay however old they are.
const KEPT: usize = 4;

/// What must not be removed, beside the newest versions. All times are the store's.
#[derive(Debug)]
pub(crate) struct Kept {
    now: Time,
    grace: Duration,
    /// The oldest root that is leased, and when it was made.
    leased: Option<(Root, Time)>,
}

impl Kept {
    /// Whether nobody needs any more what was replaced then.
    fn is_old(&self, replaced: Time) -> bool {
        let leased = self.leased.as_ref().is_none_or(|(_, made)| replaced < *made);
        leased && replaced.saturating_add(self.grace) < self.now
    }

    /// The lowest version of the root that is leased.
    fn root(&self) -> Option<u64> {
        self.leased.as_ref().map(|(root, _)| root.version)
    }

    /// The lowest version of a slot's manifest that a leased root names. It may have been replaced before that
    /// root was made: by a rollup that did not come to naming the next one.
    fn manifest(&self, slot: TimeSlot) -> Option<u64> {
        self.leased.as_ref().and_then(|(root, _)| root.slot(slot))
    }
}

/// Which versions may be removed, of those in a listing: `(version, object)`. From `least` on all stay.
///
/// Pure. The versions are ascending; one was replaced when the next was made.
fn replaced(versions: Vec<(u64, Listed)>, kept: &Kept, least: Option<u64>) -> Vec<(u64, Path)> {
    let many = versions.len().saturating_sub(KEPT);
    let since: Vec<Time> = versions.iter().skip(1).map(|(_, next)| next.modified).collect();
    // From the oldest on, without leaving any out: what stays has no gaps.
    let mut gone = Vec::new();
    for ((version, object), since) in versions.into_iter().zip(since).take(many) {
        if !kept.is_old(since) || least.is_some_and(|least| version >= least) {
            break;
        }
        gone.push((version, object.path));
    }
    gone
}

/// What a look at roots and leases comes to.
#[derive(Debug)]
pub(crate) struct Look {
    /// Versions of the root that may be removed.
    pub(crate) roots: Vec<(u64, Path)>,
    /// What else must stay.
    pub(crate) kept: Kept,
    /// Leases that hold no more.
    pub(crate) expired: Vec<Path>,
}

/// Looks what may be removed; none if there is no root, or the oldest leased one cannot be read.
pub(crate) async fn look(store: &Store, grace: Duration) -> Result<Option<Look>, Failure> {
    let versions = versions::listed_roots(store).await?;
    // A root was just put: what it is dated is now, and not later than the leases are listed.
    let Some(now) = versions.last().map(|(_, newest)| newest.modified) else { return Ok(None) };
    let Leases { oldest, expired } = Leases::list(store, now).await?;
    #[cfg(feature = "planted")]
    let oldest = oldest.filter(|_| !store.planted(crate::store::Planted::NoLeases));
    let mut kept = Kept { now, grace, leased: None };
    // A leased root that is gone was damaged, and removed by a repair. The next one says what it said, and more.
    let leased = oldest.and_then(|oldest| versions.iter().find(|(version, _)| *version >= oldest));
    if let Some((version, object)) = leased {
        match versions::read_root(store, *version).await {
            Ok(Some(root)) => kept.leased = Some((root.value, object.modified)),
            Ok(None) => return Ok(None),
            Err(failure) if failure.kind() == FailureKind::Damaged => return Ok(None),
            Err(failure) => return Err(failure),
        }
    }
    let roots = replaced(versions, &kept, kept.root());
    Ok(Some(Look { roots, kept, expired }))
}

/// Removes replaced manifests of a slot: how many, and whether some are left for later.
pub(crate) async fn manifests(
    store: &Store,
    slot: TimeSlot,
    kept: &Kept,
) -> Result<(u64, bool), Failure> {
    let versions = versions::listed_manifests(store, slot).await?;
    let many = versions.len();
    let gone = replaced(versions, kept, kept.manifest(slot));
    let removed = remove(store, gone.into_iter().map(|(_, path)| path)).await?;
    Ok((removed, many as u64 - removed > KEPT as u64))
}

/// Removes objects; how many.
pub(crate) async fn remove(
    store: &Store,
    objects: impl IntoIterator<Item = Path>,
) -> Result<u64, Failure> {
    let mut many = 0;
    for path in objects {
        store.delete(&path).await?;
        many += 1;
    }
    Ok(many)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn listed(times: &[i64]) -> Vec<(u64, Listed)> {
        let object = |(place, time): (usize, &i64)| {
            let path = Path::from(format!("{place}"));
            (place as u64 + 1, Listed { path, bytes: 1, modified: Time(time * SECOND) })
        };
        times.iter().enumerate().map(object).collect()
    }

    fn gone(times: &[i64], now: i64) -> Vec<u64> {
        gone_but(times, now, None)
    }

    /// With a lease of a root that was made then and names a version.
    fn gone_but(times: &[i64], now: i64, leased: Option<(i64, u64)>) -> Vec<u64> {
        let grace = Duration::from_secs(100);
        let root = |(made, _): (i64, u64)| (Root::empty(), Time(made * SECOND));
        let kept = Kept { now: Time(now * SECOND), grace, leased: leased.map(root) };
        let least = leased.map(|(_, version)| version);
        replaced(listed(times), &kept, least).into_iter().map(|(version, _)| version).collect()
    }

    #[test]
    fn what_was_replaced_long_ago_may_go_but_for_the_newest() {
        assert!(gone(&[], 1_000).is_empty());
        assert!(gone(&[0, 1, 2, 3], 1_000).is_empty());
        assert_eq!(gone(&[0, 1, 2, 3, 4, 5], 1_000), [1, 2]);
        // The second was replaced at 950.
        assert_eq!(gone(&[0, 1, 950, 951, 952, 953], 1_000), [1]);
        assert!(gone(&[0, 950, 951, 952, 953, 954], 1_000).is_empty());
    }

    #[test]
    fn no_gap_is_left_where_clocks_went_back() {
        assert_eq!(gone(&[0, 1, 990, 2, 3, 4, 5, 6, 7], 1_000), [1]);
    }

    #[test]
    fn what_is_leased_stays_with_all_that_was_replaced_since() {
        let times = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(gone_but(&times, 1_000, None), [1, 2, 3, 4, 5, 6]);
        // The root was made with the fourth, which it names: the third was replaced then.
        assert_eq!(gone_but(&times, 1_000, Some((3, 4))), [1, 2]);
        // It names the second, though that was replaced before.
        assert_eq!(gone_but(&times, 1_000, Some((3, 2))), [1]);
        // It names a version so new that its time alone counts.
        assert_eq!(gone_but(&times, 1_000, Some((3, 9))), [1, 2]);
        assert_eq!(gone_but(&times, 1_000, Some((500, 9))), [1, 2, 3, 4, 5, 6]);
        // A lease of what was replaced only just now changes nothing.
        assert_eq!(gone_but(&[0, 1, 950, 951, 952, 953], 1_000, Some((960, 6))), [1]);
    }
}
