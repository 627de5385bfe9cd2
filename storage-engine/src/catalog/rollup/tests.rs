//! Recorders, rollups and readers over memory.

use std::sync::Arc;

use capstan_model::coverage::{Listened, Loss, LossCause};
use capstan_model::{Generation, GenerationId, Hour, RecorderId, Time, TimeRange};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;

use super::*;
use crate::catalog::tests::{RECORDER, draft, live, memory, seconds, segment};
use crate::catalog::{
    About, CatalogView, Change, CommitDraft, Fact, Finished, GapKind, LayerEntry, Recorder,
    SegmentEntry, What, Window,
};

pub(in crate::catalog) const HOUR: i64 = 3_600;

pub(in crate::catalog) async fn recorder(store: &Store, number: u64) -> Recorder {
    Recorder::start(store, RecorderId(RECORDER.0 + number), live()).await.unwrap()
}

async fn rollup(store: &Store) -> Rollup {
    Rollup::claim(store, "test", Stay::Keeps).await.unwrap()
}

async fn step(rollup: &mut Rollup) -> RollupStats {
    match rollup.step().await.unwrap() {
        Outcome::Done(rolled_up) => rolled_up,
        Outcome::Fenced { by } => panic!("fenced by {by}"),
    }
}

pub(in crate::catalog) fn names_in(window: &Window) -> Vec<&str> {
    window.segments.iter().map(|segment| segment.entry.name.as_str()).collect()
}

pub(in crate::catalog) async fn window(store: &Store, range: TimeRange) -> Window {
    let view = CatalogView::load(store).await.unwrap();
    assert_eq!(view.notes().collect::<Vec<_>>(), [""; 0]);
    let window = view.window(range).await.unwrap();
    assert_eq!(window.gaps, []);
    window
}

/// The last commit of a generation.
fn end() -> CommitDraft {
    let finished = Some(Finished { complete: true, packets_total: 0 });
    CommitDraft { finished, ..CommitDraft::default() }
}

#[tokio::test]
async fn rolled_up_catalog_equals_the_logs() {
    let store = memory().await;
    let (mut a, mut b) = (recorder(&store, 0).await, recorder(&store, 1).await);
    a.commit(draft("a0", 0)).await.unwrap();
    b.commit(draft("b0", 5)).await.unwrap();
    let mut rollup = rollup(&store).await;
    let rolled_up = step(&mut rollup).await;
    assert_eq!((rolled_up.logs, rolled_up.commits, rolled_up.manifests), (2, 2, 1));
    assert_eq!(step(&mut rollup).await, RollupStats::default());

    // What comes after is met in the logs, until it is rolled up too.
    a.commit(draft("a1", HOUR)).await.unwrap();
    let all = window(&store, TimeRange::ALL).await;
    assert_eq!(names_in(&all), ["a0", "a1", "b0"]);
    assert_eq!(names_in(&window(&store, seconds(HOUR, HOUR + 1)).await), ["a1"]);
    assert_eq!(names_in(&window(&store, seconds(0, 4)).await), ["a0"]);
    step(&mut rollup).await;
    let rolled_up = window(&store, TimeRange::ALL).await;
    assert_eq!(names_in(&rolled_up), names_in(&all));
    assert_eq!(rolled_up.segments, all.segments);
    assert_eq!(rolled_up.writers, all.writers);
}

