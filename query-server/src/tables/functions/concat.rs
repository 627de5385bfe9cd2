//! `a || b` with a limit on what it makes: `SELECT a || a AS a FROM (SELECT a || a AS a FROM (…`
//! doubles a text with each line.
//!
//! It is an operator of the query engine, not a function, so it is replaced by one once types are
//! known and before anything is computed.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, LargeStringBuilder, StringBuilder, StringViewBuilder};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use super::guarded;
use super::made::{Made, Text};
use super::usage;

/// The rule; see the module.
#[derive(Debug)]
pub(crate) struct LimitConcat {
    function: Arc<ScalarUDF>,
}

impl LimitConcat {
    pub(crate) fn new() -> LimitConcat {
        let signature = Signature::any(2, Volatility::Immutable);
        LimitConcat { function: Arc::new(ScalarUDF::from(Concat { signature })) }
    }

    fn replace(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let is_text = |expression: &Expr| match expression.get_type(&schema) {
            Ok(of @ (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)) => Some(of),
            _ => None,
        };
        plan.map_expressions(|expression| {
            let name = names.save(&expression);
            let replaced = expression.transform_up(|expression| match expression {
                Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right })
                    if is_text(&left).is_some() && is_text(&left) == is_text(&right) =>
                {
                    let (func, args) = (Arc::clone(&self.function), vec![*left, *right]);
                    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(replaced.update_data(|expression| name.restore(expression)))
        })
    }
}

impl AnalyzerRule for LimitConcat {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| self.replace(plan)).map(|replaced| replaced.data)
    }

    fn name(&self) -> &str {
        "capstan_limit_concat"
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Concat {
    signature: Signature,
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        "string_concat"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, of: &[DataType]) -> Result<DataType> {
        of.first().cloned().ok_or_else(|| usage("|| takes two texts"))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        let of: Vec<DataType> =
            args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&of)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        guarded::check("||", Made::Joined, &args)?;
        let of = args.return_field.data_type();
        let one = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if one { 1 } else { args.number_rows };
        let [left, right] = &args.args[..] else { return Err(usage("|| takes two texts")) };
        let (left, right) = (Text::of(left, rows)?, Text::of(right, rows)?);
        let joined = (0..rows).map(|row| Some((left.get(row)?, right.get(row)?)));
        let made: ArrayRef = match of {
            DataType::Utf8View => {
                let mut made = StringViewBuilder::with_capacity(rows);
                let mut text = String::new();
                for pair in joined {
                    match pair {
                        Some((left, right)) => {
                            text.clear();
                            text.push_str(left);
                            text.push_str(right);
                            made.append_value(&text);
                        }
                        None => made.append_null(),
                    }
                }
                Arc::new(made.finish())
            }
            DataType::LargeUtf8 => {
                let mut made = LargeStringBuilder::with_capacity(rows, 0);
                for pair in joined {
                    made.append_option(pair.map(|(left, right)| [left, right].concat()));
                }
                Arc::new(made.finish())
            }
            _ => {
                let mut made = StringBuilder::with_capacity(rows, 0);
                for pair in joined {
                    made.append_option(pair.map(|(left, right)| [left, right].concat()));
                }
                Arc::new(made.finish())
            }
        };
        match one {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }
}
