//! `EXPLAIN`: the requests that it shows are the requests that the query sends.

use std::sync::Arc;

use capstan_fixtures::{Recording, record, traffic};
use capstan_storage_engine::store::Store;
use capstan_view::StoreView;
use capstan_view::access::Principal;
use datafusion::arrow::array::AsArray;

use super::fixture::{ask, number, tables};

async fn a_store() -> Store {
    let store = capstan_fixtures::store().await;
    let recording = Recording { segment_bytes: 128 << 10, ..Recording::of(8) };
    record(&store, recording, traffic(6, 6_000, 0, 1_000_000)).await;
    store
}

/// The plan of a statement, from a view that has opened nothing.
async fn plan(store: &Store, sql: &str) -> String {
    plan_of(&StoreView::load(store.clone()).await.expect("a store"), sql).await
}

/// The plan of a statement.
pub(super) async fn plan_of(view: &Arc<StoreView>, sql: &str) -> String {
    let rows = ask(&tables(view), &format!("EXPLAIN {sql}")).await;
    let (kinds, texts) = (rows.column(0).as_string::<i32>(), rows.column(1).as_string::<i32>());
    let plans = kinds.iter().zip(texts).filter(|(kind, _)| *kind == Some("physical_plan"));
    plans.filter_map(|(_, text)| text).collect()
}

