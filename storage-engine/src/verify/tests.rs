//! A golden store, and what becomes of it when something happens to its objects.

use std::path::Path as FilePath;
use std::sync::Mutex;

use capstan_model::Time;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use super::*;
use crate::segment::Layers;
use crate::store::Store;
use crate::testing::{CLUSTER, full, golden, growing, in_memory, names};

#[derive(Default)]
struct Heard(Mutex<Vec<Finding>>);

impl Watch for Heard {
    fn found(&self, finding: &Finding) {
        self.0.lock().unwrap().push(finding.clone());
    }
}

async fn check(store: &Store, deep: bool) -> (Report, Vec<Finding>) {
    let heard = Heard::default();
    let options = Options { range: capstan_model::TimeRange::ALL, deep, layers: Layers::KNOWN };
    let report = verify(store, &options, &heard).await.unwrap();
    (report, heard.0.into_inner().unwrap())
}

#[tokio::test]
async fn intact_store_has_no_findings() {
    let (objects, store) = golden().await;
    let all = names(&objects).await.len() as u64;
    let before = store.requests();
    let (report, findings) = check(&store, false).await;
    let asked = store.requests() - before;
    assert_eq!(findings, []);
    assert_eq!((report.logs, report.commits, report.segments, report.objects), (2, 4, 2, 10));
    assert_eq!(all, report.objects + report.commits + report.logs + report.rolled_up + 1);
    // `format`, writers, commits, what is rolled up, and the two index layers; no other layer.
    assert_eq!((report.rolled_up, asked.gets), (9, 1 + 2 + 4 + 9 + 2));
    let (deep, findings) = check(&store, true).await;
    assert_eq!(findings, []);
    assert!(deep.bytes > report.bytes && deep.worst().is_none() && deep.stopped_in.is_none());
}

#[tokio::test]
async fn every_changed_byte_is_found_and_its_object_reported() {
    let (objects, store) = golden().await;
    for name in names(&objects).await {
        let good = objects.get(&full(&name)).await.unwrap().bytes().await.unwrap();
        for at in (0..good.len()).step_by(1 + good.len() / 60) {
            let mut bytes = good.to_vec();
            bytes[at] ^= 1 << (at % 8);
            objects.put(&full(&name), bytes.into()).await.unwrap();
            let (report, findings) = check(&store, true).await;
            assert_eq!(findings[0].object, name, "byte {at}: {findings:?}");
            // What a commit cannot say any more, nobody says.
            assert!(findings.len() == 1 || name.starts_with("log/"), "byte {at}: {findings:?}");
            assert!(report.worst() > Some(Severity::Note), "{name}, byte {at}: {findings:?}");
        }
        objects.put(&full(&name), good.into()).await.unwrap();
    }
    assert_eq!(check(&store, true).await.1, []);
}

