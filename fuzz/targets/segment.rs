//! A whole segment, section by section and layer by layer, all checksums right.
#![no_main]

use capstan_fuzz::segment::{Parts, explore};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = Parts::from_input(input);
    let index = parts.index();
    explore(&index, &parts.objects);
});