/// The number after `name=`.
pub(super) fn told(plan: &str, name: &str) -> u64 {
    let (_, rest) =
        plan.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{name}: {plan}"));
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_known_to_the_catalog_send_no_request() {
    let store = a_store().await;
    let sql = "SELECT count(*) FROM packets";
    let plan = plan(&store, sql).await;
    assert!(!plan.contains("CapstanScan"), "{plan}");
    let view = StoreView::load(store.clone()).await.expect("a store");
    let before = store.requests();
    ask(&tables(&view), sql).await;
    assert_eq!((store.requests() - before).gets, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_lists_the_planned_requests() {
    let store = a_store().await;
    for sql in [
        "SELECT count(*) FROM packets WHERE host('10.0.0.5')",
        "SELECT protocol, sum(length) FROM packets GROUP BY protocol",
        "SELECT count(source_ip), count(time) FROM packets",
        "SELECT max(tcp_seq), count(outer_source_ip) FROM packets",
        "SELECT count(header) FROM packets WHERE port(53)",
        "SELECT count(data) FROM packets",
        "SELECT count(payload), min(interface_name) FROM packets WHERE host('10.0.0.5')",
        "SELECT count(*) FROM packets WHERE time >= '1970-01-01T00:00:02Z' AND time < '1970-01-01T00:00:03Z'",
        "SELECT count(data) FROM packets WHERE time >= '1970-01-01T00:00:02Z' AND time < '1970-01-01T00:00:02.5Z'",
        "SELECT sum(bytes) FROM flow_parts WHERE source_ip = '10.0.0.5'",
        "SELECT * FROM flows WHERE host('10.0.0.99')",
        "SELECT source_ip, max(bytes) FROM flows WHERE last_time > '1970-01-01T00:00:02Z' GROUP BY 1",
        "SELECT flow_id, packets FROM flows",
        "SELECT count(*) FROM flow_parts WHERE first_time >= '1970-01-01T00:00:05Z'",
        "SELECT ordinal FROM packets WHERE time > '2020-01-01'",
        "SELECT min(time), max(time) FROM packets",
        "SELECT avg(captured_length) FROM packets WHERE NOT host('10.0.0.5')",
        "SELECT sum(length) FROM packets WHERE protocol = 'dns' OR port(9000)",
        "SELECT count(payload) FROM packets WHERE port(53) AND host('10.0.0.5') AND length > 100",
        "SELECT protocol, count(*) FROM packets WHERE source_port IN (53, 9000) GROUP BY 1 ORDER BY 2",
        "SELECT count(*) FROM packets WHERE payload = X'00'",
        "SELECT time, data FROM packets WHERE port(4433) ORDER BY time LIMIT 5",
    ] {
        let plan = plan(&store, sql).await;
        assert_eq!(plan.matches("CapstanScan").count(), 1, "{plan}");
        let view = StoreView::load(store.clone()).await.expect("a store");
        let before = store.requests();
        ask(&tables(&view), sql).await;
        let asked = store.requests() - before;
        assert_eq!(asked.gets, told(&plan, "requests"), "{sql}\n{plan}");
        assert_eq!(asked.bytes_read, told(&plan, "bytes"), "{sql}\n{plan}");
        assert_eq!((asked.lists, asked.heads), (0, 0));
        let cold = StoreView::load(store.clone()).await.expect("a store");
        let rows = ask(&tables(&cold), &format!("EXPLAIN ANALYZE {sql}")).await;
        let text: String = rows.column(1).as_string::<i32>().iter().flatten().collect();
        // What was not read has no count.
        let objects = if asked.gets == 0 { 0 } else { told(&text, "objects_read") };
        assert_eq!(objects, told(&plan, "objects"), "{sql}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catalog_tables_are_queried_without_store_requests() {
    let store = a_store().await;
    for table in ["segments", "files", "protocols", "coverage", "writers", "problems", "store"] {
        let sql = format!("SELECT * FROM {table}");
        assert!(!plan(&store, &sql).await.contains("CapstanScan"));
        let view = StoreView::load(store.clone()).await.expect("a store");
        let before = store.requests();
        ask(&tables(&view), &sql).await;
        assert_eq!((store.requests() - before).gets, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_states_the_maximum_where_reading_may_end_early() {
    let store = a_store().await;
    for sql in [
        "SELECT data FROM packets LIMIT 1",
        "SELECT ordinal FROM packets WHERE length > 100 LIMIT 2",
        "SELECT flow_id FROM flow_parts LIMIT 1",
        // Both sides want the same index layers.
        "SELECT count(*) FROM packets a JOIN packets b ON a.ordinal = b.ordinal",
    ] {
        let plan = plan(&store, sql).await;
        let sum = |name: &str| -> u64 {
            plan.split("CapstanScan").skip(1).map(|scan| told(scan, name)).sum()
        };
        let view = StoreView::load(store.clone()).await.expect("a store");
        let before = store.requests();
        ask(&tables(&view), sql).await;
        let asked = store.requests() - before;
        // Of the two partitions of a limit, one may have read everything before the other has a row.
        let spared = u64::from(!sql.ends_with("LIMIT 2"));
        assert!(
            asked.gets > 0 && asked.gets + spared <= sum("requests"),
            "{sql}: {asked:?}\n{plan}"
        );
        assert!(asked.bytes_read + spared <= sum("bytes"), "{sql}: {asked:?}\n{plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unselected_columns_are_not_read() {
    let store = a_store().await;
    let cost = async |sql: &str| {
        let view = StoreView::load(store.clone()).await.expect("a store");
        let before = store.requests();
        ask(&tables(&view), sql).await;
        (store.requests() - before).bytes_read
    };
    assert_eq!(cost("SELECT count(*) FROM packets").await, 0);
    assert_eq!(cost("SELECT count(*) FROM flow_parts").await, 0);
    assert_eq!(cost("SELECT count(*) FROM segments").await, 0);
    assert_eq!(cost("SELECT count(*) FROM packets WHERE host('192.168.0.1')").await, 0);
    assert_eq!(cost("SELECT count(*) FROM packets WHERE time > '2020-01-01'").await, 0);
    let index: u64 = {
        let view = StoreView::load(store.clone()).await.expect("a store");
        number(&tables(&view), "SELECT sum(index_bytes) FROM segments").await as u64
    };
    let lengths = cost("SELECT sum(length) FROM packets").await;
    let headers = cost("SELECT count(header) FROM packets").await;
    let packets = cost("SELECT count(data) FROM packets").await;
    assert!(
        index < lengths && lengths < headers && headers < packets,
        "{lengths} {headers} {packets}"
    );
    let one_host =
        cost("SELECT count(data) FROM packets WHERE host('10.0.0.5') AND port(53)").await;
    assert!(one_host < packets, "{one_host}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_pushdown_and_pruning() {
    let store = a_store().await;
    let sql = "SELECT ordinal FROM packets WHERE (host('10.0.0.5') OR port(53)) AND NOT port(9000) \
               AND time >= '1970-01-01T00:00:02Z' AND time < '1970-01-01T00:00:03Z'";
    let text = plan(&store, sql).await;
    for part in [
        "table=packets",
        "columns=[ordinal]",
        "window=1970-01-01T00:00:02Z to 1970-01-01T00:00:02.999999999Z",
        "(ip=10.0.0.5 or outer_ip=10.0.0.5 or port=53)",
        "not port=9000",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let all = plan(&store, "SELECT ordinal FROM packets").await;
    assert!(told(&text, "segments") < told(&all, "segments"), "{text}");
    let nobody = plan(&store, "SELECT ordinal FROM packets WHERE host('192.0.2.77')").await;
    assert_eq!(told(&nobody, "pruned_by_entry"), told(&all, "segments"), "{nobody}");
    // 400 millionths of a dollar for a thousand of them.
    let usd = text.split(" usd=").nth(1).and_then(|rest| rest.get(..10));
    let usd: f64 = usd.and_then(|text| text.parse().ok()).expect("a price");
    assert!((usd - told(&text, "requests") as f64 * 4e-7).abs() < 1e-7, "{text}");
    // What the scan decides is not looked at again above it.
    assert!(!text.contains("FilterExec"), "{text}");
    let text = plan(&store, "SELECT ordinal FROM packets WHERE source_ip = '10.0.0.5'").await;
    assert!(text.contains("FilterExec") && text.contains("flows=ip=10.0.0.5"), "{text}");
    let text = plan(&store, "SELECT data FROM packets WHERE port(53) LIMIT 3").await;
    assert!(text.contains("limit=3"), "{text}");
    let text = plan(&store, "SELECT * FROM packets ORDER BY time LIMIT 3").await;
    assert!(!text.contains("limit=3"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_counts_segments_pruned_by_manifest() {
    let store = capstan_fixtures::busy_hours().await;
    let sql = "SELECT count(*) FROM packets WHERE host('10.0.0.2')";
    let text = plan(&store, sql).await;
    let (read, pruned_by_manifest) = (told(&text, "segments"), told(&text, "pruned_by_manifest"));
    assert!(pruned_by_manifest > 300 && read + pruned_by_manifest == 1_200, "{text}");
    let view = StoreView::load(store.clone()).await.expect("a store");
    assert_eq!(number(&tables(&view), sql).await, 600);
    let text = plan(&store, "SELECT count(*) FROM packets WHERE NOT host('10.0.0.2')").await;
    assert!(!text.contains("pruned_by_manifest") && told(&text, "segments") == 1_200, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_analyze_shows_requests_and_opened_segments() {
    let store = a_store().await;
    let view = StoreView::load(store.clone()).await.expect("a store");
    let before = store.requests();
    let rows = ask(&tables(&view), "EXPLAIN ANALYZE SELECT sum(length) FROM packets").await;
    let asked = store.requests() - before;
    let text: String = rows.column(1).as_string::<i32>().iter().flatten().collect();
    assert!(text.contains(&format!("requests={}", asked.gets)), "{text}");
    assert!(text.contains("segments_opened="), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_query_reads_the_store_once_and_explain_shows_it() {
    let store = a_store().await;
    for sql in [
        "SELECT sum(length) FROM packets",
        "SELECT data FROM packets WHERE port(53) ORDER BY ordinal",
        "SELECT * FROM flow_parts ORDER BY flow_id, segment",
    ] {
        let cold = plan(&store, sql).await;
        assert_eq!(told(&cold, "cached"), 0, "{cold}");
        let view = StoreView::load(store.clone()).await.expect("a store");
        let context = tables(&view);
        let first = ask(&context, sql).await;
        let before = store.requests();
        assert_eq!(ask(&context, sql).await, first);
        let rows = ask(&context, &format!("EXPLAIN {sql}")).await;
        let warm: String = rows.column(1).as_string::<i32>().iter().flatten().collect();
        // What it costs with nothing in the cache stays what it is.
        for name in ["objects", "requests", "bytes"] {
            assert_eq!(told(&warm, name), told(&cold, name), "{name}: {warm}");
        }
        let cached = told(&warm, "cached");
        assert!(cached > 0 && cached <= told(&warm, "bytes"), "{warm}");
        let rows = ask(&context, &format!("EXPLAIN ANALYZE {sql}")).await;
        let text: String = rows.column(1).as_string::<i32>().iter().flatten().collect();
        assert!(text.contains("requests=0") && text.contains("bytes_cached="), "{text}");
        assert_eq!((store.requests() - before).gets, 0, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_needs_too_much_memory_is_refused() {
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::prelude::SessionContext;
    let store = a_store().await;
    let view: Arc<StoreView> = StoreView::load(store).await.expect("a store");
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(64 << 10, 1.0).build_arc();
    let config = crate::flight::session_config().with_target_partitions(1);
    let state = crate::tables::session(
        &view.scoped(&Principal::everything()),
        config,
        runtime.expect("a runtime"),
    );
    let context = SessionContext::new_with_state(state.expect("tables"));
    let (kind, words) = super::fixture::refused(&context, "SELECT count(data) FROM packets").await;
    assert_eq!(kind, capstan_model::FailureKind::Full, "{words}");
}
