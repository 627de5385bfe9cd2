//! Shared parts of `packets.parquet` and `flows.parquet`: writer settings, and the tail (the footer)
//! that the `index` layer copies.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, Int32Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use parquet::schema::types::ColumnPath;

use super::column::{Column, Packing};
use super::layer::Version;
use super::pages::Pages;
use super::{Corrupt, thrift};

/// Where a Parquet layer's footer has its format number, as `major.minor`.
pub const FORMAT_KEY: &str = "capstan.format";

/// Rows of a data page, but a column's last: what one needs to read to get at a single row.
pub(super) const PAGE_ROWS: u32 = 1024;

/// The Arrow schema of a list of columns, with Parquet field ids.
pub fn schema(columns: &[Column]) -> SchemaRef {
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| {
            let id = [("PARQUET:field_id".to_owned(), column.id.to_string())];
            Field::new(column.name, column.of.data_type(), column.nullable)
                .with_metadata(id.into_iter().collect())
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// A column of a file that was written before the column was there: its default, or null. None if a file without it
/// is not whole.
fn absent(column: &Column, rows: usize) -> Option<ArrayRef> {
    match column.default {
        Some(label) => {
            let labels = std::iter::repeat_n(label, rows);
            Some(Arc::new(labels.collect::<DictionaryArray<Int32Type>>()))
        }
        None => column.nullable.then(|| new_null_array(&column.of.data_type(), rows)),
    }
}

/// Rows as they are read, with the columns that their file lacks.
pub(super) fn with_absent(batch: RecordBatch, lacks: &[Column]) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows();
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    let mut arrays = batch.columns().to_vec();
    for (column, array) in lacks.iter().filter_map(|of| Some((of, absent(of, rows)?))) {
        fields.push(Arc::new(Field::new(column.name, column.of.data_type(), column.nullable)));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
}

/// A Parquet file and what the `index` layer keeps of it.
#[derive(Debug, Clone)]
pub struct Written {
    /// The whole object.
    pub bytes: Vec<u8>,
    /// Offset of the footer's first byte.
    pub tail: usize,
    /// All before the tail.
    pub pages: Pages,
}

impl Written {
    /// The object of a table whose directory is its own, and the length of that directory: the checksums of the pages,
    /// and behind them the footer. All that the footer points at stands before, so it is a Parquet file as it was.
    pub fn with_directory(self) -> (Vec<u8>, usize) {
        let Written { mut bytes, tail, pages } = self;
        let length = bytes.len();
        bytes.splice(tail..tail, pages.to_bytes());
        let directory = bytes.len() - length + (length - tail);
        (bytes, directory)
    }
}

/// Takes a directory apart that is at the end of an object: the checksums of the pages, and the footer.
pub(super) fn split_directory(directory: &Bytes) -> Option<(Bytes, Bytes)> {
    let at = footer(directory)?;
    Some((directory.slice(..at), directory.slice(at..)))
}

/// Writes rows in the format of that number: the first `first_group` rows as a row group of their own, if
/// there are so many, and all others as one.
///
/// # Errors
/// None that a caller can cause; the Parquet library's own are passed on.
pub fn write(
    version: Version,
    columns: &[Column],
    arrays: Vec<ArrayRef>,
    first_group: usize,
) -> Result<Written, ParquetError> {
    let schema = schema(columns);
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    let options = ArrowWriterOptions::new()
        .with_properties(properties(version, columns, batch.num_rows()))
        .with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, schema, options)?;
    let first_group = first_group.min(batch.num_rows());
    if first_group > 0 {
        writer.write(&batch.slice(0, first_group))?;
        writer.flush()?;
    }
    writer.write(&batch.slice(first_group, batch.num_rows() - first_group))?;
    let metadata = writer.close()?;
    let tail = footer(&bytes).ok_or(ParquetError::EOF("no footer was written".to_owned()))?;
    if !are_even(&metadata) {
        return Err(ParquetError::General(format!("pages of other than {PAGE_ROWS} rows")));
    }
    let pages = Pages::of(&bytes[..tail], &metadata, PAGE_ROWS);
    Ok(Written { bytes, tail, pages })
}

/// Whether all pages have [`PAGE_ROWS`] rows, as set in the writer; the last page of a column may have fewer.
fn are_even(metadata: &ParquetMetaData) -> bool {
    let mut columns = metadata.offset_index().into_iter().flatten().flatten();
    columns.all(|column| {
        let firsts = column.page_locations().iter().map(|page| page.first_row_index);
        firsts.eq((0..).step_by(PAGE_ROWS as usize).take(column.page_locations().len()))
    })
}

/// Where the footer of a Parquet file begins: its length stands before the magic bytes at the end
/// (Parquet format, "File Format").
pub fn footer(file: &[u8]) -> Option<usize> {
    let (before, [length @ .., _, _, _, _]) = file.split_last_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    before.len().checked_sub(length)
}

/// The format number as the footer has it.
pub fn format_entry((major, minor): Version) -> KeyValue {
    KeyValue::new(FORMAT_KEY.to_owned(), format!("{major}.{minor}"))
}

fn properties(version: Version, columns: &[Column], row_limit: usize) -> WriterProperties {
    let base = WriterProperties::builder()
        .set_key_value_metadata(Some(vec![format_entry(version)]))
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("capstan ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_max_row_group_row_count(Some(row_limit.max(1)))
        // Readers count on it that rows alone end a page.
        .set_data_page_row_count_limit(PAGE_ROWS as usize)
        .set_write_batch_size(PAGE_ROWS as usize)
        .set_data_page_size_limit(usize::MAX)
        // A template dictionary must never fall back to plain values.
        .set_dictionary_page_size_limit(256 * 1024 * 1024);
    columns.iter().fold(base, pack).build()
}

fn pack(properties: WriterPropertiesBuilder, column: &Column) -> WriterPropertiesBuilder {
    let path = ColumnPath::from(column.name);
    let statistics = if column.bounds { EnabledStatistics::Page } else { EnabledStatistics::None };
    let properties = properties.set_column_statistics_enabled(path.clone(), statistics);
    let encoding = match column.packing {
        Packing::Dictionary => return properties.set_column_dictionary_enabled(path, true),
        Packing::Delta => Encoding::DELTA_BINARY_PACKED,
        Packing::ByteSplit => Encoding::BYTE_STREAM_SPLIT,
        Packing::Plain => Encoding::PLAIN,
    };
    properties
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path, encoding)
}

/// Checks that a tail claims no more than is there: the Parquet library would believe it.
fn check_tail(layer: &'static str, tail: &Bytes) -> Result<(), Corrupt> {
    // Behind the footer, before which there may be a page index: its length and the magic bytes.
    let structs = tail.len().checked_sub(8).and_then(|end| tail.get(..end));
    match structs.is_some_and(thrift::are_structs) {
        true => Ok(()),
        false => Err(Corrupt::new(layer, "its footer announces more data than it contains")),
    }
}

/// Parses a tail as the `index` layer keeps it: the last bytes of a Parquet object of `length`
/// bytes, from its footer on. In earlier stores they begin with the page index, which is parsed, too.
///
/// # Errors
/// [`Corrupt`] when the bytes are no tail of such an object, or claim more than is there.
pub fn parse_tail(
    layer: &'static str,
    tail: &Bytes,
    length: u64,
) -> Result<ParquetMetaData, Corrupt> {
    check_tail(layer, tail)?;
    let policy = match footer(tail) {
        Some(0) => PageIndexPolicy::Skip,
        _ => PageIndexPolicy::Required,
    };
    guarded(layer, || {
        let mut reader = ParquetMetaDataReader::new().with_page_index_policy(policy);
        reader.try_parse_sized(tail, length)?;
        reader.finish()
    })
}

/// Checks the format number of a Parquet layer against the newest one that is known.
///
/// # Errors
/// [`Corrupt`] when it has none, or a newer major one.
pub fn check_format(
    layer: &'static str,
    metadata: &ParquetMetaData,
    known: Version,
) -> Result<(), Corrupt> {
    let entries = metadata.file_metadata().key_value_metadata();
    let entry = entries.into_iter().flatten().find(|entry| entry.key == FORMAT_KEY);
    let Some(text) = entry.and_then(|entry| entry.value.as_deref()) else {
        return Err(Corrupt::new(layer, format!("its footer has no {FORMAT_KEY}")));
    };
    let version = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse::<u16>().ok()?, minor.parse::<u16>().ok()?)));
    match version {
        None => Err(Corrupt::new(layer, format!("{FORMAT_KEY} '{text}' is no format number"))),
        Some((major, _)) if major > known.0 => Err(Corrupt::too_new(layer, text)),
        Some(_) => Ok(()),
    }
}

