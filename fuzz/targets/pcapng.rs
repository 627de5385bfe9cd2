//! The pcapng reader: a file.
#![no_main]

use capstan_fuzz::capture;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    if !input.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
        return Corpus::Reject;
    }
    let seen = capture::read(input, usize::MAX);
    // A block is twelve bytes at least, and is told as itself and as a loss at most.
    assert!(seen.packets + seen.others <= input.len() as u64 / 6);
    assert_eq!(seen, capture::read(input, 5), "how the bytes come makes a difference");
    Corpus::Keep
});
