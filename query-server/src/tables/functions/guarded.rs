//! Functions that make long values from short ones, with a limit on their results.
//!
//! `repeat('x', 1000000000)` is 25 bytes of SQL and a gigabyte of memory, allocated in one step that cannot be
//! cancelled. So the size of the result is first computed from lengths, and too much is refused. Every
//! registered function is classified, here or in the list of `tests`, as one whose results are about as long as
//! its arguments. Many of those over one long value use as much memory, so they are refused once the query has
//! used up its memory.

pub(super) mod concat;

use std::sync::Arc;

use capstan_model::{Failure, FailureKind, account};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExprSchemable, ExpressionPlacement, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, StructFieldMapping,
};
use datafusion::scalar::ScalarValue;

use self::concat::Concat;
use super::made::{Made, Reading};
use super::{Marker, planning, usage};
use crate::questions;

/// Most bytes of one value: a longer row could not be sent.
const MOST_OF_ONE: u64 = 64 << 20;

/// Most bytes that are made for one batch.
const MOST_AT_ONCE: u64 = 256 << 20;

/// Most steps of comparing two values letter by letter, for one batch.
const MOST_STEPS: u64 = 1 << 30;

/// Arguments that are not examined where a function's result is about as long as they are, bytes.
const SHORT: usize = 1 << 20;

/// The growth class of a function, by name; none if its result is about as long as its arguments.
pub(super) fn made_by(name: &str) -> Option<Made> {
    Some(match name {
        "repeat" => Made::Repeated,
        "lpad" | "rpad" => Made::Padded,
        "replace" => Made::Replaced,
        "regexp_replace" => Made::RegexReplaced,
        "concat" | "overlay" | "make_array" | "array_concat" | "array_append" | "array_prepend"
        | "array_union" | "arrays_zip" | "struct" | "named_struct" | "map" => Made::Joined,
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

/// The function with a limit, if it makes long values from short ones.
pub(super) fn guard(function: &Arc<ScalarUDF>) -> Option<ScalarUDF> {
    made_by(function.name()).map(|made| limit(function, made))
}

/// The function of a call with a limit, if it has none and its results have any length.
pub(super) fn guard_call(call: &ScalarFunction, schema: &DFSchema) -> Option<ScalarUDF> {
    let (function, inner) = (&call.func, call.func.inner());
    let is_own = inner.is::<Guarded>() || inner.is::<Concat>() || inner.is::<Marker>();
    // A struct field is a reference, not a new value, and the query engine recognises it by its type.
    if is_own || function.name() == "get_field" {
        return None;
    }
    let of_any_length = || {
        let of = Expr::ScalarFunction(call.clone()).get_type(schema).ok();
        of.filter(is_any_length).map(|_| Made::Plain)
    };
    let made = made_by(function.name()).or_else(of_any_length);
    made.map(|made| limit(function, made))
}

fn limit(function: &Arc<ScalarUDF>, made: Made) -> ScalarUDF {
    ScalarUDF::from(Guarded { inner: Arc::clone(function), made })
}

fn is_any_length(of: &DataType) -> bool {
    of.is_string() || of.is_binary() || of.is_nested()
}

/// Whether a function makes long values from short ones.
pub(super) fn is_guarded(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<Guarded>().is_some_and(|own| own.made != Made::Plain)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded {
    inner: Arc<ScalarUDF>,
    made: Made,
}

/// The limit, bytes; for [`Made::Compared`], steps.
struct Most {
    one: u64,
    at_once: u64,
}

impl Most {
    /// With a small budget a value may use only a part of it, as it is copied later.
    fn of(made: Made, budget: usize) -> Most {
        let budget = u64::try_from(budget).unwrap_or(u64::MAX);
        match made {
            Made::Compared => Most { one: MOST_STEPS, at_once: MOST_STEPS },
            _ => Most { one: MOST_OF_ONE.min(budget / 8), at_once: MOST_AT_ONCE.min(budget / 4) },
        }
    }
}

/// Refuses results that are too large for these rows.
///
/// # Errors
/// Too large; the query was cancelled, or has used up its memory.
pub(super) fn check(name: &str, made: Made, args: &ScalarFunctionArgs) -> Result<()> {
    questions::check()?;
    if made == Made::Plain && is_short(&args.args) {
        return Ok(());
    }
    let reading = Reading::of(made, &args.args, args.number_rows)?;
    let Most { one, at_once } = Most::of(made, account::budget());
    let steps = made == Made::Compared;
    let mut sum = 0_u64;
    for row in 0..reading.rows() {
        let bytes = reading.made(row)?;
        sum = sum.saturating_add(bytes);
        if made == Made::Plain {
            continue;
        }
        if !steps && planning::is_left(bytes) {
            return Err(usage(format!(
                "{name}(…) makes {bytes} bytes: not computed at planning time"
            )));
        }
        if bytes > one && steps {
            return Err(usage(format!(
                "{name}(…) would compare texts that are too long for it, in {bytes} steps: \
                 compare shorter parts, such as left(…, 1000)"
            )));
        }
        if bytes > one {
            return Err(usage(format!(
                "{name}(…) would make a value of up to {bytes} bytes; the limit is {one}"
            )));
        }
    }
    if steps {
        return match sum > at_once {
            true => Err(usage(format!(
                "{name}(…) would take up to {sum} steps for {} rows at once, and {at_once} are \
                 allowed",
                reading.rows()
            ))),
            false => Ok(()),
        };
    }
    // A value that is the same for all rows may be copied for each of them.
    let rows = args.number_rows.max(1);
    let copies = if reading.is_one() { rows as u64 } else { 1 };
    let all = sum.saturating_mul(copies);
    if all > at_once && made != Made::Plain {
        return Err(usage(format!(
            "{name}(…) would take up to {all} bytes for {rows} rows at once, and {at_once} are \
             allowed"
        )));
    }
    let room = account::room();
    if usize::try_from(sum).unwrap_or(usize::MAX) > room {
        let what = format!(
            "the query exceeds its memory limit: {name}(…) would make up to {sum} bytes, and \
             {room} are free; select less, or raise --memory"
        );
        return Err(DataFusionError::External(Box::new(Failure::new(FailureKind::Full, what))));
    }
    Ok(())
}

/// Whether the arguments are so short that the result is, too.
fn is_short(args: &[ColumnarValue]) -> bool {
    let bytes = args.iter().map(|value| match value {
        ColumnarValue::Array(values) => values.get_array_memory_size(),
        ColumnarValue::Scalar(value) => value.size(),
    });
    bytes.fold(0, usize::saturating_add) <= SHORT
}

/// Bytes of a literal.
fn written(expression: &Expr) -> u64 {
    match expression {
        Expr::Literal(value, _) => value.size() as u64,
        _ => 0,
    }
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
        // Simplification may concatenate texts, too. Other functions are always simplified: some cannot be
        // computed.
        let joins = matches!(self.made, Made::Joined | Made::JoinedBy);
        let is_long =
            || args.iter().map(written).fold(0, u64::saturating_add) > planning::MOST_PLANNED;
        if joins && is_long() {
            return Ok(ExprSimplifyResult::Original(args));
        }
        // A function that replaces it has no limit.
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

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.strictly_order_preserving(inputs)
    }

    fn struct_field_mapping(&self, literals: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.inner.struct_field_mapping(literals)
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.placement(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
