//! `flow_parts`: reading the flow parts of one segment.

use std::sync::Arc;

use async_trait::async_trait;
use capstan_index::filter::FlowFilter;
use capstan_model::Failure;
use capstan_storage_engine::catalog::SegmentEntry;
use capstan_storage_engine::segment::Layer;
use capstan_view::Cost;
use capstan_view::access::{Principal, Right};
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;

use super::flow_columns::FlowColumn;
use super::flow_rows::{Constants, FlowRows, unexpected};
use super::hidden;
use super::predicate::{Pushed, Table};
use super::segment_table::{ReadAtOnce, SegmentRequest, SegmentRows, SegmentTable, chosen};
use super::source::CountingFetch;
use super::window::Window;

/// The table `flow_parts`: a row a flow part.
#[derive(Debug)]
pub(super) struct FlowParts {
    /// Its columns.
    pub(super) columns: Vec<FlowColumn>,
}

impl SegmentTable for FlowParts {
    fn schema(&self) -> SchemaRef {
        FlowColumn::schema(&self.columns)
    }

    fn conditions(&self) -> Option<Table> {
        Some(Table::Flows)
    }

    fn ask(
        &self,
        columns: &[usize],
        pushed: Pushed,
        who: &Principal,
    ) -> Result<Arc<dyn SegmentRequest>, Failure> {
        who.require(Right::FlowsRead, "a table of flows")?;
        let columns = chosen(&self.columns, columns)?;
        let schema = hidden::schema(FlowColumn::schema(&columns), who);
        let Pushed { window, flows } = pushed;
        Ok(Arc::new(FlowRequest { columns, schema, window, flows }))
    }
}

/// Which flow parts, and which of their columns.
#[derive(Debug)]
struct FlowRequest {
    columns: Vec<FlowColumn>,
    schema: SchemaRef,
    window: Option<Window>,
    flows: FlowFilter,
}

#[async_trait]
impl SegmentRequest for FlowRequest {
    fn table(&self) -> &'static str {
        "flow_parts"
    }

    fn layers(&self) -> &[Layer] {
        &[Layer::Flows]
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    fn flows(&self) -> &FlowFilter {
        &self.flows
    }

    fn rows(&self, entry: &SegmentEntry) -> Option<u64> {
        Some(entry.flow_parts)
    }

    async fn cost(&self, source: CountingFetch, constants: Constants) -> Result<Cost, Failure> {
        self.read(&source, &constants).await?;
        Ok(source.cost())
    }

    async fn start(
        self: Arc<Self>,
        source: CountingFetch,
        constants: Constants,
        _: MemoryReservation,
    ) -> Result<Box<dyn SegmentRows>, Failure> {
        let batch = self.read(&source, &constants).await?;
        Ok(Box::new(ReadAtOnce::new(source, batch)))
    }
}

impl FlowRequest {
    /// The rows of a segment. The `flows` layer is small: it is read at once.
    async fn read(
        &self,
        source: &CountingFetch,
        constants: &Constants,
    ) -> Result<RecordBatch, Failure> {
        let segment = source.open();
        // Where a term does not decide, the engine does.
        let visible = segment.possible(&self.flows)?;
        let window = self.window.filter(|window| !window.covers(segment.entry()));
        let mut stored: Vec<&'static str> =
            self.columns.iter().flat_map(FlowColumn::stored).collect();
        if visible.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        stored.sort_unstable();
        let flows = FlowRows::read(segment, source, visible, window.as_ref(), &stored).await?;
        let columns = self
            .columns
            .iter()
            .map(|column| flows.show(*column, constants))
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(flows.len()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(unexpected)
    }
}
