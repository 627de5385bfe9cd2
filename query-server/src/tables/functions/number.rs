//! Limits text that is parsed as a decimal number: the query engine recurses once for each 38 digits, and a text
//! of 20 MB overflows a thread's stack, which ends the process.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::usage;

/// Most bytes of a text that is parsed as a decimal number. The longest number has 76 digits.
const MOST: usize = 1_000;

const NAME: &str = "number_text";

/// A function that returns its argument, and refuses a text that is too long for a number.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(NumberText { signature: Signature::any(1, Volatility::Immutable) })
}

/// Whether a function is this one.
pub(super) fn is_it(function: &ScalarUDF) -> bool {
    function.name() == NAME
}

/// Whether values of a type are decimal numbers, or have some.
pub(super) fn has_decimals(of: &DataType) -> bool {
    match of {
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => true,
        DataType::Dictionary(_, of) => has_decimals(of),
        DataType::List(of)
        | DataType::LargeList(of)
        | DataType::FixedSizeList(of, _)
        | DataType::ListView(of)
        | DataType::LargeListView(of)
        | DataType::Map(of, _) => has_decimals(of.data_type()),
        DataType::Struct(fields) => fields.iter().any(|of| has_decimals(of.data_type())),
        _ => false,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct NumberText {
    signature: Signature,
}

impl ScalarUDFImpl for NumberText {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, of: &[DataType]) -> Result<DataType> {
        of.first().cloned().ok_or_else(|| usage("a number is read from one text"))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(value) = args.args.into_iter().next() else {
            return Err(usage("a number is read from one text"));
        };
        let array = match &value {
            ColumnarValue::Array(array) => Arc::clone(array),
            ColumnarValue::Scalar(one) => one.to_array()?,
        };
        let longest = longest(&array);
        if longest > MOST {
            let what =
                format!("a text of {longest} bytes is too long for a number: the limit is {MOST}");
            return Err(usage(&what));
        }
        Ok(value)
    }
}

/// Bytes of the longest text.
fn longest(array: &ArrayRef) -> usize {
    let texts = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    match array.data_type() {
        DataType::Utf8 => texts(&mut array.as_string::<i32>().iter().flatten().map(str::len)),
        DataType::LargeUtf8 => texts(&mut array.as_string::<i64>().iter().flatten().map(str::len)),
        DataType::Utf8View => texts(&mut array.as_string_view().iter().flatten().map(str::len)),
        DataType::Dictionary(..) => longest(array.as_any_dictionary().values()),
        DataType::List(_) => longest(array.as_list::<i32>().values()),
        DataType::LargeList(_) => longest(array.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => longest(array.as_fixed_size_list().values()),
        DataType::Struct(_) => texts(&mut array.as_struct().columns().iter().map(longest)),
        DataType::Map(..) => texts(&mut array.as_map().entries().columns().iter().map(longest)),
        _ => 0,
    }
}
