//! Functions over the tables.
//!
//! `host('…')` and `port(…)` are predicates over both ends at once, inner and outer, which only the term index
//! can decide: an address or a network, a port or a range of ports. They are markers: a scan that accepts them turns them into terms (`super::predicate`). One that
//! is evaluated as a function was not accepted by any scan, and fails with that message.
//!
//! `octet_length(…)` is the query engine's own, extended to captured bytes. `guarded` limits functions that make
//! long values from short ones, `made` estimates the lengths, `planning` defers long values to run time. `limit`
//! adds limits to expressions that bypass the registry, `concat` is the operator `||` with a limit, `number`
//! limits text that is parsed as a number. `window` makes aggregates over windows notice cancellation.

mod guarded;
mod limit;
mod made;
mod number;
mod planning;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

use capstan_index::filter::FlowFilter;
use capstan_model::{Address, Failure, FailureKind, Network};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::length::length;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;

const HOST: &str = "host";
const PORT: &str = "port";

pub(super) use self::limit::Limit;
pub(crate) use self::planning::leaving_long_values;

/// Those of the functions that make long values from short ones, with a limit on their results.
pub(super) fn limited<'a>(
    known: impl IntoIterator<Item = &'a Arc<ScalarUDF>>,
) -> impl Iterator<Item = ScalarUDF> {
    known.into_iter().filter_map(guarded::guard)
}

/// Bytes of the longest literal in a plan.
pub(crate) fn longest_value(plan: &LogicalPlan) -> usize {
    let mut longest = 0;
    let mut look = |expression: &Expr| {
        if let Expr::Literal(value, _) = expression {
            longest = longest.max(value.size());
        }
        Ok(TreeNodeRecursion::Continue)
    };
    // The walk itself cannot fail.
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| expression.apply(&mut look))
    });
    longest
}

/// Whether a plan has functions that make long values from short ones.
pub(crate) fn makes_long_values(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let mut look = |expression: &Expr| {
        found |=
            matches!(expression, Expr::ScalarFunction(call) if guarded::is_guarded(&call.func));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    };
    // The walk itself cannot fail.
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| expression.apply(&mut look))
    });
    found
}

/// The functions, to be registered.
pub(super) fn all() -> [Arc<ScalarUDF>; 3] {
    // Immutable, because other functions are not pushed down to a scan. Constant folding tries to compute them,
    // fails, and leaves them.
    let host = Marker { name: HOST, signature: Signature::string(1, Volatility::Immutable) };
    let numbers = [1, 2].map(|count| TypeSignature::Exact(vec![DataType::Int64; count]));
    let numbers = Signature::one_of(numbers.into(), Volatility::Immutable);
    let port = Marker { name: PORT, signature: numbers };
    let length = OctetLength { signature: Signature::any(1, Volatility::Immutable) };
    [ScalarUDF::from(host), ScalarUDF::from(port), ScalarUDF::from(length)].map(Arc::new)
}

/// Bytes of a text or of bytes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OctetLength {
    signature: Signature,
}

impl ScalarUDFImpl for OctetLength {
    fn name(&self) -> &str {
        "octet_length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, of: &[DataType]) -> Result<DataType> {
        match of {
            [DataType::Null] => Ok(DataType::Int64),
            [of] if of.is_string() || of.is_binary() => Ok(DataType::Int64),
            _ => Err(usage("octet_length(…) needs one text or binary value, such as payload")),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [of] = <[ColumnarValue; 1]>::try_from(args.args)
            .map_err(|_| usage("octet_length(…) takes one value"))?;
        if of.data_type() == DataType::Null {
            return Ok(ColumnarValue::Scalar(ScalarValue::Int64(None)));
        }
        let lengths = cast(&length(&of.into_array(rows)?)?, &DataType::Int64)?;
        Ok(ColumnarValue::Array(lengths))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(usage(format!(
            "{}(…) needs the index: use it in WHERE over packets, flows or flow_parts, alone or \
             joined by AND; by OR and NOT only with host, port and comparisons of protocol, vlan \
             or ip_protocol with a value",
            self.name
        )))
    }
}

/// A mistake in the statement.
pub(super) fn usage(words: impl Into<String>) -> DataFusionError {
    DataFusionError::External(Box::new(Failure::new(FailureKind::Usage, words)))
}

/// The flows that a call of one of the predicates selects; none if it is another function.
///
/// # Errors
/// Its argument is not a literal, or not a valid one.
pub(super) fn marked(call: &ScalarFunction) -> Result<Option<FlowFilter>> {
    let name = call.func.name();
    if !call.func.inner().is::<Marker>() {
        return Ok(None);
    }
    let literal = |argument: &Expr| match argument {
        Expr::Literal(value, _) => Ok(value.clone()),
        _ => {
            let two = if name == PORT { " or two" } else { "" };
            Err(usage(format!("{name}(…) takes one value{two}, not an expression")))
        }
    };
    let values = call.args.iter().map(literal).collect::<Result<Vec<ScalarValue>>>()?;
    match (name, values.as_slice()) {
        (HOST, [value]) => host(value).map(Some),
        (PORT, [value]) => port(value).map(|port| Some(FlowFilter::port(port))),
        (PORT, [low, high]) => match (port(low)?, port(high)?) {
            (low, high) if low > high => {
                Err(usage(format!("port({low}, {high}): the lower port comes first")))
            }
            (low, high) => Ok(Some(FlowFilter::ports(low..=high))),
        },
        _ => Err(usage(format!("{name}(…) takes another number of values"))),
    }
}

fn host(value: &ScalarValue) -> Result<FlowFilter> {
    let Some(text) = value.try_as_str().flatten() else {
        return Err(usage(
            "host(…) takes an IP address or a network as text, such as host('10.0.0.1') or host('10.0.0.0/8')",
        ));
    };
    match text.parse::<Network>() {
        // Packets without addresses have this one, so it is not in the index.
        Ok(network) if network.address() == Some(Address::NONE) => {
            Err(usage("host('::') is not supported: '::' is not the address of a host"))
        }
        Ok(network) => Ok(FlowFilter::network(network)),
        Err(error) => Err(usage(format!("host(…): {error}"))),
    }
}

fn port(value: &ScalarValue) -> Result<u16> {
    match value {
        ScalarValue::Int64(Some(number)) => u16::try_from(*number)
            .map_err(|_| usage(format!("port(…): {number} is not a port, 0 to 65535"))),
        _ => Err(usage("port(…) takes a number, 0 to 65535")),
    }
}
