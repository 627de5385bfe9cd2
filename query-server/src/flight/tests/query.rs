//! Statements: rows, schemas, message sizes, stopping.

use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightDescriptor, SchemaResult};
use capstan_model::Failure;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{
    DataType, Int64Type, Schema, TimeUnit, TimestampNanosecondType, UInt16Type,
};
use futures::{StreamExt, TryStreamExt};
use prost::Message;

use super::super::client::Client;
use super::super::wire::MESSAGE_BYTES;
use super::fixture::Server;

/// All rows as one batch.
async fn ask(client: &Client, sql: &str) -> Result<RecordBatch, Failure> {
    let answer = client.query(sql).await?;
    let batches: Vec<_> = answer.batches.try_collect().await?;
    Ok(concat_batches(&answer.schema, &batches).expect("rows of the schema that was told"))
}

#[tokio::test]
async fn rows_come_as_plain_columns() {
    let server = Server::start().await;
    let rows = ask(&server.client().await, "SELECT * FROM packets ORDER BY time DESC")
        .await
        .expect("rows");
    let types: Vec<_> = rows.schema().fields().iter().map(|f| f.data_type().clone()).collect();
    let utc = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let text = DataType::Utf8;
    assert_eq!(
        types,
        [utc, text.clone(), text, DataType::UInt16, DataType::UInt32, DataType::Binary]
    );
    let times = rows.column(0).as_primitive::<TimestampNanosecondType>();
    assert_eq!(times.values(), &[1_700_000_001_000_000_000, 1_700_000_000_123_456_789, -1]);
    let observers: Vec<_> = rows.column(1).as_string::<i32>().iter().flatten().collect();
    assert_eq!(observers, ["node-b", "node-a", "node-a"]);
    let ports: Vec<_> = rows.column(3).as_primitive::<UInt16Type>().iter().collect();
    assert_eq!(ports, [Some(53), Some(443), None]);
    let payloads: Vec<_> = rows.column(5).as_binary::<i32>().iter().collect();
    assert_eq!(payloads, [Some(&b""[..]), Some(&b"\x00\xff\x80"[..]), None]);
}

#[tokio::test]
async fn nested_and_shared_values_are_counted_at_their_written_size() {
    let server = Server::start().await;
    let sql = "SELECT array_agg(src_ip ORDER BY src_ip) AS ips, \
               named_struct('o', max(observer), 'p', max(payload)) AS s FROM packets";
    let rows = ask(&server.client().await, sql).await.expect("a row");
    let DataType::List(item) = rows.schema().field(0).data_type().clone() else {
        panic!("{}", rows.schema());
    };
    assert_eq!(item.data_type(), &DataType::Utf8);
    let ips = rows.column(0).as_list::<i32>().value(0);
    let ips: Vec<_> = ips.as_string::<i32>().iter().flatten().collect();
    assert_eq!(ips, ["10.0.0.1", "10.0.0.2", "2001:db8::7"]);
    let parts = rows.column(1).as_struct();
    assert_eq!(parts.column(0).as_string::<i32>().value(0), "node-b");
    assert_eq!(parts.column(1).as_binary::<i32>().value(0), b"\x00\xff\x80");
}

#[tokio::test]
async fn no_rows_still_have_columns() {
    let server = Server::start().await;
    let client = server.client().await;
    for sql in ["SELECT * FROM flows", "SELECT flow_id, bytes FROM flows WHERE bytes > 1"] {
        let answer = client.query(sql).await.expect("an answer");
        assert_eq!(answer.schema.field(0).data_type(), &DataType::FixedSizeBinary(16));
        let batches: Vec<_> = answer.batches.try_collect().await.expect("no rows");
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    }
}

#[tokio::test]
async fn catalog_metadata_can_be_queried_in_sql() {
    let server = Server::start().await;
    let client = server.client().await;
    let tables = ask(&client, "SHOW TABLES").await.expect("tables");
    assert!(tables.num_rows() >= 5);
    let columns = ask(
        &client,
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'packets'",
    );
    assert_eq!(columns.await.expect("columns").num_rows(), 6);
    let described = ask(&client, "DESCRIBE packets").await.expect("columns");
    assert_eq!(described.num_rows(), 6);
    for sql in ["EXPLAIN SELECT * FROM packets", "EXPLAIN ANALYZE SELECT * FROM packets"] {
        let plan = ask(&client, sql).await.expect("a plan");
        let text = plan.column(1).as_string::<i32>().iter().flatten().collect::<String>();
        assert!(text.contains("DataSourceExec"), "{text}");
    }
}

