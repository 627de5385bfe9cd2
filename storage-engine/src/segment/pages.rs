//! The pages of a Parquet layer as stored in the `index` layer: their locations and checksums.
//!
//! Pages are fetched by byte range, so neither the object's SHA-256 nor Parquet itself covers the
//! bytes of a read. Here every byte before the object's tail is in one *piece* with a CRC32C: the
//! magic bytes, each dictionary page, each data page (headers included), and at the end Parquet's
//! own page index. The `index` layer has a copy of the tail, under that section's checksum. The copy
//! omits the page index, which would be three times the size of the pieces. Readers derive it from
//! the pieces' lengths, because all pages of a layer have the same number of rows.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::ops::Range;

use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, ParquetMetaData};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;

use super::{Corrupt, Layer};
use crate::cache::{Check, Extent};
use header::PageHeader;

mod header;

/// Length of the magic bytes at the start of a Parquet file (Parquet format, "File Format").
const MAGIC: u64 = 4;
/// A piece in the form of earlier stores: length (4) and CRC32C (4), little-endian.
const ENTRY: usize = 8;

/// The pieces of one Parquet layer, from its first byte to its tail without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    /// Where each piece starts; the tail's offset at the end.
    starts: Vec<u64>,
    /// CRC32C of each piece.
    crcs: Vec<u32>,
    /// Rows of the layer.
    rows: u64,
    /// Rows of each data page but a column's last, which may have fewer; 0 if that is not known.
    page_rows: u32,
}

impl Pages {
    /// The pieces of what is before the tail of a Parquet file, whose data pages have so many rows.
    /// `metadata` is the file's, with the page index; what it says outside of `bytes` is left aside.
    pub fn of(bytes: &[u8], metadata: &ParquetMetaData, page_rows: u32) -> Pages {
        let tail = bytes.len() as u64;
        let mut bounds = BTreeSet::from([0, MAGIC.min(tail), tail]);
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
        let piece = |pair: &[u64]| &bytes[pair[0] as usize..pair[1] as usize];
        let crcs = starts.windows(2).map(|pair| crc32c::crc32c(piece(pair))).collect();
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        Pages { starts, crcs, rows, page_rows }
    }

