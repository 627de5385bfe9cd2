//! Which addresses a segment may hold: a blocked Bloom filter small enough for the commit.
//!
//! A question about one address skips a segment unopened if the filter says no, which is
//! always true; a yes is wrong for about 1 of 10,000 addresses that are not there, so that asking where a
//! host was in a month opens hardly a segment in vain, and for 1 of 3 in the fullest filter there is.
//!
//! The filter is a row of blocks of 32 bytes: eight little-endian words. Of the SHA-256 of an
//! address (16 bytes), bytes 0 to 3 as a little-endian number choose the block,
//! `number * blocks >> 32`; the low five bits of byte 4 + i choose the bit in word i. An
//! address may be there if all eight bits are set. In JSON it is written as hex.

use std::fmt;

use capstan_model::Address;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

const BLOCK: usize = 32;

/// Bits for each address: 3 bytes.
const BITS_AN_ADDRESS: usize = 24;

/// The largest filter, bytes. One that should be larger gets fuller instead.
const MAX_BYTES: usize = 8 * 1024;

/// With more addresses than this the largest filter would say yes too often to be worth
/// its bytes, and there is none.
pub const MAX_ADDRESSES: usize = MAX_BYTES * 8 / 4;

/// The addresses of a segment, inner and outer ones; see the module.
#[derive(Clone, PartialEq, Eq)]
pub struct AddressFilter {
    blocks: Vec<[u8; BLOCK]>,
}

impl AddressFilter {
    /// A filter of distinct addresses; none if there are more than [`MAX_ADDRESSES`].
    pub fn of(addresses: &[Address]) -> Option<AddressFilter> {
        if addresses.len() > MAX_ADDRESSES {
            return None;
        }
        let blocks = (addresses.len() * BITS_AN_ADDRESS).div_ceil(BLOCK * 8).min(MAX_BYTES / BLOCK);
        let mut filter = AddressFilter { blocks: vec![[0; BLOCK]; blocks] };
        for address in addresses {
            let place = Place::of(*address);
            if let Some(block) = place.block(filter.blocks.len()) {
                for (byte, bit) in place.bits() {
                    filter.blocks[block][byte] |= bit;
                }
            }
        }
        Some(filter)
    }

    /// Whether the address may be in the segment. A no is certain.
    pub fn may_hold(&self, address: Address) -> bool {
        self.may_hold_place(&Place::of(address))
    }

    /// As [`AddressFilter::may_hold`], for asking many filters about one address.
    pub fn may_hold_place(&self, place: &Place) -> bool {
        let block = place.block(self.blocks.len()).and_then(|block| self.blocks.get(block));
        block.is_some_and(|block| place.bits().all(|(byte, bit)| block[byte] & bit != 0))
    }

    /// Its length as stored, bytes.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK
    }
}

/// Where an address lies in any filter.
#[derive(Debug, Clone, Copy)]
pub struct Place([u8; 12]);

impl Place {
    /// The place of an address.
    pub fn of(address: Address) -> Place {
        let digest = Sha256::digest(address.0);
        let mut place = [0; 12];
        place.copy_from_slice(&digest[..12]);
        Place(place)
    }

    fn block(&self, blocks: usize) -> Option<usize> {
        let number = u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]);
        (blocks > 0).then(|| ((u64::from(number) * blocks as u64) >> 32) as usize)
    }

    /// Byte of the block and bit of the byte, one in each word.
    fn bits(&self) -> impl Iterator<Item = (usize, u8)> + '_ {
        self.0[4..].iter().enumerate().map(|(word, byte)| {
            let bit = usize::from(byte & 31);
            (word * 4 + bit / 8, 1 << (bit % 8))
        })
    }
}

impl fmt::Debug for AddressFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressFilter({} bytes)", self.bytes())
    }
}

impl Serialize for AddressFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.blocks.as_flattened()))
    }
}

impl<'de> Deserialize<'de> for AddressFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode(text).map_err(serde::de::Error::custom)?;
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("an address filter is not whole blocks"));
        }
        Ok(AddressFilter { blocks: blocks.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(from: u32, count: u32) -> Vec<Address> {
        (from..from + count).map(|number| Address::v4(number.to_be_bytes())).collect()
    }

    #[test]
    fn what_is_there_is_always_found_and_little_else() {
        for (count, at_most) in [
            (1, 0.001),
            (20, 0.001),
            (1_000, 0.0005),
            (2_700, 0.0005),
            (6_000, 0.03),
            (16_384, 0.4),
        ] {
            let present = addresses(0x0a00_0000, count);
            let filter = AddressFilter::of(&present).expect("not too many");
            assert!(present.iter().all(|address| filter.may_hold(*address)));
            let absent = addresses(0xc000_0000, 20_000);
            let wrong = absent.iter().filter(|address| filter.may_hold(**address)).count();
            let rate = wrong as f64 / 20_000.0;
            println!("{count} addresses: {} bytes, {:.3} % wrong", filter.bytes(), rate * 100.0);
            assert!(rate <= at_most, "{count} addresses: {rate}");
            assert!(filter.bytes() <= (count as usize * 3 + BLOCK).min(MAX_BYTES));
        }
        assert_eq!(AddressFilter::of(&addresses(0, MAX_ADDRESSES as u32 + 1)), None);
    }

    #[test]
    fn a_segment_without_addresses_holds_none() {
        let filter = AddressFilter::of(&[]).expect("none");
        assert!(!filter.may_hold(Address::v4([10, 0, 0, 1])));
        assert_eq!(serde_json::to_string(&filter).unwrap(), "\"\"");
    }

    #[test]
    fn json_goes_there_and_back_and_damage_is_refused() {
        let filter = AddressFilter::of(&addresses(1, 100)).expect("not too many");
        let json = serde_json::to_string(&filter).unwrap();
        assert_eq!(serde_json::from_str::<AddressFilter>(&json).unwrap(), filter);
        for damaged in ["\"00\"", "\"zz\"", "5"] {
            assert!(serde_json::from_str::<AddressFilter>(damaged).is_err());
        }
    }

    #[test]
    fn the_bits_of_one_address_never_move() {
        // Stored filters depend on it.
        let filter = AddressFilter::of(&[Address::v4([10, 0, 0, 1])]).expect("one");
        // Worked out from the description above with other tools.
        let expected = "4000000000400000000010000000020000000010000000800002000000400000";
        assert_eq!(serde_json::to_value(&filter).unwrap(), expected);
    }
}
