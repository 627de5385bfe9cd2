//! A filter of the values that a segment or an hour may hold: one fingerprint per value, small enough for the commit.
//!
//! A query for one value skips a segment, or all segments of an hour, if the filter says no. A no is always right.
//! A yes is a false positive with a probability that grows with the number of values: 1 of 80,000 at 200 values, 1 of
//! 500 at the maximum of a segment, 1 of 60 at the maximum of an hour. Filters can be united without the values: the
//! filter of an hour is the union of the filters of its segments.
//!
//! A fingerprint is the first three bytes of the SHA-256 of a value, as a big-endian number. The stored
//! form has the distinct fingerprints in ascending order. Each is stored as the difference to the previous one (the
//! first: to 0), in LEB128 (bytes of seven bits, lowest first; DWARF 5, 7.6). In JSON these bytes are hex.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Exclusive upper bound of fingerprints.
const END: u32 = 1 << 24;

/// Maximum number of values in the filter of a segment. A larger filter would cost more than it saves, so there is
/// none.
pub const MAX_VALUES: usize = 32_768;

/// Maximum number of values in the filter of an hour. It saves more: the entries of an hour of a hundred recorders
/// are 26 MB.
pub const MAX_UNION: usize = 262_144;

/// Values of a segment or an hour; see the module.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TermFilter {
    /// Distinct, ascending.
    fingerprints: Vec<u32>,
}

impl TermFilter {
    /// A filter of values; none if there are more than [`MAX_VALUES`].
    pub fn of(values: impl IntoIterator<Item: AsRef<[u8]>>) -> Option<TermFilter> {
        let fingerprints = values.into_iter().map(|value| fingerprint(value.as_ref()));
        TermFilter::sorted(fingerprints.collect(), MAX_VALUES)
    }

    /// How many fingerprints it has: a few less than values, if there are many.
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    /// Whether it is the filter of no value.
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }

    /// The union of filters; none if it exceeds [`MAX_UNION`].
    pub fn union<'a>(filters: impl IntoIterator<Item = &'a TermFilter>) -> Option<TermFilter> {
        let fingerprints = filters.into_iter().flat_map(|of| of.fingerprints.iter().copied());
        TermFilter::sorted(fingerprints.collect(), MAX_UNION)
    }

    /// Whether it has more values than versions before [`MAX_UNION`] can read.
    pub fn is_large(&self) -> bool {
        self.fingerprints.len() > MAX_VALUES
    }

    fn sorted(mut fingerprints: Vec<u32>, most: usize) -> Option<TermFilter> {
        fingerprints.sort_unstable();
        fingerprints.dedup();
        fingerprints.shrink_to_fit();
        (fingerprints.len() <= most).then_some(TermFilter { fingerprints })
    }

    /// Whether the value may be present. A no is certain.
    pub fn may_hold(&self, value: impl AsRef<[u8]>) -> bool {
        self.fingerprints.binary_search(&fingerprint(value.as_ref())).is_ok()
    }

    /// Whether it includes every fingerprint of another filter.
    pub fn includes(&self, other: &TermFilter) -> bool {
        other.fingerprints.iter().all(|of| self.fingerprints.binary_search(of).is_ok())
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.fingerprints.len() * 3);
        let mut before = 0;
        for fingerprint in &self.fingerprints {
            let mut more = fingerprint - std::mem::replace(&mut before, *fingerprint);
            while more >= 0x80 {
                bytes.push(more as u8 | 0x80);
                more >>= 7;
            }
            bytes.push(more as u8);
        }
        bytes
    }

    /// Parses the output of [`TermFilter::to_bytes`]; none if the bytes are invalid.
    fn from_bytes(bytes: &[u8]) -> Option<TermFilter> {
        let mut fingerprints: Vec<u32> = Vec::new();
        let mut rest = bytes.iter();
        while !rest.as_slice().is_empty() {
            let (mut more, mut shift) = (0, 0);
            loop {
                let byte = rest.next()?;
                more |= u32::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
                // Four bytes are enough for every difference.
                if shift == 28 {
                    return None;
                }
            }
            let next = fingerprints.last().copied().unwrap_or(0) + more;
            if next >= END || (more == 0 && !fingerprints.is_empty()) {
                return None;
            }
            fingerprints.push(next);
        }
        (fingerprints.len() <= MAX_UNION).then_some(TermFilter { fingerprints })
    }
}

fn fingerprint(value: &[u8]) -> u32 {
    let digest = Sha256::digest(value);
    u32::from_be_bytes([0, digest[0], digest[1], digest[2]])
}

impl fmt::Debug for TermFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TermFilter({} values)", self.fingerprints.len())
    }
}

impl Serialize for TermFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.to_bytes()))
    }
}

impl<'de> Deserialize<'de> for TermFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode(text).map_err(serde::de::Error::custom)?;
        TermFilter::from_bytes(&bytes).ok_or_else(|| serde::de::Error::custom("not fingerprints"))
    }
}

#[cfg(test)]
mod tests {
    use capstan_model::Address;
    use proptest::prelude::*;

