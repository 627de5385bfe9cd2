//! A golden store, damaged in every way, and repaired.

mod losses;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use capstan_model::TimeRange;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;
use crate::catalog::{CatalogView, Segment, SegmentEntry, Window};
use crate::store::Store;
use crate::term_filters::TermFilters;
use crate::testing::{full, golden, growing, names};
use crate::verify::{self, Finding};

#[derive(Default)]
struct Heard {
    actions: Mutex<Vec<Action>>,
    findings: Mutex<Vec<Finding>>,
}

impl Watch for Heard {
    fn did(&self, action: &Action) {
        self.actions.lock().unwrap().push(action.clone());
    }
}

impl verify::Watch for Heard {
    fn found(&self, finding: &Finding) {
        self.findings.lock().unwrap().push(finding.clone());
    }
}

const NOW: Options =
    Options { dry_run: false, nobody_writes: true, remove_waste: false, host: String::new() };

async fn repaired(store: &Store, options: &Options) -> (Report, Vec<Action>) {
    let heard = Heard::default();
    let report = repair(store, options, &heard).await.unwrap();
    (report, heard.actions.into_inner().unwrap())
}

async fn found(store: &Store) -> Vec<Finding> {
    let heard = Heard::default();
    let options = verify::Options {
        range: TimeRange::ALL,
        deep: true,
        layers: crate::segment::Layers::KNOWN,
    };
    verify::verify(store, &options, &heard).await.unwrap();
    heard.findings.into_inner().unwrap()
}

async fn window(store: &Store) -> Window {
    CatalogView::load(store).await.unwrap().window(TimeRange::ALL).await.unwrap()
}

/// What can be asked of a store: names of segments, who recorded them, packets; and statements.
fn told(window: &Window) -> Vec<String> {
    let segment = |of: &Arc<Segment>| {
        let entry = &of.entry;
        format!("{} {} {:?}", of.of, entry.name, entry.protocols)
    };
    let mut told: Vec<_> = window.segments.iter().map(segment).collect();
    told.extend(window.listened.iter().map(|of| format!("{of:?}")));
    told.extend(window.losses.iter().map(|of| format!("{of:?}")));
    told.sort();
    told
}

async fn flip(objects: &InMemory, name: &str) {
    let mut bytes = objects.get(&full(name)).await.unwrap().bytes().await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    objects.put(&full(name), bytes.into()).await.unwrap();
}

#[tokio::test]
async fn intact_store_needs_no_repair() {
    let (objects, store) = golden().await;
    let before = names(&objects).await;
    assert_eq!(repaired(&store, &NOW).await, (Report::default(), Vec::new()));
    assert_eq!(names(&objects).await, before);
}

#[tokio::test]
async fn repair_rebuilds_any_damaged_part_of_the_rolled_up_catalog() {
    let (_, sound) = golden().await;
    let expected = told(&window(&sound).await);
    let all = names(&golden().await.0).await;
    let rolled_up = |name: &&String| name.starts_with("catalog/") || name.starts_with("boundary/");
    for name in all.iter().filter(rolled_up) {
        for damage in ["flip", "remove"] {
            let (objects, store) = golden().await;
            match damage {
                "flip" => flip(&objects, name).await,
                _ => objects.delete(&full(name)).await.unwrap(),
            }
            // A rehearsal changes nothing.
            let before = names(&objects).await;
            let rehearsal = Options { dry_run: true, ..NOW };
            let (planned, _) = repaired(&store, &rehearsal).await;
            assert_eq!(names(&objects).await, before);

            let (report, actions) = repaired(&store, &NOW).await;
            assert_eq!(planned.repaired, report.repaired, "{damage} {name}: {actions:?}");
            assert_eq!(found(&store).await, [], "{damage} {name}: {actions:?}");
            assert_eq!(told(&window(&store).await), expected, "{damage} {name}: {actions:?}");
            assert_eq!(repaired(&store, &NOW).await.0, Report::default(), "{damage} {name}");
        }
    }
}

#[tokio::test]
async fn repair_rebuilds_a_missing_catalog_from_the_logs() {
    let (_, sound) = golden().await;
    let expected = told(&window(&sound).await);
    let (objects, store) = golden().await;
    for name in names(&objects).await.iter().filter(|name| name.starts_with("catalog/")) {
        objects.delete(&full(name)).await.unwrap();
    }
    assert_eq!(window(&store).await.segments.len(), 0);
    let (report, actions) = repaired(&store, &NOW).await;
    assert!(report.repaired > 0, "{actions:?}");
    assert_eq!(told(&window(&store).await), expected);
    assert_eq!(found(&store).await, []);
}

