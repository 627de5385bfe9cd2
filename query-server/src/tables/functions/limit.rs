//! Adds limits to expressions that bypass the function registry.
//!
//! Functions in the registry have their limit, but some syntax bypasses it: `[a, b]`, `{a: b}` and `list ||
//! list` are functions of the query engine's own, and `text || text` is an operator. Those are replaced after
//! type resolution and before anything is computed. So are casts from text to decimal numbers.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, TryCast,
};
use datafusion::optimizer::AnalyzerRule;

use super::{guarded, number, window};

/// The analyzer rule; see the module.
#[derive(Debug)]
pub(crate) struct Limit {
    concat: Arc<ScalarUDF>,
    number: Arc<ScalarUDF>,
}

impl Limit {
    pub(crate) fn new() -> Limit {
        Limit {
            concat: Arc::new(guarded::concat::function()),
            number: Arc::new(number::function()),
        }
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

    /// What is to be made a number, if it is not too long for one.
    fn short(&self, expression: Expr) -> Transformed<Box<Expr>> {
        match &expression {
            Expr::ScalarFunction(of) if number::is_it(&of.func) => {
                Transformed::no(Box::new(expression))
            }
            _ => {
                let (func, args) = (Arc::clone(&self.number), vec![expression]);
                Transformed::yes(Box::new(Expr::ScalarFunction(ScalarFunction { func, args })))
            }
        }
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
            Expr::Cast(of) if number::has_decimals(of.field.data_type()) => {
                self.short(*of.expr).update_data(|expr| Expr::Cast(Cast { expr, field: of.field }))
            }
            Expr::TryCast(of) if number::has_decimals(of.field.data_type()) => self
                .short(*of.expr)
                .update_data(|expr| Expr::TryCast(TryCast { expr, field: of.field })),
            Expr::ScalarFunction(mut of) if is_cast(&of, schema) && !of.args.is_empty() => {
                let text = self.short(of.args.remove(0));
                text.update_data(|text| {
                    of.args.insert(0, *text);
                    Expr::ScalarFunction(of)
                })
            }
            Expr::ScalarFunction(of) => match guarded::guard_call(&of, schema) {
                Some(func) => Transformed::yes(call(Arc::new(func), of.args)),
                None => Transformed::no(Expr::ScalarFunction(of)),
            },
            mut other => match window::stoppable_call(&mut other) {
                true => Transformed::yes(other),
                false => Transformed::no(other),
            },
        }
    }
}

/// Whether a function casts its argument to decimal numbers: `arrow_cast(…, 'Decimal128(38, 2)')`.
fn is_cast(of: &ScalarFunction, schema: &DFSchema) -> bool {
    let makes_numbers = || {
        let made = Expr::ScalarFunction(of.clone()).get_type(schema);
        made.is_ok_and(|of| number::has_decimals(&of))
    };
    const CASTS: [&str; 4] = ["arrow_cast", "arrow_try_cast", "cast_to_type", "try_cast_to_type"];
    CASTS.contains(&of.func.name()) && makes_numbers()
}

impl AnalyzerRule for Limit {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| self.replace(plan)).map(|replaced| replaced.data)
    }

    fn name(&self) -> &str {
        "capstan_limit"
    }
}
