//! Removing versions that newer ones have replaced.
//!
//! What a version says is said by every later one, so nobody needs it who can read a later one.
//! Some are kept all the same: the newest few, in case one is damaged, and those that were
//! replaced only just now, for who is about to read them. How long ago that was is told by the
//! store's own clock.
//!
//! Before versions of the root are removed a *boundary* is raised. Somebody who was away for long
//! may create a number that was removed and take itself for the newest; it looks for the next boundary
//! after that, and finds out.

use std::time::Duration;

use capstan_model::{Failure, Time};
use object_store::path::Path;

use super::slot::Slot;
use super::versions;
use crate::store::{Listed, Store};

/// How long versions stay after they were replaced.
pub const GRACE: Duration = Duration::from_secs(3_600);

/// Versions that stay however old they are.
const KEPT: usize = 4;

/// Which versions may be removed, of those in a listing: `(version, object)`. `now` is the store's time.
///
/// Pure. The versions are ascending; one was replaced when the next was made.
fn replaced(versions: Vec<(u64, Listed)>, now: Time, grace: Duration) -> Vec<(u64, Path)> {
    let kept = versions.len().saturating_sub(KEPT);
    let since: Vec<Time> = versions.iter().skip(1).map(|(_, next)| next.modified).collect();
    let old = |since: &Time| since.saturating_add(grace) < now;
    // From the oldest on, without leaving any out: what stays has no gaps.
    let mut gone = Vec::new();
    for ((version, object), since) in versions.into_iter().zip(since).take(kept) {
        if !old(&since) {
            break;
        }
        gone.push((version, object.path));
    }
    gone
}

/// Removes replaced manifests of a slot: how many, and whether some are left for later.
pub(crate) async fn manifests(
    store: &Store,
    slot: Slot,
    now: Time,
    grace: Duration,
) -> Result<(u64, bool), Failure> {
    let versions = versions::listed_manifests(store, slot).await?;
    let many = versions.len();
    let removed = remove(store, replaced(versions, now, grace)).await?;
    Ok((removed, many as u64 - removed > KEPT as u64))
}

/// Versions of the root that may be removed, and the time by the store's clock; none if
/// there is no root.
pub(crate) async fn roots(
    store: &Store,
    grace: Duration,
) -> Result<Option<(Vec<(u64, Path)>, Time)>, Failure> {
    let versions = versions::listed_roots(store).await?;
    // A root was just put: what it is dated is now.
    let now = versions.last().map(|(_, newest)| newest.modified);
    Ok(now.map(|now| (replaced(versions, now, grace), now)))
}

/// Removes objects; how many.
pub(crate) async fn remove(store: &Store, objects: Vec<(u64, Path)>) -> Result<u64, Failure> {
    let many = objects.len() as u64;
    for (_, path) in objects {
        store.delete(&path).await?;
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
        let grace = Duration::from_secs(100);
        replaced(listed(times), Time(now * SECOND), grace).into_iter().map(|(v, _)| v).collect()
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
}
