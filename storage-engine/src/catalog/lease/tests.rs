//! Leases over a store in memory, with the real clock. The simulation has a clock that jumps by hours.

use super::*;
use crate::catalog::rollup::{Rollup, Stay};
use crate::catalog::tests::{RECORDER, draft, live, memory};
use crate::catalog::view::CatalogView;
use crate::catalog::{Recorder, TimeSlot};

const SECOND: i64 = 1_000_000_000;

fn at(seconds: i64) -> Time {
    Time(seconds * SECOND)
}

/// Leases, each of a root and made then.
fn listed(leases: &[(u64, i64)]) -> Vec<Listed> {
    let lease = |(number, (root, made)): (usize, &(u64, i64))| {
        let path = names::lease(&"0".repeat(32), *root, number as u64);
        Listed { path, bytes: 0, modified: at(*made) }
    };
    leases.iter().enumerate().map(lease).collect()
}

#[test]
fn a_lease_holds_for_a_while_by_the_clock_of_the_store() {
    assert_eq!(Leases::at(at(0), Vec::new()), Leases::default());
    let of = |now, leases: &[(u64, i64)]| {
        let leases = Leases::at(at(now), listed(leases));
        (leases.oldest, leases.expired.len())
    };
    assert_eq!(of(600, &[(7, 0), (9, 500)]), (Some(7), 0));
    assert_eq!(of(601, &[(7, 0), (9, 500)]), (Some(9), 1));
    assert_eq!(of(601, &[(7, 0), (7, 150), (9, 500)]), (Some(7), 1));
    assert_eq!(of(2_000, &[(7, 0), (9, 500)]), (None, 2));
    // Made after a sweeper looked at its clock.
    assert_eq!(of(0, &[(7, 30)]), (Some(7), 0));
    let foreign = Listed { path: Path::from("lease/x"), bytes: 0, modified: at(0) };
    assert_eq!(Leases::at(at(9_999), vec![foreign]), Leases::default());
}

#[test]
fn late_lease_is_refused() {
    let grace = Duration::from_secs(3_600);
    assert!(is_in_time(at(9_999), None, grace), "nothing was replaced");
    assert!(is_in_time(at(1_799), Some(at(0)), grace));
    assert!(!is_in_time(at(1_800), Some(at(0)), grace));
    assert!(follows(at(449), at(0)));
    assert!(!follows(at(450), at(0)));
}

/// A store with roots, and a rollup that can make more.
async fn rolled_up(store: &Store, roots: i64) -> (Recorder, Rollup) {
    let mut recorder = Recorder::start(store, RECORDER, live()).await.unwrap();
    let mut rollup = Rollup::claim(store, "test", Stay::Keeps).await.unwrap();
    roll_up(&mut recorder, &mut rollup, 0..roots).await;
    (recorder, rollup)
}

async fn roll_up(recorder: &mut Recorder, rollup: &mut Rollup, numbers: std::ops::Range<i64>) {
    for number in numbers {
        recorder.commit(draft(&format!("s{number:02}"), number)).await.unwrap();
        rollup.step().await.unwrap();
    }
}

async fn leases(store: &Store) -> usize {
    store.list(&names::leases()).try_collect::<Vec<_>>().await.unwrap().len()
}

#[tokio::test]
async fn sweep_keeps_objects_of_a_leased_root_until_release() {
    let store = memory().await;
    let (mut recorder, mut rollup) = rolled_up(&store, 6).await;
    let view = CatalogView::load(&store).await.unwrap();
    let named = view.root().slots.clone();
    assert!(named.iter().any(|of| matches!(of.slot, TimeSlot::Hour(_))));
    let mut lease = Lease::of(view.store(), view.root().version, Duration::from_secs(3_600));
    lease.renew().await.unwrap();
    roll_up(&mut recorder, &mut rollup, 6..20).await;
    let is_there = async || {
        let mut there = store.head(&names::root(view.root().version)).await.unwrap().is_some();
        for of in &named {
            let manifest = names::manifest(of.slot, of.version);
            there &= store.head(&manifest).await.unwrap().is_some();
        }
        there
    };
    let swept = rollup.sweep(Duration::ZERO).await.unwrap();
    assert!(swept.roots > 0 && swept.manifests > 0, "what is older goes: {swept:?}");
    assert!(is_there().await);
    for _ in 0..5 {
        lease.renew().await.unwrap();
        assert!(leases(&store).await <= STAY);
    }
    rollup.sweep(Duration::ZERO).await.unwrap();
    assert!(is_there().await);
    lease.give_back().await;
    assert_eq!(leases(&store).await, 0);
    rollup.sweep(Duration::ZERO).await.unwrap();
    assert!(!is_there().await);
    // The view is good all the same: newer versions say what it says.
    assert_eq!(view.window(capstan_model::TimeRange::ALL).await.unwrap().segments.len(), 6);
}

#[tokio::test]
async fn lease_on_a_removed_root_is_refused() {
    let store = memory().await;
    let (mut recorder, mut rollup) = rolled_up(&store, 2).await;
    let view = CatalogView::load(&store).await.unwrap();
    roll_up(&mut recorder, &mut rollup, 2..12).await;
    rollup.sweep(Duration::ZERO).await.unwrap();
    let mut lease = Lease::of(view.store(), view.root().version, Duration::from_secs(3_600));
    let late = lease.renew().await.expect_err("too late");
    assert_eq!(late.kind(), FailureKind::NotFound);
    assert!(late.to_string().contains("older than 30 minutes"), "{late}");
    lease.give_back().await;
    assert_eq!(leases(&store).await, 0);
    // Replaced longer ago than half a grace of next to nothing.
    let view = CatalogView::load(&store).await.unwrap();
    roll_up(&mut recorder, &mut rollup, 12..13).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let late =
        Lease::of(view.store(), view.root().version, Duration::from_millis(10)).renew().await;
    assert_eq!(late.expect_err("too late").kind(), FailureKind::NotFound);
}

#[tokio::test]
async fn only_long_reads_take_a_lease() {
    let store = memory().await;
    let (_recorder, _rollup) = rolled_up(&store, 2).await;
    let view = CatalogView::load(&store).await.unwrap();
    let holds = AtomicBool::new(false);
    let before = store.requests();
    keep(view.store(), view.root().version, Duration::from_secs(3_600), &holds, async {})
        .await
        .unwrap();
    assert_eq!(store.requests(), before);
    let done = async {
        while leases(&store).await == 0 || !holds.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    keep(view.store(), view.root().version, Duration::from_secs(2), &holds, done).await.unwrap();
    assert_eq!((leases(&store).await, holds.load(Ordering::Relaxed)), (0, false));
}
