//! Payload blocks: the unit of compression and checksum of `head` and `body`.
//!
//! A payload layer is a 16-byte file header and blocks one after the other, each
//! with a 16-byte header of its own, so that it can be read without the `index`
//! layer too. All numbers are little-endian.

use bytes::Bytes;

use super::Corrupt;
use super::chunks::Chunks;
use crate::cache::{Check, Extent};

/// First bytes of a payload layer.
pub const MAGIC: [u8; 8] = *b"CAPSBLK\0";
/// Format of the payload layers: major (a reader refuses a newer one) and minor.
pub const VERSION: (u16, u16) = (1, 0);
/// Length of the file header, bytes.
pub const FILE_HEADER: usize = 16;
/// Length of a block's header, bytes.
pub const BLOCK_HEADER: usize = 16;
/// Longest raw block a reader accepts, bytes. Writers close blocks far below.
pub const MAX_RAW: usize = 8 * 1024 * 1024;

/// How a block is compressed. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    Stored = 0,
    /// LZ4 block format.
    Lz4 = 1,
    /// Zstandard frame.
    Zstd = 2,
}

impl Codec {
    fn from_number(number: u8) -> Option<Codec> {
        [Codec::Stored, Codec::Lz4, Codec::Zstd].get(usize::from(number)).copied()
    }
}

/// The header of a block. The `index` layer has a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// How it is compressed.
    pub codec: Codec,
    /// Id of the encryption key; 0 is none, the only value so far.
    pub key: u8,
    /// Bytes after decompression.
    pub raw: u32,
    /// Bytes in the layer, without this header.
    pub stored: u32,
    /// CRC32C of the stored bytes.
    pub crc: u32,
}

impl BlockHeader {
    /// The sixteen bytes as they are stored.
    pub fn to_bytes(self) -> [u8; BLOCK_HEADER] {
        let mut bytes = [0; BLOCK_HEADER];
        bytes[0] = self.codec as u8;
        bytes[1] = self.key;
        bytes[4..8].copy_from_slice(&self.raw.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.stored.to_le_bytes());
        bytes[12..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// Reads sixteen bytes back.
    pub fn from_bytes(bytes: &[u8; BLOCK_HEADER]) -> Result<Self, Corrupt> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let codec = Codec::from_number(bytes[0])
            .ok_or_else(|| Corrupt::new("block", format!("unknown codec {}", bytes[0])))?;
        let header =
            BlockHeader { codec, key: bytes[1], raw: word(4), stored: word(8), crc: word(12) };
        if header.raw as usize > MAX_RAW {
            return Err(Corrupt::new("block", format!("says {} raw bytes", header.raw)));
        }
        Ok(header)
    }
}

/// A block ready to be written.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its header.
    pub header: BlockHeader,
    /// Its stored bytes, in pieces that follow each other.
    pub stored: Vec<Bytes>,
}

/// The file header of a payload layer.
pub fn file_header() -> [u8; FILE_HEADER] {
    let mut bytes = [0; FILE_HEADER];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.0.to_le_bytes());
    bytes[10..12].copy_from_slice(&VERSION.1.to_le_bytes());
    bytes
}

/// Turns raw bytes into blocks; keeps its compression context between calls.
pub struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    /// Buffer for a block's raw bytes.
    whole: Vec<u8>,
    packed: Vec<u8>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

/// zstd level of payload blocks. Importing 2 GB of traffic between services, -3 took the same time as 1 and
/// stored 4 % more.
const LEVEL: i32 = 1;

impl Encoder {
    /// A fresh encoder.
    ///
    /// # Errors
    /// When the compression library has no memory.
    pub fn new() -> std::io::Result<Self> {
        let zstd = zstd::bulk::Compressor::new(LEVEL)?;
        Ok(Encoder { zstd, whole: Vec::new(), packed: Vec::new() })
    }

    /// Compresses `raw`, or stores it as it is where that saves less than 1/32
    /// or `try_it` is false (payload known to be encrypted).
    ///
    /// Samples would not tell: blocks whose every 16 KiB do not shrink still do as a whole where
    /// a flow sends the same file twice.
    pub fn encode(&mut self, raw: Chunks, try_it: bool) -> Block {
        if try_it && raw.len() > 32 {
            let bytes = raw.whole(&mut self.whole);
            self.packed.clear();
            self.packed.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
            let length = self.zstd.compress_to_buffer(bytes, &mut self.packed);
            if length.is_ok_and(|length| length < bytes.len() - bytes.len() / 32) {
                let packed = Bytes::copy_from_slice(&self.packed);
                return Block::new(Codec::Zstd, raw.len(), vec![packed]);
            }
        }
        Block::new(Codec::Stored, raw.len(), raw.into_parts())
    }
}

