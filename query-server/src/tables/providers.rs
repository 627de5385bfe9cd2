//! `packets` and `flow_parts` as the query engine sees them.

use std::sync::Arc;

use async_trait::async_trait;
use capstan_model::Failure;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::columns::{FlowColumn, PacketColumn};
use super::explain;
use super::external;
use super::flow_parts::FlowRequest;
use super::hidden;
use super::packets::PacketRequest;
use super::predicate::{self, Pushed, Table};
use super::scan::{Request, ScanExec};
use super::skipped;
use crate::access::{Principal, Right};
use crate::view::ScopedView;

/// A row a packet.
#[derive(Debug)]
pub(super) struct Packets(pub(super) ScopedView);

/// A row a flow part.
#[derive(Debug)]
pub(super) struct FlowParts(pub(super) ScopedView);

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

/// Refuses columns of packets that need a right.
fn may_read(columns: &[PacketColumn], who: &Principal) -> std::result::Result<(), Failure> {
    who.require(Right::FlowsRead, "the table packets")?;
    let mut payload = columns
        .iter()
        .filter(|column| matches!(column, PacketColumn::Payload | PacketColumn::Data));
    payload.try_for_each(|column| {
        who.require(Right::PayloadRead, &format!("the column {} of packets", column.name()))
    })
}

async fn scan(
    view: &ScopedView,
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
        hidden::schema(PacketColumn::schema(PacketColumn::ALL), self.0.who())
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
        may_read(&columns, self.0.who()).map_err(external)?;
        let Pushed { window, flows } = predicate::push(filters, Table::Packets)?;
        let request = PacketRequest::new(columns, window, flows, self.0.who());
        scan(&self.0, Request::Packets(Arc::new(request)), session, limit).await
    }
}

#[async_trait]
impl TableProvider for FlowParts {
    fn schema(&self) -> SchemaRef {
        hidden::schema(FlowColumn::schema(FlowColumn::ALL), self.0.who())
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
        self.0.who().require(Right::FlowsRead, "a table of flows").map_err(external)?;
        let Pushed { window, flows } = predicate::push(filters, Table::Flows)?;
        let request = FlowRequest::new(columns, window, flows, self.0.who());
        scan(&self.0, Request::FlowParts(Arc::new(request)), session, limit).await
    }
}
