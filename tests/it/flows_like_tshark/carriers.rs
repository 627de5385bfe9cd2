//! What carries packets and tshark opens, but Capstan keeps as payload: odd link
//! types, ICMP errors, and the tunnels of mobile and wireless networks.

use capstan_dissect::walk::Next;
use capstan_model::LinkType;

/// Link types beside those the walk decodes: what comes next, and where.
pub(crate) fn link(link: LinkType, data: &[u8]) -> Option<(Next, usize)> {
    match link.0 {
        // Cisco HDLC is one of the framings of this one.
        104 => Some((Next::Link(LinkType::PPP_HDLC), 0)),
        // Token Ring: a set top bit of the source address announces a route.
        6 => {
            let has_route = data.get(8)? & 0x80 != 0;
            let route = if has_route { usize::from(data.get(14)? & 0x1f) } else { 0 };
            Some((Next::Llc, 14 + route))
        }
        // FDDI.
        10 => Some((Next::Llc, 13)),
        // Linux ARCNET: IP of RFC 1051, or of RFC 1201 with three bytes more.
        129 => match data.get(4)? {
            0xf0 => Some((Next::Ipv4, 5)),
            0xd4 => Some((Next::Ipv4, 8)),
            _ => None,
        },
        // PPI: its length, and the link type of what follows.
        192 => {
            let length = usize::from(u16::from_le_bytes(part(data, 2)?));
            let inner = u16::try_from(u32::from_le_bytes(part(data, 4)?)).ok()?;
            Some((Next::Link(LinkType(inner)), length))
        }
        // NFLOG: options, of which number 9 is the packet.
        239 => {
            let mut at = 4;
            loop {
                let length = usize::from(u16::from_le_bytes(part(data, at)?));
                if u16::from_le_bytes(part(data, at + 2)?) == 9 {
                    return Some((Next::Ip, at + 4));
                }
                at += length.max(4).next_multiple_of(4);
            }
        }
        // IP over InfiniBand: a global routing header, then an ethertype.
        242 => Some((Next::Ethertype(be16(data, 40)?), 44)),
        // PKTAP: its length, and the link type of what follows.
        258 => {
            let length = usize::try_from(u32::from_le_bytes(part(data, 0)?)).ok()?;
            let inner = u16::try_from(u32::from_le_bytes(part(data, 8)?)).ok()?;
            Some((Next::Link(LinkType(inner)), length))
        }
        _ => None,
    }
}

/// What `bytes`, of which the walk knows only `next`, carry and where.
pub(crate) fn inside(next: Next, bytes: &[u8]) -> Option<(Next, usize)> {
    match next {
        Next::Ipv4Payload(1) => {
            // Unreachable, source quench, redirect, time exceeded, bad parameter.
            matches!(bytes.first()?, 3 | 4 | 5 | 11 | 12).then_some((Next::Ipv4, 8))
        }
        Next::Ipv6Payload(58) => matches!(bytes.first()?, 1..=4).then_some((Next::Ipv6, 8)),
        // PIM version 2 register.
        Next::Ipv4Payload(103) | Next::Ipv6Payload(103) => {
            (bytes.first()? == &0x21).then_some((Next::Ip, 8))
        }
        Next::Ipv4Payload(17) | Next::Ipv6Payload(17) => {
            let ports = [be16(bytes, 0)?, be16(bytes, 2)?];
            let (next, at) = in_datagram(ports, bytes.get(8..)?)?;
            Some((next, at + 8))
        }
        // GRE: WCCP's redirect header, Aruba's 802.11 frames.
        Next::Ethertype(0x883e) => Some((Next::Ip, 4)),
        Next::Ethertype(0x8200) => wireless(bytes, false),
        // 802.1BR E-tag, network service header.
        Next::Ethertype(0x893f) => Some((Next::Ethertype(be16(bytes, 6)?), 8)),
        Next::Ethertype(0x894f) => service_header(bytes),
        _ => None,
    }
}

fn in_datagram(ports: [u16; 2], payload: &[u8]) -> Option<(Next, usize)> {
    if ports.contains(&2152) {
        return gtp(payload);
    }
    if ports.contains(&4790) {
        // VXLAN-GPE: the last byte of the first word says what follows.
        let (next, at) = match payload.get(3)? {
            1 => (Next::Ipv4, 0),
            2 => (Next::Ipv6, 0),
            3 => (Next::Ethernet, 0),
            4 => service_header(payload.get(8..)?)?,
            _ => return None,
        };
        return Some((next, at + 8));
    }
    if ports.contains(&5072) {
        // AYIYA: lengths of identity and signature are in the first two bytes.
        let identity = 1_usize << (payload.first()? >> 4);
        let signature = usize::from(payload.get(1)? >> 4) * 4;
        return (payload.get(3)? == &41).then_some((Next::Ipv6, 8 + identity + signature));
    }
    if ports.contains(&4342) {
        // LISP: an encapsulated control message.
        return (payload.first()? >> 4 == 8).then_some((Next::Ip, 4));
    }
    if ports.contains(&5247) {
        // CAPWAP data: the header's length in words, and whether it is 802.11 inside.
        let flags = be16(payload, 1)?;
        let length = usize::from(flags >> 11) * 4;
        return match (payload.first()?, flags & 1) {
            (0, 0) => Some((Next::Ethernet, length)),
            (0, _) => {
                let (next, at) = wireless(payload.get(length..)?, true)?;
                Some((next, length + at))
            }
            _ => None,
        };
    }
    None
}

/// GTP version 1, a user's packet, with its extension headers (TS 29.281).
fn gtp(payload: &[u8]) -> Option<(Next, usize)> {
    const USER_PACKET: u8 = 255;
    let flags = *payload.first()?;
    if flags >> 4 != 3 || *payload.get(1)? != USER_PACKET {
        return None;
    }
    let mut at = 8;
    if flags & 7 != 0 {
        at = 12;
        while flags & 4 != 0 && *payload.get(at - 1)? != 0 {
            at += usize::from(*payload.get(at)?).max(1) * 4;
        }
    }
    matches!(payload.get(at)? >> 4, 4 | 6).then_some((Next::Ip, at))
}

/// Network service header (RFC 8300): its length in words, and what follows.
fn service_header(bytes: &[u8]) -> Option<(Next, usize)> {
    let length = usize::from(be16(bytes, 0)? & 0x3f) * 4;
    match bytes.get(3)? {
        1 => Some((Next::Ipv4, length)),
        2 => Some((Next::Ipv6, length)),
        3 => Some((Next::Ethernet, length)),
        _ => None,
    }
}

/// An IEEE 802.11 data frame in the clear; CAPWAP swaps its first two bytes.
fn wireless(frame: &[u8], is_swapped: bool) -> Option<(Next, usize)> {
    const PROTECTED: u8 = 0x40;
    const BOTH_WAYS: u8 = 0x03;
    let first: [u8; 2] = part(frame, 0)?;
    let [control, flags] = if is_swapped { [first[1], first[0]] } else { first };
    let is_data = control & 0x0c == 0x08;
    // Of the data subtypes, those with bit 6 carry none.
    if !is_data || control & 0x40 != 0 || flags & PROTECTED != 0 {
        return None;
    }
    let fourth_address = if flags & BOTH_WAYS == BOTH_WAYS { 6 } else { 0 };
    let quality_of_service = if control & 0x80 != 0 { 2 } else { 0 };
    Some((Next::Llc, 24 + fourth_address + quality_of_service))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    part(bytes, at).map(u16::from_be_bytes)
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
