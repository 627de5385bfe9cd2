//! Prepared statements and their parameters.

use std::sync::Arc;

use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::PreparedStatement;
use datafusion::arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::DataType;
use futures::TryStreamExt;
use tonic::transport::Channel;

use super::fixture::Server;

async fn prepare(server: &Server, sql: &str) -> PreparedStatement<Channel> {
    server.sql().await.prepare(sql.to_owned(), None).await.expect("a statement")
}

/// The first column of the answer, fetched from `server`, which need not be the one
/// that made the offer.
async fn fetch(server: &Server, info: Result<FlightInfo, FlightError>) -> Vec<String> {
    let info = info.expect("an offer");
    let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
    let rows = server.sql().await.do_get(ticket).await.expect("rows");
    let rows: Vec<RecordBatch> = rows.try_collect().await.expect("rows");
    let texts = rows.iter().flat_map(|batch| {
        batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    });
    texts.collect()
}

fn row<const N: usize>(cells: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter(cells).expect("cells of one row")
}

fn number(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

#[tokio::test]
async fn prepared_statement_works_on_any_server() {
    let (one, other) = (Server::start().await, Server::start().await);
    let sql = "SELECT src_ip FROM packets WHERE length > ? AND time < ? ORDER BY src_ip";
    let mut statement = prepare(&one, sql).await;
    let parameters = statement.parameter_schema().expect("a schema");
    let types: Vec<_> =
        parameters.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    assert_eq!(types[0], ("$1", DataType::UInt32));
    assert!(matches!(types[1], ("$2", DataType::Timestamp(..))), "{types:?}");
    assert_eq!(statement.dataset_schema().expect("a schema").field(0).name(), "src_ip");

    let before = TimestampNanosecondArray::from(vec![1_800_000_000_000_000_000]);
    let before: ArrayRef = Arc::new(before.with_timezone("UTC"));
    statement.set_parameters(row([("0", number(100)), ("1", before)])).expect("a row");
    let offer = statement.execute().await;
    assert_eq!(fetch(&other, offer).await, ["10.0.0.2", "2001:db8::7"]);
    // The same handle, other values.
    let before: ArrayRef = Arc::new(StringArray::from(vec!["2001-01-01T00:00:00Z"]));
    statement.set_parameters(row([("0", number(0)), ("1", before)])).expect("a row");
    let offer = statement.execute().await;
    assert_eq!(fetch(&other, offer).await, ["2001:db8::7"]);
    statement.close().await.expect("nothing to close");
}

#[tokio::test]
async fn parameters_with_names_are_bound_by_name() {
    let server = Server::start().await;
    let sql = "SELECT src_ip FROM packets WHERE src_port = $port AND observer = $node";
    let mut statement = prepare(&server, sql).await;
    let node: ArrayRef = Arc::new(StringArray::from(vec!["node-b"]));
    let named = row([("port", number(53)), ("node", Arc::clone(&node))]);
    statement.set_parameters(named).expect("a row");
    let offer = statement.execute().await;
    assert_eq!(fetch(&server, offer).await, ["10.0.0.2"]);
    statement.set_parameters(row([("0", node), ("1", number(53))])).expect("a row");
    let words = statement.execute().await.expect_err("no names").to_string();
    assert!(words.contains("named"), "{words}");
}

#[tokio::test]
async fn null_and_out_of_range_numbers_match_no_row() {
    let server = Server::start().await;
    let mut statement = prepare(&server, "SELECT src_ip FROM packets WHERE src_port = ?").await;
    let null: ArrayRef = Arc::new(Int64Array::from(vec![None]));
    for value in [null, number(70_000), number(-1)] {
        statement.set_parameters(row([("0", value)])).expect("a row");
        let offer = statement.execute().await;
        assert_eq!(fetch(&server, offer).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn unsupported_parameters_are_refused() {
    let server = Server::start().await;
    let mut statement = prepare(&server, "SELECT src_ip FROM packets WHERE length = ?").await;
    let two_rows: ArrayRef = Arc::new(Int64Array::from(vec![60, 1500]));
    for (bound, word) in [
        (row([("0", two_rows)]), "one row"),
        (row([("0", number(1)), ("1", number(2))]), "1 parameter and 2 values"),
    ] {
        statement.set_parameters(bound).expect("a row");
        let words = statement.execute().await.expect_err("not bound").to_string();
        assert!(words.contains(word), "{words}");
    }
    let mut client = server.sql().await;
    let words = client.prepare("DROP TABLE packets".into(), None).await.expect_err("DDL");
    assert!(words.to_string().contains("refused"), "{words}");
}