    /// The pieces as they stand in the `index` layer: rows of a page, how many pieces, the lengths of
    /// all with their lowest bytes first, then all second bytes and so on, the CRC32C of all. So
    /// they take a tenth less after compression than length beside checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = self.crcs.len() as u32;
        let mut bytes = [self.page_rows, count].map(u32::to_le_bytes).concat();
        let lengths = self.starts.windows(2).map(|pair| (pair[1] - pair[0]) as u32);
        let lengths: Vec<[u8; 4]> = lengths.map(u32::to_le_bytes).collect();
        for byte in 0..4 {
            bytes.extend(lengths.iter().map(|length| length[byte]));
        }
        bytes.extend(self.crcs.iter().flat_map(|crc| crc.to_le_bytes()));
        bytes
    }

    /// Reads the pieces of `layer` back, which has so many rows and whose tail starts at offset
    /// `tail`.
    ///
    /// # Errors
    /// [`Corrupt`] unless they reach from the object's first byte to its tail.
    pub fn from_bytes(layer: Layer, bytes: &[u8], tail: u64, rows: u64) -> Result<Pages, Corrupt> {
        let parts = bytes.split_first_chunk::<4>().and_then(|(page_rows, rest)| {
            let (count, rest) = rest.split_first_chunk::<4>()?;
            let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
            let (lengths, crcs) = rest.split_at_checked(count.checked_mul(4)?)?;
            (crcs.len() == lengths.len()).then_some((page_rows, lengths, crcs))
        });
        let Some((page_rows, lengths, crcs)) = parts else { return Err(cut_short(layer)) };
        let count = crcs.len() / 4;
        let length =
            |place| u32::from_le_bytes(std::array::from_fn(|byte| lengths[byte * count + place]));
        let crcs = crcs.as_chunks().0.iter().map(|crc| u32::from_le_bytes(*crc)).collect();
        let page_rows = u32::from_le_bytes(*page_rows);
        Pages::new((0..count).map(length), crcs, rows, page_rows).reaching(layer, tail)
    }

    /// Reads pieces in the form of earlier stores: length and CRC32C of each. The rows of a page are not there:
    /// the copy of the tail has the page index.
    ///
    /// # Errors
    /// As for [`Pages::from_bytes`].
    pub fn from_entries(
        layer: Layer,
        bytes: &[u8],
        tail: u64,
        rows: u64,
    ) -> Result<Pages, Corrupt> {
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            return Err(cut_short(layer));
        }
        let entries = entries.iter().map(|[a, b, c, d, crc @ ..]| {
            (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes(*crc))
        });
        let (lengths, crcs): (Vec<u32>, Vec<u32>) = entries.unzip();
        Pages::new(lengths.into_iter(), crcs, rows, 0).reaching(layer, tail)
    }

    fn new(lengths: impl Iterator<Item = u32>, crcs: Vec<u32>, rows: u64, page_rows: u32) -> Pages {
        // Fewer than 2^32 of less than 2^32 each.
        let ends = lengths.scan(0, |end, length| {
            *end += u64::from(length);
            Some(*end)
        });
        Pages { starts: std::iter::once(0).chain(ends).collect(), crcs, rows, page_rows }
    }

    fn reaching(self, layer: Layer, tail: u64) -> Result<Pages, Corrupt> {
        let end = self.starts.last().copied().unwrap_or_default();
        if end != tail {
            let what = format!("checksums of {end} bytes of pages instead of {tail}");
            return Err(Corrupt::new(layer.name(), what));
        }
        Ok(self)
    }

    /// Parquet's offset index as it follows from the pieces, for a file whose footer says `metadata`.
    ///
    /// # Errors
    /// [`Corrupt`] unless the columns follow each other, and each consists of as many pages as its
    /// rows make.
    pub fn offset_index(
        &self,
        layer: Layer,
        metadata: &ParquetMetaData,
    ) -> Result<Vec<Vec<OffsetIndexMetaData>>, Corrupt> {
        // Behind the magic bytes. A page is of one column only: a footer that claims the same ones
        // for thousands of columns must not be believed.
        let mut at = 1;
        let groups = metadata.row_groups().iter();
        let index = groups.map(|group| {
            let rows = u64::try_from(group.num_rows()).unwrap_or(0);
            group.columns().iter().map(|column| self.column(column, rows, &mut at)).collect()
        });
        let index: Option<_> = index.collect();
        index.ok_or_else(|| Corrupt::new(layer.name(), "its columns are not made of its pages"))
    }

    /// The offset index of one column of so many rows, whose first piece is number `at`.
    fn column(
        &self,
        column: &ColumnChunkMetaData,
        rows: u64,
        at: &mut usize,
    ) -> Option<OffsetIndexMetaData> {
        let place = |offset: i64| self.starts.binary_search(&u64::try_from(offset).ok()?).ok();
        let dictionary = column.dictionary_page_offset();
        let start = dictionary.unwrap_or(column.data_page_offset());
        let end = place(start.checked_add(column.compressed_size())?)?;
        let first = *at + usize::from(dictionary.is_some());
        let page_rows = NonZeroU64::new(self.page_rows.into())?;
        // The last piece is not a page, and is not read.
        if end >= self.crcs.len()
            || place(start)? != *at
            || place(column.data_page_offset())? != first
            || end.checked_sub(first)? as u64 != rows.div_ceil(page_rows.get())
        {
            return None;
        }
        *at = end;
        let mut index = OffsetIndexBuilder::new();
        for pair in self.starts[first..=end].windows(2) {
            index.append_row_count(i64::from(self.page_rows));
            index.append_offset_and_size(
                i64::try_from(pair[0]).ok()?,
                i32::try_from(pair[1] - pair[0]).ok()?,
            );
        }
        Some(index.build())
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
            // What pieces beside pages say is not believed by anybody.
            let is_page = start >= MAGIC && (self.page_rows == 0 || number + 1 < self.crcs.len());
            if is_page {
                check_claims(layer, piece, start, self.rows)?;
            }
        }
        Ok(())
    }
}

fn cut_short(layer: Layer) -> Corrupt {
    Corrupt::new(layer.name(), "its page index is truncated")
}

/// Most bytes that a page may have after decompression: what the writer allows a dictionary.
const MOST_BYTES: u64 = 256 << 20;
/// Bytes that a value may have, at most: a header template of 64 KiB, and its fields' names.
const VALUE_BYTES: u64 = 65 << 10;

/// Checks that pages claim no more than a layer of `rows` rows can have. Forged checksums would
/// otherwise let one page exhaust the memory.
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
