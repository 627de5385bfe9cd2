//! Recorders and readers together, over memory; logs under mishaps and damage.

use std::sync::Arc;

use capstan_model::coverage::{Listened, Loss, LossCause};
use capstan_model::{
    Address, FailureKind, Generation, GenerationId, Hour, RecorderId, Time, TimeRange,
};
use futures::future::join_all;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use proptest::prelude::*;

use super::entry::sha256_hex;
use super::*;
use crate::catalog::names;
use crate::store::unreliable::{Mishap, Unreliable};
use crate::store::{Created, Store, checked, nonce};
use crate::term_filters::{TermFilter, TermFilters};

pub(in crate::catalog) const RECORDER: RecorderId = RecorderId(0xab);

pub(in crate::catalog) async fn memory() -> Store {
    Store::on(Arc::new(InMemory::new()), "prod").await.unwrap()
}

pub(in crate::catalog) fn live() -> WriterInfo {
    WriterInfo {
        kind: WriterKind::Live,
        description: "eth0".to_owned(),
        host: "node-1".to_owned(),
        source: None,
        resumes: None,
        started_at: Time(1),
    }
}

pub(in crate::catalog) fn import(sketch: &str, resumes: Option<Generation>) -> WriterInfo {
    let source = Source { name: "a.pcap".to_owned(), bytes: 10, sketch: sketch.to_owned() };
    WriterInfo { kind: WriterKind::Import, source: Some(source), resumes, ..live() }
}

/// A segment of ten packets from `first` seconds on, ten seconds long.
pub(in crate::catalog) fn segment(name: &str, first: i64) -> SegmentEntry {
    let time = Time(first * 1_000_000_000);
    SegmentEntry {
        name: name.to_owned(),
        hour: time.hour(),
        hours: Vec::new(),
        first: Some(time),
        last: Some(Time(time.0 + 10_000_000_000)),
        first_ordinal: 0,
        last_ordinal: 9,
        packets: 10,
        flow_parts: 2,
        captured_bytes: 1_000,
        wire_bytes: 1_500,
        layers: Layer::SEALED
            .iter()
            .map(|layer| LayerEntry::new(layer.name(), 100, sha256_hex(layer.name().as_bytes())))
            .collect(),
        protocols: [("http".to_owned(), 10)].into(),
        secrets: false,
        address_filter: TermFilter::of([Address::v4([10, 0, 0, 1])]),
        term_filters: TermFilters::default(),
        flow_ids: None,
        owner: None,
    }
}

pub(in crate::catalog) fn draft(name: &str, first: i64) -> CommitDraft {
    CommitDraft::recorded([segment(name, first)], [], [])
}

pub(in crate::catalog) fn seconds(from: i64, to: i64) -> TimeRange {
    TimeRange { start: Time(from * 1_000_000_000), end: Time(to * 1_000_000_000) }
}

fn segment_names(catalog: &Catalog, range: TimeRange) -> Vec<&str> {
    catalog.segments(range).map(|segment| segment.entry.name.as_str()).collect()
}

fn problems(catalog: &Catalog) -> Vec<String> {
    catalog.problems().iter().map(ToString::to_string).collect()
}

/// The only problem there is.
fn only(catalog: &Catalog) -> &Problem {
    let [found] = catalog.problems() else { panic!("{:?}", catalog.problems()) };
    found
}

#[tokio::test]
async fn committed_facts_are_read_back() {
    let store = memory().await;
    let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();
    let first = recorder.commit(draft("a", 0)).await.unwrap();
    let second = recorder.commit(draft("b", 4_000)).await.unwrap();
    assert_eq!((first.seq, second.seq), (0, 1));

    let catalog = Catalog::load(&store).await.unwrap();
    assert_eq!(problems(&catalog), [""; 0]);
    assert_eq!(segment_names(&catalog, TimeRange::ALL), ["a", "b"]);
    assert_eq!(segment_names(&catalog, seconds(10, 11)), ["a"]);
    assert_eq!(segment_names(&catalog, seconds(11, 3_999)), [""; 0]);
    let found = catalog.segments(seconds(4_000, 4_001)).next().unwrap();
    assert_eq!(found.of, GenerationId::new(RECORDER, Generation(1)));
    assert_eq!(
        found.path(Layer::Packets).as_ref(),
        "data/date=1970-01-01/hour=01/b/packets.parquet"
    );
    assert_eq!(found.hours(), [Hour(1)]);
    let (_, state) = catalog.generations().next().unwrap();
    assert_eq!(state.writer().unwrap().info, live());
    assert_eq!((state.commits(), state.packets()), (2, 20));
    let totals = catalog.totals(TimeRange::ALL);
    assert_eq!((totals.segments, totals.packets, totals.wire_bytes), (2, 20, 3_000));
    assert_eq!(totals.layers["body"], (2, 200));
}

