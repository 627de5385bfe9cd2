//! Busy hours: facts in parts, and which of them are read.

use capstan_index::filter::FlowFilter;
use capstan_model::coverage::Listened;
use capstan_model::{Address, Hour, TimeRange};
use futures::TryStreamExt;

use crate::catalog::names;
use crate::catalog::rollup::tests::{HOUR, Silent, names_in, recorder, window};
use crate::catalog::rollup::{Rollup, Stay, roll_up_all};
use crate::catalog::root::Step;
use crate::catalog::tests::{draft, memory, seconds};
use crate::catalog::{Asked, CatalogView, Fact, GapKind, TimeSlot, Window, versions};
use crate::store::{Created, Store};
use crate::term_filters::TermFilter;

/// Six hundred segments in each of two hours, those of an hour with one address: 10.0.0.1 or 10.0.0.2.
async fn two_busy_hours() -> Store {
    let store = memory().await;
    let mut recorder = recorder(&store, 0).await;
    for hour in 0..2 {
        for number in 0..600 {
            let at = hour * HOUR + number;
            let mut draft = draft(&format!("{hour}-{number:03}"), at);
            let address = Address::v4([10, 0, 0, 1 + hour as u8]);
            let Fact::Segment(entry) = &mut draft.facts[0] else { panic!("a segment") };
            entry.address_filter = TermFilter::of([address]);
            let listened = Listened { range: seconds(at, at + 1), interfaces: Vec::new() };
            draft.facts.push(Fact::Listened(listened));
            recorder.commit(draft).await.unwrap();
        }
    }
    roll_up_all(&store, "test").await.unwrap();
    store
}

#[tokio::test]
async fn segments_of_hours_without_an_address_are_pruned() {
    let store = two_busy_hours().await;
    let ask = async |range, address: u8, statements| {
        let view = CatalogView::load(&store).await.unwrap();
        let before = store.requests();
        let host = FlowFilter::host(Address::v4([10, 0, 0, address]));
        let asked = Asked { range, flows: Some(&host), statements };
        let window = view.window_of(asked).await.unwrap();
        assert_eq!(window.gaps, []);
        (window, (store.requests() - before).bytes_read)
    };
    let before = store.requests();
    let all = window(&store, TimeRange::ALL).await;
    let whole = (store.requests() - before).bytes_read;
    assert_eq!((all.segments.len(), all.listened.len(), all.pruned_by_manifest), (1_200, 1_200, 0));

    let (there, bytes) = ask(TimeRange::ALL, 2, true).await;
    assert!(there.pruned_by_manifest > 300 && bytes < whole, "{bytes} of {whole}");
    assert_eq!(there.segments.len() as u64 + there.pruned_by_manifest, 1_200);
    let second = |window: &Window| names_in(window).iter().filter(|of| of.starts_with('1')).count();
    assert_eq!(second(&there), 600);
    assert_eq!(there.listened, all.listened, "what was listened to is no matter of addresses");
    assert_eq!(there.writers, all.writers);

    let (nowhere, bytes_nowhere) = ask(TimeRange::ALL, 9, true).await;
    assert!(nowhere.pruned_by_manifest > there.pruned_by_manifest && bytes_nowhere < bytes);
    assert_eq!(nowhere.listened, all.listened);
    let (bare, bytes) = ask(TimeRange::ALL, 9, false).await;
    assert!(bare.listened.is_empty() && bytes < bytes_nowhere, "{bytes} of {bytes_nowhere}");
    assert_eq!(
        (bare.pruned_by_manifest, bare.writers),
        (nowhere.pruned_by_manifest, nowhere.writers)
    );
    // What touches the time asked for is passed over, and no more.
    let (minute, _) = ask(seconds(0, 60), 9, true).await;
    assert!(
        minute.pruned_by_manifest < nowhere.pruned_by_manifest,
        "{}",
        minute.pruned_by_manifest
    );
}

#[tokio::test]
async fn verify_reports_and_repair_fixes_a_manifest_that_hides_segments() {
    struct Found(std::sync::Mutex<Vec<String>>);
    impl crate::verify::Watch for Found {
        fn found(&self, finding: &crate::verify::Finding) {
            self.0.lock().unwrap().push(format!("{:?}", finding.what));
        }
    }
    let store = two_busy_hours().await;
    let hides = async || {
        let found = Found(std::sync::Mutex::default());
        let options = crate::verify::Options {
            range: TimeRange::ALL,
            deep: false,
            layers: crate::segment::Layers::KNOWN,
        };
        crate::verify::verify(&store, &options, &found).await.unwrap();
        let found = found.0.into_inner().unwrap();
        found.iter().any(|what| what.contains("prune segments wrongly"))
    };
    assert!(!hides().await);
    let hour = TimeSlot::Hour(Hour(1));
    let newest = versions::newest_manifest(&store, hour, 0).await.unwrap();
    let mut wrong = newest.value.clone();
    wrong.version += 1;
    wrong.previous = newest.sha256;
    wrong.address_filter = TermFilter::of([Address::v4([10, 0, 0, 9])]);
    assert!(wrong.check(&newest.value).is_err(), "nobody can put it");
    let bytes = crate::store::checked::pack(&wrong).unwrap();
    let path = names::manifest(hour, wrong.version);
    assert_eq!(store.create(&path, bytes.into()).await.unwrap(), Created::Created);
    assert!(hides().await);
    let options = crate::repair::Options::default();
    let report = crate::repair::repair(&store, &options, &Silent).await.unwrap();
    // The manifest, and the two parts that it named.
    assert_eq!(report.repaired, 3);
    assert!(!hides().await);
    let again = crate::repair::repair(&store, &options, &Silent).await.unwrap();
    // Nothing was ever put of the segments.
    assert_eq!(again, crate::repair::Report { beyond: 1_200, ..Default::default() });
    assert_eq!(window(&store, TimeRange::ALL).await.segments.len(), 1_200);
}

