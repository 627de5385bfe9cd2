//! Columns of an answer as plain values.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use capstan_model::{Failure, FailureKind, Time};

fn odd(name: &str) -> Failure {
    let words =
        format!("the answer lacks column {name}, or it has another type: is the server older?");
    Failure::new(FailureKind::Other, words)
}

/// A column of text.
pub(super) fn texts(batch: &RecordBatch, name: &str) -> Result<Vec<Option<String>>, Failure> {
    let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let column = column.ok_or_else(|| odd(name))?;
    Ok(column.iter().map(|text| text.map(str::to_owned)).collect())
}

/// A column of counts.
pub(super) fn numbers(batch: &RecordBatch, name: &str) -> Result<Vec<u64>, Failure> {
    let column =
        batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let column = column.ok_or_else(|| odd(name))?;
    Ok(column.iter().map(|number| u64::try_from(number.unwrap_or(0)).unwrap_or(0)).collect())
}

/// A column of times.
pub(super) fn times(batch: &RecordBatch, name: &str) -> Result<Vec<Option<Time>>, Failure> {
    let column = batch
        .column_by_name(name)
        .and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
    let column = column.ok_or_else(|| odd(name))?;
    Ok(column.iter().map(|time| time.map(Time)).collect())
}