#[tokio::test]
async fn untimed_segments_are_in_the_unbounded_window() {
    let store = memory().await;
    let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();
    let untimed = SegmentEntry { hour: Hour::UNKNOWN, first: None, last: None, ..segment("u", 0) };
    recorder.commit(CommitDraft::recorded([untimed], [], [])).await.unwrap();
    let catalog = Catalog::load(&store).await.unwrap();
    assert_eq!(segment_names(&catalog, TimeRange::ALL), ["u"]);
    assert_eq!(segment_names(&catalog, seconds(-9_000_000, 9_000_000)), [""; 0]);
}

#[tokio::test]
async fn coverage_and_losses_are_read_back() {
    let store = memory().await;
    let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();
    let listened = Listened { range: seconds(0, 10), interfaces: vec![0, 1] };
    let loss = Loss {
        range: seconds(5, 5),
        interface: Some(1),
        cause: LossCause::KernelDrop,
        packets: 3,
        bytes: 0,
        note: String::new(),
    };
    let draft = CommitDraft {
        note: "started late".to_owned(),
        ..CommitDraft::recorded([], [listened.clone()], [loss.clone()])
    };
    recorder.commit(draft).await.unwrap();
    let catalog = Catalog::load(&store).await.unwrap();
    let covered = |range| catalog.coverage(range).map(|l| l.fact.clone()).collect::<Vec<_>>();
    assert_eq!(covered(seconds(9, 20)), std::slice::from_ref(&listened));
    assert_eq!(covered(seconds(10, 20)), []);
    let lost = |range| catalog.losses(range).map(|l| l.fact.clone()).collect::<Vec<_>>();
    assert_eq!(lost(seconds(5, 6)), std::slice::from_ref(&loss));
    assert_eq!(lost(seconds(6, 7)), []);
    assert_eq!(
        catalog.generations().next().unwrap().1.notes(),
        &["started late".to_owned()].into()
    );
}

#[tokio::test]
async fn import_can_be_resumed() {
    let store = memory().await;
    let mut first = Recorder::start(&store, RECORDER, import("aa", None)).await.unwrap();
    let content = CommitDraft { next_ordinal: 10, next_flow: 2, ..draft("a", 0) };
    first.commit(content.clone()).await.unwrap();

    let catalog = Catalog::load(&store).await.unwrap();
    let [partial] = catalog.imports().try_into().unwrap();
    assert!(!partial.complete);
    assert_eq!((partial.packets, partial.next_ordinal, partial.next_flow), (10, 10, 2));

    let resumes = Some(partial.last_generation);
    let mut second = Recorder::start(&store, RECORDER, import("aa", resumes)).await.unwrap();
    let content = CommitDraft {
        next_ordinal: 20,
        next_flow: 3,
        source_read: Some(SourceMark {
            bytes: 9,
            hash: SourceHash::Blake3("cc".to_owned()),
            damaged: false,
        }),
        finished: Some(Finished { complete: true, packets_total: 20 }),
        ..draft("b", 5)
    };
    second.commit(content).await.unwrap();
    Recorder::start(&store, RECORDER, import("aa", None)).await.unwrap();

    let catalog = Catalog::load(&store).await.unwrap();
    let [whole, again] = catalog.imports().try_into().unwrap();
    assert!(whole.complete && !again.complete);
    assert_eq!((whole.first_generation, whole.last_generation), (Generation(1), Generation(2)));
    assert_eq!((whole.packets, whole.next_ordinal, whole.next_flow), (20, 20, 3));
    assert_eq!(whole.source_read.map(|mark| mark.bytes), Some(9));
    assert_eq!((again.first_generation, again.source_read), (Generation(3), None));
}