#[tokio::test]
async fn repair_restores_a_missing_part() {
    for lost in ["segments", "statements"] {
        let store = two_busy_hours().await;
        let expected = window(&store, TimeRange::ALL).await;
        let listed: Vec<_> = store.list(&names::catalog()).try_collect().await.unwrap();
        let parts = listed.iter().filter(|of| of.path.as_ref().ends_with(lost));
        let part = parts.map(|of| &of.path).next().expect("there are some");
        store.delete(part).await.unwrap();
        let left = CatalogView::load(&store).await.unwrap().window(TimeRange::ALL).await.unwrap();
        let [gap] = &left.gaps[..] else { panic!("{lost}: {:?}", left.gaps) };
        assert!(gap.object == part.to_string() && gap.kind == GapKind::Missing, "{gap}");
        let options = crate::repair::Options::default();
        crate::repair::repair(&store, &options, &Silent).await.unwrap();
        let again = window(&store, TimeRange::ALL).await;
        assert_eq!(again.segments, expected.segments, "{lost}");
        assert_eq!(again.listened, expected.listened, "{lost}");
        let nothing = crate::repair::repair(&store, &options, &Silent).await.unwrap();
        // Nothing was ever put of the segments.
        assert_eq!(nothing, crate::repair::Report { beyond: 1_200, ..Default::default() });
    }
}

/// A store with a segment in each of so many hours, rolled up.
async fn hours_with_a_segment(many: i64) -> Store {
    let store = memory().await;
    let mut recorder = recorder(&store, 0).await;
    for hour in 0..many {
        recorder.commit(draft(&format!("{hour:03}"), hour * HOUR)).await.unwrap();
    }
    roll_up_all(&store, "test").await.unwrap();
    store
}

async fn delete_manifests(store: &Store, slot: TimeSlot) {
    for (version, _) in versions::listed_manifests(store, slot).await.unwrap() {
        store.delete(&names::manifest(slot, version)).await.unwrap();
    }
}

#[tokio::test]
async fn missing_manifest_of_an_old_hour_is_reported() {
    let store = hours_with_a_segment(300).await;
    let (lost, slot) = (Hour(3), TimeSlot::Hour(Hour(3)));
    let view = CatalogView::load(&store).await.unwrap();
    assert_eq!(view.root().slot(slot), None, "the root does not name it any more");
    delete_manifests(&store, slot).await;
    let view = CatalogView::load(&store).await.unwrap();
    for range in [lost.range().unwrap(), TimeRange::ALL] {
        let window = view.window(range).await.unwrap();
        let [gap] = &window.gaps[..] else { panic!("{:?}", window.gaps) };
        assert!(gap.kind == GapKind::Missing && gap.object.ends_with("hour=03"), "{gap}");
        assert_eq!(window.segments.len(), if range.is_all() { 299 } else { 0 });
    }
    for sound in [Hour(2), Hour(4), Hour(1_000)] {
        assert_eq!(view.window(sound.range().unwrap()).await.unwrap().gaps, []);
    }
    let options = crate::repair::Options::default();
    assert_eq!(crate::repair::repair(&store, &options, &Silent).await.unwrap().repaired, 1);
    let again = window(&store, TimeRange::ALL).await;
    assert_eq!((again.segments.len(), again.gaps.len()), (300, 0));
}

#[tokio::test]
async fn takeover_from_an_older_version_lists_the_hours_with_manifests() {
    let store = hours_with_a_segment(2).await;
    let newest = versions::newest_root(&store, None).await.unwrap();
    let before = newest.value.clone();
    let mut older = before.advance(Step::default(), newest.sha256, "nonce".to_owned());
    older.hours = None;
    let older = versions::put_root(&store, &before, older).await.unwrap().unwrap();
    assert_eq!(window(&store, TimeRange::ALL).await.segments.len(), 2);
    let rollup = Rollup::claim(&store, "test", Stay::Leaves).await.unwrap();
    rollup.root().check(&older.value).unwrap();
    let hours = rollup.root().hours.as_ref().unwrap();
    let all: Vec<_> = hours.iter().collect();
    assert_eq!(all, [Hour(0), Hour(1)]);
}

#[tokio::test]
async fn missing_manifest_of_an_older_root_is_reported() {
    let store = hours_with_a_segment(2).await;
    let newest = versions::newest_root(&store, None).await.unwrap().value;
    let after = newest.advance(Step::default(), String::new(), "nonce".to_owned());
    let path = names::root(after.version);
    assert_eq!(store.create(&path, "{".into()).await.unwrap(), Created::Created);
    let ask = async |range| CatalogView::load(&store).await.unwrap().window(range).await.unwrap();
    let sound = ask(TimeRange::ALL).await;
    assert_eq!((sound.segments.len(), sound.gaps.len()), (2, 0), "{:?}", sound.gaps);
    delete_manifests(&store, TimeSlot::Hour(Hour(1))).await;
    for range in [Hour(1).range().unwrap(), TimeRange::ALL] {
        let short = ask(range).await;
        let [gap] = &short.gaps[..] else { panic!("{:?}", short.gaps) };
        assert!(gap.kind == GapKind::Missing && gap.object.contains("hour=01"), "{gap}");
    }
}
