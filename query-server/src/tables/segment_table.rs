//! A table whose rows are those of one layer of each segment: what its provider and its scan need to know of it. A new
//! table is a value that implements [`SegmentTable`]; neither of them has an arm for it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use capstan_index::filter::FlowFilter;
use capstan_model::Failure;
use capstan_storage_engine::catalog::SegmentEntry;
use capstan_storage_engine::segment::Layer;
use capstan_view::Cost;
use capstan_view::access::Principal;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;

use super::flow_rows::Constants;
use super::predicate::{Pushed, Table};
use super::source::CountingFetch;
use super::window::Window;

/// A table.
pub(super) trait SegmentTable: fmt::Debug + Send + Sync {
    /// Its columns, in the order of `SELECT *`.
    fn schema(&self) -> SchemaRef;

    /// What conditions on it are about; none if the scan evaluates no condition.
    fn conditions(&self) -> Option<Table>;

    /// Asks for the columns at these places of the schema, and for the rows that may meet the pushed conditions.
    ///
    /// # Errors
    /// The principal lacks a right; there is no such column.
    fn ask(
        &self,
        columns: &[usize],
        pushed: Pushed,
        who: &Principal,
    ) -> Result<Arc<dyn SegmentRequest>, Failure>;
}

/// Columns and rows of a table that a statement asks for.
#[async_trait]
pub(super) trait SegmentRequest: fmt::Debug + Send + Sync {
    /// The name of the table, as `EXPLAIN` shows it.
    fn table(&self) -> &'static str;

    /// The layers without which a segment has no rows for the table; first the one that has a row for each of them.
    fn layers(&self) -> &[Layer];

    /// The layers without which rows lack values that are asked for.
    fn of_values(&self) -> &[Layer] {
        &[]
    }

    /// The columns.
    fn schema(&self) -> &SchemaRef;

    /// The window; none if rows of all times are asked for.
    fn window(&self) -> Option<&Window>;

    /// The flows whose rows are asked for.
    fn flows(&self) -> &FlowFilter;

    /// Rows of a segment, whether they are asked for or not; none if its entry does not say that.
    fn rows(&self, entry: &SegmentEntry) -> Option<u64>;

    /// Whether a segment may have rows in the window. False is certain.
    fn may_touch(&self, entry: &SegmentEntry) -> bool {
        self.window().is_none_or(|window| window.may_touch(entry))
    }

    /// Whether all rows are asked for.
    fn is_everything(&self) -> bool {
        self.window().is_none() && self.flows().is_all()
    }

    /// The cost of reading an opened segment. Reads what is needed to tell it.
    ///
    /// # Errors
    /// Any failure of the store.
    async fn cost(&self, source: CountingFetch, constants: Constants) -> Result<Cost, Failure>;

    /// Fetches what the first rows of an opened segment need.
    ///
    /// # Errors
    /// Any failure of the store; of kind `Full` if there is not enough memory.
    async fn start(
        self: Arc<Self>,
        source: CountingFetch,
        constants: Constants,
        memory: MemoryReservation,
    ) -> Result<Box<dyn SegmentRows>, Failure>;
}

/// The rows of one segment while they are read.
#[async_trait]
pub(super) trait SegmentRows: Send {
    /// The next rows; none at the end.
    ///
    /// # Errors
    /// Any failure of the store.
    async fn next(&mut self) -> Result<Option<RecordBatch>, Failure>;

    /// Whether more can be read after a failure.
    fn goes_on(&self) -> bool;

    /// Bytes of memory that it takes beside the opened segment, about.
    fn memory(&self) -> usize;

    /// The segment.
    fn source(&self) -> &CountingFetch;
}

/// Rows that were read at once.
#[derive(Debug)]
pub(super) struct ReadAtOnce {
    source: CountingFetch,
    batch: Option<RecordBatch>,
}

impl ReadAtOnce {
    pub(super) fn new(source: CountingFetch, batch: RecordBatch) -> ReadAtOnce {
        ReadAtOnce { source, batch: Some(batch) }
    }
}

#[async_trait]
impl SegmentRows for ReadAtOnce {
    async fn next(&mut self) -> Result<Option<RecordBatch>, Failure> {
        Ok(self.batch.take())
    }

    fn goes_on(&self) -> bool {
        false
    }

    fn memory(&self) -> usize {
        self.batch.as_ref().map_or(0, RecordBatch::get_array_memory_size)
    }

    fn source(&self) -> &CountingFetch {
        &self.source
    }
}

/// The columns at some places.
///
/// # Errors
/// There is no such column.
pub(super) fn chosen<T: Copy>(all: &[T], places: &[usize]) -> Result<Vec<T>, Failure> {
    let column = |place: &usize| {
        all.get(*place).copied().ok_or_else(|| {
            let what = format!("a statement asks for column {place} of {}", all.len());
            Failure::new(capstan_model::FailureKind::Other, what)
        })
    };
    places.iter().map(column).collect()
}
