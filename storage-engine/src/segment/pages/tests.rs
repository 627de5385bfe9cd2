//! Pieces of tables as the segment writer makes them, and untrusted pieces.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array};
use bytes::Bytes;
use proptest::prelude::*;

use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

use super::*;
use crate::segment::column::{Column, ColumnType, Packing};
use crate::segment::tabular::{self, Written};

const ROWS: i64 = 5_000;

/// A table with a dictionary column and one without, of more than one page each.
fn table() -> Written {
    table_of(ROWS)
}

fn table_of(rows: i64) -> Written {
    let columns = [
        Column::new(1, "number", ColumnType::I64, false, Packing::Delta),
        Column::new(2, "few", ColumnType::I32, true, Packing::Dictionary),
    ];
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values((0..rows).map(|n| n * n % 977))),
        Arc::new((0..rows as i32).map(|n| (n % 3 > 0).then_some(n % 7)).collect::<Int32Array>()),
    ];
    tabular::write((1, 0), &columns, arrays, rows as usize).unwrap()
}

fn read_back(table: &Written) -> Pages {
    let tail = table.tail as u64;
    Pages::from_bytes(Layer::Packets, &table.pages.to_bytes(), tail, ROWS as u64).unwrap()
}

#[test]
fn pieces_of_a_table_cover_it_without_gaps() {
    let table = table();
    assert_eq!(read_back(&table), table.pages);
    // Two columns of five data pages, one of them with a dictionary page, and the page index.
    assert_eq!(table.pages.crcs.len(), 1 + 5 + 1 + 5 + 1);
    assert_eq!((table.pages.starts[0], table.pages.starts[1]), (0, 4));
    assert_eq!(table.pages.starts.last(), Some(&(table.tail as u64)));
    assert!(table.pages.starts.is_sorted_by(|a, b| a < b));
}

#[test]
fn offset_index_equals_that_of_parquet() {
    for rows in [1, 1023, 1024, 1025, ROWS] {
        let table = table_of(rows);
        let (bytes, tail) = (Bytes::from(table.bytes.clone()), table.tail as u64);
        let metadata = tabular::parse_tail("it", &bytes.slice(table.tail..), bytes.len() as u64);
        let mut theirs =
            ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        theirs.try_parse(&bytes).unwrap();
        let theirs = theirs.finish().unwrap();
        let pages = table.pages.to_bytes();
        let ours = Pages::from_bytes(Layer::Packets, &pages, tail, rows as u64).unwrap();
        let index = ours.offset_index(Layer::Packets, &metadata.unwrap()).unwrap();
        assert_eq!(Some(&index), theirs.offset_index(), "{rows} rows");
        // The footer alone is kept, and parsed without a page index.
        assert!(
            tabular::parse_tail("it", &bytes.slice(table.tail..), bytes.len() as u64)
                .unwrap()
                .offset_index()
                .is_none()
        );
    }
}

#[test]
fn columns_that_do_not_consist_of_their_pages_are_refused() {
    let table = table();
    let tail = Bytes::copy_from_slice(&table.bytes[table.tail..]);
    let metadata = tabular::parse_tail("it", &tail, table.bytes.len() as u64).unwrap();
    let good = read_back(&table);
    let check = |pages: &Pages| pages.offset_index(Layer::Packets, &metadata).map(|_| ());
    assert!(check(&good).is_ok());
    let last = good.crcs.len();
    let damaged = [
        // Pages of other rows, or of none.
        Pages { page_rows: 512, ..good.clone() },
        Pages { page_rows: 2048, ..good.clone() },
        Pages { page_rows: 0, ..good.clone() },
        // A column that begins elsewhere, a page too few, and a column up to the tail.
        Pages { starts: changed(&good.starts, 6, |at| at + 1), ..good.clone() },
        Pages { starts: [&good.starts[..4], &good.starts[5..]].concat(), ..good.clone() },
        Pages {
            starts: good.starts[..last].to_vec(),
            crcs: good.crcs[..last - 1].to_vec(),
            ..good.clone()
        },
    ];
    for pages in damaged {
        let error = check(&pages).unwrap_err();
        assert_eq!(error.what, "its columns are not made of its pages", "{pages:?}");
    }
}

