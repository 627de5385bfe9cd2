//! The `index` layer: everything needed to open a segment, in one GET.
//!
//! A header, a directory of sections, the sections. Numbers are little-endian.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic `CAPSIDX\0` |
//! | 2 + 2 | major and minor format number |
//! | 4 | number of sections |
//! | 20 a section | kind (2), codec (1), reserved (1), raw length (4), stored length (4), CRC32C of the stored bytes (4), reserved (4) |
//! | 4 | CRC32C of all bytes before |
//! | rest | the sections' stored bytes, in the directory's order |

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use capstan_model::Block;
use capstan_model::block::block_type;
use capstan_model::link::Interface;

use super::Corrupt;

const LAYER: &str = "index";
const MAGIC: [u8; 8] = *b"CAPSIDX\0";
/// Format of the `index` layer: major (a reader refuses a newer one) and minor.
pub const VERSION: (u16, u16) = (2, 0);
const HEADER: usize = 16;
const ENTRY: usize = 20;
/// Sections of more raw bytes than this are refused.
const MAX_SECTION: usize = 1 << 30;
/// Raw bytes that a byte of a zstd frame can stand for at most: four bytes make a block that
/// repeats one byte 128 KiB long (RFC 8878 section 3.1.1.2).
const MOST_A_BYTE: usize = 128 * 1024 / 4;

/// What a section holds. The number is stored; readers skip kinds they do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Section {
    /// [`Meta`] as JSON.
    Meta = 1,
    /// Term dictionary and postings (`capstan-index`).
    Terms = 2,
    /// Block directory of `head`.
    HeadBlocks = 3,
    /// Block directory of `body`.
    BodyBlocks = 4,
    /// Footer of `packets.parquet`; in earlier stores the page index before it, too.
    PacketsTail = 5,
    /// Footer of `flows.parquet`; in earlier stores the page index before it, too.
    FlowsTail = 6,
    /// [`Extras`] as JSON.
    Extras = 7,
    /// [`Pages`](super::pages::Pages) of `packets.parquet` as earlier stores have them.
    PacketsEntries = 8,
    /// [`Pages`](super::pages::Pages) of `flows.parquet` as earlier stores have them.
    FlowsEntries = 9,
    /// [`Pages`](super::pages::Pages) of `packets.parquet`.
    PacketsPages = 10,
    /// [`Pages`](super::pages::Pages) of `flows.parquet`.
    FlowsPages = 11,
}

/// A layer of the segment as its `index` knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// `body`, `head`, `packets` or `flows`.
    pub layer: String,
    /// Length of the object.
    pub bytes: u64,
    /// SHA-256 of the object, hex.
    pub sha256: String,
}

/// A run as the `index` layer keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMeta {
    /// The local endpoint.
    pub address: String,
    /// First flow ordinal.
    pub first_flow: u32,
    /// Number of flow parts.
    pub flows: u32,
}

/// What a segment says of itself: enough to rebuild its catalog entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The segment's name.
    pub name: String,
    /// Recorder, hex.
    pub recorder: String,
    /// Generation.
    pub generation: u32,
    /// Generation that flow ids of this segment carry.
    pub flow_generation: u32,
    /// Hours touched, hours since 1970.
    pub hours: Vec<i32>,
    /// Earliest packet, nanoseconds since 1970.
    pub first: Option<i64>,
    /// Latest packet.
    pub last: Option<i64>,
    /// Lowest ordinal.
    pub first_ordinal: u64,
    /// Highest ordinal.
    pub last_ordinal: u64,
    /// Packets.
    pub packets: u64,
    /// Flow parts.
    pub flow_parts: u64,
    /// Captured bytes.
    pub captured_bytes: u64,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// The other layers.
    pub layers: Vec<LayerMeta>,
    /// The runs, in stored order.
    pub runs: Vec<RunMeta>,
    /// The capture points that packets name, by number.
    pub interfaces: Vec<(u32, Interface)>,
}

/// pcapng things that are not packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// Options of single packets: ordinal and the options' bytes.
    pub packet_options: Vec<(u64, Vec<u8>)>,
    /// Blocks that came before or between this segment's packets.
    pub blocks: Vec<Block>,
}

