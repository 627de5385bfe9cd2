//! How rows of the layer have the values of a column: from the row, and into it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, DictionaryArray,
    FixedSizeBinaryArray, PrimitiveArray, StringArray, TypedDictionaryArray,
};
use arrow::datatypes::{
    Int32Type, Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type,
};
use capstan_model::Time as Moment;
use parquet::errors::ParquetError;

use super::FlowRow;
use crate::segment::column::ColumnType;

/// A value of a row, and the setting of one that was stored. What is null is not set.
#[derive(Debug)]
pub(super) enum Access {
    Bool(fn(&FlowRow) -> bool, fn(&mut FlowRow, bool)),
    U8(fn(&FlowRow) -> Option<u8>, fn(&mut FlowRow, u8)),
    U16(fn(&FlowRow) -> Option<u16>, fn(&mut FlowRow, u16)),
    U32(fn(&FlowRow) -> Option<u32>, fn(&mut FlowRow, u32)),
    I32(fn(&FlowRow) -> i32, fn(&mut FlowRow, i32)),
    I64(fn(&FlowRow) -> i64, fn(&mut FlowRow, i64)),
    Time(fn(&FlowRow) -> Option<Moment>, fn(&mut FlowRow, Moment)),
    Text(fn(&FlowRow) -> Option<&str>, fn(&mut FlowRow, &str)),
    Label(fn(&FlowRow) -> &'static str, fn(&mut FlowRow, &str)),
    Bytes16(fn(&FlowRow) -> Option<[u8; 16]>, fn(&mut FlowRow, [u8; 16])),
}

impl Access {
    /// The type of its column.
    pub(super) const fn column_type(&self) -> ColumnType {
        match self {
            Access::Bool(..) => ColumnType::Bool,
            Access::U8(..) => ColumnType::U8,
            Access::U16(..) => ColumnType::U16,
            Access::U32(..) => ColumnType::U32,
            Access::I32(..) => ColumnType::I32,
            Access::I64(..) => ColumnType::I64,
            Access::Time(..) => ColumnType::Time,
            Access::Text(..) => ColumnType::Text,
            Access::Label(..) => ColumnType::Label,
            Access::Bytes16(..) => ColumnType::Bytes16,
        }
    }

    /// The column of some rows.
    pub(super) fn array(&self, rows: &[FlowRow]) -> Result<ArrayRef, ParquetError> {
        let rows = rows.iter();
        Ok(match self {
            Access::Bool(get, _) => {
                Arc::new(rows.map(|row| Some(get(row))).collect::<BooleanArray>())
            }
            Access::U8(get, _) => Arc::new(rows.map(get).collect::<PrimitiveArray<UInt8Type>>()),
            Access::U16(get, _) => Arc::new(rows.map(get).collect::<PrimitiveArray<UInt16Type>>()),
            Access::U32(get, _) => Arc::new(rows.map(get).collect::<PrimitiveArray<UInt32Type>>()),
            Access::I32(get, _) => {
                Arc::new(PrimitiveArray::<Int32Type>::from_iter_values(rows.map(get)))
            }
            Access::I64(get, _) => {
                Arc::new(PrimitiveArray::<Int64Type>::from_iter_values(rows.map(get)))
            }
            Access::Time(get, _) => {
                let times = rows.map(|row| get(row).map(|time| time.0));
                let times = times.collect::<PrimitiveArray<TimestampNanosecondType>>();
                Arc::new(times.with_timezone("UTC"))
            }
            Access::Text(get, _) => Arc::new(rows.map(|row| get(row)).collect::<StringArray>()),
            Access::Label(get, _) => {
                Arc::new(rows.map(get).collect::<DictionaryArray<Int32Type>>())
            }
            Access::Bytes16(get, _) => {
                Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(rows.map(get), 16)?)
            }
        })
    }

