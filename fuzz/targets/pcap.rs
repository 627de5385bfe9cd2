//! The pcap reader: a file.
#![no_main]

use capstan_fuzz::capture;
use libfuzzer_sys::{Corpus, fuzz_target};

/// The magic numbers there are, in little-endian order and the other one.
const MAGICS: [u32; 5] = [0xa1b2_c3d4, 0xa1b2_3c4d, 0xa1b2_cd34, 0x1c00_01ac, 0x1c00_01ab];

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some(first) = input.first_chunk().map(|first| u32::from_le_bytes(*first)) else {
        return Corpus::Reject;
    };
    if !MAGICS.contains(&first) && !MAGICS.contains(&first.swap_bytes()) {
        return Corpus::Reject;
    }
    let seen = capture::read(input, usize::MAX);
    assert!(seen.packets <= input.len() as u64 / 16);
    Corpus::Keep
});
