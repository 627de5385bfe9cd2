#![no_main]
use libfuzzer_sys::fuzz_target;
fuzz_target!(|data: &[u8]| { let _ = capstan_dissect::label(6, 1, 2, true, data); });
