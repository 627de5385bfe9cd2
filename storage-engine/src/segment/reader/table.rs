//! A Parquet layer as described by the `index` layer.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetMetaData;

use bytes::Bytes;

use crate::segment::column::Column;
use crate::segment::index_layer::IndexLayer;
use crate::segment::pages::Pages;
use crate::segment::{Corrupt, Directory, Layer, TableLayer, tabular};

/// What must be known of a Parquet layer before its first byte is fetched.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) layer: Layer,
    pub(super) metadata: ArrowReaderMetadata,
    pub(super) pages: Arc<Pages>,
    /// Columns that the object lacks: it was written before they were there.
    pub(super) absent: Vec<Column>,
}

/// The footer of a table and the checksums of its pages.
pub(super) struct TableDirectory {
    /// The footer; in earlier stores the page index before it, too.
    tail: Bytes,
    /// The checksums; empty in earlier stores.
    pages: Bytes,
    /// The checksums as earlier stores have them.
    entries: Bytes,
    /// Bytes from the end of the pages to the end of the object.
    length: u64,
}

impl TableDirectory {
    /// What the `index` layer has of a table that was sealed with the segment.
    pub(super) fn in_index(
        table: &TableLayer,
        index: &IndexLayer,
    ) -> Result<TableDirectory, Corrupt> {
        let Directory::Index { tail, pages, entries } = table.directory else {
            return Err(Corrupt::new(table.name, "its directory is not in the index layer"));
        };
        let (tail, pages) = (index.section(tail)?, index.section(pages)?);
        let (entries, length) = (index.section(entries)?, tail.len() as u64);
        Ok(TableDirectory { tail, pages, entries, length })
    }

    /// What the end of an object has of it.
    pub(super) fn own(table: &TableLayer, directory: &Bytes) -> Result<TableDirectory, Corrupt> {
        let parts = tabular::split_directory(directory);
        let (pages, tail) = parts.ok_or_else(|| Corrupt::new(table.name, "it has no footer"))?;
        if pages.is_empty() {
            return Err(Corrupt::new(table.name, "it has no checksums of pages"));
        }
        let (entries, length) = (Bytes::new(), directory.len() as u64);
        Ok(TableDirectory { tail, pages, entries, length })
    }
}

impl Table {
    /// A layer of `length` bytes, which has as many `rows` as its footer says if that is not known.
    pub(super) fn open(
        layer: Layer,
        table: &TableLayer,
        directory: &TableDirectory,
        length: u64,
        rows: Option<u64>,
    ) -> Result<Table, Corrupt> {
        let name = table.name;
        let mut metadata = tabular::parse_tail(name, &directory.tail, length)?;
        tabular::check_format(name, &metadata, table.version)?;
        let there = metadata.file_metadata().num_rows();
        let count = rows.unwrap_or_else(|| u64::try_from(there).unwrap_or(0));
        if u64::try_from(there) != Ok(count) {
            return Err(Corrupt::new(name, format!("{there} rows instead of {count}")));
        }
        let end = length.saturating_sub(directory.length);
        let pages = if directory.pages.is_empty() {
            if metadata.offset_index().is_none() && count > 0 {
                return Err(Corrupt::new(name, "no page index"));
            }
            Pages::from_entries(layer, &directory.entries, end, count)?
        } else {
            let pages = Pages::from_bytes(layer, &directory.pages, end, count)?;
            let offsets = pages.offset_index(layer, &metadata)?;
            metadata = metadata.into_builder().set_offset_index(Some(offsets)).build();
            pages
        };
        let pages = Arc::new(pages);
        let mut columns = table.stored_columns();
        let metadata = reader_metadata(name, metadata, tabular::schema(&columns))?;
        columns.retain(|column| metadata.schema().field_with_name(column.name).is_err());
        Ok(Table { layer, metadata, pages, absent: columns })
    }

    /// Rows of the layer.
    pub(super) fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }
}

/// A layer that has no rows is not read as one that has.
pub(super) fn no_table(layer: Layer) -> Corrupt {
    Corrupt::new(layer.name(), "this layer is no table")
}

fn reader_metadata(
    layer: &'static str,
    metadata: ParquetMetaData,
    schema: SchemaRef,
) -> Result<ArrowReaderMetadata, Corrupt> {
    let metadata = Arc::new(metadata);
    // Capstan writes no Arrow schema into the file. That of another writer is ignored.
    let plain = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let read = |options| {
        let metadata = metadata.clone();
        tabular::guarded(layer, || ArrowReaderMetadata::try_new(metadata, options))
    };
    // A newer minor may have columns that this version does not know: pass over them.
    let known = read(plain())?
        .schema()
        .fields()
        .iter()
        .map(|field| match schema.field_with_name(field.name()) {
            Ok(ours) => Arc::new(ours.clone().with_nullable(field.is_nullable())),
            Err(_) => field.clone(),
        })
        .collect::<Vec<_>>();
    read(plain().with_schema(Arc::new(arrow::datatypes::Schema::new(known))))
}