#[tokio::test]
async fn repair_names_every_packet_from_segments_alone() {
    let (_, sound) = golden().await;
    let expected = window(&sound).await;
    let (objects, store) = golden().await;
    for name in names(&objects).await.iter().filter(|name| !name.starts_with("data/")) {
        if name != "format" {
            objects.delete(&full(name)).await.unwrap();
        }
    }
    let hasty = Options { nobody_writes: false, ..NOW };
    let (report, actions) = repaired(&store, &hasty).await;
    assert_eq!((report.adopted, report.left.0), ((0, 0), 2), "{actions:?}");
    let (report, actions) = repaired(&store, &NOW).await;
    assert_eq!(report.adopted.0, 2, "{actions:?}");
    let found_again = window(&store).await;
    assert!(found_again.segments.iter().all(|of| of.entry.address_filter.is_some()));
    let plain = |window: &Window| {
        let of = |of: &Arc<Segment>| {
            let mut layers = of.entry.layers.clone();
            layers.sort_by(|a, b| a.layer.cmp(&b.layer));
            // The golden one has none that is read today.
            let (owner, address_filter) = (None, None);
            let (term_filters, flow_ids) = (TermFilters::default(), None);
            let entry = SegmentEntry {
                owner,
                address_filter,
                term_filters,
                flow_ids,
                layers,
                ..of.entry.clone()
            };
            (of.of, entry)
        };
        let mut all: Vec<_> = window.segments.iter().map(of).collect();
        all.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        all
    };
    assert_eq!(plain(&found_again), plain(&expected));
    // What was listened to is not known any more, and is not made up.
    assert!(found_again.listened.is_empty());
    assert_eq!(found(&store).await, []);
    assert_eq!(repaired(&store, &NOW).await.0, Report::default());
}

#[tokio::test]
async fn repair_names_segments_of_a_lost_commit_again() {
    let (_, sound) = golden().await;
    let expected: Vec<_> =
        window(&sound).await.segments.iter().map(|of| of.entry.name.clone()).collect();
    let all = names(&golden().await.0).await;
    for log in all.iter().filter(|name| name.starts_with("log/")) {
        let (objects, store) = golden().await;
        // As if it had never been rolled up.
        for name in all.iter().filter(|name| name.starts_with("catalog/")) {
            objects.delete(&full(name)).await.unwrap();
        }
        objects.delete(&full(log)).await.unwrap();
        repaired(&store, &NOW).await;
        let again = window(&store).await;
        let mut names: Vec<_> = again.segments.iter().map(|of| of.entry.name.clone()).collect();
        names.sort();
        assert_eq!(names, expected, "{log}");
    }
}

#[tokio::test]
async fn repair_removes_orphans_of_an_interrupted_upload_on_request() {
    let (objects, store) = golden().await;
    let left = "data/date=2026-10-02/hour=14/x/body";
    objects.put(&full(left), "left".into()).await.unwrap();
    let (report, actions) = repaired(&store, &NOW).await;
    assert_eq!((report.left, report.removed), ((1, 4), (0, 0)), "{actions:?}");
    let remove = Options { remove_waste: true, ..NOW };
    let rehearsal = Options { dry_run: true, ..remove.clone() };
    assert_eq!(repaired(&store, &rehearsal).await.0.removed, (1, 4));
    assert!(names(&objects).await.iter().any(|name| name == left));
    let young = Options { nobody_writes: false, ..remove.clone() };
    assert_eq!(repaired(&store, &young).await.0.removed, (0, 0));
    assert_eq!(repaired(&store, &remove).await.0.removed, (1, 4));
    assert!(!names(&objects).await.iter().any(|name| name == left));
    assert_eq!(found(&store).await, []);
}

/// A golden store of which nothing is rolled up, and its log entries that name segments.
async fn not_rolled_up() -> (Arc<InMemory>, Store, Vec<String>) {
    let (objects, store) = golden().await;
    let all = names(&objects).await;
    let mut with_segments = Vec::new();
    for name in &all {
        if name.starts_with("catalog/") || name.starts_with("boundary/") {
            objects.delete(&full(name)).await.unwrap();
        } else if let Some(owner) = name.strip_prefix("writers/") {
            let open = format!("open/{}", owner.replace('/', "-"));
            objects.put(&full(&open), "".into()).await.unwrap();
        } else if name.starts_with("log/") {
            let bytes = objects.get(&full(name)).await.unwrap().bytes().await.unwrap();
            let commit: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            if commit["segments"].as_array().is_some_and(|of| !of.is_empty()) {
                with_segments.push(name.clone());
            }
        }
    }
    (objects, store, with_segments)
}

