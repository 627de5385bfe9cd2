//! The questions about the server itself, asked by the Arrow project's client.

use arrow_flight::FlightInfo;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo,
};
use arrow_flight::{IpcMessage, error::FlightError};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef, UInt32Type};
use futures::{TryStreamExt, stream};
use tonic::transport::Channel;

use super::fixture::{Server, packets};

type Sql = FlightSqlServiceClient<Channel>;

/// The rows that were offered, which have the columns that were offered.
async fn rows(client: &mut Sql, info: Result<FlightInfo, FlightError>) -> RecordBatch {
    let info = info.expect("an offer");
    let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
    let schema: SchemaRef = info.try_decode_schema().expect("a schema").into();
    let batches = client.do_get(ticket).await.expect("rows");
    let batches: Vec<_> = batches.try_collect().await.expect("rows");
    for batch in &batches {
        assert_eq!(batch.schema(), schema);
    }
    concat_batches(&schema, &batches).expect("one schema")
}

fn texts(rows: &RecordBatch, column: usize) -> Vec<&str> {
    rows.column(column).as_string::<i32>().iter().flatten().collect()
}

#[tokio::test]
async fn catalogs_schemas_and_types_are_listed() {
    let server = Server::start().await;
    let mut client = server.sql().await;
    let offer = client.get_catalogs().await;
    assert_eq!(texts(&rows(&mut client, offer).await, 0), ["capstan"]);
    let offer = client.get_db_schemas(CommandGetDbSchemas::default()).await;
    let schemas = rows(&mut client, offer).await;
    assert_eq!((texts(&schemas, 0), texts(&schemas, 1)), (vec!["capstan"], vec!["public"]));
    let filter = CommandGetDbSchemas {
        catalog: Some("other".into()),
        db_schema_filter_pattern: Some("p%".into()),
    };
    let offer = client.get_db_schemas(filter).await;
    assert_eq!(rows(&mut client, offer).await.num_rows(), 0);
    let offer = client.get_table_types().await;
    assert!(texts(&rows(&mut client, offer).await, 0).contains(&"TABLE"));
}

#[tokio::test]
async fn tables_are_found_by_pattern_with_their_columns() {
    let server = Server::start().await;
    let mut client = server.sql().await;
    let offer = client.get_tables(CommandGetTables::default()).await;
    let all = rows(&mut client, offer).await;
    assert_eq!(texts(&all, 2), ["broken", "endless", "flows", "packets", "skewed"]);
    let filter = CommandGetTables {
        db_schema_filter_pattern: Some("publi_".into()),
        table_name_filter_pattern: Some("pack%".into()),
        table_types: vec!["TABLE".into()],
        include_schema: true,
        ..CommandGetTables::default()
    };
    let offer = client.get_tables(filter).await;
    let found = rows(&mut client, offer).await;
    assert_eq!(texts(&found, 2), ["packets"]);
    let schema = found.column(4).as_binary::<i32>().value(0).to_vec();
    let schema = Schema::try_from(IpcMessage(schema.into())).expect("a schema");
    assert_eq!(schema.fields().len(), packets().num_columns());
    assert_eq!(schema.field(1).data_type(), &DataType::Utf8);
    // DataFusion's streaming tables call themselves views.
    let views = CommandGetTables { table_types: vec!["VIEW".into()], ..Default::default() };
    let offer = client.get_tables(views).await;
    assert_eq!(texts(&rows(&mut client, offer).await, 2), ["broken", "endless"]);
}

#[tokio::test]
async fn server_reports_its_capabilities() {
    let server = Server::start().await;
    let mut client = server.sql().await;
    let offer = client.get_sql_info(vec![SqlInfo::FlightSqlServerReadOnly]).await;
    let one = rows(&mut client, offer).await;
    assert_eq!(one.column(0).as_primitive::<UInt32Type>().values(), &[3]);
    let offer = client.get_sql_info(vec![]).await;
    assert!(rows(&mut client, offer).await.num_rows() > 20);
    let offer = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: Some(-5) }).await;
    let big = rows(&mut client, offer).await;
    assert_eq!(texts(&big, 0), ["BIGINT", "BIGINT UNSIGNED"]);
    let offer = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await;
    assert!(rows(&mut client, offer).await.num_rows() > 10);
}

#[tokio::test]
async fn there_are_no_keys() {
    let server = Server::start().await;
    let mut client = server.sql().await;
    let table = || "packets".to_owned();
    let offers = [
        client
            .get_primary_keys(CommandGetPrimaryKeys { table: table(), ..Default::default() })
            .await,
        client
            .get_exported_keys(CommandGetExportedKeys { table: table(), ..Default::default() })
            .await,
        client
            .get_imported_keys(CommandGetImportedKeys { table: table(), ..Default::default() })
            .await,
        client
            .get_cross_reference(CommandGetCrossReference {
                pk_table: table(),
                fk_table: table(),
                ..Default::default()
            })
            .await,
    ];
    for (offer, columns) in offers.into_iter().zip([6, 13, 13, 13]) {
        let keys = rows(&mut client, offer).await;
        assert_eq!((keys.num_rows(), keys.num_columns()), (0, columns));
    }
}

#[tokio::test]
async fn writing_statements_are_refused() {
    let server = Server::start().await;
    let mut client = server.sql().await;
    let update = client.execute_update("DELETE FROM packets".into(), None).await;
    let begin = client.begin_transaction().await;
    let ingest = client.execute_ingest(Default::default(), stream::iter([Ok(packets())])).await;
    let handshake = client.handshake("user", "password").await.map(|_| ());
    let outcomes = [update.map(|_| ()), begin.map(|_| ()), ingest.map(|_| ())];
    for outcome in outcomes {
        let words = outcome.expect_err("read only").to_string();
        assert!(words.contains("read-only"), "{words}");
    }
    let words = handshake.expect_err("no users").to_string();
    assert!(words.contains("no authentication: connect without user and password"), "{words}");
}