#[tokio::test]
async fn fields_of_a_later_version_in_layers_are_rolled_up() {
    let store = memory().await;
    let stored = json!({
        "layer": "calls", "bytes": 9, "sha256": "ab", "codec": {"name": "zstd", "level": null},
        "directory": {"bytes": 4, "sha256": "cd", "rows": [1, 2]},
    });
    let layer: LayerEntry = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(layer.directory_range(), Some(5..9));
    let mut entry = segment("a", 0);
    entry.layers.push(layer.clone());
    let of = |name: &str, what| Change {
        segment: name.to_owned(),
        slots: entry.slots(),
        at: Time(0),
        what,
    };
    let mut draft = CommitDraft::recorded([entry.clone(), segment("b", 0)], [], []);
    draft.facts.push(Fact::Change(of("b", What::LayerAdded { layer })));
    recorder(&store, 0).await.commit(draft).await.unwrap();
    let layers = |window: &Window| {
        let all = window.segments.iter().flat_map(|of| of.layers());
        let later = all.filter(|layer| layer.layer == "calls");
        later.map(|layer| serde_json::to_value(layer).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(layers(&window(&store, TimeRange::ALL).await), [stored.clone(), stored.clone()]);
    step(&mut rollup(&store).await).await;
    assert_eq!(layers(&window(&store, TimeRange::ALL).await), [stored.clone(), stored]);
}

#[tokio::test]
async fn ended_generation_is_not_polled() {
    let store = memory().await;
    let mut recorder = recorder(&store, 0).await;
    recorder.commit(draft("a", 0)).await.unwrap();
    recorder.commit(end()).await.unwrap();
    let mut rollup = rollup(&store).await;
    assert_eq!(step(&mut rollup).await.ended, 1);
    assert!(open_logs(&store).await.unwrap().is_empty());
    step(&mut rollup).await;
    assert!(rollup.root().logs.is_empty());
    assert_eq!(names_in(&window(&store, TimeRange::ALL).await), ["a"]);
    let generations =
        CatalogView::load(&store).await.unwrap().generations().await.unwrap().generations;
    assert_eq!((generations.len(), generations[0].packets(), generations[0].commits()), (1, 10, 2));
    assert!(generations[0].finished().is_some_and(|end| end.complete));

    // A name that shows up again is no new log.
    store
        .put_new(&names::open(GenerationId::new(RECORDER, Generation(1))), Vec::new())
        .await
        .unwrap();
    assert_eq!(names_in(&window(&store, TimeRange::ALL).await), ["a"]);
    assert_eq!(step(&mut rollup).await, RollupStats::default());
    assert!(open_logs(&store).await.unwrap().is_empty());
}

#[tokio::test]
async fn view_is_unchanged_by_later_rollups() {
    let store = memory().await;
    let (mut a, mut ends) = (recorder(&store, 0).await, recorder(&store, 1).await);
    a.commit(draft("a0", 0)).await.unwrap();
    ends.commit(CommitDraft { finished: end().finished, ..draft("e0", 1) }).await.unwrap();
    let mut rollup = rollup(&store).await;
    step(&mut rollup).await;
    a.commit(draft("a1", 2)).await.unwrap();
    let view = CatalogView::load(&store).await.unwrap();

    a.commit(draft("a2", 3)).await.unwrap();
    let mut late = recorder(&store, 2).await;
    late.commit(draft("l0", 4)).await.unwrap();
    step(&mut rollup).await;
    step(&mut rollup).await;
    let then = view.window(TimeRange::ALL).await.unwrap();
    assert_eq!(names_in(&then), ["a0", "a1", "e0"]);
    let now = view.refresh().await.unwrap();
    assert_eq!(
        names_in(&now.window(TimeRange::ALL).await.unwrap()),
        ["a0", "a1", "a2", "e0", "l0"]
    );
    assert!(!now.is_same(&view));
    assert!(now.refresh().await.unwrap().is_same(&now));
}

#[tokio::test]
async fn fenced_rollup_changes_nothing_and_stops() {
    let store = memory().await;
    let mut recorder = recorder(&store, 0).await;
    let mut old = rollup(&store).await;
    recorder.commit(draft("a", 0)).await.unwrap();
    step(&mut old).await;
    let mut new = rollup(&store).await;
    recorder.commit(draft("b", 1)).await.unwrap();
    let outcome = old.step().await.unwrap();
    assert_eq!(outcome, Outcome::Fenced { by: "test".to_owned() });
    assert_eq!(step(&mut new).await.commits, 1);
    assert_eq!(names_in(&window(&store, TimeRange::ALL).await), ["a", "b"]);
    recorder.commit(draft("c", 2)).await.unwrap();
    step(&mut new).await;
    // It may have put a manifest before it was told; that does no harm.
    assert!(matches!(old.step().await.unwrap(), Outcome::Fenced { .. }));
    assert_eq!(names_in(&window(&store, TimeRange::ALL).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn facts_of_many_hours_are_found_in_each_hour() {
    let store = memory().await;
    let mut recorder = recorder(&store, 0).await;
    let range = seconds(HOUR - 10, HOUR + 10);
    let spans = SegmentEntry {
        hours: (0..100).map(Hour).collect(),
        last: Some(Time(99 * HOUR * 1_000_000_000)),
        ..segment("wide", 0)
    };
    let loss = Loss {
        range: seconds(0, 1_000 * HOUR),
        interface: None,
        cause: LossCause::SourceDamaged,
        packets: 0,
        bytes: 0,
        note: String::new(),
    };
    let listened = vec![Listened { range, interfaces: Vec::new() }];
    let losses = vec![loss.clone()];
    let segments = vec![spans];
    let draft = CommitDraft::recorded(segments, listened, losses);
    recorder.commit(draft).await.unwrap();
    let mut rollup = rollup(&store).await;
    assert_eq!(step(&mut rollup).await.manifests, 3);
    for hour in [0, 1, 50, 99] {
        let window = window(&store, seconds(hour * HOUR, hour * HOUR + 60)).await;
        assert_eq!((names_in(&window), window.losses.len()), (vec!["wide"], 1), "{hour}");
        assert_eq!(window.listened.len(), usize::from(hour == 1));
    }
    let all = window(&store, TimeRange::ALL).await;
    assert_eq!((all.segments.len(), all.listened.len(), all.losses.len()), (1, 1, 1));
    assert_eq!(all.losses[0].fact, loss);
}

#[tokio::test]
async fn open_ended_window_includes_untimed_packets() {
    let store = memory().await;
    let mut recorder = recorder(&store, 0).await;
    let untimed = SegmentEntry { hour: Hour::UNKNOWN, first: None, last: None, ..segment("u", 0) };
    let segments = vec![untimed, segment("a", 0), segment("b", 100 * 24 * HOUR)];
    recorder.commit(CommitDraft::recorded(segments, [], [])).await.unwrap();
    step(&mut rollup(&store).await).await;
    let from = |start| TimeRange { start: Time(start), end: Time::MAX };
    assert_eq!(names_in(&window(&store, from(0)).await), ["a", "b"]);
    assert_eq!(names_in(&window(&store, from(HOUR * 1_000_000_000)).await), ["b"]);
    assert_eq!(names_in(&window(&store, TimeRange::ALL).await), ["a", "b", "u"]);
}

#[tokio::test]
async fn many_commits_are_rolled_up_in_steps_and_parts() {
    let store = memory().await;
    let mut recorder = recorder(&store, 0).await;
    for number in 0..700 {
        recorder.commit(draft(&format!("s{number:03}"), number)).await.unwrap();
    }
    let outcome = roll_up_all(&store, "test").await.unwrap();
    let Outcome::Done(rolled_up) = outcome else { panic!("fenced") };
    assert_eq!((rolled_up.commits, rolled_up.logs), (700, 1));
    let manifest = versions::newest_manifest(&store, TimeSlot::Hour(Hour(0)), 0).await.unwrap();
    assert_eq!((manifest.value.version, manifest.value.parts.len()), (3, 2));
    let all = window(&store, TimeRange::ALL).await;
    assert_eq!(all.segments.len(), 700);
    assert_eq!(names_in(&window(&store, seconds(699, 700)).await).last(), Some(&"s699"));
}

#[tokio::test]
async fn cost_of_a_minute_does_not_grow_with_the_history() {
    let mut costs = Vec::new();
    for hours in [1, 24 * 14] {
        let store = memory().await;
        let mut recorder = recorder(&store, 0).await;
        let mut rollup = rollup(&store).await;
        for hour in 0..hours {
            recorder.commit(draft(&format!("s{hour}"), hour * HOUR)).await.unwrap();
            step(&mut rollup).await;
        }
        for asked in [0, hours - 1] {
            let before = store.requests();
            let found = window(&store, seconds(asked * HOUR, asked * HOUR + 60)).await;
            assert_eq!(found.segments.len(), 1);
            costs.push(store.requests() - before);
        }
    }
    let requests = |cost: &crate::store::Requests| cost.gets + cost.lists;
    assert!(costs.iter().all(|cost| requests(cost) <= requests(&costs[0]) + 1), "{costs:?}");
    let most = costs[0].bytes_read + costs[0].bytes_read / 10;
    // The root names the manifests that changed last: that grows, and then no more.
    assert!(costs.iter().all(|cost| cost.bytes_read <= most + 4_096), "{costs:?}");
}

#[tokio::test]
async fn damaged_objects_are_reported_and_the_rest_is_readable() {
    let objects = Arc::new(InMemory::new());
    let store = Store::on(Arc::clone(&objects) as Arc<dyn ObjectStore>, "prod").await.unwrap();
    let mut recorder = recorder(&store, 0).await;
    let mut rollup = rollup(&store).await;
    for number in 0..4 {
        recorder.commit(draft(&format!("a{number}"), number)).await.unwrap();
        recorder.commit(draft(&format!("b{number}"), HOUR + number)).await.unwrap();
        step(&mut rollup).await;
    }
    let change = async |path: &Path| {
        let full: Path = format!("prod/{path}").into();
        let mut bytes = objects.get(&full).await.unwrap().bytes().await.unwrap().to_vec();
        bytes[9] ^= 4;
        objects.put(&full, bytes.into()).await.unwrap();
    };
    let newest = rollup.root().version;
    change(&names::root(newest)).await;
    let view = CatalogView::load(&store).await.unwrap();
    let notes: Vec<_> = view.notes().collect();
    assert!(notes[0].contains(names::root(newest).as_ref()), "{notes:?}");
    let all = view.window(TimeRange::ALL).await.unwrap();
    assert_eq!(all.segments.len(), 8, "the root before knows how to go on");
    assert_eq!(all.gaps, [], "so nothing is hidden");

    // The same change again takes it back.
    change(&names::root(newest)).await;
    let hour = TimeSlot::Hour(Hour(0));
    let version = versions::newest_manifest(&store, hour, 0).await.unwrap().value.version;
    change(&names::manifest(hour, version)).await;
    let view = CatalogView::load(&store).await.unwrap();
    let first = view.window(seconds(0, 60)).await.unwrap();
    assert_eq!(
        names_in(&first),
        ["a0", "a1", "a2"],
        "what the version before does not say is missing"
    );
    let [gap] = &first.gaps[..] else { panic!("{:?}", first.gaps) };
    assert_eq!(gap.object, names::manifest(hour, version).to_string());
    assert_eq!((gap.kind, gap.about.range()), (GapKind::Damaged, Hour(0).range()));
    let second = view.window(seconds(HOUR + 20, HOUR + 60)).await.unwrap();
    assert_eq!(second.gaps, [], "another hour is whole");
}

#[tokio::test]
async fn rollup_skips_and_reports_a_damaged_commit_and_waits_at_a_newer_format() {
    let objects = Arc::new(InMemory::new());
    let store = Store::on(Arc::clone(&objects) as Arc<dyn ObjectStore>, "prod").await.unwrap();
    let mut recorder = recorder(&store, 0).await;
    let (recorder_id, generation) = (recorder.recorder(), recorder.generation());
    for number in 0..3 {
        recorder.commit(draft(&format!("a{number}"), number)).await.unwrap();
    }
    let full = |seq| {
        Path::from(format!(
            "prod/{}",
            names::commit(GenerationId::new(recorder_id, generation), seq)
        ))
    };
    objects.put(&full(1), "{".into()).await.unwrap();
    let good = objects.get(&full(2)).await.unwrap().bytes().await.unwrap();
    objects.put(&full(2), "{\"format\":99}".into()).await.unwrap();
    let mut rollup = rollup(&store).await;
    assert_eq!(step(&mut rollup).await.commits, 2);
    assert_eq!(rollup.root().logs[0].state.chain().next(), 2);
    let view = CatalogView::load(&store).await.unwrap();
    let [damaged, newer] = view.gaps() else { panic!("{:?}", view.gaps()) };
    assert!(damaged.what.contains("/00000000000000000001 is damaged"), "{damaged}");
    assert!(newer.what.contains("/00000000000000000002 was written by a newer"), "{newer}");
    assert_eq!((damaged.kind, newer.kind), (GapKind::Damaged, GapKind::TooNew));
    // Nobody knows what they are about.
    assert!([damaged, newer].iter().all(|gap| gap.about == About::AnyTime));
    // Its writer is of this version after all: who can read it rolls it up.
    objects.put(&full(2), good.into()).await.unwrap();
    step(&mut rollup).await;
    let all = CatalogView::load(&store).await.unwrap().window(TimeRange::ALL).await.unwrap();
    assert_eq!(names_in(&all), ["a0", "a2"]);
}

#[tokio::test]
async fn concurrent_rollups_lose_no_commit() {
    let store = memory().await;
    let mut recorders = Vec::new();
    for number in 0..4 {
        recorders.push(recorder(&store, number).await);
    }
    let mut committed = Vec::new();
    for round in 0..6_i64 {
        for recorder in &mut recorders {
            let name = format!("{}-{round}", recorder.recorder());
            recorder.commit(draft(&name, round * 1_000)).await.unwrap();
            committed.push(name);
        }
        let (a, b) = futures::join!(roll_up_all(&store, "a"), roll_up_all(&store, "b"));
        // One of them, or the next one, has rolled up all.
        let (_, _) = (a.unwrap(), b.unwrap());
        let found = window(&store, TimeRange::ALL).await;
        committed.sort_unstable();
        let mut names = names_in(&found);
        names.sort_unstable();
        assert_eq!(names, committed);
    }
    let roots: Vec<_> = store.list(&names::roots()).try_collect().await.unwrap();
    assert!(roots.len() >= 6);
}

#[tokio::test]
async fn sweep_removes_replaced_versions_and_a_paused_rollup_is_fenced() {
    let store = memory().await;
    let mut recorder = recorder(&store, 0).await;
    let mut asleep = rollup(&store).await;
    let early = CatalogView::load(&store).await.unwrap();
    let mut rollup = rollup(&store).await;
    for number in 0..12 {
        recorder.commit(draft(&format!("s{number:02}"), number)).await.unwrap();
        step(&mut rollup).await;
    }
    assert_eq!(rollup.sweep(sweep::GRACE).await.unwrap(), Swept::default());
    let swept = rollup.sweep(Duration::ZERO).await.unwrap();
    assert!(swept.roots > 6 && swept.manifests == 8, "{swept:?}");
    let roots: Vec<_> = store.list(&names::roots()).try_collect().await.unwrap();
    let lowest = roots.iter().filter_map(|root| names::parse_root(&root.path)).min().unwrap();
    // The number that the sleeper would create is free again.
    assert!(asleep.root().version + 1 < lowest);

    recorder.commit(draft("last", 20)).await.unwrap();
    assert!(matches!(asleep.step().await.unwrap(), Outcome::Fenced { .. }));
    let now = early.refresh().await.unwrap().window(TimeRange::ALL).await.unwrap();
    assert_eq!(now.segments.len(), 13, "a reader who slept finds the newest root");
    step(&mut rollup).await;
    assert_eq!(window(&store, TimeRange::ALL).await.segments.len(), 13);
    assert_eq!(rollup.root().boundary, 1);
}

#[tokio::test]
async fn log_is_followed_after_a_missing_commit() {
    let store = memory().await;
    let mut recorder = recorder(&store, 0).await;
    for (name, first) in [("a0", 0), ("a1", 1), ("a2", 2), ("a3", 3)] {
        recorder.commit(draft(name, first)).await.unwrap();
    }
    store.delete(&names::commit(GenerationId::new(RECORDER, Generation(1)), 1)).await.unwrap();
    let mut rollup = rollup(&store).await;
    assert_eq!(step(&mut rollup).await.logs, 1);
    let view = CatalogView::load(&store).await.unwrap();
    let [gap] = view.gaps() else { panic!("{:?}", view.gaps()) };
    assert!(gap.what.contains("is missing, though later commits"), "{gap}");
    assert_eq!(gap.kind, GapKind::Missing);
    let all = view.window(TimeRange::ALL).await.unwrap();
    assert_eq!(names_in(&all), ["a0", "a2", "a3"]);
    // A log's end is no gap.
    assert_eq!(step(&mut rollup).await, RollupStats::default());
}

#[tokio::test]
async fn rollup_ends_silent_logs_and_a_returning_recorder_continues() {
    let store = memory().await;
    let mut recorder = recorder(&store, 0).await;
    recorder.commit(draft("a", 0)).await.unwrap();
    let mut rollup = rollup(&store).await;
    step(&mut rollup).await;
    assert_eq!(rollup.end_silent(silent::SILENT).await.unwrap(), 0);
    // The root is not newer than the commit by more than nothing: another one has to come.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut other = self::recorder(&store, 1).await;
    other.commit(draft("b", 0)).await.unwrap();
    step(&mut rollup).await;
    let silent = Duration::from_millis(10);
    let sealed = rollup.end_silent(silent).await.unwrap();
    assert!(sealed >= 1, "{sealed}");
    assert!(step(&mut rollup).await.ended >= 1);
    let generations =
        CatalogView::load(&store).await.unwrap().generations().await.unwrap().generations;
    let state = generations.iter().find(|state| state.id().recorder == RECORDER).unwrap();
    assert!(state.finished().is_some_and(|end| !end.complete));
    assert!(state.notes().contains(silent::NOTE));
    // It comes back, and goes on in a generation of its own.
    let commit = recorder.commit(draft("late", 1)).await.unwrap();
    assert_eq!(
        (commit.generation, recorder.generation(), commit.seq),
        (Generation(2), Generation(2), 0)
    );
    recorder.commit(draft("later", 2)).await.unwrap();
    let all = window(&store, TimeRange::ALL).await;
    assert_eq!(names_in(&all), ["a", "late", "later", "b"]);
    let of = |generation: u32| {
        all.segments.iter().filter(move |of| of.by.of.generation == Generation(generation))
    };
    assert!(of(2).all(|of| of.of == GenerationId::new(RECORDER, Generation(1))));
    assert_eq!(of(2).count(), 2, "packets keep the generation they were captured in");
    step(&mut rollup).await;
    assert_eq!(names_in(&window(&store, TimeRange::ALL).await), ["a", "late", "later", "b"]);
    let generations =
        CatalogView::load(&store).await.unwrap().generations().await.unwrap().generations;
    let state = generations
        .iter()
        .find(|state| state.id() == GenerationId::new(RECORDER, Generation(2)))
        .unwrap();
    assert_eq!(state.writer().unwrap().info.resumes, Some(Generation(1)));
    assert!(state.notes().iter().all(|note| note.starts_with("continues a log")));
}

pub(in crate::catalog) struct Silent;

impl crate::repair::Watch for Silent {}

#[tokio::test]
async fn missing_ended_generation_is_written_again() {
    let store = memory().await;
    let (mut ends, mut stays) = (recorder(&store, 0).await, recorder(&store, 1).await);
    let mut rollup = rollup(&store).await;
    stays.commit(draft("s", 0)).await.unwrap();
    ends.commit(CommitDraft { finished: end().finished, ..draft("e", 1) }).await.unwrap();
    step(&mut rollup).await;
    assert!(rollup.root().logs.iter().any(|log| log.ended));
    store
        .delete(&names::ended_generation(GenerationId::new(RECORDER, Generation(1))))
        .await
        .unwrap();
    let options = crate::repair::Options::default();
    let report = crate::repair::repair(&store, &options, &Silent).await.unwrap();
    assert_eq!(report.repaired, 1);
    let again = crate::repair::repair(&store, &options, &Silent).await.unwrap();
    // Nothing was ever put of the two segments.
    assert_eq!(again, crate::repair::Report { beyond: 2, ..Default::default() });
    assert_eq!(
        CatalogView::load(&store).await.unwrap().generations().await.unwrap().generations.len(),
        2
    );
}

#[tokio::test]
async fn number_of_a_missing_manifest_is_not_reused() {
    let hour = TimeSlot::Hour(Hour(0));
    for lost in [2, 3] {
        let store = memory().await;
        let mut recorder = recorder(&store, 0).await;
        let mut rollup = rollup(&store).await;
        for number in 0..3 {
            recorder.commit(draft(&format!("a{number}"), number)).await.unwrap();
            step(&mut rollup).await;
        }
        let asked = CatalogView::load(&store).await.unwrap();
        for version in lost..=3 {
            store.delete(&names::manifest(hour, version)).await.unwrap();
        }
        // Until then it is missed, and nothing is put in its place.
        let now = CatalogView::load(&store).await.unwrap().window(TimeRange::ALL).await.unwrap();
        assert!(now.gaps[0].what.contains("is missing"), "{:?}", now.gaps);
        recorder.commit(draft("a3", 3)).await.unwrap();
        let mut other = self::rollup(&store).await;
        assert_eq!(other.step().await.expect_err("gone").kind(), FailureKind::Damaged);
        let options = crate::repair::Options::default();
        let report = crate::repair::repair(&store, &options, &Silent).await.unwrap();
        assert_eq!(report.repaired, 1);
        // One with what was lost, and one with what had waited.
        let newest = versions::newest_manifest(&store, hour, 0).await.unwrap().value;
        assert_eq!(newest.version, 5);
        let all = ["a0", "a1", "a2", "a3"];
        assert_eq!(names_in(&window(&store, TimeRange::ALL).await), all);
        assert_eq!(asked.window(TimeRange::ALL).await.unwrap().segments.len(), 3);
        store.delete(&names::manifest(hour, 5)).await.unwrap();
        let again = crate::repair::repair(&store, &options, &Silent).await.unwrap();
        assert_eq!(again.repaired, 1);
        assert_eq!(names_in(&window(&store, TimeRange::ALL).await), all);
        let nothing = crate::repair::repair(&store, &options, &Silent).await.unwrap();
        // Nothing was ever put of the four segments.
        assert_eq!(nothing, crate::repair::Report { beyond: 4, ..Default::default() });
    }
}
