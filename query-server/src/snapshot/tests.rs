//! Snapshots of stores made by the pipeline.

use capstan_model::FailureKind;
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::reader::Fetch;
use capstan_storage_engine::store::Requests;

use super::testing::*;
use super::*;

fn cost_of(requests: Requests) -> (u64, u64) {
    assert_eq!((requests.puts, requests.lists, requests.heads), (0, 0, 0));
    (requests.gets, requests.bytes_read)
}

async fn packets_of(snapshot: &Snapshot) -> u64 {
    snapshot.lives().await.unwrap().iter().map(|life| life.packets()).sum()
}

#[tokio::test]
async fn a_snapshot_stays_as_it_is_and_the_next_one_sees_more() {
    let store = store().await;
    record(&store, Recording::of(1), traffic(1, 2_000, 1_000, 10)).await;
    let first = Snapshot::load(store.clone()).await.unwrap();
    let count = segments(&first).await.len();
    assert!(count > 1);
    assert_eq!(packets_of(&first).await, 2_000);
    let again = first.refresh().await.unwrap();
    assert!(Arc::ptr_eq(&first, &again), "nothing was committed");

    record(&store, Recording::of(2), traffic(2, 1_000, 9_000_000, 10)).await;
    let second = first.refresh().await.unwrap();
    assert_eq!(segments(&first).await.len(), count);
    assert!(segments(&second).await.len() > count);
    assert_eq!(packets_of(&second).await, 3_000);
    let loaded = Snapshot::load(store).await.unwrap();
    assert_eq!(segments(&loaded).await, segments(&second).await);
    assert_eq!(second.problems().count(), 0);
}

#[tokio::test]
async fn segments_and_coverage_are_cut_to_the_range() {
    let snapshot = snapshot_of(Recording::of(1), traffic(1, 3_000, 0, 1_000)).await;
    let early = TimeRange { start: Time(0), end: Time(1_000) };
    let late = TimeRange { start: Time(4_000_000), end: Time::MAX };
    let (early, late) =
        (snapshot.window(early).await.unwrap(), snapshot.window(late).await.unwrap());
    assert_eq!((early.segments.len(), late.segments.len()), (1, 0));
    assert!(!early.listened.is_empty() && late.listened.is_empty());
}

#[tokio::test]
async fn opening_takes_one_get_and_the_second_time_none() {
    let snapshot = snapshot_of(Recording::of(1), traffic(1, 500, 0, 1_000)).await;
    let segment = &segments(&snapshot).await[0];
    let before = snapshot.store().requests();
    let (a, b) = futures::future::join(snapshot.open(segment), snapshot.open(segment)).await;
    assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()));
    let index = segment.entry.layer(Layer::Index).unwrap().bytes;
    assert_eq!(cost_of(snapshot.store().requests() - before), (1, index));
    let next = snapshot.refresh().await.unwrap();
    let before = snapshot.store().requests();
    next.open(segment).await.unwrap();
    assert_eq!((snapshot.store().requests() - before).gets, 0);
}

#[tokio::test]
async fn an_index_layer_that_is_not_the_committed_one_is_refused() {
    let snapshot = snapshot_of(Recording::of(1), traffic(1, 500, 0, 1_000)).await;
    let segment = &segments(&snapshot).await[0];
    damage(&snapshot, 0, Layer::Index).await;
    let failure = snapshot.open(segment).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Damaged);
    assert!(failure.to_string().contains(&segment.entry.name));
    delete(&snapshot, 0, Layer::Index).await;
    assert_eq!(snapshot.open(segment).await.unwrap_err().kind(), FailureKind::NotFound);
}

#[tokio::test]
async fn what_is_planned_is_what_is_asked_for() {
    let recording = Recording { segment_bytes: 8 << 20, ..Recording::of(1) };
    let snapshot = snapshot_of(recording, traffic(1, 30_000, 0, 1_000)).await;
    let segment = &segments(&snapshot).await[0];
    let open = snapshot.open(segment).await.unwrap();
    let reader = open.segment();
    for flows in [reader.all_flows(), [0, 5, 90].into_iter().collect()] {
        let mut plan = Plan::default();
        let before = snapshot.store().requests();
        open.plan_scan(&mut plan, reader.scan_flows(&flows, None).unwrap()).unwrap();
        let rows = reader.read_flows(&*open, &flows).await.unwrap();
        let payload = reader.plan_payload(&rows);
        for columns in [None, Some(&["length", "protocol"][..])] {
            open.plan_scan(&mut plan, reader.scan_packets(&rows, columns).unwrap()).unwrap();
            reader.scan_packets(&rows, columns).unwrap().run(&*open).await.unwrap();
        }
        open.plan_payload(&mut plan, &payload);
        reader.read_payload(&*open, &payload).await.unwrap();
        let cost = plan.cost();
        assert!(cost.requests > 0 && cost.objects >= 3);
        assert_eq!(cost_of(snapshot.store().requests() - before), (cost.requests, cost.bytes));
    }
}

#[tokio::test]
async fn bytes_outside_a_layer_are_not_asked_for() {
    let snapshot = snapshot_of(Recording::of(1), traffic(1, 500, 0, 1_000)).await;
    let segment = &segments(&snapshot).await[0];
    let open = snapshot.open(segment).await.unwrap();
    let outside = open.fetch(Layer::Head, std::slice::from_ref(&(0..u64::MAX))).await.unwrap_err();
    assert_eq!(outside.kind(), FailureKind::Damaged);
}
