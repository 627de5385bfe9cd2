//! The values of groups that are made of other values.

use capstan_model::{Address, Network};

/// Length of the wide network of an address, of 128 bits.
pub(super) fn wide_bits(address: Address) -> u8 {
    if address.ip().is_ipv4() { 96 + 16 } else { 48 }
}

/// Length of the narrow network of an address, of 128 bits.
pub(super) fn narrow_bits(address: Address) -> u8 {
    if address.ip().is_ipv4() { 96 + 24 } else { 64 }
}

/// The bytes that stand for a network in its filter: those of its first address. Each filter has networks of one
/// length for IPv4 and one for IPv6.
pub(super) fn network_value(network: Network) -> Vec<u8> {
    network.first().0.to_vec()
}

/// The parent domains of a name, as the filter of names has them: a star instead of what is before.
pub(super) fn parents(name: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let dots = (0..name.len()).filter(|place| name.get(*place) == Some(&b'.'));
    dots.filter_map(|dot| Some([b"*", name.get(dot..)?].concat()))
}

/// The parent domain of all names that end with a text; none if the text has no dot. `.example` and `p.example` have
/// the parent `*.example`.
pub(super) fn parent(suffix: &[u8]) -> Option<Vec<u8>> {
    let dot = suffix.iter().position(|byte| *byte == b'.')?;
    Some([b"*", suffix.get(dot..)?].concat())
}