#[test]
fn a_page_is_of_one_column_only() {
    let table = table();
    let tail = Bytes::copy_from_slice(&table.bytes[table.tail..]);
    let metadata = tabular::parse_tail("it", &tail, table.bytes.len() as u64).unwrap();
    let group = metadata.row_group(0).clone();
    let index = |numbers: [usize; 2]| {
        let columns = numbers.map(|number| group.column(number).clone()).to_vec();
        let group = group.clone().into_builder().set_column_metadata(columns).build().unwrap();
        let metadata = metadata.clone().into_builder().set_row_groups(vec![group]).build();
        table.pages.offset_index(Layer::Packets, &metadata).map(|index| index[0].len())
    };
    assert_eq!(index([0, 1]).unwrap(), 2);
    for numbers in [[0, 0], [1, 1], [1, 0]] {
        assert!(index(numbers).is_err(), "{numbers:?}");
    }
}

fn changed(starts: &[u64], at: usize, change: impl Fn(u64) -> u64) -> Vec<u64> {
    let mut starts = starts.to_vec();
    starts[at] = change(starts[at]);
    starts
}

#[test]
fn flipped_bit_of_a_piece_is_reported_with_layer_and_offset() {
    let table = table();
    let pages = read_back(&table);
    let starts = &pages.starts;
    for (from, first) in starts.iter().enumerate() {
        for end in &starts[from..] {
            let bytes = &table.bytes[*first as usize..*end as usize];
            pages.verify(Layer::Packets, &(*first..*end), bytes).unwrap();
        }
    }
    let (start, end) = (starts[2], starts[5]);
    for at in [start, starts[3] - 1, starts[3], end - 1] {
        let mut bytes = table.bytes[start as usize..end as usize].to_vec();
        bytes[(at - start) as usize] ^= 0x10;
        let error = pages.verify(Layer::Packets, &(start..end), &bytes).unwrap_err();
        let piece = starts[starts.partition_point(|start| *start <= at) - 1];
        assert_eq!(error.layer, "packets");
        assert_eq!(error.what, format!("checksum of the page at offset {piece} differs"));
    }
}

#[test]
fn partial_pieces_are_refused() {
    let table = table();
    let pages = read_back(&table);
    let (start, end) = (pages.starts[1], pages.starts[3]);
    for range in [start + 1..end, start..end - 1, start..end + 1, 0..pages.starts[1] - 1] {
        let bytes = &table.bytes[range.start as usize..range.end as usize];
        let error = pages.verify(Layer::Flows, &range, bytes).unwrap_err();
        assert!(error.what.contains("not whole pages"), "{error}");
    }
    let short = &table.bytes[start as usize..end as usize - 1];
    let error = pages.verify(Layer::Flows, &(start..end), short).unwrap_err();
    assert_eq!(error.layer, "flows");
    assert!(error.what.contains("instead of"), "{error}");
    // Ranges that are none: refused or empty, but no panic.
    let (tail, past) = (table.tail as u64, table.bytes.len() as u64);
    assert!(pages.verify(Layer::Flows, &(tail..past), &table.bytes[table.tail..]).is_err());
    pages.verify(Layer::Flows, &(tail..tail), &[]).unwrap();
    pages.verify(Layer::Flows, &Range { start: tail, end: 0 }, &[]).unwrap();
}

