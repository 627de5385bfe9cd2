//! Functions that make long values of short ones, with a limit on what they make.
//!
//! `repeat('x', 1000000000)` is 25 bytes of SQL and a gigabyte of memory, taken in one go where
//! nobody can stop it. So what such a function would make of some rows is computed from lengths
//! first, and too much is refused. Every function that is registered is judged, here or in the
//! list of `tests`, as one whose values are about as long as what it is given.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

use super::made::{Made, Reading};
use super::usage;
use crate::questions;

/// Most bytes of one value: a longer row could not be sent.
const MOST_OF_ONE: u64 = 64 << 20;

/// Most bytes that are made at once.
const MOST_AT_ONCE: u64 = 256 << 20;

/// Most steps of comparing two values letter by letter, for the rows that are worked on at once.
const MOST_STEPS: u64 = 1 << 32;

/// What a function makes, by its name; none if that is about what it is given.
pub(super) fn made_by(name: &str) -> Option<Made> {
    Some(match name {
        "repeat" => Made::Repeated,
        "lpad" | "rpad" => Made::Padded,
        "replace" => Made::Replaced,
        "regexp_replace" => Made::RegexReplaced,
        "concat" | "overlay" => Made::Joined,
        "concat_ws" => Made::JoinedBy,
        "translate" => Made::Longer(4),
        "to_char" => Made::Formatted,
        "string_to_array" => Made::Longer(24),
        "array_to_string" => Made::ListJoined,
        "array_repeat" => Made::ListOfOne,
        "array_resize" => Made::ListOfLength,
        "array_replace_all" | "array_replace_n" => Made::ListReplaced,
        "generate_series" | "range" => Made::Series,
        "levenshtein" => Made::Compared,
        _ => return None,
    })
}

/// The function with a limit, if it needs one.
pub(super) fn guard(function: &Arc<ScalarUDF>) -> Option<ScalarUDF> {
    let made = made_by(function.name())?;
    Some(ScalarUDF::from(Guarded { inner: Arc::clone(function), made }))
}

/// Whether a function makes long values of short ones.
pub(super) fn is_guarded(function: &ScalarUDF) -> bool {
    function.inner().is::<Guarded>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded {
    inner: Arc<ScalarUDF>,
    made: Made,
}

/// Refuses to make too much of these rows.
///
/// # Errors
/// It would be too much; the question was stopped.
pub(super) fn check(name: &str, made: Made, args: &ScalarFunctionArgs) -> Result<()> {
    questions::check()?;
    let reading = Reading::of(made, &args.args, args.number_rows)?;
    let steps = made == Made::Compared;
    let (most, whole) = if steps { (MOST_STEPS, MOST_STEPS) } else { (MOST_OF_ONE, MOST_AT_ONCE) };
    let mut sum = 0_u64;
    for row in 0..reading.rows() {
        let bytes = reading.made(row);
        sum = sum.saturating_add(bytes);
        if bytes > most && steps {
            return Err(usage(format!(
                "{name}(…) would compare texts that are too long for it, in {bytes} steps: \
                     compare shorter parts, such as left(…, 1000)"
            )));
        }
        if bytes > most {
            return Err(usage(format!(
                "{name}(…) would make one value of up to {bytes} bytes, and {most} are allowed"
            )));
        }
    }
    if sum > whole {
        let unit = if steps { "steps" } else { "bytes" };
        return Err(usage(format!(
            "{name}(…) would take up to {sum} {unit} for {} rows at once, and {whole} are allowed",
            reading.rows()
        )));
    }
    Ok(())
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, of: &[DataType]) -> Result<DataType> {
        self.inner.return_type(of)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = self.inner.inner().with_updated_config(config)?;
        Some(ScalarUDF::from(Guarded { inner: Arc::new(inner), made: self.made }))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(self.inner.name(), self.made, &args)?;
        self.inner.invoke_with_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        // What another function would be put in its place has no limit.
        match self.inner.simplify(args.clone(), info)? {
            ExprSimplifyResult::Original(args) => Ok(ExprSimplifyResult::Original(args)),
            ExprSimplifyResult::Simplified(Expr::ScalarFunction(call)) => match guard(&call.func) {
                Some(_) => Ok(ExprSimplifyResult::Original(args)),
                None => Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(call))),
            },
            simplified => Ok(simplified),
        }
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }

    fn propagate_constraints(
        &self,
        interval: &Interval,
        inputs: &[&Interval],
    ) -> Result<Option<Vec<Interval>>> {
        self.inner.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn coerce_types(&self, of: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(of)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
