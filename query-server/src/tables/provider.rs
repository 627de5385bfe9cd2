//! A table over the layers of segments, as the query engine sees it.

use std::sync::Arc;

use async_trait::async_trait;
use capstan_index::filter::FlowFilter;
use capstan_view::ScopedView;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::predicate::{self, Pushed};
use super::scan::ScanExec;
use super::segment_table::SegmentTable;
use super::{deleted, explain, external, hidden, skipped};

/// See the module.
#[derive(Debug)]
pub(super) struct Provider {
    view: ScopedView,
    table: Arc<dyn SegmentTable>,
}

impl Provider {
    pub(super) fn new(view: &ScopedView, table: impl SegmentTable + 'static) -> Provider {
        Provider { view: view.clone(), table: Arc::new(table) }
    }
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        hidden::schema(self.table.schema(), self.view.who())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        match self.table.conditions() {
            Some(of) => filters.iter().map(|filter| predicate::support(filter, of)).collect(),
            None => Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()]),
        }
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let pushed = match self.table.conditions() {
            Some(of) => predicate::push(filters, of)?,
            None => Pushed { window: None, flows: FlowFilter::all() },
        };
        let all: Vec<usize>;
        let columns = match projection {
            Some(places) => places,
            None => {
                all = (0..self.table.schema().fields().len()).collect();
                &all
            }
        };
        let request = self.table.ask(columns, pushed, self.view.who()).map_err(external)?;
        let partitions = session.config().target_partitions();
        let scan = ScanExec::new(self.view.begin(), request, partitions, limit).await?;
        if explain::is_shown(session) {
            return Ok(Arc::new(scan.plan().await?));
        }
        skipped::note(session, scan.gaps())?;
        deleted::note(session, scan.deleted());
        Ok(Arc::new(scan))
    }
}
