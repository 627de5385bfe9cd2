//! Reading the flow parts of one segment.

use std::sync::Arc;

use capstan_index::filter::FlowFilter;
use capstan_model::Failure;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;

use super::columns::FlowColumn;
use super::flow_rows::{self, Constants, FlowRows, unexpected};
use super::hidden;
use super::source::CountingFetch;
use super::window::Window;
use crate::access::Principal;

/// Which flow parts, and which of their columns.
#[derive(Debug)]
pub(super) struct FlowRequest {
    columns: Vec<FlowColumn>,
    schema: SchemaRef,
    pub(super) window: Option<Window>,
    pub(super) flows: FlowFilter,
}

impl FlowRequest {
    pub(super) fn new(
        columns: Vec<FlowColumn>,
        window: Option<Window>,
        flows: FlowFilter,
        who: &Principal,
    ) -> Self {
        let schema = hidden::schema(FlowColumn::schema(&columns), who);
        FlowRequest { columns, schema, window, flows }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows of a segment. The `flows` layer is small: it is read at once.
    pub(super) async fn read(
        &self,
        source: &CountingFetch,
        constants: &Constants,
    ) -> Result<RecordBatch, Failure> {
        let segment = source.open();
        // Where a term does not decide, the engine does.
        let visible = segment.possible(&self.flows)?;
        let window = self.window.filter(|window| !window.covers(segment.entry()));
        let mut stored: Vec<&'static str> =
            self.columns.iter().flat_map(|column| flow_rows::stored(*column)).copied().collect();
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