#[tokio::test]
async fn flight_messages_are_small_for_uneven_rows() {
    let server = Server::start().await;
    let mut client = server.raw().await;
    let query = "SELECT * FROM skewed".to_owned();
    let command = CommandStatementQuery { query, transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let info = client.get_flight_info(descriptor).await.expect("an offer").into_inner();
    let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
    let messages: Vec<_> =
        client.do_get(ticket).await.expect("rows").into_inner().try_collect().await.expect("rows");
    let largest = messages.iter().map(|message| message.data_body.len()).max();
    assert!(largest <= Some(MESSAGE_BYTES + (64 << 10)), "{largest:?}");
    assert!(messages.len() >= 5, "{} messages", messages.len());

    let rows = ask(&server.client().await, "SELECT * FROM skewed").await.expect("rows");
    let numbers = rows.column(0).as_primitive::<Int64Type>();
    assert!(numbers.values().iter().copied().eq(0..8192));
    assert_eq!(rows.column(1).as_string::<i32>().value(4009).len(), 300 << 10);
}

#[tokio::test]
async fn schema_is_available_without_a_query_result() {
    let server = Server::start().await;
    let mut client = server.raw().await;
    let query = "SELECT src_ip, payload FROM packets".to_owned();
    let command = CommandStatementQuery { query, transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let SchemaResult { schema } =
        client.get_schema(descriptor).await.expect("a schema").into_inner();
    let schema = Schema::try_from(&SchemaResult { schema }).expect("a schema");
    let types: Vec<_> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, [DataType::Utf8, DataType::Binary]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_answer_stops_its_query() {
    let server = Server::start().await;
    let client = server.client().await;
    let answer = client.query("SELECT number + 1 FROM endless WHERE number % 2 = 0").await;
    let mut batches = answer.expect("an answer").batches;
    batches.next().await.expect("rows").expect("rows");
    assert_eq!(server.tables.stopped.load(Ordering::SeqCst), 0);
    drop(batches);
    for _ in 0..200 {
        if server.tables.stopped.load(Ordering::SeqCst) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the query still runs two seconds after its client went");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_server_finishes_running_answers() {
    let mut server = Server::start().await;
    let client = server.client().await;
    let answer = client.query("SELECT number FROM endless LIMIT 20000").await;
    let mut batches = answer.expect("an answer").batches;
    let first = batches.next().await.expect("rows").expect("rows").num_rows();
    server.stop();
    let rest: Vec<_> = batches.try_collect().await.expect("the rest");
    let rows: usize = rest.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(first + rows, 20_000);
    let url = server.url();
    server.stopped().await.expect("an orderly end");
    assert!(Client::connect(&url).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_answer_is_an_error() {
    let mut server = Server::start_with(Duration::from_millis(50)).await;
    let client = server.client().await;
    let mut batches = client.query("SELECT * FROM endless").await.expect("an answer").batches;
    batches.next().await.expect("rows").expect("rows");
    server.stop();
    let end = tokio::time::timeout(Duration::from_secs(5), batches.try_collect::<Vec<_>>()).await;
    let failure = end.expect("the server stops").expect_err("cut off");
    assert!(!failure.to_string().is_empty());
    server.stopped().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_the_query_back() {
    let server = Server::start().await;
    let client = server.client().await;
    let mut batches = client.query("SELECT * FROM endless").await.expect("an answer").batches;
    batches.next().await.expect("rows").expect("rows");
    let read = || server.tables.read.load(Ordering::SeqCst);
    let mut before = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if read() == before {
            // 8 KiB each: what the connection's windows and buffers hold, and no more.
            assert!(before < 500, "{before} batches wait");
            return;
        }
        before = read();
    }
    panic!("after six seconds the query runs on: {before} batches");
}
