//! `EXPLAIN` that says what a query will ask of the store.
//!
//! Telling that takes a look into each segment, which a query that is going to run does as it
//! goes along. So plans that are only shown are made with a mark in their session, and scans
//! that find it look.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

/// The mark.
struct Shown;

/// Whether a plan is made to be shown.
pub(super) fn is_shown(session: &dyn Session) -> bool {
    session.config().get_extension::<Shown>().is_some()
}

/// The planner of a session whose `EXPLAIN` tells costs.
#[derive(Debug)]
pub(super) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::default();
        match (plan, session.as_any().downcast_ref::<SessionState>()) {
            (LogicalPlan::Explain(_), Some(state)) => {
                let mut marked = state.clone();
                marked.config_mut().set_extension(Arc::new(Shown));
                planner.create_physical_plan(plan, &marked).await
            }
            _ => planner.create_physical_plan(plan, session).await,
        }
    }
}