    use super::*;

    fn addresses(from: u32, count: u32) -> Vec<Address> {
        (from..from + count).map(|number| Address::v4(number.to_be_bytes())).collect()
    }

    #[test]
    fn address_filter_has_no_false_negatives_and_few_false_positives() {
        for (count, at_most) in
            [(1, 0), (20, 2), (200, 5), (2_700, 20), (16_384, 60), (32_768, 120)]
        {
            let present = addresses(0x0a00_0000, count);
            let filter = TermFilter::of(&present).expect("not too many");
            assert!(present.iter().all(|address| filter.may_hold(*address)));
            let absent = addresses(0xc000_0000, 20_000);
            let wrong = absent.iter().filter(|address| filter.may_hold(**address)).count();
            let bytes = filter.to_bytes().len();
            println!("{count} addresses: {bytes} bytes, {wrong} of 20,000 wrong");
            assert!(wrong <= at_most, "{count} addresses: {wrong}");
            assert!(bytes <= count as usize * 3 + 4, "{count} addresses: {bytes} bytes");
        }
        assert_eq!(TermFilter::of(addresses(0, 2 * MAX_VALUES as u32)), None);
    }

    #[test]
    fn filter_of_an_hour_holds_more_addresses_than_of_a_segment() {
        let absent = addresses(0xc000_0000, 20_000);
        for (parts, at_most) in [(2, 150), (4, 220), (8, 400)] {
            let of = |part: u32| TermFilter::of(addresses(part << 20, MAX_VALUES as u32));
            let filters: Vec<_> =
                (0..parts).map(|part| of(part).expect("as many as may be")).collect();
            let union = TermFilter::union(&filters).expect("not too many");
            assert!(union.is_large() && filters.iter().all(|of| union.includes(of)));
            let wrong = absent.iter().filter(|address| union.may_hold(**address)).count();
            let json = serde_json::to_vec(&union).unwrap();
            let packed = zstd::encode_all(&json[..], 3).unwrap().len();
            println!(
                "{} addresses: {packed} bytes in a manifest, {wrong} of 20,000 wrong",
                parts << 15
            );
            assert!(wrong <= at_most, "{parts}: {wrong}");
            assert!(packed < (parts << 15) as usize * 2, "{parts}: {packed}");
            assert_eq!(serde_json::from_slice::<TermFilter>(&json).unwrap(), union);
        }
        let of = |part: u32| TermFilter::of(addresses(part << 20, MAX_VALUES as u32)).unwrap();
        let too_many: Vec<_> = (0..9).map(of).collect();
        assert_eq!(TermFilter::union(&too_many), None);
    }

    #[test]
    fn filter_of_no_addresses_matches_none() {
        let filter = TermFilter::of([[0_u8; 0]; 0]).expect("none");
        assert!(!filter.may_hold(Address::v4([10, 0, 0, 1])));
        assert_eq!(serde_json::to_string(&filter).unwrap(), "\"\"");
    }

    #[test]
    fn damage_is_refused() {
        // Half a byte, no hex, no text, an end in the middle, five bytes, one twice, one too large.
        for damaged in
            ["\"0\"", "\"zz\"", "5", "\"80\"", "\"8080808001\"", "\"0500\"", "\"80808008\""]
        {
            assert!(serde_json::from_str::<TermFilter>(damaged).is_err(), "{damaged}");
        }
        let largest: TermFilter = serde_json::from_str("\"ffffff07\"").unwrap();
        assert_eq!(largest.fingerprints, [END - 1]);
    }

    #[test]
    fn the_fingerprint_of_one_address_never_changes() {
        // Stored filters depend on it.
        let filter = TermFilter::of([Address::v4([10, 0, 0, 1])]).expect("one");
        // Worked out from the description above with other tools.
        assert_eq!(serde_json::to_value(&filter).unwrap(), "8edfcd05");
    }

    proptest! {
        #[test]
        fn union_of_filters_matches_both_and_round_trips_through_json(
            sets in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..50), 0..5)
        ) {
            let of = |set: &Vec<u32>| {
                let addresses: Vec<_> =
                    set.iter().map(|number| Address::v4(number.to_be_bytes())).collect();
                TermFilter::of(&addresses).expect("not too many")
            };
            let filters: Vec<_> = sets.iter().map(of).collect();
            let union = TermFilter::union(&filters).expect("not too many");
            prop_assert!(filters.iter().all(|filter| union.includes(filter)));
            prop_assert_eq!(&union, &of(&sets.concat()));
            let json = serde_json::to_string(&union).unwrap();
            prop_assert_eq!(serde_json::from_str::<TermFilter>(&json).unwrap(), union);
        }

        #[test]
        fn hostile_filter_bytes_are_refused_or_round_trip(bytes: Vec<u8>) {
            if let Some(filter) = TermFilter::from_bytes(&bytes) {
                let again = TermFilter::from_bytes(&filter.to_bytes());
                prop_assert_eq!(again, Some(filter));
            }
        }
    }
}
