//! StoreViews of stores made by the pipeline.

use capstan_fixtures::*;
use capstan_model::FailureKind;
use capstan_storage_engine::cache::{CacheSettings, DiskSettings};
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::reader::Fetch;
use capstan_storage_engine::store::Requests;

use super::testing::*;
use super::*;

fn cost_of(requests: Requests) -> (u64, u64) {
    assert_eq!((requests.puts, requests.lists, requests.heads), (0, 0, 0));
    (requests.gets, requests.bytes_read)
}

async fn packets_of(view: &StoreView) -> u64 {
    view.generations().await.unwrap().generations.iter().map(|state| state.packets()).sum()
}

#[tokio::test]
async fn view_is_immutable_and_the_next_one_sees_new_commits() {
    let store = store().await;
    record(&store, Recording::of(1), traffic(1, 2_000, 1_000, 10)).await;
    let first = StoreView::load(store.clone()).await.unwrap();
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
    let loaded = StoreView::load(store).await.unwrap();
    assert_eq!(segments(&loaded).await, segments(&second).await);
    assert_eq!(second.notes().count(), 0);
}

#[tokio::test]
async fn segments_and_coverage_are_cut_to_the_range() {
    let view = view_of(Recording::of(1), traffic(1, 3_000, 0, 1_000)).await;
    let early = TimeRange { start: Time(0), end: Time(1_000) };
    let late = TimeRange { start: Time(4_000_000), end: Time::MAX };
    let (early, late) = (view.window(early).await.unwrap(), view.window(late).await.unwrap());
    assert_eq!((early.segments.len(), late.segments.len()), (1, 0));
    assert!(!early.listened.is_empty() && late.listened.is_empty());
}

#[tokio::test]
async fn queries_do_not_block_each_other() {
    let view = view_of(Recording::of(1), traffic(1, 500, 0, 1_000)).await;
    let all = |range| Question { range, flows: FlowFilter::all(), statements: true };
    let (slow, quick) = (TimeRange::ALL, TimeRange { start: Time(0), end: Time(1_000) });
    let asked = view.place(&all(slow));
    let never = tokio::spawn(async move {
        asked.get_or_init(std::future::pending).await;
    });
    tokio::task::yield_now().await;
    let longest = std::time::Duration::from_secs(30);
    let window = tokio::time::timeout(longest, view.window(quick)).await;
    assert_eq!(window.expect("it waits for the slow one").unwrap().segments.len(), 1);
    // Who asks the same waits for it, and asks by itself when that is given up.
    let same = view.window(slow);
    never.abort();
    let window = tokio::time::timeout(longest, same).await;
    assert!(!window.expect("it asks by itself").unwrap().segments.is_empty());
}

#[tokio::test]
async fn opening_a_segment_sends_one_get_and_none_when_cached() {
    let view = view_of(Recording::of(1), traffic(1, 500, 0, 1_000)).await;
    let segment = &segments(&view).await[0];
    let before = view.store().requests();
    let (a, b) = futures::future::join(view.open(segment), view.open(segment)).await;
    assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()));
    let index = segment.entry.layer(Layer::Index).unwrap().bytes;
    assert_eq!(cost_of(view.store().requests() - before), (1, index));
    let next = view.refresh().await.unwrap();
    let before = view.store().requests();
    next.open(segment).await.unwrap();
    assert_eq!((view.store().requests() - before).gets, 0);
}

#[tokio::test]
async fn an_index_layer_that_is_not_the_committed_one_is_refused() {
    let view = view_of(Recording::of(1), traffic(1, 500, 0, 1_000)).await;
    let segment = &segments(&view).await[0];
    damage(view.store(), 0, Layer::Index).await;
    let failure = view.open(segment).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Damaged);
    assert!(failure.to_string().contains(&segment.entry.name));
    delete(view.store(), 0, Layer::Index).await;
    assert_eq!(view.open(segment).await.unwrap_err().kind(), FailureKind::NotFound);
}

