//! Damaged Parquet pages under an intact footer: which table and form (u8), the pages.
#![no_main]

use capstan_fuzz::segment::explore;
use capstan_fuzz::tables::{reference, segment_of, tolerate_parquet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: tolerate_parquet(), |input: &[u8]| {
    let Some((which, pages)) = input.split_first() else { return };
    let [mut packets, mut flows] = reference()[usize::from(which / 2) % 3].clone();
    let table = if which % 2 == 0 { &mut packets } else { &mut flows };
    let length = table.tail.min(pages.len());
    table.bytes[..length].copy_from_slice(&pages[..length]);
    let (index, objects) = segment_of(&packets, &flows);
    explore(&index, &objects);
});
