//! The wire format of results: plain column types, messages of bounded size.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use capstan_model::{Failure, FailureKind};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tonic::Status;

use super::status;

/// Target size of the rows of one message, bytes. Only a single large row exceeds it.
pub(super) const MESSAGE_BYTES: usize = 1 << 20;

/// The largest single row that is sent, bytes.
pub(super) const MAX_ROW_BYTES: usize = 64 << 20;

/// An answer as a stream of messages.
pub(super) type Answer = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// The type that replaces `inside` on the wire. Views, dictionaries and runs are encodings that not every client
/// knows; plain values are sent instead.
pub(super) fn wire_type(inside: &DataType) -> DataType {
    match inside {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => wire_type(values),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(wire_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => {
            DataType::LargeList(wire_field(item))
        }
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(wire_field(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        other => other.clone(),
    }
}

fn wire_field(field: &FieldRef) -> FieldRef {
    let plain = wire_type(field.data_type());
    if plain == *field.data_type() {
        return Arc::clone(field);
    }
    let field = Field::new(field.name(), plain, field.is_nullable())
        .with_metadata(field.metadata().clone());
    Arc::new(field)
}

/// A table's schema as clients see it.
pub(super) fn wire_schema(schema: &Schema) -> Schema {
    let fields: Vec<FieldRef> = schema.fields().iter().map(wire_field).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

/// A query result's schema as clients see it. Every column is nullable: planning and running disagree about
/// nullability, and clients compare the two schemas.
pub(super) fn result_schema(planned: &Schema) -> SchemaRef {
    let fields: Vec<Field> = wire_schema(planned)
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(Schema::new_with_metadata(fields, planned.metadata().clone()))
}

/// Sends `batches` as messages of about [`MESSAGE_BYTES`], with `schema` first
/// (also when no row follows). Columns are cast to the schema's types.
///
/// A batch is cut before it is cast, piece by piece as the client reads, so that the shared values of a view or
/// a dictionary are never copied for all rows at once.
pub(super) fn encode<S>(schema: SchemaRef, batches: S) -> Answer
where
    S: Stream<Item = Result<RecordBatch, Failure>> + Send + 'static,
{
    let target = Arc::clone(&schema);
    let pieces = batches
        .and_then(move |batch| {
            let target = Arc::clone(&target);
            let cuts = cut(&batch);
            async move {
                let pieces = cuts?.into_iter().map(move |rows| {
                    conform(&batch.slice(rows.start, rows.len()), &target).map_err(unsendable)
                });
                Ok(stream::iter(pieces))
            }
        })
        .try_flatten()
        .map_err(|failure| FlightError::Tonic(Box::new(status::to_status(&failure))));
    FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .build(pieces)
        .map_err(|error| match error {
            FlightError::Tonic(status) => *status,
            other => Status::internal(format!("an answer could not be encoded: {other}")),
        })
        .boxed()
}

fn unsendable(error: ArrowError) -> Failure {
    Failure::caused_by(FailureKind::Other, "cannot encode the result", error)
}

/// The batch with the types it has on the wire.
pub(super) fn plain(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    conform(batch, &Arc::new(wire_schema(&batch.schema())))
}

/// The batch with the types of `schema`.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        })
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// The rows of each message: as many as fit, at least one.
fn cut(batch: &RecordBatch) -> Result<Vec<Range<usize>>, Failure> {
    let rows = batch.num_rows();
    let mut sizes = vec![0; rows];
    for column in batch.columns() {
        add_sizes(column, &mut sizes);
    }
    let mut cuts = Vec::new();
    let (mut start, mut held) = (0, 0_usize);
    for (row, &size) in sizes.iter().enumerate() {
        if size > MAX_ROW_BYTES {
            return Err(Failure::new(
                FailureKind::Usage,
                format!(
                    "one row of the answer has {size} bytes; at most {MAX_ROW_BYTES} can be sent: \
                     select fewer columns, or parts of the long ones"
                ),
            ));
        }
        if row > start && held.saturating_add(size) > MESSAGE_BYTES {
            cuts.push(start..row);
            (start, held) = (row, 0);
        }
        held = held.saturating_add(size);
    }
    if start < rows {
        cuts.push(start..rows);
    }
    Ok(cuts)
}

/// Adds to each row what its cell takes on the wire, bytes.
fn add_sizes(array: &dyn Array, sizes: &mut [usize]) {
    match array.data_type() {
        DataType::Utf8 => add_runs(array.as_string::<i32>().value_offsets(), sizes),
        DataType::Binary => add_runs(array.as_binary::<i32>().value_offsets(), sizes),
        DataType::LargeUtf8 => add_runs(array.as_string::<i64>().value_offsets(), sizes),
        DataType::LargeBinary => add_runs(array.as_binary::<i64>().value_offsets(), sizes),
        DataType::Utf8View => add_views(array.as_string_view().views(), sizes),
        DataType::BinaryView => add_views(array.as_binary_view().views(), sizes),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let values = sizes_of(dictionary.values());
            if !values.is_empty() {
                for (size, key) in sizes.iter_mut().zip(dictionary.normalized_keys()) {
                    *size = size.saturating_add(values.get(key).copied().unwrap_or(0));
                }
            }
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            add_items(list.value_offsets(), list.values(), sizes);
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            add_items(list.value_offsets(), list.values(), sizes);
        }
        DataType::Map(..) => {
            let map = array.as_map();
            add_items(map.value_offsets(), map.entries(), sizes);
        }
        DataType::Struct(_) => {
            for column in array.as_struct().columns() {
                add_sizes(column, sizes);
            }
        }
        other => {
            let each = match other {
                DataType::Null => 0,
                DataType::Boolean => 1,
                DataType::FixedSizeBinary(width) => usize::try_from(*width).unwrap_or(0),
                // Other types, which do not occur in results: the mean size of a value.
                other => other
                    .primitive_width()
                    .unwrap_or_else(|| array.get_array_memory_size().div_ceil(array.len().max(1))),
            };
            sizes.iter_mut().for_each(|size| *size = size.saturating_add(each));
        }
    }
}

fn sizes_of(array: &dyn Array) -> Vec<usize> {
    let mut sizes = vec![0; array.len()];
    add_sizes(array, &mut sizes);
    sizes
}

fn add_runs<O: Copy + Into<i64>>(offsets: &[O], sizes: &mut [usize]) {
    for (size, pair) in sizes.iter_mut().zip(offsets.windows(2)) {
        *size = size.saturating_add(run(pair).len() + size_of::<O>());
    }
}

/// The length of a view's value is its low 32 bits (Arrow columnar format,
/// "variable-size binary view layout").
fn add_views(views: &[u128], sizes: &mut [usize]) {
    for (size, view) in sizes.iter_mut().zip(views) {
        *size = size.saturating_add(*view as u32 as usize + size_of::<i32>());
    }
}

fn add_items<O: Copy + Into<i64>>(offsets: &[O], items: &dyn Array, sizes: &mut [usize]) {
    let items = sizes_of(items);
    for (size, pair) in sizes.iter_mut().zip(offsets.windows(2)) {
        let held = items.get(run(pair)).unwrap_or_default();
        let held = held.iter().fold(size_of::<O>(), |sum, item| sum.saturating_add(*item));
        *size = size.saturating_add(held);
    }
}

/// From an offset to the next.
fn run<O: Copy + Into<i64>>(pair: &[O]) -> Range<usize> {
    let [start, end] = [0, 1].map(|at| pair.get(at).map_or(0, |offset| (*offset).into()));
    usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{
        BinaryArray, Int64Array, ListArray, StringArray, StringViewArray, StructArray,
    };
    use datafusion::arrow::compute::concat_batches;
    use datafusion::arrow::datatypes::Int32Type;
    use proptest::prelude::*;

    fn one(column: impl Array + 'static) -> RecordBatch {
        RecordBatch::try_from_iter([("c", Arc::new(column) as ArrayRef)]).expect("one column")
    }

    fn sizes(column: impl Array + 'static) -> Vec<usize> {
        sizes_of(&column)
    }

    #[test]
    fn size_of_a_cell_is_its_written_size() {
        let long = "a text that does not fit into a view";
        let texts = [Some("a"), None, Some(long)];
        let expected = vec![5, 4, 4 + long.len()];
        assert_eq!(sizes(StringArray::from(texts.to_vec())), expected);
        assert_eq!(sizes(StringArray::from(texts.to_vec()).slice(1, 2)), expected[1..]);
        assert_eq!(sizes(StringViewArray::from(texts.to_vec())), expected);
        let shared: datafusion::arrow::array::DictionaryArray<Int32Type> =
            [Some(long), Some("a"), Some(long)].into_iter().collect();
        assert_eq!(sizes(shared), [4 + long.len(), 5, 4 + long.len()]);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), Some(2)]),
            None,
            Some(vec![Some(3); 100]),
        ]);
        assert_eq!(sizes(lists.slice(1, 2)), [4, 404]);
        let numbers = Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
        let field = Arc::new(Field::new("n", DataType::Int64, true));
        assert_eq!(sizes(StructArray::from(vec![(field, numbers)])), [8, 8]);
    }

    #[test]
    fn unsendable_results_are_refused() {
        let huge = vec![0; MAX_ROW_BYTES];
        let failure = cut(&one(BinaryArray::from_vec(vec![b"", &huge]))).expect_err("too long");
        assert_eq!(failure.kind(), FailureKind::Usage);
    }

    #[test]
    fn plain_types_stand_for_the_others() {
        let text = |held: DataType| Arc::new(Field::new("item", held, true));
        let views = DataType::Struct(vec![text(DataType::Utf8View)].into());
        let runs = DataType::RunEndEncoded(
            Arc::new(Field::new("run_ends", DataType::Int32, false)),
            text(DataType::LargeUtf8),
        );
        let words = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::BinaryView));
        for (inside, outside) in [
            (DataType::ListView(text(views.clone())), {
                DataType::List(text(DataType::Struct(vec![text(DataType::Utf8)].into())))
            }),
            (runs, DataType::Utf8),
            (words, DataType::Binary),
            (DataType::FixedSizeBinary(16), DataType::FixedSizeBinary(16)),
        ] {
            assert_eq!(wire_type(&inside), outside);
        }
    }

    proptest! {
        #[test]
        fn split_batch_equals_the_whole_and_pieces_are_short(
            lengths in proptest::collection::vec(
                prop_oneof![0_usize..10, 10_000_usize..700_000, Just(2 << 20)], 0..40),
        ) {
            let text = "x".repeat(2 << 20);
            let texts: StringViewArray = lengths.iter().map(|n| Some(&text[..*n])).collect();
            let batch = one(texts);
            let cuts = cut(&batch).expect("no row is too long");
            let pieces: Vec<_> =
                cuts.iter().map(|rows| batch.slice(rows.start, rows.len())).collect();
            for rows in &cuts {
                let held: usize = lengths[rows.clone()].iter().map(|length| length + 4).sum();
                prop_assert!(rows.len() == 1 || held <= MESSAGE_BYTES, "{held}");
            }
            prop_assert_eq!(concat_batches(&batch.schema(), &pieces).expect("one type"), batch);
        }
    }
}
