//! A Parquet layer as described by the `index` layer.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetMetaData;

use crate::segment::index_layer::{IndexLayer, Section};
use crate::segment::pages::Pages;
use crate::segment::tabular::Column;
use crate::segment::{Corrupt, Layer, flows, packets, tabular};

/// What must be known of a Parquet layer before its first byte is fetched.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) layer: Layer,
    pub(super) metadata: ArrowReaderMetadata,
    pub(super) pages: Arc<Pages>,
    /// Columns that the object lacks: it was written before they were there.
    pub(super) absent: Vec<Column>,
}

impl Table {
    /// A layer of `length` bytes and `rows` rows, from what the `index` layer says of it.
    pub(super) fn open(
        layer: Layer,
        length: u64,
        rows: u64,
        index: &IndexLayer,
    ) -> Result<Table, Corrupt> {
        let name = layer.name();
        let (tail, pages, entries) = match layer {
            Layer::Flows => (Section::FlowsTail, Section::FlowsPages, Section::FlowsEntries),
            Layer::Packets => {
                (Section::PacketsTail, Section::PacketsPages, Section::PacketsEntries)
            }
            Layer::Body | Layer::Head | Layer::Index => return Err(no_table(layer)),
        };
        let tail = index.section(tail)?;
        let mut metadata = tabular::parse_tail(name, &tail, length)?;
        let (version, mut columns) = match layer {
            Layer::Flows => (flows::VERSION, flows::columns()),
            Layer::Packets => (packets::VERSION, packets::columns()),
            Layer::Body | Layer::Head | Layer::Index => return Err(no_table(layer)),
        };
        let schema = tabular::schema(&columns);
        tabular::check_format(name, &metadata, version)?;
        let known = metadata.file_metadata().num_rows();
        if u64::try_from(known) != Ok(rows) {
            return Err(Corrupt::new(name, format!("{known} rows instead of {rows}")));
        }
        let tail = length.saturating_sub(tail.len() as u64);
        let pages = index.section(pages)?;
        let pages = if pages.is_empty() {
            if metadata.offset_index().is_none() && rows > 0 {
                return Err(Corrupt::new(name, "no page index"));
            }
            Pages::from_entries(layer, &index.section(entries)?, tail, rows)?
        } else {
            let pages = Pages::from_bytes(layer, &pages, tail, rows)?;
            let offsets = pages.offset_index(layer, &metadata)?;
            metadata = metadata.into_builder().set_offset_index(Some(offsets)).build();
            pages
        };
        let pages = Arc::new(pages);
        let metadata = reader_metadata(name, metadata, schema)?;
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
    // Our writers leave no Arrow schema in the file; somebody else's is not listened to.
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
