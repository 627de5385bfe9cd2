//! JSON objects with a checksum of themselves.
//!
//! The entries of a log check each other, but nothing checks the last entry, or the object `format`. So each object
//! ends with a field `crc32c`: eight hex digits of CRC32C over all bytes before the comma in front of that field. It
//! detects a change of any byte.
//!
//! Objects that may grow are *packed*: a zstd frame of the JSON, then a skippable frame with the CRC32C of all bytes
//! before its value. `zstdcat` shows the JSON.

use std::io::Read;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes before and after the eight digits.
const AROUND: (&[u8], &[u8]) = (br#","crc32c":""#, br#""}"#);
const DIGITS: usize = 8;

/// Result of the checksum test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksum {
    /// The checksum matches.
    Right,
    /// The checksum does not match.
    Wrong,
    /// There is no checksum.
    Absent,
}

/// Serializes a value with at least one field, and adds a checksum.
///
/// # Errors
/// Values that JSON cannot express.
pub(crate) fn to_bytes(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(value)?;
    debug_assert!(bytes.starts_with(b"{\"") && bytes.ends_with(b"}"));
    bytes.pop();
    let digits = format!("{:08x}", crc32c::crc32c(&bytes));
    bytes.extend([AROUND.0, digits.as_bytes(), AROUND.1].concat());
    Ok(bytes)
}

/// The first number of either format (of a store; of writers and commits) whose objects carry a
/// checksum.
const FIRST_FORMAT: u32 = 2;

/// Whether bytes of an object with this format number were changed. For objects without a checksum this is unknown.
pub(crate) fn is_changed(format: u32, bytes: &[u8]) -> bool {
    match check(bytes) {
        Checksum::Right => false,
        Checksum::Wrong => true,
        Checksum::Absent => format >= FIRST_FORMAT,
    }
}

/// Tests the checksum.
fn check(bytes: &[u8]) -> Checksum {
    let parts = bytes.strip_suffix(AROUND.1).and_then(|bytes| {
        let (content, digits) = bytes.split_at_checked(bytes.len().checked_sub(DIGITS)?)?;
        Some((content.strip_suffix(AROUND.0)?, digits))
    });
    match parts {
        None => Checksum::Absent,
        Some((content, digits))
            if format!("{:08x}", crc32c::crc32c(content)).as_bytes() == digits =>
        {
            Checksum::Right
        }
        Some(_) => Checksum::Wrong,
    }
}

/// zstd level of packed objects: they are written once and read often.
const PACK_LEVEL: i32 = 3;

/// Header of the checksum of a packed object: a skippable frame of four bytes (RFC 8878, section 3.1.2).
const SEAL: [u8; 8] = [0x5c, 0x2a, 0x4d, 0x18, 4, 0, 0, 0];

/// Maximum unpacked size of a packed object: a larger one is not from Capstan.
const UNPACKED_MOST: u64 = 256 << 20;

/// Why a packed object cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unpacked {
    /// Its checksum is missing or wrong.
    #[error("its checksum differs")]
    Changed,
    /// It is no zstd frame, or unpacks to more than the maximum size.
    #[error("it cannot be decompressed")]
    Frame(#[source] std::io::Error),
    /// Not JSON, or JSON of another shape.
    #[error("it cannot be read")]
    Json(#[source] serde_json::Error),
    /// Written by a newer version.
    #[error("unknown format {found}: this version supports up to {known}")]
    TooNew {
        /// Its format.
        found: u32,
        /// The newest one known.
        known: u32,
    },
}

/// Packs a value.
///
/// # Errors
/// Values that JSON cannot express.
pub(crate) fn pack(value: &impl Serialize) -> Result<Vec<u8>, Unpacked> {
    let json = serde_json::to_vec(value).map_err(Unpacked::Json)?;
    let mut bytes = zstd::bulk::compress(&json, PACK_LEVEL).map_err(Unpacked::Frame)?;
    bytes.extend(SEAL);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    Ok(bytes)
}

/// Unpacks a value whose field `format` is at most `known`.
///
/// # Errors
/// See [`Unpacked`]; memory is bounded for any input.
pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8], known: u32) -> Result<T, Unpacked> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    let (sealed, crc) = bytes.split_last_chunk::<4>().ok_or(Unpacked::Changed)?;
    let frame = sealed.strip_suffix(&SEAL).ok_or(Unpacked::Changed)?;
    if crc32c::crc32c(sealed).to_le_bytes() != *crc {
        return Err(Unpacked::Changed);
    }
    let mut json = Vec::new();
    let mut decoder = zstd::stream::read::Decoder::new(frame).map_err(Unpacked::Frame)?;
    // The size in the frame header is not trusted: memory grows with the actual output.
    let most = UNPACKED_MOST + 1;
    decoder.by_ref().take(most).read_to_end(&mut json).map_err(Unpacked::Frame)?;
    if json.len() as u64 == most {
        return Err(Unpacked::Frame(std::io::ErrorKind::FileTooLarge.into()));
    }
    let head: Head = serde_json::from_slice(&json).map_err(Unpacked::Json)?;
    if head.format > known {
        return Err(Unpacked::TooNew { found: head.format, known });
    }
    serde_json::from_slice(&json).map_err(Unpacked::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_values_round_trip_and_changed_bytes_are_detected() {
        let value = serde_json::json!({"format": 3, "text": "abc".repeat(100)});
        let good = pack(&value).unwrap();
        assert_eq!(unpack::<serde_json::Value>(&good, 3).unwrap(), value);
        let newer = unpack::<serde_json::Value>(&good, 2);
        assert!(matches!(newer, Err(Unpacked::TooNew { found: 3, known: 2 })));
        for at in 0..good.len() {
            for change in [1_u8, 0x10, 0x80] {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                let read = unpack::<serde_json::Value>(&bytes, 3);
                assert!(matches!(read, Err(Unpacked::Changed)), "byte {at}");
            }
            assert!(unpack::<serde_json::Value>(&good[..at], 3).is_err());
        }
    }

    #[test]
    fn frame_with_an_excessive_length_is_refused() {
        // A frame header with a content size of 2^40 bytes, and no block.
        let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
        bytes.extend((1_u64 << 40).to_le_bytes());
        bytes.extend(SEAL);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        assert!(matches!(unpack::<serde_json::Value>(&bytes, 3), Err(Unpacked::Frame(_))));
    }

    #[test]
    fn checksum_field_is_valid_json() {
        let bytes = to_bytes(&serde_json::json!({"a": 1, "b": "é"})).unwrap();
        assert_eq!(check(&bytes), Checksum::Right);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&value["a"], &value["b"]), (&1.into(), &"é".into()));
        let crc = crc32c::crc32c(r#"{"a":1,"b":"é""#.as_bytes());
        assert_eq!(value["crc32c"], format!("{crc:08x}"));
    }

    #[test]
    fn every_changed_byte_is_detected() {
        let good = to_bytes(&serde_json::json!({"a": "text"})).unwrap();
        for at in 0..good.len() {
            for change in 1..=255_u8 {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                assert_ne!(check(&bytes), Checksum::Right, "byte {at}");
                // What hides the field leaves the content as it was.
                let content = good.len() - AROUND.0.len() - DIGITS - AROUND.1.len();
                assert!(at >= content || check(&bytes) == Checksum::Wrong, "byte {at}");
            }
        }
        for end in 0..good.len() {
            assert_eq!(check(&good[..end]), Checksum::Absent);
        }
    }
}