#[tokio::test]
async fn missing_and_truncated_objects_are_found_without_reading_them() {
    let (objects, store) = golden().await;
    for name in names(&objects).await.iter().filter(|name| name.starts_with("data/")) {
        let good = objects.get(&full(name)).await.unwrap().bytes().await.unwrap();
        objects.delete(&full(name)).await.unwrap();
        let (report, findings) = check(&store, false).await;
        let [Finding { object, what: What::Missing(layer) }] = &findings[..] else {
            panic!("{findings:?}")
        };
        assert!(object == name && name.ends_with(layer.file()), "{findings:?}");
        assert_eq!((report.worst(), report.segments), (Some(Severity::Lost), 2));
        assert!(findings[0].readable().is_some());

        objects.put(&full(name), good.slice(1..).into()).await.unwrap();
        let (report, findings) = check(&store, false).await;
        let [Finding { object, what: What::Length { found, committed, .. } }] = &findings[..]
        else {
            panic!("{findings:?}")
        };
        assert!(object == name && found + 1 == *committed);
        assert_eq!(report.worst(), Some(Severity::Damaged));
        objects.put(&full(name), good.into()).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_commit_is_a_loss_and_its_segments_are_orphans() {
    let (objects, store) = in_memory(2).await;
    let log = names(&objects).await;
    let first = log.iter().find(|name| name.starts_with("log/")).unwrap();
    objects.delete(&full(first)).await.unwrap();
    let (report, findings) = check(&store, true).await;
    assert_eq!(report.worst(), Some(Severity::Lost));
    assert_eq!(findings[0].object, *first);
    assert_eq!(report.orphans.0, 5);
    assert!(matches!(findings[1].what, What::Orphan { young: true, .. }));
}

#[tokio::test]
async fn a_missing_commit_that_is_rolled_up_is_no_loss() {
    let (objects, store) = golden().await;
    let all = names(&objects).await;
    for log in all.iter().filter(|name| name.starts_with("log/")) {
        let good = objects.get(&full(log)).await.unwrap().bytes().await.unwrap();
        objects.delete(&full(log)).await.unwrap();
        let (report, findings) = check(&store, true).await;
        // Of a log's last commit nobody can tell that it was there, but the generation that ended.
        let of_log = findings.iter().filter(|found| found.object == *log).count();
        assert!(of_log == 1 || log.ends_with("01"), "{findings:?}");
        assert!(report.worst() <= Some(Severity::Damaged) && report.orphans.0 == 0);
        objects.put(&full(log), good.into()).await.unwrap();
    }
}

#[tokio::test]
async fn commit_created_during_the_check_is_not_missing() {
    for (commit, _, store) in growing().await {
        let (report, findings) = check(&store, true).await;
        assert!(findings.is_empty() && report.worst().is_none(), "{commit}: {findings:?}");
    }
}

#[tokio::test]
async fn missing_facts_of_the_rolled_up_catalog_are_found() {
    let (objects, store) = golden().await;
    let all = names(&objects).await;
    for name in all.iter().filter(|name| name.starts_with("catalog/date=")) {
        let good = objects.get(&full(name)).await.unwrap().bytes().await.unwrap();
        objects.delete(&full(name)).await.unwrap();
        let (report, findings) = check(&store, false).await;
        assert_eq!((findings.len(), &findings[0].object), (1, name), "{findings:?}");
        assert_eq!(report.worst(), Some(Severity::Damaged));
        objects.put(&full(name), good.into()).await.unwrap();
    }
    objects.put(&full("catalog/date=2026-10-02/hour=12/part-x"), "left".into()).await.unwrap();
    objects.put(&full("catalog/other"), "mine".into()).await.unwrap();
    let (report, findings) = check(&store, false).await;
    assert_eq!((findings.len(), report.worst()), (2, Some(Severity::Note)), "{findings:?}");
}

#[tokio::test]
async fn orphans_are_notes_and_no_damage() {
    let (objects, store) = golden().await;
    for name in ["data/date=2026-10-02/hour=14/x/body", "data/date=2020-01-01/hour=00/y/index"] {
        objects.put(&full(name), "left".into()).await.unwrap();
    }
    for name in ["notes.txt", "other/thing", "log/x", "writers/00000000000000ab/7", "lease/x"] {
        objects.put(&full(name), "mine".into()).await.unwrap();
    }
    // Somebody reads.
    let lease = crate::catalog::names::lease(&store.nonce(), 1, 0);
    store.put_new(&lease, Vec::new()).await.unwrap();
    let (report, findings) = check(&store, true).await;
    assert_eq!(report.worst(), Some(Severity::Note));
    assert_eq!(report.orphans, (2, 8));
    let foreign = findings.iter().filter(|found| found.what == What::Foreign);
    let mut foreign: Vec<&str> = foreign.map(|found| found.object.as_str()).collect();
    foreign.sort_unstable();
    assert_eq!(foreign, ["lease/x", "log/x", "notes.txt", "other", "writers/00000000000000ab/7"]);
}

#[tokio::test]
async fn verify_reads_only_the_selected_hours_and_reports_where_it_stopped() {
    struct Stopped;
    impl Watch for Stopped {
        fn is_stopped(&self) -> bool {
            true
        }
    }
    let (_, store) = golden().await;
    let (whole, _) = check(&store, false).await;
    let none = capstan_model::TimeRange::new(Time(0), Time(1)).unwrap();
    let options = Options { range: none, deep: true, layers: Layers::KNOWN };
    let report = verify(&store, &options, &Heard::default()).await.unwrap();
    assert_eq!((report.segments, report.objects, report.commits), (0, 0, whole.commits));
    let options =
        Options { range: capstan_model::TimeRange::ALL, deep: true, layers: Layers::KNOWN };
    let report = verify(&store, &options, &Stopped).await.unwrap();
    assert_eq!(report.segments, 0);
    let first = report.stopped_in.unwrap();
    assert!(store.list(&crate::catalog::names::data_of(first)).try_next().await.unwrap().is_some());
}

#[tokio::test]
async fn damage_is_located_with_the_index_layer() {
    let (objects, store) = golden().await;
    let all = names(&objects).await;
    let body = all.iter().filter(|name| name.ends_with("/body"));
    let mut largest = (0, String::new());
    for name in body {
        let length = objects.head(&full(name)).await.unwrap().size;
        largest = largest.max((length, name.clone()));
    }
    let (length, name) = largest;
    let mut bytes = objects.get(&full(&name)).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[length as usize - 1] ^= 1;
    objects.put(&full(&name), bytes.into()).await.unwrap();
    let (_, findings) = check(&store, true).await;
    let text = findings[0].to_string();
    assert!(text.contains(" block") && text.contains(&format!("to {length}")), "{text}");

    let index = name.replace("/body", "/index");
    objects.delete(&full(&index)).await.unwrap();
    let (_, findings) = check(&store, true).await;
    let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("the index layer is missing"), "{texts:?}");
    assert!(texts[1].contains("unknown without the index layer"), "{texts:?}");
}

#[tokio::test]
async fn store_of_the_first_format_is_checked_as_far_as_possible() {
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1/store");
    let location = crate::store::Location::Folder(root);
    let store = Store::open(&location, CLUSTER, &crate::store::Options::default()).await.unwrap();
    let (report, findings) = check(&store, true).await;
    assert_eq!((findings.len(), report.segments), (0, 2));
}