#[tokio::test]
async fn replaced_commit_no_longer_counts() {
    let packets = async |store: &Store| {
        let window = CatalogView::load(store).await.unwrap().window(TimeRange::ALL).await.unwrap();
        let names: BTreeSet<_> = window.segments.iter().map(|of| of.entry.name.clone()).collect();
        assert_eq!(names.len(), window.segments.len(), "a segment is there twice");
        let packets: u64 = window.segments.iter().map(|of| of.entry.packets).sum();
        (packets, window.gaps.len())
    };
    for roll_up_first in [false, true] {
        for harm in ["damaged", "changed", "lost"] {
            let (objects, store, with_segments) = not_rolled_up().await;
            let whole = packets(&store).await;
            assert!(whole.0 > 0 && whole.1 == 0);
            let name = &with_segments[0];
            let good = objects.get(&full(name)).await.unwrap().bytes().await.unwrap();
            let text = String::from_utf8(good.to_vec()).unwrap();
            match harm {
                "damaged" => {
                    objects.put(&full(name), "{".into()).await.unwrap();
                }
                "changed" => {
                    let at = text.find("\"packets\":").unwrap() + "\"packets\":".len();
                    let mut bytes = good.to_vec();
                    bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
                    objects.put(&full(name), bytes.into()).await.unwrap();
                }
                _ => objects.delete(&full(name)).await.unwrap(),
            }
            let what = format!("{harm}, rolled up first: {roll_up_first}");
            assert_eq!(packets(&store).await.1, 1, "{what}");
            if roll_up_first {
                crate::catalog::rollup::roll_up_all(&store, "test").await.unwrap();
                assert_eq!(packets(&store).await.1, 1, "{what}: the root says it");
            }
            let options = Options { nobody_writes: true, ..Options::default() };
            let report = repair(&store, &options, &Heard::default()).await.unwrap();
            assert_eq!((report.beyond, report.left), (0, (0, 0)), "{what}");
            assert!(report.adopted.0 > 0, "{what}: {report:?}");
            assert_eq!(packets(&store).await, whole, "{what}");
            assert_eq!(
                repair(&store, &options, &Heard::default()).await.unwrap(),
                Report::default(),
                "{what}"
            );
            let options = verify::Options {
                range: TimeRange::ALL,
                deep: true,
                layers: crate::segment::Layers::KNOWN,
            };
            let checked = verify::verify(&store, &options, &Heard::default()).await.unwrap();
            assert!(checked.worst() <= Some(verify::Severity::Note), "{what}: {checked:?}");
        }
    }
}

#[tokio::test]
async fn commit_with_unresolved_segments_stays_missing() {
    let (objects, store, with_segments) = not_rolled_up().await;
    objects.put(&full(&with_segments[0]), "{".into()).await.unwrap();
    for index in names(&objects).await.iter().filter(|name| name.ends_with("/index")) {
        objects.put(&full(index), "no index".into()).await.unwrap();
    }
    let options = Options { nobody_writes: true, ..Options::default() };
    let report = repair(&store, &options, &Heard::default()).await.unwrap();
    assert!(report.beyond > 1, "{report:?}");
    let view = CatalogView::load(&store).await.unwrap();
    assert!(view.gaps().iter().any(|gap| gap.object == with_segments[0]), "{:?}", view.gaps());
}

#[tokio::test]
async fn commit_created_during_the_repair_counts() {
    for (commit, objects, store) in growing().await {
        let before = told(&window(&store).await);
        let (report, actions) = repaired(&store, &NOW).await;
        assert_eq!(report, Report::default(), "{commit}: {actions:?}");
        // Where a manifest is damaged every commit that is missing is in doubt.
        let all = names(&objects).await;
        let manifest = all.iter().find(|name| name.starts_with("catalog/date=")).unwrap();
        objects.put(&full(manifest), "damaged".into()).await.unwrap();
        let (report, actions) = repaired(&store, &NOW).await;
        assert!(report.repaired > 0 && report.beyond == 0, "{commit}: {actions:?}");
        assert!(!actions.iter().any(|action| matches!(action, Action::Replaced(_))), "{actions:?}");
        assert_eq!(told(&window(&store).await), before, "{commit}");
    }
}
