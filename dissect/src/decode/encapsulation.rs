//! Hash of a flow's encapsulation. It tells flows between the same two ends in different networks apart.
//!
//! The number of values is unbounded, so a hash replaces them. It has no secret: a sender of two
//! colliding packets only merges two of its own flows.

use capstan_model::Address;
use capstan_model::headers::Tunnel;

/// What a value is, so that equal numbers of two kinds do not give the same hash.
const VLAN: u64 = 1 << 56;
const ENDS: u64 = 2 << 56;
const LABEL: u64 = 3 << 56;
const SESSION: u64 = 4 << 56;
const VNI: u64 = 5 << 56;

/// Adds an outer VLAN tag.
pub(super) fn vlan(hash: u64, id: u16) -> u64 {
    mix(hash, VLAN | u64::from(id))
}

/// Adds the ends of a tunnel: the same for both directions.
pub(super) fn ends(hash: u64, tunnel: Tunnel, one: Address, other: Address) -> u64 {
    let mut hash = mix(hash, ENDS | tunnel as u64);
    for end in [one.min(other), one.max(other)] {
        let number = u128::from_be_bytes(end.0);
        hash = mix(mix(hash, (number >> 64) as u64), number as u64);
    }
    hash
}

/// Adds an MPLS label.
pub(super) fn label(hash: u64, label: u32) -> u64 {
    mix(hash, LABEL | u64::from(label))
}

/// Adds an ERSPAN session and the VLAN its packets were seen in.
pub(super) fn session(hash: u64, session: u16, vlan: u16) -> u64 {
    mix(hash, SESSION | u64::from(session) << 16 | u64::from(vlan))
}

/// Adds the network identifier of an outer tunnel.
pub(super) fn vni(hash: u64, vni: u32) -> u64 {
    mix(hash, VNI | u64::from(vni))
}

/// Multiplies and folds, as wyhash does. Never 0, which stands for nothing.
fn mix(hash: u64, value: u64) -> u64 {
    const ONE: u64 = 0xa076_1d64_78bd_642f;
    const OTHER: u64 = 0xe703_7ed1_a0b4_28db;
    let product = u128::from(hash ^ ONE) * u128::from(value ^ OTHER);
    ((product >> 64) as u64 ^ product as u64).max(1)
}
