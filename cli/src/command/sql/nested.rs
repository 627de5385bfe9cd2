//! Lists, structs and maps as text for programs.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};

/// The rows with the keys of all maps as text: JSON has no others.
pub(super) fn with_text_keys(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let fields = batch.schema_ref().fields().iter().map(text_keys);
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        })
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::new(schema), columns)
}

/// The rows with JSON in the place of what has parts: CSV has no such cells.
pub(super) fn as_text(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let batch = with_text_keys(batch)?;
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    let columns = columns
        .map(|(field, column)| match field.data_type().is_nested() {
            true => {
                let text = Field::new(field.name(), DataType::Utf8, true);
                Ok((Arc::new(text), json(field, column)?))
            }
            false => Ok((Arc::clone(field), Arc::clone(column))),
        })
        .collect::<Result<Vec<(FieldRef, ArrayRef)>, ArrowError>>()?;
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn text_keys(field: &FieldRef) -> FieldRef {
    let of = match field.data_type() {
        DataType::List(item) => DataType::List(text_keys(item)),
        DataType::LargeList(item) => DataType::LargeList(text_keys(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(text_keys(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(text_keys).collect()),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(parts) if parts.len() == 2 => {
                let key = parts[0].as_ref().clone().with_data_type(DataType::Utf8);
                let parts = DataType::Struct([Arc::new(key), text_keys(&parts[1])].into());
                DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(parts)), *sorted)
            }
            _ => return Arc::clone(field),
        },
        _ => return Arc::clone(field),
    };
    Arc::new(field.as_ref().clone().with_data_type(of))
}

/// Each value as JSON; null is none.
fn json(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, column, &options)?;
    let (mut texts, mut text) = (StringBuilder::new(), Vec::new());
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(texts.finish()))
}
