//! `a || b` as a function with a limit on what it makes: `SELECT a || a AS a FROM (SELECT a || a AS a
//! FROM (…` doubles a text with each line.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, LargeStringBuilder, StringBuilder, StringViewBuilder};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::scalar::ScalarValue;

use super::super::made::{Made, Text};
use super::super::usage;
use super::check;

/// The function.
pub(in crate::tables::functions) fn function() -> ScalarUDF {
    ScalarUDF::from(Concat { signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Concat {
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
        check("||", Made::Joined, &args)?;
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
