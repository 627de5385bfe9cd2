//! Decoding of real packets: against another decoder, and cut at every byte.

#![allow(clippy::unwrap_used)] // Of a test, all of it.

mod captures;

use std::collections::BTreeMap;

use capstan_dissect::decode;
use capstan_dissect::walk::{HeaderKind, Stop, Walk};
use capstan_model::headers::{FieldKind, Network};
use capstan_model::{Address, Headers, LinkType};
use captures::Packet;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// The outermost IP header and the transport right inside it, as etherparse,
/// which knows no tunnels, sees a packet too.
#[derive(Debug, PartialEq, Eq, Default)]
struct Outermost {
    addresses: Option<(Address, Address)>,
    ports: Option<(u16, u16)>,
}

fn ours(packet: &Packet) -> Outermost {
    let mut found = Outermost::default();
    for header in Walk::new(packet.link, &packet.data, packet.wire_length) {
        let addresses = match header.kind {
            HeaderKind::Ipv4 { source, destination, .. } => {
                let address = |number: u32| Address::v4(number.to_be_bytes());
                Some((address(source), address(destination)))
            }
            HeaderKind::Ipv6 { source, destination, .. } => {
                Some((Address::v6(source), Address::v6(destination)))
            }
            HeaderKind::Tcp { source_port, destination_port, .. }
            | HeaderKind::Udp { source_port, destination_port } => {
                found.ports = Some((source_port, destination_port));
                break;
            }
            _ => None,
        };
        match (found.addresses, addresses) {
            (Some(_), Some(_)) => break,
            (None, Some(_)) => found.addresses = addresses,
            _ => {}
        }
    }
    found
}

/// None where etherparse does not know the link type.
fn theirs(packet: &Packet) -> Option<Outermost> {
    let sliced = match packet.link {
        LinkType::ETHERNET => LaxSlicedPacket::from_ethernet(&packet.data).ok(),
        LinkType::RAW | LinkType::IPV4 | LinkType::IPV6 => {
            LaxSlicedPacket::from_ip(&packet.data).ok()
        }
        _ => return None,
    };
    let Some(sliced) = sliced else {
        return Some(Outermost::default());
    };
    let addresses = match sliced.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            Some((Address::v4(header.source()), Address::v4(header.destination())))
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            Some((Address::v6(header.source()), Address::v6(header.destination())))
        }
        _ => None,
    };
    let ports = match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    };
    Some(Outermost { addresses, ports })
}

/// Why etherparse may see something else, if it may.
fn reason(packet: &Packet, ours: &Outermost, theirs: &Outermost) -> Option<&'static str> {
    const MACSEC: [u8; 2] = [0x88, 0xe5];
    let mut walk = Walk::new(packet.link, &packet.data, packet.wire_length);
    let headers: Vec<_> = walk.by_ref().collect();
    let has = |wanted: fn(&HeaderKind) -> bool| headers.iter().any(|header| wanted(&header.kind));
    let more_here = theirs.addresses.is_none() || theirs.ports.is_none();
    let more_there = ours.addresses.is_none() || ours.ports.is_none();
    if more_here
        && has(|kind| {
            matches!(kind, HeaderKind::Mpls { .. } | HeaderKind::Pppoe | HeaderKind::Snap)
        })
    {
        return Some("it knows no MPLS, PPPoE and SNAP");
    }
    let is_fragment = has(|kind| {
        matches!(
            kind,
            HeaderKind::Ipv4 { fragment: Some(_), .. }
                | HeaderKind::FragmentExtension { fragment: Some(_), .. }
        )
    });
    if more_here && is_fragment {
        return Some("it reads no ports in first fragments");
    }
    if more_there && packet.data.get(12..14) == Some(&MACSEC) {
        return Some("it looks behind MACsec tags");
    }
    if more_there && walk.state() == Err(Stop::Malformed) {
        return Some("it goes on where lengths contradict each other");
    }
    None
}

#[test]
fn etherparse_sees_the_same_addresses_and_ports() {
    let Some(folder) = captures::folder() else {
        return;
    };
    let mut compared = 0;
    let mut unexplained = Vec::new();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, packets) in captures::files(&folder) {
        for packet in &packets {
            let Some(theirs) = theirs(packet) else {
                continue;
            };
            compared += 1;
            let ours = ours(packet);
            if ours == theirs {
                continue;
            }
            match reason(packet, &ours, &theirs) {
                Some(reason) => *reasons.entry(reason).or_default() += 1,
                None => unexplained.push(format!("{name} {} {ours:?} {theirs:?}", packet.number)),
            }
        }
    }
    println!("{compared} packets compared; differing: {reasons:#?}");
    assert!(compared > 50_000, "only {compared} packets");
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
}

/// What must hold for every packet, however it was cut.
fn check(headers: &Headers, data: &[u8]) {
    let prefix = usize::from(headers.prefix);
    assert!(prefix <= data.len());
    let mut last = 0;
    for (index, field) in headers.fields().iter().enumerate() {
        let start = usize::from(field.offset);
        assert!(start >= last, "fields overlap");
        last = start + field.kind.width();
        assert!(last <= prefix, "a field reaches past the prefix");
        let is_again = headers.fields()[..index].iter().any(|before| before.kind == field.kind);
        assert!(!is_again || field.kind < FieldKind::IpId, "{:?} twice", field.kind);
    }
    assert!(!(headers.truncated && headers.malformed));
    if headers.network == Network::None {
        assert_eq!((headers.source_port, headers.ip_protocol), (0, 0));
    }
}

#[test]
fn every_cut_of_a_real_packet_decodes_to_a_part() {
    /// Cuts behind the headers are all alike: a few bytes are enough.
    const BEHIND: usize = 8;
    let Some(folder) = captures::folder() else {
        return;
    };
    let mut whole_packets = 0;
    for (name, packets) in captures::files(&folder) {
        for packet in packets.iter().take(200) {
            whole_packets += 1;
            let whole = decode(packet.link, &packet.data, packet.wire_length);
            check(&whole, &packet.data);
            let last = packet.data.len().min(usize::from(whole.prefix) + BEHIND);
            for cut in 0..last {
                let data = &packet.data[..cut];
                let part = decode(packet.link, data, packet.data.len() as u32);
                check(&part, data);
                let number = packet.number;
                let is_part = part.prefix <= whole.prefix || part.ethertype == 0x8847;
                assert!(is_part, "{name} {number} cut at {cut}: {part:?} of {whole:?}");
            }
        }
    }
    println!("{whole_packets} packets");
}
