//! Bytes stored, against the same file compressed in blocks that can be read separately.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use capstan_model::Failure;

use crate::bench::{Bench, Measured, Outcome};
use crate::measure::check_interrupted;
use crate::pcap::cannot_read;
use crate::report::{Figure, Judged, Row};

/// What a block of a seekable file holds, bytes.
const BLOCK: usize = 256 << 10;

/// The zstd level of the blocks.
const LEVEL: i32 = 3;

pub(super) fn run(bench: &mut Bench) -> Result<Outcome, Failure> {
    let store = bench.store()?;
    let capture = bench.capture()?;
    bench.say("compressing the file in blocks");
    let blocks = in_blocks(&capture.path)?;
    let stored = bench.stored_bytes(&store)?;
    Ok(Outcome::Measured(Measured {
        rows: vec![Row {
            work: "bytes stored, catalog included".to_owned(),
            ours: Figure::Bytes(stored),
            peers: vec![(format!("blocks of 256 KiB, zstd -{LEVEL}"), Figure::Bytes(blocks))],
            judged: Judged::new(stored as f64 / blocks as f64, "of the bytes", 0.95, 0.7),
        }],
        notes: vec![],
    }))
}

/// Bytes of a file in blocks that are compressed each for itself.
fn in_blocks(path: &Path) -> Result<u64, Failure> {
    let mut file = File::open(path).map_err(|error| cannot_read(path, error))?;
    let cannot = |error| Failure::io("compressing", error);
    let mut zstd = zstd::bulk::Compressor::new(LEVEL).map_err(cannot)?;
    let mut block = vec![0; BLOCK];
    let mut compressed = vec![0; zstd::zstd_safe::compress_bound(BLOCK)];
    let mut sum = 0;
    loop {
        check_interrupted()?;
        match fill(&mut file, &mut block).map_err(|error| cannot_read(path, error))? {
            0 => return Ok(sum),
            length => {
                let took = zstd.compress_to_buffer(&block[..length], &mut compressed);
                sum += took.map_err(cannot)? as u64;
            }
        }
    }
}

/// Reads until the buffer is full or the source at its end.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_compressed_separately() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        // What does not shrink by itself, twice: a compressor that looked back would halve it.
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..BLOCK)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        std::fs::write(&path, [noise.clone(), noise, vec![0; 100]].concat()).unwrap();
        let bytes = in_blocks(&path).unwrap();
        let blocks = 2 * BLOCK as u64;
        assert!((blocks..blocks + 200).contains(&bytes), "{bytes}");
    }
}
