//! Permanent identities.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The permanent identity of a recorder: a capturing process or an imported source.
///
/// 8 bytes: the first bytes of a SHA-256 over what makes the recorder unique (cluster, node and
/// machine id; for an import the first packet of the file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecorderId(pub u64);

/// Number of a generation of a recorder, from 1. Each start takes the next one, so two
/// generations never write one name. Only 24 bits are used (see [`FlowId`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u32);

/// One generation of one recorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GenerationId {
    /// The recorder.
    pub recorder: RecorderId,
    /// Its generation.
    pub generation: Generation,
}

/// A packet's permanent id: recorder, generation and ordinal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId {
    /// Its recorder.
    pub recorder: RecorderId,
    /// The recorder's generation.
    pub generation: Generation,
    /// Its place in capture order, from 0.
    pub ordinal: u64,
}

/// A flow's permanent id, the same in all its segments: 8 bytes recorder, 3 bytes generation, 5
/// bytes counter, all big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub [u8; 16]);

impl Generation {
    /// The largest generation a flow id has room for.
    pub const MAX: Generation = Generation((1 << 24) - 1);
}

impl GenerationId {
    /// A generation of a recorder.
    pub const fn new(recorder: RecorderId, generation: Generation) -> Self {
        GenerationId { recorder, generation }
    }
}

impl FlowId {
    /// The largest counter a flow id has room for: 2^40 - 1 flows a generation.
    pub const MAX_COUNTER: u64 = (1 << 40) - 1;

    /// Packs the three parts. `counter` beyond [`FlowId::MAX_COUNTER`] wraps,
    /// which at 10,000 new flows a second takes three and a half years of one process.
    pub fn new(recorder: RecorderId, generation: Generation, counter: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&recorder.0.to_be_bytes());
        bytes[8..11].copy_from_slice(&generation.0.to_be_bytes()[1..]);
        bytes[11..].copy_from_slice(&counter.to_be_bytes()[3..]);
        FlowId(bytes)
    }

    /// The recorder that first saw the flow.
    pub fn recorder(&self) -> RecorderId {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[..8]);
        RecorderId(u64::from_be_bytes(bytes))
    }

    /// The generation of that recorder.
    pub fn generation(&self) -> Generation {
        Generation(u32::from_be_bytes([0, self.0[8], self.0[9], self.0[10]]))
    }

    /// The flow's number within the generation.
    pub fn counter(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes[3..].copy_from_slice(&self.0[11..]);
        u64::from_be_bytes(bytes)
    }
}

impl fmt::Display for RecorderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.recorder, self.generation)
    }
}

/// As 16 hex digits.
impl Serialize for RecorderId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecorderId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// As a number.
impl Serialize for Generation {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Generation {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u32::deserialize(from).map(Generation)
    }
}

/// As 32 hex digits.
impl Serialize for FlowId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FlowId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is no flow id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a flow id is 32 lower-case hex digits")]
pub struct FlowIdError;

/// Reads what [`FlowId`] displays, and nothing else: every id has one text.
impl FromStr for FlowId {
    type Err = FlowIdError;

    fn from_str(text: &str) -> Result<Self, FlowIdError> {
        let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.as_bytes().iter().all(lower) {
            return Err(FlowIdError);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| FlowIdError)?;
        Ok(FlowId(number.to_be_bytes()))
    }
}

impl FromStr for RecorderId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(RecorderId)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_id_keeps_its_parts() {
        let id = FlowId::new(RecorderId(0x0123_4567_89ab_cdef), Generation(0x00fe_dcba), 77);
        assert_eq!(id.recorder(), RecorderId(0x0123_4567_89ab_cdef));
        assert_eq!(id.generation(), Generation(0x00fe_dcba));
        assert_eq!(id.counter(), 77);
        assert_eq!(id.to_string(), "0123456789abcdeffedcba000000004d");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "0123456789ABCDEFFEDCBA000000004D", "+123456789abcdeffedcba000000004d"] {
            assert_eq!(wrong.parse::<FlowId>(), Err(FlowIdError));
        }
    }

    #[test]
    fn flow_ids_of_one_generation_sort_by_counter() {
        let of = |counter| FlowId::new(RecorderId(1), Generation(2), counter);
        assert!(of(255) < of(256));
        assert_eq!(of(FlowId::MAX_COUNTER).counter(), FlowId::MAX_COUNTER);
    }
}