#[tokio::test]
async fn planned_requests_equal_sent_requests() {
    let recording = Recording { segment_bytes: 8 << 20, ..Recording::of(1) };
    let view = view_of(recording, traffic(1, 30_000, 0, 1_000)).await;
    let segment = &segments(&view).await[0];
    let open = view.open(segment).await.unwrap();
    let reader = open.segment();
    for flows in [reader.all_flows(), [0, 5, 90].into_iter().collect()] {
        // Pages of the first scan are read again for the second one.
        let cold = Cache::in_memory(0);
        let view = StoreView::load_with(view.store().clone(), cold).await.unwrap();
        let open = view.open(segment).await.unwrap();
        let mut plan = view.new_plan();
        let before = view.store().requests();
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
        assert_eq!(cost_of(view.store().requests() - before), (cost.requests, cost.bytes));
    }
}

#[tokio::test]
async fn bytes_outside_a_layer_are_not_requested() {
    let view = view_of(Recording::of(1), traffic(1, 500, 0, 1_000)).await;
    let segment = &segments(&view).await[0];
    let open = view.open(segment).await.unwrap();
    let outside = open.fetch(Layer::Head, std::slice::from_ref(&(0..u64::MAX))).await.unwrap_err();
    assert_eq!(outside.kind(), FailureKind::Damaged);
}

/// Everything that is in a segment: rows of flows and packets, and payload.
async fn read_all_of(open: &OpenSegment) -> String {
    let reader = open.segment();
    let flows = reader.read_flows(open, &reader.all_flows()).await.unwrap();
    let plan = reader.plan_payload(&flows);
    let (packets, payload) = (reader.read_packets(open, &flows), reader.read_payload(open, &plan));
    let (packets, payload) = futures::try_join!(packets, payload).unwrap();
    format!("{flows:?} {:?} {payload:?}", packets.rows)
}

#[tokio::test]
async fn cached_pieces_are_not_requested_again_after_a_restart() {
    let store = store().await;
    record(&store, Recording::of(1), traffic(1, 3_000, 0, 1_000)).await;
    let folder = tempfile::tempdir().unwrap();
    let cache = || async {
        let disk = Some(DiskSettings { folder: folder.path().to_owned(), bytes: 64 << 20 });
        Cache::open(CacheSettings { memory: 16 << 20, disk }).await.unwrap()
    };
    let read = async |cache: &Cache| {
        let view = StoreView::load_with(store.clone(), cache.clone()).await.unwrap();
        let listed = segments(&view).await;
        let before = store.requests();
        let mut all = String::new();
        for segment in &listed {
            let open = view.open(segment).await.unwrap();
            all += &read_all_of(&open).await;
        }
        cache.flush().await;
        (all, cost_of(store.requests() - before))
    };
    let first = cache().await;
    let (cold, asked) = read(&first).await;
    assert!(asked.0 > 4, "{asked:?}");
    let (warm, asked) = read(&first).await;
    assert_eq!((warm == cold, asked), (true, (0, 0)));
    drop(first);
    let second = cache().await;
    let (again, asked) = read(&second).await;
    assert_eq!((again == cold, asked), (true, (0, 0)));
    assert_eq!(second.counts().misses + second.counts().corrupt, 0);
}

#[tokio::test]
async fn explain_shows_cached_pieces_and_fewer_requests_are_sent() {
    let recording = Recording { segment_bytes: 8 << 20, ..Recording::of(1) };
    let view = view_of(recording, traffic(1, 30_000, 0, 1_000)).await;
    let segment = &segments(&view).await[0];
    assert!(!view.is_kept(segment));
    let open = view.open(segment).await.unwrap();
    assert!(view.is_kept(segment));
    let reader = open.segment();
    let rows = reader.read_flows(&*open, &reader.all_flows()).await.unwrap();
    let cost = |rows: &[_]| {
        let mut plan = view.new_plan();
        open.plan_payload(&mut plan, &reader.plan_payload(rows));
        plan.cost()
    };
    assert_eq!(cost(&rows).cached, 0);
    let some = &rows[..rows.len() / 3];
    reader.read_payload(&*open, &reader.plan_payload(some)).await.unwrap();
    let (all, some) = (cost(&rows), cost(some));
    assert!(some.cached > 0 && all.cached == some.cached && all.bytes > all.cached);
    let before = view.store().requests();
    reader.read_payload(&*open, &reader.plan_payload(&rows)).await.unwrap();
    let asked = cost_of(view.store().requests() - before);
    assert!(asked.0 <= all.requests && asked.1 <= all.bytes - all.cached, "{asked:?} {all:?}");
}