#[tokio::test]
async fn counters_of_two_generations_do_not_overflow() {
    let store = memory().await;
    let vast = || {
        let last_ordinal = u64::MAX;
        let segment = SegmentEntry { packets: u64::MAX, last_ordinal, ..segment("a", 0) };
        CommitDraft::recorded([segment], [], [])
    };
    let mut first = Recorder::start(&store, RECORDER, import("aa", None)).await.unwrap();
    first.commit(vast()).await.unwrap();
    let resumes = Some(first.generation());
    let mut second = Recorder::start(&store, RECORDER, import("aa", resumes)).await.unwrap();
    second.commit(vast()).await.unwrap();
    let [import] = Catalog::load(&store).await.unwrap().imports().try_into().unwrap();
    assert_eq!(import.packets, u64::MAX);
}

#[tokio::test]
async fn each_start_takes_a_new_generation() {
    let store = memory().await;
    let starts = join_all((0..8).map(|_| Recorder::start(&store, RECORDER, live()))).await;
    let mut generations: Vec<u32> =
        starts.into_iter().map(|started| started.unwrap().generation().0).collect();
    generations.sort_unstable();
    assert_eq!(generations, (1..=8).collect::<Vec<_>>());
    let other = Recorder::start(&store, RecorderId(1), live()).await.unwrap();
    assert_eq!(other.generation(), Generation(1));
}

#[tokio::test]
async fn recorder_stops_at_a_foreign_commit_in_its_log() {
    let store = memory().await;
    let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();
    let theirs = names::commit(GenerationId::new(RECORDER, Generation(1)), 0);
    assert_eq!(store.create(&theirs, nonce().into()).await.unwrap(), Created::Created);
    for _ in 0..2 {
        let failure = recorder.commit(draft("a", 0)).await.expect_err("taken");
        assert_eq!(failure.kind(), FailureKind::Busy);
        assert!(failure.to_string().contains("another process"), "{failure}");
    }
    let before = store.requests();
    assert!(recorder.commit(draft("a", 0)).await.is_err());
    assert_eq!((store.requests() - before).puts, 0);
}

#[tokio::test]
async fn commit_with_a_lost_answer_is_committed_once() {
    let objects = Arc::new(Unreliable::default());
    let store = Store::hurried(Arc::clone(&objects) as Arc<dyn ObjectStore>, "prod").await.unwrap();
    let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();

    objects.will(vec![Mishap::RequestLost; 100]);
    let failure = recorder.commit(draft("a", 0)).await.expect_err("store away");
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    objects.will(Vec::new());
    assert_eq!(recorder.commit(draft("a", 0)).await.unwrap().seq, 0);

    objects.will(vec![Mishap::RequestLost; 100]);
    assert!(recorder.commit(draft("b", 20)).await.is_err());
    objects.will(Vec::new());
    // Another draft: the pending one goes first.
    assert_eq!(recorder.commit(draft("c", 40)).await.unwrap().seq, 2);
    objects.will(vec![Mishap::AnswerLost]);
    assert_eq!(recorder.commit(draft("d", 60)).await.unwrap().seq, 3);

    let catalog = Catalog::load(&store).await.unwrap();
    assert_eq!(segment_names(&catalog, TimeRange::ALL), ["a", "b", "c", "d"]);
    assert_eq!(problems(&catalog), [""; 0]);
}

#[tokio::test]
async fn contradictory_drafts_are_refused() {
    let store = memory().await;
    let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();
    let bad = |change: fn(&mut SegmentEntry)| {
        let mut entry = segment("a", 0);
        change(&mut entry);
        CommitDraft::recorded([entry], [], [])
    };
    let mut drafts = vec![
        bad(|entry| entry.name = "../a".to_owned()),
        bad(|entry| entry.first_ordinal = 10),
        bad(|entry| entry.packets = 11),
        bad(|entry| entry.last = None),
        bad(|entry| entry.hours = vec![Hour(7)]),
        bad(|entry| entry.layers.truncate(4)),
    ];
    let twice = vec![segment("a", 0), segment("a", 5)];
    drafts.push(CommitDraft::recorded(twice, [], []));
    for draft in drafts {
        let failure = recorder.commit(draft).await.expect_err("wrong");
        assert_eq!(failure.kind(), FailureKind::Usage);
    }
    let with_ordinal = |next_ordinal| CommitDraft { next_ordinal, ..CommitDraft::default() };
    recorder.commit(with_ordinal(5)).await.unwrap();
    assert!(recorder.commit(with_ordinal(4)).await.is_err());
    let finished = Finished { complete: true, packets_total: 0 };
    let last = CommitDraft { finished: Some(finished), ..with_ordinal(5) };
    assert_eq!(recorder.commit(last).await.unwrap().seq, 1);
    assert!(recorder.commit(with_ordinal(6)).await.is_err());
}