impl Block {
    /// The stored bytes in one piece.
    pub fn bytes(&self) -> Vec<u8> {
        self.stored.concat()
    }

    fn new(codec: Codec, raw: usize, stored: Vec<Bytes>) -> Self {
        // Writers close blocks at a few MiB, so both lengths fit.
        let header = BlockHeader {
            codec,
            key: 0,
            raw: raw as u32,
            stored: stored.iter().map(Bytes::len).sum::<usize>() as u32,
            crc: stored.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part)),
        };
        Block { header, stored }
    }
}

/// Decompresses one block and checks its checksum; appends to `into`.
pub fn decode_into(header: &BlockHeader, stored: &[u8], into: &mut Vec<u8>) -> Result<(), Corrupt> {
    if stored.len() != header.stored as usize {
        return Err(Corrupt::new(
            "block",
            format!("{} stored bytes instead of {}", stored.len(), header.stored),
        ));
    }
    if crc32c::crc32c(stored) != header.crc {
        return Err(Corrupt::new("block", "checksum differs"));
    }
    if header.key != 0 {
        return Err(Corrupt::new("block", format!("encrypted with key {}", header.key)));
    }
    let raw = header.raw as usize;
    if raw > MAX_RAW {
        return Err(Corrupt::new("block", format!("says {raw} raw bytes")));
    }
    let start = into.len();
    match header.codec {
        Codec::Stored => into.extend_from_slice(stored),
        Codec::Lz4 => {
            into.resize(start + raw, 0);
            let length = lz4_flex::block::decompress_into(stored, &mut into[start..])
                .map_err(|error| Corrupt::new("block", format!("LZ4: {error}")))?;
            into.truncate(start + length);
        }
        Codec::Zstd => {
            into.resize(start + raw, 0);
            let length = zstd::bulk::decompress_to_buffer(stored, &mut into[start..])
                .map_err(|error| Corrupt::new("block", format!("zstd: {error}")))?;
            into.truncate(start + length);
        }
    }
    if into.len() - start != raw {
        let got = into.len() - start;
        into.truncate(start);
        return Err(Corrupt::new("block", format!("{got} raw bytes instead of {raw}")));
    }
    Ok(())
}

/// Where the blocks of one payload layer lie: their headers in order, with the
/// sums that find the block of a raw offset.
#[derive(Debug, Clone, Default)]
pub struct BlockDirectory {
    headers: Vec<BlockHeader>,
    /// Raw offset of each block's first byte, and the total at the end.
    raw_starts: Vec<u64>,
    /// Offset in the layer of each block's header, and the layer's length at the end.
    file_starts: Vec<u64>,
}

impl BlockDirectory {
    /// A directory of a layer without blocks.
    pub fn new() -> Self {
        BlockDirectory {
            headers: Vec::new(),
            raw_starts: vec![0],
            file_starts: vec![FILE_HEADER as u64],
        }
    }

    /// Appends a block.
    pub fn push(&mut self, header: BlockHeader) {
        let raw = self.raw_bytes() + u64::from(header.raw);
        let file = self.file_bytes() + BLOCK_HEADER as u64 + u64::from(header.stored);
        self.headers.push(header);
        self.raw_starts.push(raw);
        self.file_starts.push(file);
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.headers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// Header of block `index`.
    pub fn header(&self, index: usize) -> Option<&BlockHeader> {
        self.headers.get(index)
    }

    /// Raw bytes of the whole layer.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_starts.last().copied().unwrap_or(0)
    }

