//! Untrusted Parquet files: which table (u8), the length of the tail that the `index` layer has (u32), what that says
//! of the pages (long), the file.
#![no_main]

use capstan_fuzz::input::Take;
use capstan_fuzz::segment::explore;
use capstan_fuzz::tables::{Table, reference, segment_of, tolerate_parquet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: tolerate_parquet(), |input: &[u8]| {
    let mut take = Take::new(input);
    let (which, tail) = (take.u8(), take.u32() as usize);
    let pages = take.long().to_vec();
    let bytes = take.rest().to_vec();
    let hostile = Table { tail: bytes.len().saturating_sub(tail), bytes, pages };
    let [packets, flows] = &reference()[0];
    let (index, objects) = match which & 1 {
        0 => segment_of(&hostile, flows),
        _ => segment_of(packets, &hostile),
    };
    explore(&index, &objects);
});