impl Extras {
    /// Whether one of the blocks holds decryption secrets.
    pub fn has_secrets(&self) -> bool {
        self.blocks.iter().any(|block| block.block_type == block_type::DECRYPTION_SECRETS)
    }
}

/// Puts the sections together.
///
/// # Errors
/// When the compression library has no memory.
pub fn write(sections: &[(Section, &[u8])]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.0.to_le_bytes());
    out.extend_from_slice(&VERSION.1.to_le_bytes());
    out.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    let mut stored = Vec::with_capacity(sections.len());
    for (kind, raw) in sections {
        let packed = zstd::bulk::compress(raw, 3)?;
        let (codec, bytes) = if packed.len() < raw.len() { (2, packed) } else { (0, raw.to_vec()) };
        out.extend_from_slice(&(*kind as u16).to_le_bytes());
        out.extend_from_slice(&[codec, 0]);
        out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        stored.push(bytes);
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    stored.iter().for_each(|bytes| out.extend_from_slice(bytes));
    Ok(out)
}

/// An `index` layer taken apart; sections are decompressed when asked for.
#[derive(Debug, Clone)]
pub struct IndexLayer {
    sections: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    kind: u16,
    codec: u8,
    raw: u32,
    crc: u32,
    stored: Bytes,
}

impl IndexLayer {
    /// Bytes of memory it takes: those of the layer, as it came.
    pub fn memory(&self) -> usize {
        self.sections.iter().map(|entry| entry.stored.len()).sum()
    }

    /// Takes the object apart.
    ///
    /// # Errors
    /// [`Corrupt`] for damage, or for a newer major format.
    pub fn open(bytes: &Bytes) -> Result<IndexLayer, Corrupt> {
        let bad = |what: &str| Corrupt::new(LAYER, what);
        let header = bytes.get(..HEADER).ok_or_else(|| bad("shorter than its header"))?;
        if header[..8] != MAGIC {
            return Err(bad("not an index layer"));
        }
        let major = u16::from_le_bytes([header[8], header[9]]);
        if major > VERSION.0 {
            let minor = u16::from_le_bytes([header[10], header[11]]);
            return Err(Corrupt::too_new(LAYER, format!("{major}.{minor}")));
        }
        let count = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
        let directory_end = count
            .checked_mul(ENTRY)
            .and_then(|length| length.checked_add(HEADER))
            .filter(|end| end.checked_add(4).is_some_and(|end| end <= bytes.len()))
            .ok_or_else(|| bad("directory is truncated"))?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if word(directory_end) != crc32c::crc32c(&bytes[..directory_end]) {
            return Err(bad("checksum of the directory differs"));
        }
        let mut at = directory_end + 4;
        let mut sections = Vec::with_capacity(count);
        for number in 0..count {
            let entry = HEADER + number * ENTRY;
            let length = word(entry + 8) as usize;
            let end = at
                .checked_add(length)
                .filter(|end| *end <= bytes.len())
                .ok_or_else(|| bad("a section is truncated"))?;
            sections.push(Entry {
                kind: u16::from_le_bytes([bytes[entry], bytes[entry + 1]]),
                codec: bytes[entry + 2],
                raw: word(entry + 4),
                crc: word(entry + 12),
                stored: bytes.slice(at..end),
            });
            at = end;
        }
        if at != bytes.len() {
            return Err(bad("bytes behind the last section"));
        }
        Ok(IndexLayer { sections })
    }

