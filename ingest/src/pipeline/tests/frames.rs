//! Frames put together by hand, from the inside out.

use capstan_model::headers::tcp_flags;

pub(super) const SYN: u8 = tcp_flags::SYN;
pub(super) const ACK: u8 = tcp_flags::ACK;
pub(super) const FIN: u8 = tcp_flags::FIN;
pub(super) const RST: u8 = tcp_flags::RST;

/// An address by its last byte, and a port.
pub(super) type End = (u8, u16);

pub(super) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &ethertype.to_be_bytes()[..], payload].concat()
}

/// A VLAN tag round what `ethertype` names.
pub(super) fn tagged(id: u16, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &ethertype.to_be_bytes(), payload].concat()
}

/// IPv4 between `net` and two last bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct V4 {
    pub(super) net: [u8; 3],
    pub(super) id: u16,
    /// Flags and offset.
    pub(super) fragment: u16,
}

pub(super) const INNER: V4 = V4 { net: [10, 0, 0], id: 1, fragment: 0 };
pub(super) const OUTER: V4 = V4 { net: [192, 168, 0], id: 1, fragment: 0 };
pub(super) const MORE: u16 = 0x2000;

pub(super) fn ipv4(with: V4, source: u8, destination: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = 20 + payload.len() as u16;
    let V4 { net, id, fragment } = with;
    [
        &[0x45, 0][..],
        &length.to_be_bytes(),
        &id.to_be_bytes(),
        &fragment.to_be_bytes(),
        &[64, protocol, 0, 0],
        &net,
        &[source],
        &net,
        &[destination],
        payload,
    ]
    .concat()
}

pub(super) fn ipv6(source: u8, destination: u8, next: u8, payload: &[u8]) -> Vec<u8> {
    let end = |last: u8| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let length = payload.len() as u16;
    let (from, to) = (end(source), end(destination));
    [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next, 64], &from, &to, payload].concat()
}

/// An IPv6 fragment header; the offset is in bytes.
pub(super) fn fragment6(next: u8, offset: u16, more: bool, id: u32, payload: &[u8]) -> Vec<u8> {
    let word = offset | u16::from(more);
    [&[next, 0][..], &word.to_be_bytes(), &id.to_be_bytes(), payload].concat()
}

pub(super) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload]
        .concat()
}

pub(super) fn tcp(
    source: u16,
    destination: u16,
    flags: u8,
    seq: u32,
    ack: u32,
    payload: &[u8],
) -> Vec<u8> {
    [
        &source.to_be_bytes()[..],
        &destination.to_be_bytes(),
        &seq.to_be_bytes(),
        &ack.to_be_bytes(),
        &[0x50, flags, 1, 0, 0, 0, 0, 0],
        payload,
    ]
    .concat()
}

/// A UDP datagram in Ethernet and IPv4, from one end to the other.
pub(super) fn datagram(from: End, to: End, payload: &[u8]) -> Vec<u8> {
    ethernet(0x0800, &ipv4(INNER, from.0, to.0, 17, &udp(from.1, to.1, payload)))
}

pub(super) fn vxlan(vni: u32, payload: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), payload].concat()
}

pub(super) fn geneve(vni: u32, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, 0x65, 0x58][..], &(vni << 8).to_be_bytes(), payload].concat()
}

/// GRE with a key.
pub(super) fn gre(key: u32, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[0x20, 0][..], &ethertype.to_be_bytes(), &key.to_be_bytes(), payload].concat()
}

/// GRE with ERSPAN of type II.
pub(super) fn erspan(session: u16, vlan: u16, payload: &[u8]) -> Vec<u8> {
    let vlan = 0x1000 | vlan;
    [
        &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1][..],
        &vlan.to_be_bytes(),
        &session.to_be_bytes(),
        &[0; 4],
        payload,
    ]
    .concat()
}

/// An MPLS label stack, the outermost label first.
pub(super) fn mpls(labels: &[u32], payload: &[u8]) -> Vec<u8> {
    let bottom = labels.len() - 1;
    let entry = |(place, label): (usize, &u32)| {
        (label << 12 | u32::from(place == bottom) << 8 | 64).to_be_bytes()
    };
    [&labels.iter().enumerate().flat_map(entry).collect::<Vec<_>>()[..], payload].concat()
}
