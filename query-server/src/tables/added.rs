//! A table of SQL over a table layer that was added to segments: it shows the rows of the layer as they are. Every such
//! layer has its table through [`TableLayer::sql`], without a line here.

use std::sync::Arc;

use async_trait::async_trait;
use capstan_index::filter::FlowFilter;
use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::SegmentEntry;
use capstan_storage_engine::segment::column::Column;
use capstan_storage_engine::segment::reader::{Scan, Step};
use capstan_storage_engine::segment::{Corrupt, Layer, TableLayer};
use capstan_view::Cost;
use capstan_view::access::{Principal, Right};
use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::execution::memory_pool::MemoryReservation;

use super::columns::shown_type;
use super::flow_rows::{Constants, unexpected};
use super::predicate::{Pushed, Table};
use super::segment_table::{SegmentRequest, SegmentRows, SegmentTable, chosen};
use super::source::{AddedFetch, CountingFetch};
use super::window::Window;

/// A column and its name in SQL.
type Shown = (&'static str, &'static Column);

/// The table of a layer.
#[derive(Debug)]
pub(super) struct Added {
    layer: &'static TableLayer,
    columns: Vec<Shown>,
}

impl Added {
    pub(super) fn new(layer: &'static TableLayer) -> Added {
        let shown = |column: &'static Column| column.shown.map(|(name, _)| (name, column));
        Added { layer, columns: layer.columns.iter().filter_map(shown).collect() }
    }
}

fn schema(columns: &[Shown]) -> SchemaRef {
    let field = |(name, column): &Shown| Field::new(*name, shown_type(column.of), column.nullable);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

impl SegmentTable for Added {
    fn schema(&self) -> SchemaRef {
        schema(&self.columns)
    }

    fn conditions(&self) -> Option<Table> {
        None
    }

    fn ask(
        &self,
        columns: &[usize],
        _: Pushed,
        who: &Principal,
    ) -> Result<Arc<dyn SegmentRequest>, Failure> {
        let name = self.layer.sql.unwrap_or(self.layer.name);
        who.require(Right::FlowsRead, &format!("the table {name}"))?;
        if who.is_masked() {
            // Its rows do not say which flow they are of.
            let what = format!("the table {name} is not readable with a mask");
            return Err(Failure::new(FailureKind::Permission, what));
        }
        let columns = chosen(&self.columns, columns)?;
        let schema = schema(&columns);
        let (layer, layers) = (self.layer, [Layer::Added(self.layer)]);
        let flows = FlowFilter::all();
        Ok(Arc::new(AddedRequest { name, layer, layers, columns, schema, flows }))
    }
}

/// Which columns of the table.
#[derive(Debug)]
struct AddedRequest {
    name: &'static str,
    layer: &'static TableLayer,
    layers: [Layer; 1],
    columns: Vec<Shown>,
    schema: SchemaRef,
    flows: FlowFilter,
}

impl AddedRequest {
    /// Opens the table of a segment: one request for its directory.
    async fn open<'a>(&self, source: &'a CountingFetch) -> Result<(AddedFetch<'a>, Scan), Failure> {
        let table = source.open_added(self.layer).await?;
        let names: Vec<&str> = self.columns.iter().map(|(_, column)| column.name).collect();
        let scan = table.table().scan_all(Some(&names))?;
        Ok((table, scan))
    }

    /// The rows of a batch as they are shown.
    fn shown(&self, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
        let column = |(_, column): &Shown| -> Result<ArrayRef, Failure> {
            let array = batch.column_by_name(column.name).ok_or_else(|| {
                Corrupt::new(self.layer.name, format!("column {} is missing", column.name))
            })?;
            cast(array, &shown_type(column.of)).map_err(unexpected)
        };
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(unexpected)
    }
}

#[async_trait]
impl SegmentRequest for AddedRequest {
    fn table(&self) -> &'static str {
        self.name
    }

    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn window(&self) -> Option<&Window> {
        None
    }

    fn flows(&self) -> &FlowFilter {
        &self.flows
    }

    fn rows(&self, _: &SegmentEntry) -> Option<u64> {
        None
    }

    async fn cost(&self, source: CountingFetch, _: Constants) -> Result<Cost, Failure> {
        let (table, mut scan) = self.open(&source).await?;
        if let Step::Needs(ranges) = scan.step()? {
            table.plan(&ranges)?;
        }
        Ok(source.cost())
    }

    async fn start(
        self: Arc<Self>,
        source: CountingFetch,
        _: Constants,
        memory: MemoryReservation,
    ) -> Result<Box<dyn SegmentRows>, Failure> {
        let mut batches = Vec::new();
        {
            let (table, mut scan) = self.open(&source).await?;
            loop {
                match scan.step()? {
                    Step::Rows(batch) => batches.push(self.shown(&batch)?),
                    Step::Needs(ranges) => {
                        let bytes = table.fetch(&ranges, &memory).await?;
                        scan.give(ranges, bytes)?;
                    }
                    Step::End => break,
                }
            }
        }
        batches.reverse();
        Ok(Box::new(AddedRows { source, batches, _memory: memory }))
    }
}

/// The rows of one segment.
struct AddedRows {
    source: CountingFetch,
    /// The next one last.
    batches: Vec<RecordBatch>,
    _memory: MemoryReservation,
}

#[async_trait]
impl SegmentRows for AddedRows {
    async fn next(&mut self) -> Result<Option<RecordBatch>, Failure> {
        Ok(self.batches.pop())
    }

    fn goes_on(&self) -> bool {
        false
    }

    fn memory(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    fn source(&self) -> &CountingFetch {
        &self.source
    }
}
