//! Payload blocks: 16 bytes of header, how many of the rest are stored (u16), a directory behind.
#![no_main]

use capstan_fuzz::input::Take;
use capstan_storage_engine::segment::block::{
    BLOCK_HEADER, BlockDirectory, BlockHeader, Encoder, MAX_RAW, decode_into,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut take = Take::new(input);
    let mut header = [0; BLOCK_HEADER];
    let given = take.at_most(BLOCK_HEADER);
    header[..given.len()].copy_from_slice(given);
    let stored = take.short();
    let directory = take.rest();

    if let Ok(mut header) = BlockHeader::from_bytes(&header) {
        assert!(
            decode_into(&header, stored, &mut Vec::new()).is_err()
                || header.stored == stored.len() as u32
        );
        header.stored = stored.len() as u32;
        header.crc = crc32c::crc32c(stored);
        let mut raw = vec![7; 3];
        match decode_into(&header, stored, &mut raw) {
            Ok(()) => assert_eq!(raw.len(), 3 + header.raw as usize),
            Err(_) => assert!(raw.len() <= 3 + MAX_RAW),
        }
        assert_eq!(raw[..3], [7; 3]);
    }

    if let Ok(read) = BlockDirectory::from_bytes(directory) {
        assert_eq!(
            BlockDirectory::from_bytes(&read.to_bytes()).map(|again| again.len()),
            Ok(read.len())
        );
        let (from, to) = (u64::from(header[0]) << 8, u64::from(header[1]) << 16);
        let blocks = read.blocks_of(from, to);
        assert!(blocks.end <= read.len());
        for number in blocks {
            assert!(read.raw_start(number) < to && read.raw_start(number + 1) > from);
            assert!(read.stored_range(number).is_some_and(|range| range.end <= read.file_bytes()));
        }
    }

    let mut encoder = Encoder::new().expect("memory suffices");
    let block = encoder.encode(stored.to_vec().into(), header[0] & 1 == 1);
    let mut back = Vec::new();
    decode_into(&block.header, &block.bytes(), &mut back).expect("just encoded");
    assert_eq!(back, stored);
});