    /// The numbers of all sections, in stored order, those that are not known here too.
    pub fn kinds(&self) -> impl Iterator<Item = u16> + '_ {
        self.sections.iter().map(|entry| entry.kind)
    }

    /// The raw bytes of a section; empty if it is not there.
    ///
    /// # Errors
    /// [`Corrupt`] when its checksum or compression is wrong.
    pub fn section(&self, kind: Section) -> Result<Bytes, Corrupt> {
        let bad = |what: String| Corrupt::new(LAYER, format!("section {}: {what}", kind as u16));
        let Some(entry) = self.sections.iter().find(|entry| entry.kind == kind as u16) else {
            return Ok(Bytes::new());
        };
        if crc32c::crc32c(&entry.stored) != entry.crc {
            return Err(bad("checksum differs".to_owned()));
        }
        let raw = entry.raw as usize;
        if raw > MAX_SECTION {
            return Err(bad(format!("says {raw} raw bytes")));
        }
        match entry.codec {
            0 => Ok(entry.stored.clone()),
            2 => {
                // A false length must not ask for memory: neither one that the frame does not
                // have, nor one that no frame of so few bytes can have.
                let bound = zstd::zstd_safe::get_frame_content_size(&entry.stored);
                let possible = raw <= entry.stored.len().saturating_mul(MOST_A_BYTE);
                if bound.ok().flatten() != Some(raw as u64) || !possible {
                    return Err(bad("lengths disagree".to_owned()));
                }
                zstd::bulk::decompress(&entry.stored, raw)
                    .map(Bytes::from)
                    .map_err(|error| bad(error.to_string()))
            }
            other => Err(bad(format!("unknown codec {other}"))),
        }
    }

    /// A section that holds JSON.
    ///
    /// # Errors
    /// [`Corrupt`] when it is damaged or not what it should be.
    pub fn json<T: serde::de::DeserializeOwned>(&self, kind: Section) -> Result<T, Corrupt> {
        serde_json::from_slice(&self.section(kind)?)
            .map_err(|error| Corrupt::new(LAYER, format!("section {}: {error}", kind as u16)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Bytes {
        let text = b"terms ".repeat(100);
        write(&[(Section::Meta, b"{}"), (Section::Terms, &text)]).unwrap().into()
    }

    #[test]
    fn index_sections_round_trip() {
        let layer = IndexLayer::open(&sample()).unwrap();
        assert_eq!(&layer.section(Section::Meta).unwrap()[..], b"{}");
        assert_eq!(layer.section(Section::Terms).unwrap().len(), 600);
        assert!(layer.section(Section::Extras).unwrap().is_empty());
        assert_eq!(layer.kinds().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn every_flipped_byte_of_an_index_layer_is_detected() {
        let good = sample();
        for at in 0..good.len() {
            let mut bytes = good.to_vec();
            bytes[at] ^= 0x40;
            let found = match IndexLayer::open(&bytes.into()) {
                Err(_) => true,
                Ok(layer) => [Section::Meta, Section::Terms]
                    .into_iter()
                    .any(|kind| layer.section(kind).is_err()),
            };
            assert!(found, "byte {at}");
        }
    }

    #[test]
    fn compressed_zeros_round_trip_and_a_false_length_allocates_nothing() {
        let zeros = vec![0; 8 << 20];
        let good = write(&[(Section::Terms, &zeros)]).unwrap();
        let layer = IndexLayer::open(&good.clone().into()).unwrap();
        assert_eq!(layer.section(Section::Terms).unwrap().len(), zeros.len());

        // A frame of 1 GiB by its own account (RFC 8878 section 3.1.1.1), and one empty block.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
        frame.extend_from_slice(&(1_u32 << 30).to_le_bytes());
        frame.extend_from_slice(&[1, 0, 0]);
        let mut bad = good[..HEADER + ENTRY].to_vec();
        bad[HEADER + 4..HEADER + 8].copy_from_slice(&(1_u32 << 30).to_le_bytes());
        bad[HEADER + 8..HEADER + 12].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        bad[HEADER + 12..HEADER + 16].copy_from_slice(&crc32c::crc32c(&frame).to_le_bytes());
        let crc = crc32c::crc32c(&bad);
        bad.extend_from_slice(&crc.to_le_bytes());
        bad.extend_from_slice(&frame);
        let layer = IndexLayer::open(&bad.into()).unwrap();
        let error = layer.section(Section::Terms).unwrap_err();
        assert!(error.what.contains("lengths disagree"), "{error}");
    }

    #[test]
    fn newer_major_version_of_an_index_layer_is_refused() {
        let mut bytes = sample().to_vec();
        bytes[8] = VERSION.0 as u8 + 1;
        let error = IndexLayer::open(&bytes.into()).unwrap_err();
        assert!(error.to_string().contains("newer"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(mut bytes: Vec<u8>, fix: bool) {
            if fix && bytes.len() >= 20 {
                bytes[..8].copy_from_slice(&MAGIC);
                bytes[8..16].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
                let crc = crc32c::crc32c(&bytes[..16]);
                bytes[16..20].copy_from_slice(&crc.to_le_bytes());
            }
            if let Ok(layer) = IndexLayer::open(&bytes.into()) {
                let _ = layer.section(Section::Meta);
            }
        }
    }
}
