//! Makes joins yield, and end when their query is cancelled.
//!
//! The query engine yields on input, which is enough for operators whose output is no larger than their input.
//! Joins can produce more: one batch can keep them busy for minutes
//! (<https://github.com/apache/datafusion/issues/19358>). So the output of a join counts as work, too, after
//! which the thread yields. A join without matches has no output, so its condition checks for cancellation.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use capstan_model::{Failure, FailureKind};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, HashJoinExecBuilder, NestedLoopJoinExec,
    NestedLoopJoinExecBuilder, SortMergeJoinExec, SymmetricHashJoinExec,
};
use datafusion::physical_plan::unnest::UnnestExec;

/// The optimizer rule; see the module.
#[derive(Debug)]
pub(crate) struct Cooperate;

impl PhysicalOptimizerRule for Cooperate {
    fn name(&self) -> &str {
        "capstan_cooperate"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| match gives_more(&plan) {
            true => Ok(Transformed::yes(Arc::new(CooperativeExec::new(stoppable(plan)?)))),
            false => Ok(Transformed::no(plan)),
        })
        .map(|transformed| transformed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether an operator's output can be much larger than its input.
fn gives_more(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let plan: &dyn ExecutionPlan = plan.as_ref();
    plan.is::<CrossJoinExec>()
        || plan.is::<HashJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<SymmetricHashJoinExec>()
        || plan.is::<UnnestExec>()
}

/// The join with a condition that checks for cancellation.
fn stoppable(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>()
        && let Some(filter) = join.filter()
    {
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(heard(filter)));
        return Ok(Arc::new(join.build()?));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>()
        && let Some(filter) = join.filter()
    {
        return HashJoinExecBuilder::from(join).with_filter(Some(heard(filter))).build_exec();
    }
    Ok(plan)
}

fn heard(filter: &JoinFilter) -> JoinFilter {
    let condition = Arc::new(UntilStopped(Arc::clone(filter.expression())));
    JoinFilter::new(condition, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// A condition that fails once the query is cancelled.
#[derive(Debug, Clone, Eq)]
struct UntilStopped(Arc<dyn PhysicalExpr>);

impl PartialEq for UntilStopped {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Hash for UntilStopped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for UntilStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for UntilStopped {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.0.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.0.nullable(input)
    }

    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.0.return_field(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        check()?;
        self.0.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        match children.pop() {
            Some(child) => Ok(Arc::new(UntilStopped(child))),
            None => Ok(self),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// Fails once the query of this thread is cancelled.
///
/// # Errors
/// It is cancelled. The caller that waits for the query knows the reason.
pub(crate) fn check() -> Result<()> {
    if !super::is_stopped() {
        return Ok(());
    }
    let stopped = Failure::new(FailureKind::Interrupted, "the query was stopped");
    Err(DataFusionError::External(Box::new(stopped)))
}