    /// The values of a stored column; none if it has another type.
    pub(super) fn reader<'a>(&self, array: &'a ArrayRef) -> Option<Reader<'a>> {
        Some(match self {
            Access::Bool(_, set) => Reader::Bool(array.as_boolean_opt()?, *set),
            Access::U8(_, set) => Reader::U8(array.as_primitive_opt()?, *set),
            Access::U16(_, set) => Reader::U16(array.as_primitive_opt()?, *set),
            Access::U32(_, set) => Reader::U32(array.as_primitive_opt()?, *set),
            Access::I32(_, set) => Reader::I32(array.as_primitive_opt()?, *set),
            Access::I64(_, set) => Reader::I64(array.as_primitive_opt()?, *set),
            Access::Time(_, set) => Reader::Time(array.as_primitive_opt()?, *set),
            Access::Text(_, set) => Reader::Text(array.as_string_opt()?, *set),
            Access::Label(_, set) => {
                let labels = array.as_dictionary_opt::<Int32Type>()?;
                Reader::Label(labels.downcast_dict::<StringArray>()?, *set)
            }
            Access::Bytes16(_, set) => {
                let array = array.as_fixed_size_binary_opt()?;
                Reader::Bytes16(Some(array).filter(|array| array.value_length() == 16)?, *set)
            }
        })
    }
}

/// A stored column and how its values are set.
pub(super) enum Reader<'a> {
    Bool(&'a BooleanArray, fn(&mut FlowRow, bool)),
    U8(&'a PrimitiveArray<UInt8Type>, fn(&mut FlowRow, u8)),
    U16(&'a PrimitiveArray<UInt16Type>, fn(&mut FlowRow, u16)),
    U32(&'a PrimitiveArray<UInt32Type>, fn(&mut FlowRow, u32)),
    I32(&'a PrimitiveArray<Int32Type>, fn(&mut FlowRow, i32)),
    I64(&'a PrimitiveArray<Int64Type>, fn(&mut FlowRow, i64)),
    Time(&'a PrimitiveArray<TimestampNanosecondType>, fn(&mut FlowRow, Moment)),
    Text(&'a StringArray, fn(&mut FlowRow, &str)),
    Label(TypedDictionaryArray<'a, Int32Type, StringArray>, fn(&mut FlowRow, &str)),
    Bytes16(&'a FixedSizeBinaryArray, fn(&mut FlowRow, [u8; 16])),
}

impl Reader<'_> {
    /// Sets the values of some rows, the first of which is row `from` of the column.
    pub(super) fn fill(&self, from: usize, rows: &mut [FlowRow]) {
        match self {
            Reader::Bool(array, set) => {
                each(*array, from, rows, |row, at| set(row, array.value(at)))
            }
            Reader::U8(array, set) => numbers(array, from, rows, *set),
            Reader::U16(array, set) => numbers(array, from, rows, *set),
            Reader::U32(array, set) => numbers(array, from, rows, *set),
            Reader::I32(array, set) => numbers(array, from, rows, *set),
            Reader::I64(array, set) => numbers(array, from, rows, *set),
            Reader::Time(array, set) => {
                each(*array, from, rows, |row, at| set(row, Moment(array.value(at))));
            }
            Reader::Text(array, set) => {
                each(*array, from, rows, |row, at| set(row, array.value(at)))
            }
            Reader::Label(array, set) => each(array.keys(), from, rows, |row, at| {
                // A damaged key may name no value.
                let key = usize::try_from(array.keys().value(at)).ok();
                if let Some(key) = key.filter(|key| *key < array.values().len()) {
                    set(row, array.values().value(key));
                }
            }),
            Reader::Bytes16(array, set) => each(*array, from, rows, |row, at| {
                set(row, <[u8; 16]>::try_from(array.value(at)).unwrap_or_default());
            }),
        }
    }
}

fn numbers<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    from: usize,
    rows: &mut [FlowRow],
    set: fn(&mut FlowRow, T::Native),
) {
    each(array, from, rows, |row, at| set(row, array.value(at)));
}

fn each(array: &dyn Array, from: usize, rows: &mut [FlowRow], set: impl Fn(&mut FlowRow, usize)) {
    for (at, row) in (from..).zip(rows) {
        if array.is_valid(at) {
            set(row, at);
        }
    }
}
