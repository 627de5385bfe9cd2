//! Queries of a store that grows meanwhile, over Flight and in this process.

mod deleted;
mod masked;

use std::sync::Arc;

use capstan_fixtures::{Recording, record, traffic};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use tokio::net::TcpListener;

use super::*;
use crate::flight::client::{Answer, Client};
use crate::flight::local::Local;

fn options_of(freshness: Duration) -> Options {
    Options { freshness, partitions: Some(2), ..Options::default() }
}

async fn sessions(store: Store, freshness: Duration) -> Arc<StoreSessions> {
    Arc::new(StoreSessions::open(store, options_of(freshness)).await.expect("a store"))
}

async fn all(answer: Answer) -> Result<RecordBatch, Failure> {
    let batches: Vec<_> = answer.batches.try_collect().await?;
    Ok(concat_batches(&answer.schema, &batches).expect("rows of the schema that was told"))
}

async fn packets(sessions: &Arc<StoreSessions>) -> i64 {
    let local = Local::new(Arc::clone(sessions) as _, Principal::everything());
    let answer = local.query("SELECT count(*) FROM packets").await.expect("an answer");
    all(answer).await.expect("a row").column(0).as_primitive::<Int64Type>().value(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_commits_are_visible_after_the_refresh_interval() {
    let store = capstan_fixtures::store().await;
    let (fresh, stale) = (
        sessions(store.clone(), Duration::ZERO).await,
        sessions(store.clone(), Duration::from_secs(3_600)).await,
    );
    assert_eq!((packets(&fresh).await, packets(&stale).await), (0, 0));
    record(&store, Recording::of(1), traffic(1, 500, 0, 10)).await;
    assert_eq!((packets(&fresh).await, packets(&stale).await), (500, 0));
    record(&store, Recording::of(2), traffic(2, 500, 0, 10)).await;
    assert_eq!(packets(&fresh).await, 1_000);
    // Nothing new: the same tables.
    let now = async || fresh.latest().get().await.expect("now");
    assert!(Arc::ptr_eq(&now().await, &now().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_and_local_queries_give_the_same_rows_and_errors() {
    let store = capstan_fixtures::store().await;
    record(&store, Recording::of(1), traffic(3, 2_000, 1_700_000_000_000_000_000, 1_000)).await;
    let sessions = sessions(store, Duration::from_secs(60)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let served = Arc::clone(&sessions) as Arc<dyn Sessions>;
    let server = tokio::spawn(crate::flight::serve(
        listener,
        served,
        Principal::everything(),
        std::future::pending(),
    ));
    let client = Client::connect(&format!("http://{address}")).await.expect("the server runs");
    let local = Local::new(Arc::clone(&sessions) as _, Principal::everything());
    for sql in [
        "SELECT * FROM packets ORDER BY ordinal",
        "SELECT * FROM flows ORDER BY flow_id",
        "SELECT * FROM flow_parts ORDER BY flow_id, segment",
        "SELECT * FROM segments ORDER BY segment",
        "SELECT * FROM coverage ORDER BY start_time",
        "SELECT protocol, count(*) AS n FROM packets GROUP BY protocol ORDER BY n",
        "SELECT * FROM packets WHERE length < 0",
        "SELECT now() > TIMESTAMP '2020-01-01'",
        "SHOW TABLES",
        "DESCRIBE packets",
    ] {
        let far = all(client.query(sql).await.expect(sql)).await.expect(sql);
        let near = all(local.query(sql).await.expect(sql)).await.expect(sql);
        assert_eq!(far, near, "{sql}");
    }
    for sql in [
        "SELECT nothing FROM packets",
        "SELEC 1",
        "DROP TABLE packets",
        "SELECT * FROM packets WHERE host('x')",
        "SELECT length / (length - length) FROM packets",
        "SELECT host('10.0.0.1') FROM packets",
    ] {
        let outcome = async |answer: Result<Answer, Failure>| match answer {
            Ok(answer) => all(answer).await,
            Err(failure) => Err(failure),
        };
        let far = outcome(client.query(sql).await).await.expect_err(sql);
        let near = outcome(local.query(sql).await).await.expect_err(sql);
        assert_eq!((far.kind(), far.to_string()), (near.kind(), near.to_string()), "{sql}");
        assert_eq!(far.kind(), capstan_model::FailureKind::Usage, "{sql}: {far}");
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_answer_does_not_block_the_next() {
    let store = capstan_fixtures::store().await;
    record(&store, Recording::of(1), traffic(4, 20_000, 0, 10)).await;
    let sessions = sessions(store, Duration::from_secs(60)).await;
    let local = Local::new(Arc::clone(&sessions) as _, Principal::everything());
    for _ in 0..5 {
        let mut answer = local.query("SELECT * FROM packets").await.expect("an answer");
        answer.batches.try_next().await.expect("rows").expect("rows");
    }
    let rows = all(local.query("SELECT data FROM packets").await.expect("an answer")).await;
    assert_eq!(rows.expect("rows").num_rows(), 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_without_its_threads_is_an_error() {
    let store = capstan_fixtures::store().await;
    record(&store, Recording::of(1), traffic(4, 20_000, 0, 10)).await;
    let sessions = sessions(store, Duration::from_secs(60)).await;
    let local = Local::new(sessions as _, Principal::everything());
    let mut answer = local.query("SELECT * FROM packets").await.expect("an answer");
    answer.batches.try_next().await.expect("rows").expect("rows");
    drop(local);
    all(answer).await.expect_err("cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_a_pcapng_file() {
    let store = capstan_fixtures::store().await;
    record(&store, Recording::of(1), traffic(5, 300, 0, 10)).await;
    let sessions = sessions(store, Duration::ZERO).await;
    let request = ExportRequest { order: Order::Recorded, ..ExportRequest::default() };
    let pieces: Vec<Bytes> = sessions
        .export(&Principal::everything(), request)
        .await
        .expect("an export")
        .try_collect()
        .await
        .expect("a whole file");
    assert!(pieces[0].starts_with(b"\n\r\r\n"));
    assert!(pieces.iter().map(Bytes::len).sum::<usize>() > 300 * 42);
}
