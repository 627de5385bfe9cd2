//! `EXPLAIN` with the requests that a query will send to the store.
//!
//! Computing them opens each segment, which a query that is going to run does anyway on its way. So plans that
//! are only shown carry a marker in their session, and scans compute the requests only with that marker.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

/// The marker.
struct Shown;

/// Whether a plan is only shown.
pub(super) fn is_shown(session: &dyn Session) -> bool {
    session.config().get_extension::<Shown>().is_some()
}

/// The planner of a session whose `EXPLAIN` shows costs.
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