/// Calls the Parquet library to read and converts its errors into [`Corrupt`].
///
/// The library panics on many kinds of damage (a negative page length, a missing dictionary, values
/// past their page). Checksums detect accidental damage, but not a forged segment with right
/// checksums, which would crash the process of every reader. The panic is not hidden: the panic hook
/// of the process reports it, and the error repeats its message. The object that the call used must
/// not be used again.
pub(super) fn guarded<T>(
    layer: &'static str,
    call: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, Corrupt> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| Corrupt::new(layer, error.to_string())),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            let words = words.unwrap_or("it did not say why");
            Err(Corrupt::new(layer, format!("the Parquet reader failed: {words}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::column::ColumnType;
    use arrow::array::{FixedSizeBinaryArray, Int64Array};
    use parquet::file::metadata::OffsetIndexBuilder;

    /// A table of a hundred rows.
    fn table() -> Written {
        let columns = [
            Column::new(1, "number", ColumnType::I64, false, Packing::Delta),
            Column::new(2, "id", ColumnType::Bytes16, true, Packing::Dictionary),
        ];
        let ids = (0..100_u8).map(|n| (n % 3 > 0).then_some([n % 7; 16]));
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..100)),
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, 16).unwrap()),
        ];
        write((3, 7), &columns, arrays, 100).unwrap()
    }

    #[test]
    fn every_changed_byte_of_a_footer_is_detected_or_harmless() {
        let good = table();
        let tail = &good.bytes[good.tail..];
        let length = good.bytes.len() as u64;
        assert!(parse_tail("it", &Bytes::copy_from_slice(tail), length).is_ok());
        let mut refused = 0;
        for at in 0..tail.len() {
            // The last one makes offsets and lengths negative.
            for change in [0x01, 0x80, 0x7f] {
                let mut bytes = tail.to_vec();
                bytes[at] ^= change;
                refused += u32::from(parse_tail("it", &bytes.into(), length).is_err());
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn pages_with_another_end_are_refused() {
        let bytes = Bytes::from(table().bytes);
        let mut reader = ParquetMetaDataReader::new();
        reader = reader.with_page_index_policy(PageIndexPolicy::Required);
        reader.try_parse(&bytes).unwrap();
        let metadata = reader.finish().unwrap();
        assert!(are_even(&metadata));
        for (rows, even) in [(i64::from(PAGE_ROWS), true), (10, false)] {
            let mut index = OffsetIndexBuilder::new();
            for offset in [4, 50] {
                index.append_row_count(rows);
                index.append_offset_and_size(offset, 46);
            }
            let index = Some(vec![vec![index.build()]]);
            let other = metadata.clone().into_builder().set_offset_index(index).build();
            assert_eq!(are_even(&other), even, "{rows}");
        }
    }

    #[test]
    fn panic_of_the_parquet_library_is_an_error_with_its_text() {
        let error = guarded::<()>("packets", || panic!("no page {}", 7)).unwrap_err();
        assert_eq!(error.to_string(), "packets: the Parquet reader failed: no page 7");
        let error = guarded::<()>("packets", || panic!("nothing")).unwrap_err();
        assert!(error.what.ends_with("nothing"));
        let error = guarded::<()>("flows", || Err(ParquetError::EOF("short".to_owned())));
        assert!(error.unwrap_err().what.contains("short"));
    }
}
