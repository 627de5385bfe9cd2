//! A table that was added to a sealed segment. Its directory is at the end of its own object.

use std::ops::Range;

use bytes::Bytes;

use super::scan::Scan;
use super::table::{Table, TableDirectory};
use crate::cache::Extent;
use crate::segment::{Corrupt, Layer, TableLayer};

/// An opened table that was added to a segment.
#[derive(Debug)]
pub struct AddedTable {
    table: Table,
}

impl AddedTable {
    /// Opens a table of `length` bytes from its directory, the last bytes of its object.
    ///
    /// # Errors
    /// [`Corrupt`] for damage or a newer format.
    pub fn open(
        layer: &'static TableLayer,
        length: u64,
        directory: &Bytes,
    ) -> Result<AddedTable, Corrupt> {
        let directory = TableDirectory::own(layer, directory)?;
        let table = Table::open(Layer::Added(layer), layer, &directory, length, None)?;
        Ok(AddedTable { table })
    }

    /// Rows of the table.
    pub fn rows(&self) -> usize {
        self.table.rows()
    }

    /// The scan of every row.
    ///
    /// # Errors
    /// [`Corrupt`] when the Parquet library refuses the footer.
    pub fn scan_all(&self, columns: Option<&[&str]>) -> Result<Scan, Corrupt> {
        Scan::new(&self.table, std::iter::once(0..self.table.rows()), columns)
    }

    /// The pages, as byte ranges with their CRC32C.
    pub fn parts(&self) -> Vec<(Range<u64>, u32)> {
        self.table.pages.pieces().collect()
    }

    /// The pages that make up a range of the object. None if the range is not made of whole pages; ranges of a scan
    /// always are.
    pub fn extents(&self, range: &Range<u64>) -> Option<Vec<Extent>> {
        self.table.pages.extents(range)
    }

    /// Approximate memory size, for a budget: see [`Segment::memory`](super::Segment::memory).
    pub fn memory(&self) -> usize {
        size_of::<AddedTable>() + 2 * self.table.metadata.metadata().memory_size()
    }
}
