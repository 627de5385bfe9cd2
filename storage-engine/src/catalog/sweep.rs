//! Removes versions that newer ones have replaced.
//!
//! Every later version repeats the content of an earlier one, so a reader of the later one does not need the earlier
//! one. Some are kept anyway: the newest few, in case one is damaged, and versions replaced within the grace period,
//! for readers that are about to read them. The store's own clock decides. A [lease](super::lease) on an older root
//! keeps that root, the manifests that it names, and everything that was replaced after it was created.
//!
//! A *boundary* is raised before versions of the root are removed. A process that was paused for long may create a
//! number that was removed and take its version for the newest. It looks for the next boundary afterwards, and so
//! detects this.

use std::time::Duration;

use capstan_model::{Failure, Time};
use object_store::path::Path;

use super::gap::GapKind;
use super::lease::Leases;
use super::root::Root;
use super::slot::TimeSlot;
use super::versions;
use crate::store::{Listed, Store};

/// How long versions stay after they are replaced (grace period).
pub const GRACE: Duration = Duration::from_secs(3_600);

/// Number of newest versions that always stay.
const KEPT: usize = 4;

/// What must not be removed, beside the newest versions. All times are the store's.
#[derive(Debug)]
pub(crate) struct Kept {
    now: Time,
    grace: Duration,
    /// The oldest leased root, and its creation time.
    leased: Option<(Root, Time)>,
}

impl Kept {
    /// Whether nothing needs a version any more that was replaced at that time.
    fn is_old(&self, replaced: Time) -> bool {
        let leased = self.leased.as_ref().is_none_or(|(_, made)| replaced < *made);
        leased && replaced.saturating_add(self.grace) < self.now
    }

    /// The lowest leased version of the root.
    fn root(&self) -> Option<u64> {
        self.leased.as_ref().map(|(root, _)| root.version)
    }

    /// The lowest version of a slot's manifest that a leased root names. It may have been replaced before that root
    /// was created: by a rollup that crashed before it could name the next version.
    fn manifest(&self, slot: TimeSlot) -> Option<u64> {
        self.leased.as_ref().and_then(|(root, _)| root.slot(slot))
    }
}

/// Which versions of a listing may be removed: `(version, object)`. All from `least` on stay.
///
/// Pure. The versions are ascending; each was replaced when the next was created.
fn replaced(versions: Vec<(u64, Listed)>, kept: &Kept, least: Option<u64>) -> Vec<(u64, Path)> {
    let many = versions.len().saturating_sub(KEPT);
    let since: Vec<Time> = versions.iter().skip(1).map(|(_, next)| next.modified).collect();
    // Removes a prefix, oldest first: the remaining versions have no gaps.
    let mut gone = Vec::new();
    for ((version, object), since) in versions.into_iter().zip(since).take(many) {
        if !kept.is_old(since) || least.is_some_and(|least| version >= least) {
            break;
        }
        gone.push((version, object.path));
    }
    gone
}

/// Objects that may be removed, and the bounds of what must stay.
#[derive(Debug)]
pub(crate) struct Removable {
    /// Versions of the root that may be removed.
    pub(crate) roots: Vec<(u64, Path)>,
    /// Everything else that must stay.
    pub(crate) kept: Kept,
    /// Expired leases.
    pub(crate) expired: Vec<Path>,
}

/// Finds what may be removed; none if there is no root, or the oldest leased root is unreadable.
pub(crate) async fn removable(
    store: &Store,
    grace: Duration,
) -> Result<Option<Removable>, Failure> {
    let versions = versions::listed_roots(store).await?;
    // A root was just written: its time is now, and not later than the listing of leases.
    let Some(now) = versions.last().map(|(_, newest)| newest.modified) else { return Ok(None) };
    let Leases { oldest, expired } = Leases::list(store, now).await?;
    #[cfg(feature = "planted")]
    let oldest = oldest.filter(|_| !store.planted(crate::store::Planted::NoLeases));
    let mut kept = Kept { now, grace, leased: None };
    // A leased root that is gone was damaged, and a repair removed it. The next one has its content, and more.
    let leased = oldest.and_then(|oldest| versions.iter().find(|(version, _)| *version >= oldest));
    if let Some((version, object)) = leased {
        match versions::read_root(store, *version).await {
            Ok(Some(root)) => kept.leased = Some((root.value, object.modified)),
            Ok(None) => return Ok(None),
            Err(failure) if GapKind::of(&failure) == Some(GapKind::Damaged) => return Ok(None),
            Err(failure) => return Err(failure),
        }
    }
    let roots = replaced(versions, &kept, kept.root());
    Ok(Some(Removable { roots, kept, expired }))
}

/// Removes replaced manifests of a slot: returns how many, and whether some are left for later.
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

/// Removes versions one by one, oldest first; returns how many. A request for all of them has no order: it could leave an
/// older version behind, and a reader that follows the numbers would take that one for the newest.
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
    fn sweep_removes_old_replaced_versions_except_the_newest() {
        assert!(gone(&[], 1_000).is_empty());
        assert!(gone(&[0, 1, 2, 3], 1_000).is_empty());
        assert_eq!(gone(&[0, 1, 2, 3, 4, 5], 1_000), [1, 2]);
        // The second was replaced at 950.
        assert_eq!(gone(&[0, 1, 950, 951, 952, 953], 1_000), [1]);
        assert!(gone(&[0, 950, 951, 952, 953, 954], 1_000).is_empty());
    }

    #[test]
    fn sweep_leaves_no_gap_after_a_clock_step_back() {
        assert_eq!(gone(&[0, 1, 990, 2, 3, 4, 5, 6, 7], 1_000), [1]);
    }

    #[test]
    fn sweep_keeps_leased_versions_and_later_ones() {
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