#[tokio::test]
async fn load_and_follow_send_the_expected_requests() {
    let store = memory().await;
    let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();
    for number in 0..40 {
        recorder.commit(draft(&format!("s{number}"), number)).await.unwrap();
    }
    let before = store.requests();
    let mut catalog = Catalog::load(&store).await.unwrap();
    let load = store.requests() - before;
    assert_eq!((load.lists, load.gets, load.heads, load.puts), (2, 41, 0, 0));

    recorder.commit(draft("new", 50)).await.unwrap();
    let before = store.requests();
    catalog.follow(&store, true).await.unwrap();
    let follow = store.requests() - before;
    // The new one, and the one after it that is not there.
    assert_eq!((follow.lists, follow.gets), (0, 2));
    assert_eq!(catalog.segments(TimeRange::ALL).count(), 41);
}

/// The bytes of a writer and of a log of `count` commits, as a recorder writes them.
fn log(count: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
    let writer = Writer {
        format: entry::PLAIN,
        recorder: RECORDER,
        generation: Generation(1),
        info: live(),
        capstan_version: "0.1.0".to_owned(),
        nonce: "n".to_owned(),
    };
    let writer = checked::to_bytes(&writer).unwrap();
    let mut chain = Chain::new(GenerationId::new(RECORDER, Generation(1)), Some(&writer));
    let mut commits = Vec::new();
    for seq in 0..count {
        let content = draft(&format!("s{seq}"), seq as i64 * 100);
        let commit = chain.next_commit(content, Time(5), format!("n{seq}")).unwrap();
        let bytes = checked::to_bytes(&commit).unwrap();
        chain.follow(seq, &bytes, &mut Vec::new()).expect("its own commit");
        commits.push(bytes);
    }
    (writer, commits)
}

fn read(writer: Option<&[u8]>, commits: &[(u64, Vec<u8>)]) -> Catalog {
    let mut catalog = Catalog::new();
    if let Some(writer) = writer {
        catalog.add_writer(GenerationId::new(RECORDER, Generation(1)), writer);
    }
    for (seq, bytes) in commits {
        catalog.add_commit(GenerationId::new(RECORDER, Generation(1)), *seq, bytes);
    }
    catalog
}

fn numbered(commits: Vec<Vec<u8>>) -> Vec<(u64, Vec<u8>)> {
    (0..).zip(commits).collect()
}

#[test]
fn changed_commit_is_reported_and_still_read() {
    let (writer, mut commits) = log(4);
    let text = String::from_utf8(commits[1].clone()).unwrap();
    commits[1] = text.replace("\"wire_bytes\":1500", "\"wire_bytes\":1501").into_bytes();
    let catalog = read(Some(&writer), &numbered(commits));
    let [problem] = problems(&catalog).try_into().unwrap();
    assert!(problem.contains("00000000000000000001 is not what was written"), "{problem}");
    assert_eq!(catalog.segments(TimeRange::ALL).count(), 4);
}

#[test]
fn replaced_commit_breaks_the_hash_chain_and_is_reported() {
    let (writer, mut commits) = log(4);
    let mut other: Commit = entry::read(&commits[1]).unwrap();
    other.content.note = "another".to_owned();
    commits[1] = checked::to_bytes(&other).unwrap();
    let catalog = read(Some(&writer), &numbered(commits));
    let [problem] = problems(&catalog).try_into().unwrap();
    assert!(
        problem.contains("00000000000000000001 or ")
            && problem.contains("00000000000000000002 was changed"),
        "{problem}"
    );
    assert_eq!(catalog.segments(TimeRange::ALL).count(), 4);
}

