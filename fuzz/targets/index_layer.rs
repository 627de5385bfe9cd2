//! The `index` layer as an object: its bytes, with correct checksums.
#![no_main]

use bytes::Bytes;
use capstan_fuzz::segment::{Objects, explore};
use capstan_fuzz::tables::tolerate_parquet;
use capstan_storage_engine::segment::index_layer::{Extras, IndexLayer, Meta, Section};
use libfuzzer_sys::fuzz_target;

const HEADER: usize = 16;
const ENTRY: usize = 20;

fuzz_target!(init: tolerate_parquet(), |input: &[u8]| {
    let mut bytes = input.to_vec();
    fix(&mut bytes);
    let bytes = Bytes::from(bytes);
    if let Ok(layer) = IndexLayer::open(&bytes) {
        for kind in [Section::Terms, Section::HeadBlocks, Section::PacketsTail] {
            let _ = layer.section(kind);
        }
        let _ = layer.json::<Meta>(Section::Meta);
        let _ = layer.json::<Extras>(Section::Extras);
    }
    explore(&bytes, &Objects::default());
});

/// Puts the checksums of the directory and of each section right, as far as they are there.
fn fix(bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|word| u32::from_le_bytes(*word))
    };
    let Some(count) = word(bytes, 12).map(|count| count as usize) else { return };
    let Some(end) = count.checked_mul(ENTRY).map(|length| length + HEADER) else { return };
    if bytes.len() < end + 4 {
        return;
    }
    let mut at = end + 4;
    for entry in (HEADER..end).step_by(ENTRY) {
        let length = word(bytes, entry + 8).unwrap_or(0) as usize;
        let Some(section) = bytes.get(at..at + length) else { break };
        let crc = crc32c::crc32c(section);
        bytes[entry + 12..entry + 16].copy_from_slice(&crc.to_le_bytes());
        at += length;
    }
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
}
