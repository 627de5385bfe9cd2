//! `packets` and `flow_parts` as the query engine sees them.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::columns::{FlowColumn, PacketColumn};
use super::explain;
use super::flow_parts::FlowRequest;
use super::packets::PacketRequest;
use super::predicate::{self, Pushed, Table};
use super::scan::{Request, ScanExec};
use super::skipped;
use crate::view::StoreView;

/// A row a packet.
#[derive(Debug)]
pub(super) struct Packets(pub(super) Arc<StoreView>);

/// A row a flow part.
#[derive(Debug)]
pub(super) struct FlowParts(pub(super) Arc<StoreView>);

/// The columns of a projection.
pub(super) fn chosen<T: Copy>(all: &[T], projection: Option<&Vec<usize>>) -> Result<Vec<T>> {
    let Some(projection) = projection else { return Ok(all.to_vec()) };
    let column = |place: &usize| {
        all.get(*place)
            .copied()
            .ok_or_else(|| DataFusionError::Internal(format!("there is no column {place}")))
    };
    projection.iter().map(column).collect()
}

pub(super) fn supports(
    filters: &[&Expr],
    table: Table,
) -> Result<Vec<TableProviderFilterPushDown>> {
    filters.iter().map(|filter| predicate::support(filter, table)).collect()
}

async fn scan(
    view: &Arc<StoreView>,
    request: Request,
    session: &dyn Session,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let partitions = session.config().target_partitions();
    let scan = ScanExec::new(view.begin(), request, partitions, limit).await?;
    if explain::is_shown(session) {
        return Ok(Arc::new(scan.plan().await?));
    }
    skipped::note(session, scan.gaps())?;
    Ok(Arc::new(scan))
}

#[async_trait]
impl TableProvider for Packets {
    fn schema(&self) -> SchemaRef {
        PacketColumn::schema(PacketColumn::ALL)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        supports(filters, Table::Packets)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = chosen(PacketColumn::ALL, projection)?;
        let Pushed { window, flows } = predicate::push(filters, Table::Packets)?;
        let request = PacketRequest::new(columns, window, flows);
        scan(&self.0, Request::Packets(Arc::new(request)), session, limit).await
    }
}

#[async_trait]
impl TableProvider for FlowParts {
    fn schema(&self) -> SchemaRef {
        FlowColumn::schema(FlowColumn::ALL)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        supports(filters, Table::Flows)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = chosen(FlowColumn::ALL, projection)?;
        let Pushed { window, flows } = predicate::push(filters, Table::Flows)?;
        let request = FlowRequest::new(columns, window, flows);
        scan(&self.0, Request::FlowParts(Arc::new(request)), session, limit).await
    }
}
