//! Checksums of the pages of a Parquet layer, kept in the `index` layer.
//!
//! Pages are fetched by byte range, so neither the object's SHA-256 nor anything that Parquet
//! itself writes covers what a read gets. Here every byte before the object's tail is in one
//! *piece* with a CRC32C: the magic bytes, each dictionary page, each data page (their headers
//! included). The tail has a copy in the `index` layer, under that section's checksum.

use std::collections::BTreeSet;
use std::ops::Range;

use parquet::file::metadata::ParquetMetaData;

use super::{Corrupt, Layer};
use crate::cache::{Check, Extent};
use header::PageHeader;

mod header;

/// Length of the magic bytes at the start of a Parquet file (Parquet format, "File Format").
const MAGIC: u64 = 4;
/// A piece as it is stored: length (4) and CRC32C (4), little-endian.
const ENTRY: usize = 8;

/// The pieces of one Parquet layer, from its first byte to its tail without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageChecksums {
    /// Where each piece starts; the tail's offset at the end.
    starts: Vec<u64>,
    /// CRC32C of each piece.
    crcs: Vec<u32>,
    /// Rows of the layer.
    rows: u64,
}

impl PageChecksums {
    /// The checksums of what is before the tail of a Parquet file. `metadata` is the file's, with
    /// the page index; what it says outside of `pages` is left aside.
    pub fn of(pages: &[u8], metadata: &ParquetMetaData) -> PageChecksums {
        let tail = pages.len() as u64;
        let mut bounds = BTreeSet::from([0, MAGIC, tail]);
        for (number, group) in metadata.row_groups().iter().enumerate() {
            for column in group.columns() {
                let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
                bounds.extend(bounds_of(start, column.compressed_size()));
            }
            let columns = metadata.offset_index().and_then(|index| index.get(number));
            for page in columns.into_iter().flatten().flat_map(|column| column.page_locations()) {
                bounds.extend(bounds_of(page.offset, i64::from(page.compressed_page_size)));
            }
        }
        let starts: Vec<u64> = bounds.range(..=tail).copied().collect();
        let piece = |pair: &[u64]| &pages[pair[0] as usize..pair[1] as usize];
        let crcs = starts.windows(2).map(|pair| crc32c::crc32c(piece(pair))).collect();
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        PageChecksums { starts, crcs, rows }
    }

    /// The pieces as they stand in the `index` layer: length and CRC32C of each, in order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let lengths = self.starts.windows(2).map(|pair| (pair[1] - pair[0]) as u32);
        lengths
            .zip(&self.crcs)
            .flat_map(|(length, crc)| [length.to_le_bytes(), crc.to_le_bytes()])
            .flatten()
            .collect()
    }

    /// Reads the pieces of `layer` back, which has so many rows and whose tail starts at offset
    /// `tail`.
    ///
    /// # Errors
    /// [`Corrupt`] unless they reach from the object's first byte to its tail.
    pub fn from_bytes(
        layer: Layer,
        bytes: &[u8],
        tail: u64,
        rows: u64,
    ) -> Result<PageChecksums, Corrupt> {
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        let mut starts = Vec::with_capacity(entries.len() + 1);
        starts.push(0);
        let (mut end, mut crcs) = (0, Vec::with_capacity(entries.len()));
        for [a, b, c, d, crc @ ..] in entries {
            // Fewer than 2^32 entries of less than 2^32 each.
            end += u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
            starts.push(end);
            crcs.push(u32::from_le_bytes(*crc));
        }
        if end != tail || !rest.is_empty() {
            let what = format!("checksums of {end} bytes of pages instead of {tail}");
            return Err(Corrupt::new(layer.name(), what));
        }
        Ok(PageChecksums { starts, crcs, rows })
    }

    /// The pieces as ranges of the layer, with their CRC32C.
    pub fn pieces(&self) -> impl Iterator<Item = (Range<u64>, u32)> + '_ {
        self.starts.windows(2).zip(&self.crcs).map(|(pair, crc)| (pair[0]..pair[1], *crc))
    }

    /// The pieces that a range of the layer consists of; none if those are not whole ones.
    pub fn extents(&self, range: &Range<u64>) -> Option<Vec<Extent>> {
        let first = self.starts.binary_search(&range.start).ok()?;
        let end = self.starts.binary_search(&range.end).ok()?;
        let pieces = self.starts.get(first..=end)?.windows(2).zip(self.crcs.get(first..end)?);
        let extent = |(pair, crc): (&[u64], &u32)| Extent {
            range: pair[0]..pair[1],
            check: Check::Crc32c { skip: 0, crc: *crc },
        };
        Some(pieces.map(extent).collect())
    }

    /// Checks the bytes that came for a range of `layer`.
    ///
    /// # Errors
    /// [`Corrupt`] when the range does not consist of whole pieces, when bytes are missing, when a
    /// piece is not what was written, and when a page claims more than it can have.
    pub fn verify(&self, layer: Layer, range: &Range<u64>, bytes: &[u8]) -> Result<(), Corrupt> {
        let bad = |what: String| Err(Corrupt::new(layer.name(), what));
        let wanted = range.end.saturating_sub(range.start);
        if bytes.len() as u64 != wanted {
            let (got, start) = (bytes.len(), range.start);
            return bad(format!("{got} bytes at offset {start} instead of {wanted}"));
        }
        let (Ok(first), Ok(end)) =
            (self.starts.binary_search(&range.start), self.starts.binary_search(&range.end))
        else {
            let Range { start, end } = range;
            return bad(format!("bytes {start} to {end} are not whole pages"));
        };
        for number in first..end {
            let (start, end) = (self.starts[number], self.starts[number + 1]);
            let piece = &bytes[(start - range.start) as usize..(end - range.start) as usize];
            if crc32c::crc32c(piece) != self.crcs[number] {
                return bad(format!("checksum of the page at offset {start} differs"));
            }
            if start >= MAGIC {
                check_claims(layer, piece, start, self.rows)?;
            }
        }
        Ok(())
    }
}

/// Most bytes that a page may have after decompression: what the writer allows a dictionary.
const MOST_BYTES: u64 = 256 << 20;
/// Bytes that a value may have, at most: a header template of 64 KiB, and its fields' names.
const VALUE_BYTES: u64 = 65 << 10;

/// Checks that pages claim no more than a layer of so many rows can have: checksums that were made
/// up with the pages do not stop one that would take all of the memory.
///
/// # Errors
/// [`Corrupt`] when one claims more, or begins with no header.
fn check_claims(layer: Layer, page: &[u8], offset: u64, rows: u64) -> Result<(), Corrupt> {
    let bad =
        |what: &str| Err(Corrupt::new(layer.name(), format!("the page at offset {offset} {what}")));
    let Some(header) = PageHeader::read(page) else { return bad("begins with no page header") };
    if header.values > rows {
        return bad("claims more values than there are rows");
    }
    if header.bytes > MOST_BYTES.min(header.values.saturating_mul(VALUE_BYTES) + VALUE_BYTES) {
        return bad("claims more bytes than its values can have");
    }
    Ok(())
}

/// First offset of some bytes, and the one behind them; nothing where a length is below zero.
fn bounds_of(start: i64, length: i64) -> impl Iterator<Item = u64> {
    let end = start.checked_add(length).filter(|end| *end >= start);
    let both = u64::try_from(start).ok().zip(end.and_then(|end| u64::try_from(end).ok()));
    both.into_iter().flat_map(|(start, end)| [start, end])
}

#[cfg(test)]
mod tests;
