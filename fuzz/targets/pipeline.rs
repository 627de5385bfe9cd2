//! Packets through flow table, labels and segment builder; every one must be read back.
#![no_main]

use capstan_fuzz::packets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| packets::round_trip(&packets::parse(input)));
