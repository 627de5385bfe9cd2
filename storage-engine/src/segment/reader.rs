//! Opens a sealed segment and reads its rows and packets.
//!
//! The `index` layer alone determines the plan: rows, pages of the Parquet layers, payload blocks.
//! The bytes are requested afterwards through [`Fetch`], so a plan can be shown without a fetch
//! ([`Step::Needs`]).

mod added;
mod assemble;
mod payload;
mod pieces;
mod scan;
mod table;
mod terms;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_index::TermIndex;
use capstan_model::Failure;
use roaring::RoaringBitmap;

pub use added::AddedTable;
pub use assemble::PacketRows;
pub use payload::{Payload, PayloadLeft, PayloadPlan};
pub use pieces::{PartReader, Piece, Wants};
pub use scan::{Scan, Step};

use self::table::{Table, TableDirectory};
use self::terms::terms_failed;
use super::block::BlockDirectory;
use super::flows::{self, FlowRow};
use super::index_layer::{Extras, IndexLayer, Meta, Section};
use super::packets::RowReader;
use super::{Corrupt, Layer, Layers, TableLayer};
use crate::cache::Extent;

/// Reads byte ranges of a segment's layers: from a store, a cache or a test.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The bytes of each range of `layer`, in order.
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure>;
}

/// An opened segment.
#[derive(Debug)]
pub struct Segment {
    meta: Meta,
    index: IndexLayer,
    terms: TermIndex<Bytes>,
    head: BlockDirectory,
    body: BlockDirectory,
    packets: Table,
    flows: Table,
}

impl Segment {
    /// Opens a segment from its `index` layer.
    ///
    /// # Errors
    /// [`Corrupt`] for damage or a newer format.
    pub fn open(index: &Bytes) -> Result<Segment, Corrupt> {
        Segment::open_as(&Layers::KNOWN, index)
    }

    /// Opens a segment as a build that knows these layers.
    ///
    /// # Errors
    /// As [`Segment::open`].
    pub fn open_as(layers: &Layers, index: &Bytes) -> Result<Segment, Corrupt> {
        let index = IndexLayer::open(index)?;
        let meta: Meta = index.json(Section::Meta)?;
        let length = |layer: Layer| {
            meta.layers
                .iter()
                .find(|known| known.layer == layer.name())
                .map(|known| known.bytes)
                .ok_or_else(|| {
                    Corrupt::new("index", format!("layer {} is not named", layer.name()))
                })
        };
        let terms = TermIndex::open(index.section(Section::Terms)?).map_err(terms_failed)?;
        if u64::from(terms.flows()) != meta.flow_parts {
            let what = format!("terms of {} flow parts, not {}", terms.flows(), meta.flow_parts);
            return Err(Corrupt::new("index", what));
        }
        let table = |layer: Layer, of: &TableLayer, rows| {
            let directory = TableDirectory::in_index(of, &index)?;
            Table::open(layer, of, &directory, length(layer)?, Some(rows))
        };
        let packets = table(Layer::Packets, layers.packets, meta.packets)?;
        let flows = table(Layer::Flows, layers.flows, meta.flow_parts)?;
        Ok(Segment {
            terms,
            head: BlockDirectory::from_bytes(&index.section(Section::HeadBlocks)?)?,
            body: BlockDirectory::from_bytes(&index.section(Section::BodyBlocks)?)?,
            packets,
            flows,
            meta,
            index,
        })
    }

    /// Approximate memory size, for a budget: the raw `index` layer, the terms and the parsed
    /// footers, whose many small allocations cost about as much again (measured: 210 KiB for a
    /// segment of 128 MiB of packets).
    pub fn memory(&self) -> usize {
        let tables = [&self.packets, &self.flows];
        let parsed: usize = tables.iter().map(|of| of.metadata.metadata().memory_size()).sum();
        size_of::<Segment>() + self.index.memory() + self.terms.memory() + 2 * parsed
    }

