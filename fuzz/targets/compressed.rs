//! Compressed captures: a file that is one already, or a byte that says how to pack the rest.
#![no_main]

use std::io::Write;

use capstan_fuzz::capture;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = capture::read(input, usize::MAX);
    let Some((how, plain)) = input.split_first() else { return };
    // Short ones, so that what is in them is seen again and again; and what is packed twice is
    // no capture.
    let packed = matches!(plain, [0x1f, 0x8b, ..] | [_, 0xb5 | 0x22 | 0x2a, ..]);
    if packed || plain.len() > 4_096 {
        return;
    }
    let whole = capture::read(plain, usize::MAX);
    let packed = pack(how % 3, plain);
    let unpacked = capture::read(&packed, usize::MAX);
    assert_eq!((unpacked.packets, unpacked.hash), (whole.packets, whole.hash));
    assert_eq!(unpacked.error.is_some(), whole.error.is_some());
    // Cut anywhere, it says so. (How many packets come is not compared: which dialect a pcap
    // file is in is judged by the records at hand.)
    let cut = packed.len() * usize::from(*how) / 256;
    let part = capture::read(&packed[..cut], 100);
    assert!(part.error.is_some(), "{cut} of {} bytes", packed.len());
});

fn pack(how: u8, plain: &[u8]) -> Vec<u8> {
    match how {
        0 => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(plain).expect("into memory");
            gzip.finish().expect("into memory")
        }
        1 => zstd::stream::encode_all(plain, 1).expect("into memory"),
        _ => {
            let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
            lz4.write_all(plain).expect("into memory");
            lz4.finish().expect("into memory")
        }
    }
}