    /// Length of the layer as an object, bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_starts.last().copied().unwrap_or(FILE_HEADER as u64)
    }

    /// Raw offset of the first byte of block `index`.
    pub fn raw_start(&self, index: usize) -> u64 {
        self.raw_starts.get(index).copied().unwrap_or_else(|| self.raw_bytes())
    }

    /// The stored bytes of block `index` (its header not included), as a range of the layer.
    pub fn stored_range(&self, index: usize) -> Option<std::ops::Range<u64>> {
        let start = self.file_starts.get(index)? + BLOCK_HEADER as u64;
        Some(start..*self.file_starts.get(index + 1)?)
    }

    /// Block `index` with its header, as a range of the layer: these follow each other without a gap.
    pub fn range(&self, index: usize) -> Option<std::ops::Range<u64>> {
        Some(*self.file_starts.get(index)?..*self.file_starts.get(index + 1)?)
    }

    /// The blocks that a range of the layer consists of; none if those are not whole blocks.
    pub fn extents(&self, range: &std::ops::Range<u64>) -> Option<Vec<Extent>> {
        let first = self.file_starts.binary_search(&range.start).ok()?;
        let end = self.file_starts.binary_search(&range.end).ok()?;
        let blocks = self.headers.get(first..end)?.iter().zip(first..);
        let extent = |(header, index): (&BlockHeader, usize)| {
            let check = Check::Crc32c { skip: BLOCK_HEADER, crc: header.crc };
            Some(Extent { range: self.range(index)?, check })
        };
        blocks.map(extent).collect()
    }

    /// The blocks that hold the raw bytes `from..to`, as a range of block numbers.
    pub fn blocks_of(&self, from: u64, to: u64) -> std::ops::Range<usize> {
        if from >= to {
            return 0..0;
        }
        let first = self.raw_starts.partition_point(|start| *start <= from).saturating_sub(1);
        let end = self.raw_starts.partition_point(|start| *start < to);
        first..end.min(self.len()).max(first)
    }

    /// The directory as it stands in the `index` layer: sixteen bytes a block.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.headers.iter().flat_map(|header| header.to_bytes()).collect()
    }

    /// Reads a directory back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Corrupt> {
        let (headers, rest) = bytes.as_chunks::<BLOCK_HEADER>();
        if !rest.is_empty() {
            return Err(Corrupt::new("block directory", "length is not a multiple of 16"));
        }
        let mut directory = BlockDirectory::new();
        for header in headers {
            directory.push(BlockHeader::from_bytes(header)?);
        }
        Ok(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(raw: &[u8], try_it: bool) -> Block {
        let block = Encoder::new().unwrap().encode(raw.to_vec().into(), try_it);
        let mut back = Vec::new();
        decode_into(&block.header, &block.bytes(), &mut back).unwrap();
        assert_eq!(back, raw);
        block
    }

    #[test]
    fn text_is_compressed_and_noise_is_stored() {
        let text = b"GET /index.html HTTP/1.1\r\n".repeat(100);
        assert_eq!(round_trip(&text, true).header.codec, Codec::Zstd);
        assert_eq!(round_trip(&text, false).header.codec, Codec::Stored);
        let mut state = 1_u64;
        let mut noise: Vec<u8> = (0..200_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for length in [1, 33, 10_000, noise.len()] {
            assert_eq!(round_trip(&noise[..length], true).header.codec, Codec::Stored, "{length}");
        }
        // The same noise twice is not noise.
        noise.extend_from_within(..);
        assert_eq!(round_trip(&noise, true).header.codec, Codec::Zstd);
        round_trip(&[], true);
    }

    #[test]
    fn blocks_of_another_lz4_encoder_are_readable() {
        let text = b"GET /index.html HTTP/1.1\r\n".repeat(100);
        let stored = lz4_flex::block::compress(&text);
        let block = Block::new(Codec::Lz4, text.len(), vec![stored.clone().into()]);
        let mut back = b"before".to_vec();
        decode_into(&block.header, &stored, &mut back).unwrap();
        assert_eq!(back, [b"before", text.as_slice()].concat());
        for raw in [text.len() - 1, text.len() + 1] {
            let block = Block::new(Codec::Lz4, raw, vec![stored.clone().into()]);
            assert!(decode_into(&block.header, &stored, &mut Vec::new()).is_err(), "{raw}");
        }
    }

    #[test]
    fn flipped_bit_of_a_block_is_detected() {
        let block = Encoder::new().unwrap().encode(b"abcdefgh".repeat(50).into(), true);
        for bit in 0..block.bytes().len() * 8 {
            let mut stored = block.bytes();
            stored[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_into(&block.header, &stored, &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn a_directory_finds_blocks_by_raw_offset() {
        let mut directory = BlockDirectory::new();
        for raw in [100, 200, 50] {
            directory.push(BlockHeader { codec: Codec::Stored, key: 0, raw, stored: raw, crc: 0 });
        }
        assert_eq!(directory.blocks_of(0, 1), 0..1);
        assert_eq!(directory.blocks_of(99, 101), 0..2);
        assert_eq!(directory.blocks_of(300, 350), 2..3);
        assert_eq!(directory.blocks_of(0, 350), 0..3);
        assert_eq!(directory.blocks_of(5, 5), 0..0);
        assert_eq!(directory.stored_range(1), Some(16 + 16 + 100 + 16..16 + 16 + 100 + 16 + 200));
        let back = BlockDirectory::from_bytes(&directory.to_bytes()).unwrap();
        assert_eq!(back.headers, directory.headers);
    }

    proptest! {
        #[test]
        fn hostile_blocks_never_panic(header: [u8; 16], stored: Vec<u8>) {
            if let Ok(mut header) = BlockHeader::from_bytes(&header) {
                header.stored = stored.len() as u32;
                header.crc = crc32c::crc32c(&stored);
                let _ = decode_into(&header, &stored, &mut Vec::new());
            }
        }
    }
}
