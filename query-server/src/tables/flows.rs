//! `flows`: one row a flow id, merged from its parts.
//!
//! # The window
//!
//! A flow may span days and many segments. The conditions on `first_time` or `last_time` define the *window*:
//! from the greatest lower bound to the least upper bound on either column. Only the parts that touch the window
//! are merged. A flow is in the answer if it has such a part, and its counters count the contents of those parts
//! (a part is never cut). So "the flows of this hour" reads this hour only; `opened` and `ended` tell whether
//! the beginning and the end are among them. The merged row is then filtered by the conditions, too. Without
//! such conditions all parts are merged.
//!
//! Conditions on columns that are equal in all parts (addresses, ports, protocol number, VLAN, VNI, `flow_id`),
//! `host()` and `port()` select parts before the merge; all others filter the merged row.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::{
    bit_or, bool_or, first_value, last_value, max, min, sum,
};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, ident, lit,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::coalesce;

use super::columns::FlowColumn;
use super::predicate::{self, Table};
use super::providers::{FlowParts, chosen};
use crate::view::ScopedView;

/// A row a flow.
#[derive(Debug)]
pub(super) struct Flows {
    parts: Arc<FlowParts>,
}

/// How the parts of a flow become its value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merge {
    /// The columns that identify a flow.
    Id,
    /// The same in all parts.
    Key,
    Sum,
    Min,
    Max,
    BitOr,
    Or,
    /// Of the parts in time order, the first that has one.
    First,
    /// The last one.
    Last,
    /// The last one that is not `unknown`.
    LastKnown,
    /// `known` if it is in one part.
    Known,
}

/// The columns of `flows`, and how each is merged; those of `flow_parts` that say where a
/// part lies are left out.
fn merged(column: FlowColumn) -> Option<Merge> {
    use FlowColumn::*;
    Some(match column {
        FlowId => Merge::Id,
        SourceIp | DestinationIp | SourcePort | DestinationPort | IpProtocol | Ethertype
        | LinkType | Interface | FragmentId | Vlan | Vni => Merge::Key,
        FirstTime => Merge::Min,
        LastTime => Merge::Max,
        Protocol => Merge::LastKnown,
        Packets | PacketsForward | PacketsBackward | Bytes | BytesForward | BytesBackward
        | PayloadForward | PayloadBackward => Merge::Sum,
        TcpFlagsForward | TcpFlagsBackward => Merge::BitOr,
        Opened => Merge::Or,
        Ended => Merge::Last,
        Sni | Alpn | OuterSourceIp | OuterDestinationIp | SourceNamespace | SourcePod
        | DestinationNamespace | DestinationPod => Merge::First,
        Identity => Merge::Known,
        Recorder | Generation | Segment => return None,
    })
}

/// The columns of `flows`.
fn columns() -> Vec<FlowColumn> {
    FlowColumn::ALL.iter().copied().filter(|column| merged(*column).is_some()).collect()
}

impl Flows {
    pub(super) fn new(view: ScopedView) -> Self {
        Flows { parts: Arc::new(FlowParts(view)) }
    }
}

fn column(of: FlowColumn) -> Expr {
    ident(of.name())
}

/// Sorts parts by time; those without a time first, and the name decides between equals.
fn time_order() -> Vec<Sort> {
    [FlowColumn::FirstTime, FlowColumn::LastTime, FlowColumn::Segment]
        .map(|of| column(of).sort(true, true))
        .to_vec()
}

/// The aggregate that merges a column; none for a grouping column.
fn aggregate(of: FlowColumn, merge: Merge) -> Result<Option<Expr>> {
    let value = column(of);
    Ok(Some(match merge {
        Merge::Id => return Ok(None),
        Merge::Key => first_value(value, Vec::new()),
        Merge::Sum => sum(value),
        Merge::Min => min(value),
        Merge::Max => max(value),
        Merge::BitOr => bit_or(value),
        Merge::Or => bool_or(value),
        Merge::First => {
            first_value(value.clone(), time_order()).filter(value.is_not_null()).build()?
        }
        Merge::Last => last_value(value, time_order()),
        Merge::LastKnown => {
            last_value(value.clone(), time_order()).filter(value.not_eq(lit("unknown"))).build()?
        }
        // "known" comes before "unknown".
        Merge::Known => min(value),
    }))
}

/// Whether a condition has the same result for every part of a flow: then it can select parts.
fn is_of_all_parts(condition: &Expr) -> Result<bool> {
    let columns = condition.column_refs();
    if columns.is_empty() {
        let support = predicate::support(condition, Table::Flows)?;
        return Ok(support == TableProviderFilterPushDown::Exact);
    }
    Ok(columns.iter().all(|column| {
        FlowColumn::ALL
            .iter()
            .find(|known| known.name() == column.name)
            .is_some_and(|known| matches!(merged(*known), Some(Merge::Id | Merge::Key)))
    }))
}

#[async_trait]
impl TableProvider for Flows {
    fn schema(&self) -> SchemaRef {
        // To the query engine what an aggregate gives may always be null.
        let field =
            |column: &FlowColumn| column.field().with_nullable(merged(*column) != Some(Merge::Id));
        Arc::new(Schema::new(columns().iter().map(field).collect::<Vec<_>>()))
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        filters
            .iter()
            .map(|filter| {
                Ok(if predicate::window(filter, Table::Flows).is_some() {
                    TableProviderFilterPushDown::Inexact
                } else if is_of_all_parts(filter)? {
                    TableProviderFilterPushDown::Exact
                } else {
                    TableProviderFilterPushDown::Unsupported
                })
            })
            .collect()
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = chosen(&columns(), projection)?;
        let parts = provider_as_source(Arc::clone(&self.parts) as Arc<dyn TableProvider>);
        let mut plan = LogicalPlanBuilder::scan("flow_parts", parts, None)?;
        // Every bound on a window is one on its parts: none of them is asked for twice.
        if let Some(window) = predicate::push(filters, Table::Flows)?.window {
            for bound in window.conditions() {
                plan = plan.filter(bound)?;
            }
        }
        for filter in filters {
            if predicate::window(filter, Table::Flows).is_none() {
                plan = plan.filter(filter.clone())?;
            }
        }
        let mut aggregates = Vec::new();
        let mut shown = Vec::new();
        for of in &wanted {
            let Some(merge) = merged(*of) else { continue };
            match aggregate(*of, merge)? {
                Some(aggregate) => {
                    let name = format!("merged_{}", of.name());
                    aggregates.push(aggregate.alias(&name));
                    shown.push(match merge {
                        Merge::LastKnown => coalesce(vec![ident(&name), lit("unknown")]),
                        _ => ident(&name),
                    });
                }
                None => shown.push(column(*of)),
            }
        }
        let shown = shown.into_iter().zip(&wanted).map(|(expr, of)| expr.alias(of.name()));
        let mut plan = plan
            .aggregate(vec![column(FlowColumn::FlowId)], aggregates)?
            .project(shown.collect::<Vec<_>>())?;
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        session.create_physical_plan(&plan.build()?).await
    }
}
