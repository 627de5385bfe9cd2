//! A whole segment, section by section and layer by layer, all checksums right.
#![no_main]

use capstan_fuzz::segment::{Parts, explore};
use capstan_fuzz::tables::tolerate_parquet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: tolerate_parquet(), |input: &[u8]| {
    let mut parts = Parts::from_input(input);
    let index = parts.index();
    explore(&index, &parts.objects);
});
