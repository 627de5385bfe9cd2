//! Puts limits where a statement has none.
//!
//! Functions stand in the registry with their limit, but a statement names some otherwise: `[a, b]`,
//! `{a: b}` and `list || list` are functions of the query engine's own, and `text || text` is an
//! operator. Those are replaced once types are known and before anything is computed.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF};
use datafusion::optimizer::AnalyzerRule;

use super::{concat, guarded};

/// The rule; see the module.
#[derive(Debug)]
pub(crate) struct Limit {
    concat: Arc<ScalarUDF>,
}

impl Limit {
    pub(crate) fn new() -> Limit {
        Limit { concat: Arc::new(concat::function()) }
    }

    fn replace(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expression| {
            let name = names.save(&expression);
            let replaced =
                expression.transform_up(|expression| Ok(self.limited(expression, &schema)))?;
            Ok(replaced.update_data(|expression| name.restore(expression)))
        })
    }

    fn limited(&self, expression: Expr, schema: &DFSchema) -> Transformed<Expr> {
        let text = |expression: &Expr| {
            let of = expression.get_type(schema).ok();
            of.filter(|of| matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View))
        };
        let call = |func, args| Expr::ScalarFunction(ScalarFunction { func, args });
        match expression {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right })
                if text(&left).is_some() && text(&left) == text(&right) =>
            {
                Transformed::yes(call(Arc::clone(&self.concat), vec![*left, *right]))
            }
            Expr::ScalarFunction(of) => match guarded::guard_call(&of, schema) {
                Some(func) => Transformed::yes(call(Arc::new(func), of.args)),
                None => Transformed::no(Expr::ScalarFunction(of)),
            },
            other => Transformed::no(other),
        }
    }
}

impl AnalyzerRule for Limit {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| self.replace(plan)).map(|replaced| replaced.data)
    }

    fn name(&self) -> &str {
        "capstan_limit"
    }
}
