//! The byte layout of a term index, format 2. Numbers are little-endian.
//!
//! ```text
//! header   28 bytes
//!   0  4   magic: "CTI" and the format number, 2
//!   4  4   flows: every ordinal is below this
//!   8  4   terms
//!  12  4   blocks: terms / 64, rounded up
//!  16  4   length of the first keys, bytes
//!  20  4   length of the blocks, bytes
//!  24  4   length of the long lists, bytes
//! top      blocks x { u32 start of its first key, u32 start of its block }
//! first keys, end to end
//! blocks, end to end
//! long lists, end to end
//! ```
//!
//! A *key* is the field number (one byte) and the value (at most 255 bytes). Keys are
//! unique and ascend bytewise over the whole index. A block holds 64 keys, the last block
//! the rest:
//!
//! ```text
//! varint   length of the keys area
//! varint   where this block's first long list starts in the long lists
//! keys     for each key but the first (that one is in the top):
//!            one byte: low half = bytes shared with the key before, high half = bytes
//!            that follow, which is never 0; a half of 15 means 15 + a varint after it
//!            (shared first)
//!            the bytes that follow
//!          or, if the first byte is below 16, all keys are of one field and length and their
//!          values numbers, big-endian, of at most four bytes; that byte is a Rice parameter,
//!          then a bit string: each number's gap to the one before, less one, in Rice code
//! lists    a bit string, least significant bit first; for each key
//!            1                        one flow: its ordinal in W bits
//!            0 1                      a long list: gamma(length in bytes)
//!            0 0                      a short list: gamma(count - 1), 5 bits Rice
//!                                     parameter k, first ordinal in W bits, then each
//!                                     gap - 1 in Rice code with k
//! ```
//!
//! W is the number of bits of `flows - 1`. `gamma` is the Elias gamma code: as many zero
//! bits as the number has bits after its first, a one, then those bits. The Rice code of
//! v is (v >> k) zero bits, a one, then the k low bits of v.
//!
//! The long lists of a block follow each other in key order. The first byte of each says
//! how it is written: 0 = the short list's bit string (from gamma(count - 1) on),
//! 1 = a roaring bitmap in the portable format of the Roaring project, with runs.
//!
//! A builder writes whichever of the forms is smallest, so a reader must take all of them.
//! Format 1 has keys in the first form only.

use capstan_model::bytes::le32;

use crate::IndexError;

/// The format number written, and the newest one read.
pub const FORMAT: u8 = 2;

/// Keys in a block.
pub const BLOCK_TERMS: usize = 64;

/// Bytes of the fixed header.
pub const HEADER: usize = 28;

/// The first byte of keys that are numbers is below this: it is a Rice parameter. In the other form
/// the high half of it is how many bytes follow, which is not 0.
pub(crate) const NUMBERS: u8 = 16;

/// The most bytes a value has that is written as a number.
pub(crate) const NUMBER_BYTES: usize = 4;

/// A long list in Rice code.
pub(crate) const LIST_RICE: u8 = 0;
/// A long list as a roaring bitmap.
pub(crate) const LIST_ROARING: u8 = 1;

/// Bytes of one entry of the top.
pub(crate) const TOP_ENTRY: usize = 8;

const MAGIC: [u8; 3] = *b"CTI";

/// The fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) flows: u32,
    pub(crate) terms: u32,
    pub(crate) blocks: u32,
    pub(crate) keys_length: u32,
    pub(crate) blocks_length: u32,
    pub(crate) lists_length: u32,
}

impl Header {
    /// Appends the header.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.push(FORMAT);
        for number in [
            self.flows,
            self.terms,
            self.blocks,
            self.keys_length,
            self.blocks_length,
            self.lists_length,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Reads and checks the header against the length of the whole index.
    pub(crate) fn read(bytes: &[u8]) -> Result<Header, IndexError> {
        let not = IndexError::NotAnIndex;
        let (fixed, _) = bytes.split_at_checked(HEADER).ok_or(not("shorter than its header"))?;
        if fixed[..3] != MAGIC {
            return Err(not("its first bytes are others"));
        }
        if fixed[3] > FORMAT {
            return Err(IndexError::TooNew { found: fixed[3], known: FORMAT });
        }
        if fixed[3] == 0 {
            return Err(not("its format number is 0"));
        }
        let number = |at: usize| le32(fixed, at).unwrap_or_default();
        let header = Header {
            flows: number(4),
            terms: number(8),
            blocks: number(12),
            keys_length: number(16),
            blocks_length: number(20),
            lists_length: number(24),
        };
        if header.blocks as usize != (header.terms as usize).div_ceil(BLOCK_TERMS) {
            return Err(IndexError::Damaged("terms and blocks do not match"));
        }
        if header.length() != bytes.len() as u64 {
            return Err(IndexError::Damaged("its length is not what its header says"));
        }
        Ok(header)
    }

    /// Bytes of the whole index.
    pub(crate) fn length(&self) -> u64 {
        HEADER as u64
            + u64::from(self.blocks) * TOP_ENTRY as u64
            + u64::from(self.keys_length)
            + u64::from(self.blocks_length)
            + u64::from(self.lists_length)
    }

    /// Bits of an ordinal written in full.
    pub(crate) fn width(&self) -> u32 {
        width(self.flows)
    }
}

/// Bits that any ordinal below `flows` fits.
pub(crate) fn width(flows: u32) -> u32 {
    u32::BITS - flows.saturating_sub(1).leading_zeros()
}

/// A value as the number it is, big-endian; none if it is too long for one, or empty.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    let fits = (1..=NUMBER_BYTES).contains(&value.len());
    fits.then(|| value.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte)))
}

/// Appends a LEB128 varint.
pub(crate) fn write_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a LEB128 varint of at most 32 bits off the front of `bytes`.
pub(crate) fn read_varint(bytes: &mut &[u8]) -> Result<u32, IndexError> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) =
            bytes.split_first().ok_or(IndexError::Damaged("a length is truncated"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| IndexError::Damaged("a length is too large"));
        }
    }
    Err(IndexError::Damaged("a length is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX - 1, u32::MAX] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            let mut rest = bytes.as_slice();
            assert_eq!(read_varint(&mut rest), Ok(value));
            assert!(rest.is_empty());
        }
        assert!(read_varint(&mut [0xff; 9].as_slice()).is_err());
        assert!(read_varint(&mut [0x80].as_slice()).is_err());
    }

    #[test]
    fn widths_hold_the_largest_ordinal() {
        assert_eq!([0, 1, 2, 3, 256, 257, u32::MAX].map(width), [0, 0, 1, 2, 8, 9, 32]);
    }

    #[test]
    fn newer_format_is_reported() {
        let mut bytes = Vec::new();
        Header { flows: 0, terms: 0, blocks: 0, keys_length: 0, blocks_length: 0, lists_length: 0 }
            .write(&mut bytes);
        assert!(Header::read(&bytes).is_ok());
        bytes[3] = 1;
        assert!(Header::read(&bytes).is_ok());
        bytes[3] = 3;
        assert_eq!(Header::read(&bytes), Err(IndexError::TooNew { found: 3, known: 2 }));
        bytes[0] = b'X';
        assert!(matches!(Header::read(&bytes), Err(IndexError::NotAnIndex(_))));
        assert!(matches!(Header::read(&bytes[..20]), Err(IndexError::NotAnIndex(_))));
    }
}
