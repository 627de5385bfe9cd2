//! Columns of a stored batch, with the types they must have.

use capstan_storage_engine::segment::Corrupt;
use capstan_storage_engine::segment::packets::column;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch,
};
use datafusion::arrow::datatypes::ArrowPrimitiveType;

/// A `packets` layer that makes no sense.
pub(super) fn bad(what: impl Into<String>) -> Corrupt {
    Corrupt::new("packets", what)
}

pub(super) fn get<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, Corrupt> {
    batch.column_by_name(name).ok_or_else(|| bad(format!("column {name} is missing")))
}

pub(super) fn typed<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a PrimitiveArray<T>, Corrupt> {
    get(batch, name)?
        .as_primitive_opt::<T>()
        .ok_or_else(|| bad(format!("column {name} has another type")))
}

pub(super) fn backward(batch: &RecordBatch) -> Result<&BooleanArray, Corrupt> {
    get(batch, column::BACKWARD)?
        .as_boolean_opt()
        .ok_or_else(|| bad("column backward has another type"))
}

/// A column's null is written where the packet has no such field.
pub(super) fn or_zero<T>(array: &PrimitiveArray<T>, row: usize) -> T::Native
where
    T: ArrowPrimitiveType,
    T::Native: Default,
{
    if array.is_null(row) { T::Native::default() } else { array.value(row) }
}
