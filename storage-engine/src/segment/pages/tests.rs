//! Pieces of tables as the segment writer makes them, and pieces that nobody vouches for.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array};
use arrow::datatypes::DataType;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::segment::tabular::{self, Column, Packing, Written};

const ROWS: i64 = 5_000;

/// A table with a dictionary column and one without, of more than one page each.
fn table() -> Written {
    let columns = [
        Column::new(1, "number", DataType::Int64, false, Packing::Delta),
        Column::new(2, "few", DataType::Int32, true, Packing::Dictionary),
    ];
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values((0..ROWS).map(|n| n * n % 977))),
        Arc::new((0..ROWS as i32).map(|n| (n % 3 > 0).then_some(n % 7)).collect::<Int32Array>()),
    ];
    tabular::write((1, 0), &columns, arrays, ROWS as usize).unwrap()
}

fn read_back(table: &Written) -> PageChecksums {
    let tail = table.tail as u64;
    PageChecksums::from_bytes(Layer::Packets, &table.pages.to_bytes(), tail, ROWS as u64).unwrap()
}

#[test]
fn pieces_are_the_magic_bytes_and_the_pages_without_a_gap() {
    let table = table();
    assert_eq!(read_back(&table), table.pages);
    // Two columns of three data pages, one of them with a dictionary page.
    assert_eq!(table.pages.crcs.len(), 1 + 3 + 1 + 3);
    assert_eq!((table.pages.starts[0], table.pages.starts[1]), (0, 4));
    assert_eq!(table.pages.starts.last(), Some(&(table.tail as u64)));
    assert!(table.pages.starts.is_sorted_by(|a, b| a < b));
    // What the writer said of the file is what a reader finds in it.
    let tail = Bytes::copy_from_slice(&table.bytes[table.tail..]);
    let metadata = tabular::parse_tail("it", &tail, table.bytes.len() as u64).unwrap();
    assert_eq!(PageChecksums::of(&table.bytes[..table.tail], &metadata), table.pages);
}

#[test]
fn whole_pieces_pass_and_a_flipped_bit_is_named_by_layer_and_offset() {
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
fn parts_of_pieces_and_missing_bytes_are_refused() {
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
    for (bytes, tail) in [
        (&bytes[..], tail - 1),
        (&bytes[..], tail + 1),
        (&bytes[..bytes.len() - ENTRY], tail),
        (&bytes[..bytes.len() - 1], tail),
        (&[], tail),
    ] {
        let error = PageChecksums::from_bytes(Layer::Packets, bytes, tail, 1).unwrap_err();
        assert!(error.what.contains("instead of"), "{error}");
    }
}

#[test]
fn a_page_that_claims_more_than_the_layer_has_is_refused() {
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
        start: u64,
        end: u64,
        bytes: Vec<u8>,
    ) {
        let stored: Vec<u8> = lengths
            .iter()
            .flat_map(|(length, crc)| [(length % 64).to_le_bytes(), crc.to_le_bytes()])
            .flatten()
            .collect();
        let tail = lengths.iter().map(|(length, _)| u64::from(length % 64)).sum();
        let pages = PageChecksums::from_bytes(Layer::Packets, &stored, tail, 1).unwrap();
        let _ = pages.verify(Layer::Packets, &(start..end), &bytes);
        let (start, end) = (start % 64, end % 64);
        let _ = pages.verify(Layer::Packets, &(start..end), &bytes);
        let length = end.saturating_sub(start) as usize;
        let _ = pages.verify(Layer::Packets, &(start..end), &vec![0; length]);
    }
}