    /// The separately checksummed parts of a layer (stored blocks, pages), as byte ranges with their
    /// CRC32C. None for the `index` layer itself, and for layers that `index` does not describe.
    pub fn parts(&self, layer: Layer) -> Vec<(Range<u64>, u32)> {
        let blocks = |of: &BlockDirectory| {
            let block = |number| Some((of.stored_range(number)?, of.header(number)?.crc));
            (0..of.len()).filter_map(block).collect()
        };
        match layer {
            Layer::Body => blocks(&self.body),
            Layer::Head => blocks(&self.head),
            Layer::Packets => self.packets.pages.pieces().collect(),
            Layer::Flows => self.flows.pages.pieces().collect(),
            Layer::Added(_) | Layer::Index => Vec::new(),
        }
    }

    /// The extents that make up a range of a layer, each with its checksum. None if the range is not
    /// made of whole extents; ranges of a plan or a scan always are.
    pub fn extents(&self, layer: Layer, range: &Range<u64>) -> Option<Vec<Extent>> {
        match layer {
            Layer::Body => self.body.extents(range),
            Layer::Head => self.head.extents(range),
            Layer::Packets => self.packets.pages.extents(range),
            Layer::Flows => self.flows.pages.extents(range),
            Layer::Added(_) | Layer::Index => None,
        }
    }

    /// The segment's metadata.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// pcapng blocks and packet options kept beside the packets.
    pub fn extras(&self) -> Result<Extras, Corrupt> {
        self.index.json(Section::Extras)
    }

    /// The scan of some flow parts in `flows.parquet`.
    pub fn scan_flows(
        &self,
        flows: &RoaringBitmap,
        columns: Option<&[&str]>,
    ) -> Result<Scan, Corrupt> {
        let mut flows = flows.iter();
        let ranges = std::iter::from_fn(|| flows.next_range())
            .map(|run| *run.start() as usize..*run.end() as usize + 1);
        Scan::new(&self.flows, ranges, columns)
    }

    /// The scan of the packets of some flow parts in `packets.parquet`, whole parts
    /// in stored order.
    pub fn scan_packets(
        &self,
        flows: &[FlowRow],
        columns: Option<&[&str]>,
    ) -> Result<Scan, Corrupt> {
        let ranges = flows.iter().map(|row| {
            let first = row.placement.first_row as usize;
            first..first.saturating_add(usize::try_from(row.packets()).unwrap_or(usize::MAX))
        });
        Scan::new(&self.packets, ranges, columns)
    }

    /// The scan of every row of a Parquet layer that was sealed with the segment.
    pub fn scan_all(&self, layer: Layer, columns: Option<&[&str]>) -> Result<Scan, Corrupt> {
        let table = match layer {
            Layer::Flows => &self.flows,
            Layer::Packets => &self.packets,
            Layer::Added(of) => {
                return Err(Corrupt::new(of.name, "its rows are not in the index layer"));
            }
            Layer::Body | Layer::Head | Layer::Index => return Err(table::no_table(layer)),
        };
        Scan::new(table, std::iter::once(0..table.rows()), columns)
    }

    /// Reads the flow rows of some ordinals.
    ///
    /// # Errors
    /// [`Failure`] of the fetch, or of kind `Damaged`.
    pub async fn read_flows(
        &self,
        fetch: &dyn Fetch,
        flows: &RoaringBitmap,
    ) -> Result<Vec<FlowRow>, Failure> {
        let mut rows = Vec::new();
        for batch in self.scan_flows(flows, None)?.run(fetch).await? {
            rows.extend(flows::read(&batch)?);
        }
        Ok(rows)
    }

    /// Reads the packet rows of some flow parts (as [`Segment::read_flows`] gave them).
    ///
    /// # Errors
    /// [`Failure`] of the fetch, or of kind `Damaged`.
    pub async fn read_packets(
        &self,
        fetch: &dyn Fetch,
        flows: &[FlowRow],
    ) -> Result<PacketRows, Failure> {
        let mut reader = RowReader::default();
        let mut rows = Vec::new();
        for batch in self.scan_packets(flows, None)?.run(fetch).await? {
            reader.read(&batch, &mut rows)?;
        }
        Ok(PacketRows { reader, rows })
    }
}

#[cfg(test)]
mod tests;
