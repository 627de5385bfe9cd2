//! Stores for tests, and helpers to query them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use capstan_fixtures::{Given, Owned};
use capstan_ingest::source;
use capstan_ingest::source::{Event, PacketSource};
use capstan_model::{Failure, FailureKind};
use capstan_view::access::Principal;
use capstan_view::{ScopedView, StoreView};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionContext;

use crate::flight::session_config;

/// All tables over a view, read by two threads.
pub(super) fn tables(view: &Arc<StoreView>) -> SessionContext {
    tables_of(&view.scoped(&Principal::everything()))
}

/// Tables over a view as its principal sees them, read by two threads.
pub(super) fn tables_of(view: &ScopedView) -> SessionContext {
    let config = session_config().with_target_partitions(2);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(256 << 20, 1.0).build_arc();
    let state = crate::tables::session(view, config, runtime.expect("a runtime"));
    SessionContext::new_with_state(state.expect("tables"))
}

/// All rows of an answer.
pub(super) async fn ask(context: &SessionContext, sql: &str) -> RecordBatch {
    try_ask(context, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

pub(super) async fn try_ask(
    context: &SessionContext,
    sql: &str,
) -> Result<RecordBatch, DataFusionError> {
    let frame = context.sql(sql).await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await?;
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    Ok(concat_batches(&schema, &batches)?)
}

/// The failure a statement ends with.
pub(super) async fn refused(context: &SessionContext, sql: &str) -> (FailureKind, String) {
    let error = try_ask(context, sql).await.expect_err(sql);
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(link) = next {
        if let Some(failure) = link.downcast_ref::<Failure>() {
            return (failure.kind(), failure.to_string());
        }
        next = link.source();
    }
    panic!("{sql}: {error}");
}

/// Rows as text, cell by cell; nulls are `-`.
pub(super) fn rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("-");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).expect("a shown type"))
        .collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect())
        .collect()
}

/// Rows as text, cells joined by blanks.
pub(super) async fn lines(context: &SessionContext, sql: &str) -> Vec<String> {
    rows(&ask(context, sql).await).into_iter().map(|row| row.join(" ")).collect()
}

/// The one number an answer is.
pub(super) async fn number(context: &SessionContext, sql: &str) -> i64 {
    let batch = ask(context, sql).await;
    let numbers = cast(batch.column(0), &DataType::Int64).expect("a number");
    assert_eq!(numbers.len(), 1, "{sql}");
    numbers.as_primitive::<datafusion::arrow::datatypes::Int64Type>().value(0)
}

/// The folder with real captures, if there is one.
fn shared() -> Option<PathBuf> {
    let named = std::env::var_os("CAPSTAN_SHARED").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = named.unwrap_or(beside).join("captures");
    folder.is_dir().then_some(folder)
}

/// Everything in a real capture; none, with a line that says so, where it is not there.
#[allow(clippy::print_stderr)]
pub(super) fn capture(name: &str) -> Option<Vec<Given>> {
    let Some(folder) = shared() else {
        eprintln!("skipped: no captures beside the repository, and CAPSTAN_SHARED names none");
        return None;
    };
    let mut source = source::open(&folder.join(name)).expect("the capture opens");
    let mut all = Vec::new();
    while let Some(event) = source.next_event().expect("the capture reads") {
        match event {
            Event::Interface(interface) => all.push(Given::Interface(interface)),
            Event::Packet(packet) => all.push(Given::Packet(Owned::of(&packet))),
            Event::Block(block) => all.push(Given::Block(block)),
            _ => {}
        }
    }
    Some(all)
}