#[test]
fn pieces_that_do_not_reach_the_tail_are_refused() {
    let table = table();
    let (bytes, tail) = (table.pages.to_bytes(), table.tail as u64);
    for (bytes, tail, words) in [
        (&bytes[..], tail - 1, "instead of"),
        (&bytes[..], tail + 1, "instead of"),
        (&bytes[..bytes.len() - ENTRY], tail, "truncated"),
        (&bytes[..bytes.len() - 1], tail, "truncated"),
        (&bytes[..7], tail, "truncated"),
        (&[], tail, "truncated"),
        (&[0; 8], tail, "instead of"),
        (&[0xff; 8], tail, "truncated"),
    ] {
        let error = Pages::from_bytes(Layer::Packets, bytes, tail, 1).unwrap_err();
        assert!(error.what.contains(words), "{error}");
    }
}

/// Pieces as earlier stores have them.
fn entries(pages: &Pages) -> Vec<u8> {
    pages
        .pieces()
        .flat_map(|(range, crc)| [(range.end - range.start) as u32, crc])
        .flat_map(u32::to_le_bytes)
        .collect()
}

#[test]
fn pieces_of_earlier_formats_are_readable() {
    let table = table();
    let (bytes, tail) = (entries(&table.pages), table.tail as u64);
    let read = |bytes: &[u8], tail| Pages::from_entries(Layer::Packets, bytes, tail, ROWS as u64);
    assert_eq!(read(&bytes, tail).unwrap(), Pages { page_rows: 0, ..table.pages });
    for (bytes, tail, words) in [
        (&bytes[..], tail - 1, "instead of"),
        (&bytes[..bytes.len() - ENTRY], tail, "instead of"),
        (&bytes[..bytes.len() - 1], tail, "truncated"),
        (&[], tail, "instead of"),
    ] {
        let error = read(bytes, tail).unwrap_err();
        assert!(error.what.contains(words), "{error}");
    }
}

#[test]
fn page_beyond_the_end_of_its_layer_is_refused() {
    /// A dictionary page's header: values and bytes, in zigzag.
    fn dictionary(values: u8, bytes: u8) -> [u8; 13] {
        [0x15, 4, 0x15, bytes * 2, 0x15, 0, 0x4c, 0x15, values * 2, 0x15, 0, 0, 0]
    }
    let check = |page: &[u8], rows| check_claims(Layer::Packets, page, 4, rows);
    assert!(check(&dictionary(3, 60), 3).is_ok());
    let error = check(&dictionary(4, 60), 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "packets: the page at offset 4 claims more values than there are rows"
    );
    // 2^31 - 1 bytes for no value.
    let bomb = [0x15, 4, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0, 0];
    assert!(check(&bomb, 1 << 40).unwrap_err().what.contains("more bytes"));
    assert!(check(&[0x15], 3).unwrap_err().what.contains("no page header"));
}

proptest! {
    #[test]
    fn hostile_pieces_never_panic(
        lengths in proptest::collection::vec(any::<(u32, u32)>(), 0..20),
        page_rows: u32,
        start: u64,
        end: u64,
        bytes: Vec<u8>,
    ) {
        let crcs = lengths.iter().map(|(_, crc)| *crc).collect();
        let lengths = lengths.iter().map(|(length, _)| length % 64);
        let tail = lengths.clone().map(u64::from).sum();
        let pages = Pages::new(lengths, crcs, 1, page_rows);
        let back = Pages::from_bytes(Layer::Packets, &pages.to_bytes(), tail, 1).unwrap();
        prop_assert_eq!(&back, &pages);
        let back = Pages::from_entries(Layer::Packets, &entries(&pages), tail, 1).unwrap();
        prop_assert_eq!(&back, &Pages { page_rows: 0, ..pages.clone() });
        let _ = pages.verify(Layer::Packets, &(start..end), &bytes);
        let (start, end) = (start % 64, end % 64);
        let _ = pages.verify(Layer::Packets, &(start..end), &bytes);
        let length = end.saturating_sub(start) as usize;
        let _ = pages.verify(Layer::Packets, &(start..end), &vec![0; length]);
    }
}
