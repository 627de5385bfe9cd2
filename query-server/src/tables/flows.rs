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
use capstan_storage_engine::segment::column::Merge;
use capstan_view::ScopedView;
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

use super::external;
use super::flow_columns::{FlowColumn, Made, ORDER};
use super::flow_parts::FlowParts;
use super::predicate::{self, Table};
use super::provider::Provider;
use super::segment_table::chosen;

/// A row a flow.
#[derive(Debug)]
pub(super) struct Flows {
    parts: Arc<Provider>,
    /// Those of the parts that have a merge.
    columns: Vec<FlowColumn>,
}

impl Flows {
    pub(super) fn new(view: &ScopedView) -> Self {
        let mut columns = FlowColumn::of(view.layers().flows);
        columns.push(ORDER);
        let parts = Arc::new(Provider::new(view, FlowParts { columns: columns.clone() }));
        columns.retain(|column| column.merge.is_some());
        Flows { parts, columns }
    }

    /// Whether a condition has the same result for every part of a flow: then it can select parts.
    fn is_of_all_parts(&self, condition: &Expr) -> Result<bool> {
        let columns = condition.column_refs();
        if columns.is_empty() {
            let support = predicate::support(condition, Table::Flows)?;
            return Ok(support == TableProviderFilterPushDown::Exact);
        }
        Ok(columns.iter().all(|column| {
            let known = self.columns.iter().find(|known| known.name == column.name);
            known.is_some_and(|known| matches!(known.merge, Some(Merge::Id | Merge::Same)))
        }))
    }
}

/// Sorts parts by time; those without a time first, and the name of the segment decides between equals.
fn time_order() -> Vec<Sort> {
    ["first_time", "last_time", ORDER.name].map(|name| ident(name).sort(true, true)).to_vec()
}

/// The label that says as much as none.
fn unknown(of: &FlowColumn) -> Expr {
    let default = match of.made {
        Made::Stored(column, _) => column.default,
        Made::Sum(..)
        | Made::Recorder
        | Made::Generation
        | Made::Identity
        | Made::Segment
        | Made::Order => None,
    };
    lit(default.unwrap_or_default())
}

/// The aggregate that merges a column; none for a grouping column.
fn aggregate(of: &FlowColumn, merge: Merge) -> Result<Option<Expr>> {
    let value = ident(of.name);
    Ok(Some(match merge {
        Merge::Id => return Ok(None),
        Merge::Same => first_value(value, Vec::new()),
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
            last_value(value.clone(), time_order()).filter(value.not_eq(unknown(of))).build()?
        }
    }))
}

#[async_trait]
impl TableProvider for Flows {
    fn schema(&self) -> SchemaRef {
        // To the query engine what an aggregate gives may always be null.
        let field =
            |column: &FlowColumn| column.field().with_nullable(column.merge != Some(Merge::Id));
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
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
                } else if self.is_of_all_parts(filter)? {
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
        let wanted = match projection {
            Some(places) => chosen(&self.columns, places).map_err(external)?,
            None => self.columns.clone(),
        };
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
            let Some(merge) = of.merge else { continue };
            match aggregate(of, merge)? {
                Some(aggregate) => {
                    let name = format!("merged_{}", of.name);
                    aggregates.push(aggregate.alias(&name));
                    shown.push(match merge {
                        Merge::LastKnown => coalesce(vec![ident(&name), unknown(of)]),
                        _ => ident(&name),
                    });
                }
                None => shown.push(ident(of.name)),
            }
        }
        let shown = shown.into_iter().zip(&wanted).map(|(expr, of)| expr.alias(of.name));
        let mut plan = plan
            .aggregate(vec![ident("flow_id")], aggregates)?
            .project(shown.collect::<Vec<_>>())?;
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        session.create_physical_plan(&plan.build()?).await
    }
}