#[test]
fn the_format_is_the_oldest_that_reads_the_content() {
    let of = GenerationId::new(RECORDER, Generation(1));
    let mark = |hash| Some(SourceMark { bytes: 9, hash, damaged: false });
    let change = serde_json::json!({"kind": "pinned", "segment": "s", "slots": ["wide"], "at": 5, "pin": "p"});
    let change = Fact::of_json(change).unwrap();
    let cases = [
        (None, vec![], 2, 1),
        (mark(SourceHash::Sha256("ab".to_owned())), vec![], 2, 1),
        (None, vec![change.clone()], 3, 1),
        (mark(SourceHash::Blake3("ab".to_owned())), vec![], 4, 2),
        (mark(SourceHash::Blake3("ab".to_owned())), vec![change], 4, 2),
    ];
    for (source_read, facts, commit, root) in cases {
        let draft = CommitDraft { facts, source_read, ..CommitDraft::default() };
        assert_eq!(draft.format(), commit, "{draft:?}");
        let commit = Chain::new(of, None).next_commit(draft, Time(1), nonce()).unwrap();
        let bytes = checked::to_bytes(&commit).unwrap();
        let mut state = GenerationState::new(None, Chain::new(of, None));
        state.follow(0, &bytes, &mut Vec::new()).unwrap();
        let step = root::Step { generations: vec![state], ..root::Step::default() };
        let next = root::Root::empty().advance(step, String::new(), String::new());
        assert_eq!(next.needed_format(), root);
    }
}

#[test]
fn changed_writer_object_is_reported() {
    let (writer, commits) = log(2);
    let changed = String::from_utf8(writer).unwrap().replace("node-1", "node-2");
    let catalog = read(Some(changed.as_bytes()), &numbered(commits));
    assert!(
        matches!(only(&catalog), Problem::Changed { object } if object.starts_with("writers/"))
    );
}

#[test]
fn unusable_commits_are_reported_and_the_rest_is_readable() {
    let (writer, commits) = log(6);
    let mut damaged = numbered(commits);
    damaged[1].1.truncate(50);
    damaged.remove(3);
    let mut newer: Commit = entry::read(&damaged[3].1).unwrap();
    newer.format = entry::FORMAT + 1;
    damaged[3].1 = checked::to_bytes(&newer).unwrap();
    let catalog = read(Some(&writer), &damaged);
    let kinds: Vec<_> = catalog
        .problems()
        .iter()
        .map(|problem| match problem {
            Problem::Damaged { object, .. } => ("damaged", &object[object.len() - 1..]),
            Problem::Missing { object } => ("missing", &object[object.len() - 1..]),
            Problem::TooNew { object, .. } => ("newer", &object[object.len() - 1..]),
            Problem::Broken { object, .. } => ("broken", &object[object.len() - 1..]),
            Problem::Changed { object } => ("changed", &object[object.len() - 1..]),
            Problem::NoWriter { object } => ("no writer", &object[object.len() - 1..]),
            Problem::Checkpoint { object, .. } => ("checkpoint", &object[object.len() - 1..]),
        })
        .collect();
    // Number 5 does not follow from the number 4 that is there: that was changed here.
    assert_eq!(kinds, [("damaged", "1"), ("missing", "3"), ("newer", "4"), ("broken", "5")]);
    assert_eq!(segment_names(&catalog, TimeRange::ALL), ["s0", "s2", "s5"]);

    let (writer, commits) = log(2);
    let swapped = vec![(0, commits[1].clone()), (1, commits[0].clone())];
    let catalog = read(Some(&writer), &swapped);
    assert_eq!(catalog.problems().len(), 2);
    assert_eq!(catalog.segments(TimeRange::ALL).count(), 0);

    let (_, commits) = log(2);
    let catalog = read(None, &numbered(commits));
    assert!(matches!(only(&catalog), Problem::NoWriter { .. }));
    assert_eq!(catalog.segments(TimeRange::ALL).count(), 2);
}

#[tokio::test]
async fn damaged_object_does_not_hide_others() {
    let objects = Arc::new(InMemory::new());
    let store = Store::on(Arc::clone(&objects) as Arc<dyn ObjectStore>, "prod").await.unwrap();
    let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();
    for number in 0..3 {
        recorder.commit(draft(&format!("s{number}"), number)).await.unwrap();
    }
    let path = names::commit(GenerationId::new(RECORDER, Generation(1)), 1);
    let full = object_store::path::Path::from(format!("prod/{path}"));
    objects.put_opts(&full, "{}".into(), Default::default()).await.unwrap();
    let catalog = Catalog::load(&store).await.unwrap();
    assert!(
        matches!(only(&catalog), Problem::Damaged { object, .. } if *object == path.to_string())
    );
    assert_eq!(segment_names(&catalog, TimeRange::ALL), ["s0", "s2"]);
}

/// Stored by the first version; must be readable for ever.
#[test]
fn the_first_format_stays_readable() {
    let golden = include_bytes!("golden/writer-1.json").trim_ascii_end();
    let writer: Writer = entry::read(golden).unwrap();
    assert_eq!((writer.recorder, writer.generation), (RECORDER, Generation(1)));
    assert_eq!(writer.info, live());

    let golden = include_bytes!("golden/commit-1.json").trim_ascii_end();
    let commit: Commit = entry::read(golden).unwrap();
    let [Fact::Segment(found)] = &commit.content.facts[..] else { panic!("one segment") };
    // Its filter was another one, and is passed over: any address may be there.
    assert_eq!(*found, SegmentEntry { address_filter: None, ..segment("s0", 0) });
    assert_eq!(found.path(Layer::Index).as_ref(), "data/date=1970-01-01/hour=00/s0/index");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_changed_byte_of_the_catalog_is_reported(
        changed in 0usize..5, place in any::<prop::sample::Index>(), to in any::<u8>()
    ) {
        let (writer, commits) = log(4);
        let mut objects = vec![writer];
        objects.extend(commits);
        let place = place.index(objects[changed].len());
        prop_assume!(objects[changed][place] != to);
        objects[changed][place] = to;
        let writer = objects.remove(0);
        let catalog = read(Some(&writer), &numbered(objects));
        prop_assert!(!catalog.problems().is_empty());
        prop_assert!(catalog.segments(TimeRange::ALL).count() >= 3);
    }

    #[test]
    fn arbitrary_catalog_bytes_do_not_panic(writer in prop::collection::vec(any::<u8>(), 0..50), numbers in prop::collection::vec(any::<u64>(), 0..5)) {
        let commits: Vec<_> = numbers.iter().map(|number| (*number, writer.clone())).collect();
        let catalog = read(Some(&writer), &commits);
        prop_assert!(!catalog.problems().is_empty());
    }

    #[test]
    fn the_order_in_which_logs_are_read_does_not_matter(
        logs in prop::collection::vec(0u64..5, 1..5), order in prop::collection::vec(any::<prop::sample::Index>(), 0..40)
    ) {
        let of = |generation: usize| Generation(generation as u32 + 1);
        let mut queues = Vec::new();
        let mut expected = Vec::new();
        let mut catalog = Catalog::new();
        for (generation, count) in logs.iter().enumerate() {
            let mut chain = Chain::new(GenerationId::new(RECORDER, of(generation)), Some(b"w"));
            catalog.add_writer(GenerationId::new(RECORDER, of(generation)), b"w");
            let mut queue = std::collections::VecDeque::new();
            for seq in 0..*count {
                let name = format!("g{generation}-{seq}");
                let commit = chain.next_commit(draft(&name, seq as i64), Time(0), String::new()).unwrap();
                let bytes = checked::to_bytes(&commit).unwrap();
                chain.follow(seq, &bytes, &mut Vec::new());
                queue.push_back((seq, bytes));
                expected.push(name);
            }
            queues.push(queue);
        }
        for index in &order {
            let at = index.index(queues.len());
            if let Some((seq, bytes)) = queues[at].pop_front() {
                catalog.add_commit(GenerationId::new(RECORDER, of(at)), seq, &bytes);
                // Met again, as a reader does that follows and lists: nothing changes.
                catalog.add_commit(GenerationId::new(RECORDER, of(at)), seq, &bytes);
            }
        }
        for (at, queue) in queues.iter().enumerate() {
            for (seq, bytes) in queue {
                catalog.add_commit(GenerationId::new(RECORDER, of(at)), *seq, bytes);
            }
        }
        let mut found: Vec<String> = catalog.segments(TimeRange::ALL).map(|s| s.entry.name.clone()).collect();
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
        // The writers are no JSON, but the chains hold.
        prop_assert_eq!(catalog.problems().len(), logs.len());
    }
}
