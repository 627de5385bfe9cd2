//! Decodes the front of a packet into one record: the flow key, the length of the decoded headers,
//! and the offsets of fields that the segment format keeps in columns.

mod encapsulation;
mod pieces;
mod tunnels;
pub use pieces::first_fragments;
pub use tunnels::tunnels;

use capstan_model::headers::{Field, FieldKind, MAX_FIELDS, Network, Outer, Tunnel};
use capstan_model::{Address, Headers, LinkType};

use crate::walk::{Header, HeaderKind, Stop, Visit, Walk};

/// Decodes the headers at the front of `data`.
///
/// `wire_length` is the length of the packet on the wire, bytes. For a link type that is not
/// decoded the result is [`Headers::default`]: the packet has no prefix. The addresses and ports of
/// the flow and `transport_payload` come from the innermost complete IP header. A tunnel whose inner
/// packet is not understood is a flow between the ends of the tunnel.
///
/// Never allocates; reads at most [`crate::walk::MAX_HEADERS`] headers.
pub fn decode(link: LinkType, data: &[u8], wire_length: u32) -> Headers {
    let mut headers = Headers::default();
    fill(&mut headers, link, data, wire_length);
    headers
}

/// Like [`decode`], into a record of the caller: this saves a copy for each packet.
pub fn decode_into(headers: &mut Headers, link: LinkType, data: &[u8], wire_length: u32) {
    *headers = Headers::EMPTY;
    fill(headers, link, data, wire_length);
}

/// Decodes into a record in which nothing is set.
fn fill(headers: &mut Headers, link: LinkType, data: &[u8], wire_length: u32) {
    let mut walk = Walk::new(link, data, wire_length);
    let stop = walk.run(&mut Fold { headers, state: State::default() });
    // A walk stops before an offset outgrows 16 bits.
    headers.prefix = walk.offset() as u16;
    headers.ethertype = walk.ethertype();
    headers.truncated = stop == Stop::Truncated;
    headers.malformed = stop == Stop::Malformed;
}

/// The result of the headers so far.
struct Fold<'a> {
    headers: &'a mut Headers,
    state: State,
}

/// What earlier headers mean for the next one.
#[derive(Debug, Default)]
struct State {
    /// The kind of the tunnel header since the last IP header.
    tunnel: Option<Tunnel>,
    /// The next MPLS label is an entropy label.
    entropy: bool,
}

impl Visit for Fold<'_> {
    // Every call names a different kind, for which all but one arm falls away.
    #[inline(always)]
    fn header(&mut self, header: Header, limit: usize) {
        take(self.headers, header, limit, &mut self.state);
    }
}

/// An IPv4 address as it is stored, built in a register: assembled byte by byte
/// it would have to reach memory before it could be copied.
#[inline]
fn mapped(address: u32) -> Address {
    Address((0xffff_0000_0000 | u128::from(address)).to_be_bytes())
}

#[inline(always)]
fn take(headers: &mut Headers, header: Header, limit: usize, state: &mut State) {
    let Header { start, end, kind } = header;
    match kind {
        HeaderKind::Link | HeaderKind::Snap | HeaderKind::ControlWord | HeaderKind::Pppoe => {}
        HeaderKind::Mpls { label } => {
            let is_entropy = std::mem::replace(&mut state.entropy, label == ENTROPY_FOLLOWS);
            if label >= FIRST_OWN_LABEL && !is_entropy {
                headers.labels = encapsulation::label(headers.labels, label);
            }
        }
        HeaderKind::Erspan { session, vlan } => {
            headers.labels = encapsulation::session(headers.labels, session, vlan);
        }
        HeaderKind::Vlan { id } => {
            if let Some(outer) = headers.vlan.replace(id) {
                headers.encapsulation = encapsulation::vlan(headers.encapsulation, outer);
            }
        }
        HeaderKind::Arp { addresses: None } => {}
        HeaderKind::Arp { addresses: Some((sender, target)) } => {
            enter(headers, state);
            headers.network = Network::Arp;
            headers.source = Address::v4(sender);
            headers.destination = Address::v4(target);
        }
        HeaderKind::Ipv4 { source, destination, protocol, fragment } => {
            enter(headers, state);
            headers.network = Network::V4;
            headers.source = mapped(source);
            headers.destination = mapped(destination);
            headers.ip_protocol = protocol;
            headers.datagram_protocol = protocol;
            headers.fragment = fragment;
            headers.push_fields([
                (FieldKind::Ipv4Length, start + 2),
                (FieldKind::IpId, start + 4),
                (FieldKind::Ipv4Checksum, start + 10),
            ]);
        }
        HeaderKind::Ipv6 { source, destination, protocol } => {
            enter(headers, state);
            headers.network = Network::V6;
            headers.source = Address::v6(source);
            headers.destination = Address::v6(destination);
            headers.ip_protocol = protocol;
            headers.push_field(FieldKind::Ipv6Length, start + 4);
        }
        HeaderKind::Extension { protocol } => headers.ip_protocol = protocol,
        HeaderKind::FragmentExtension { protocol, fragment } => {
            headers.ip_protocol = protocol;
            headers.fragment = fragment;
        }
        HeaderKind::Tcp { source_port, destination_port, tcp, timestamp } => {
            transport(headers, (source_port, destination_port), limit, end);
            headers.tcp = Some(tcp);
            headers.push_fields([
                (FieldKind::TcpSeq, start + 4),
                (FieldKind::TcpAck, start + 8),
                (FieldKind::TcpFlags, start + 13),
                (FieldKind::TcpWindow, start + 14),
                (FieldKind::Checksum, start + 16),
            ]);
            if let Some(at) = timestamp {
                headers.push_fields([(FieldKind::TcpTimestamp, at), (FieldKind::TcpEcho, at + 4)]);
            }
        }
        HeaderKind::Udp { source_port, destination_port } => {
            transport(headers, (source_port, destination_port), limit, end);
            headers
                .push_fields([(FieldKind::UdpLength, start + 4), (FieldKind::Checksum, start + 6)]);
        }
        HeaderKind::Sctp { source_port, destination_port } => {
            transport(headers, (source_port, destination_port), limit, end);
        }
        HeaderKind::Ports { source_port, destination_port } => {
            (headers.source_port, headers.destination_port) = (source_port, destination_port);
        }
        HeaderKind::Icmp { echo } => {
            let identifier = echo.unwrap_or(0);
            transport(headers, (identifier, identifier), limit, end);
            headers.push_field(FieldKind::Checksum, start + 2);
        }
        HeaderKind::Vxlan { vni } => carry(headers, state, Tunnel::Vxlan, Some(vni)),
        HeaderKind::Geneve { vni } => carry(headers, state, Tunnel::Geneve, Some(vni)),
        HeaderKind::Gre { key } => carry(headers, state, Tunnel::Gre, key),
    }
}

/// Notes the transport of the innermost IP packet so far.
#[inline]
fn transport(headers: &mut Headers, ports: (u16, u16), limit: usize, end: usize) {
    (headers.source_port, headers.destination_port) = ports;
    headers.transport_payload = u32::try_from(limit.saturating_sub(end)).unwrap_or(u32::MAX);
}

/// The first label that is not special-purpose (RFC 7274). Special-purpose labels do not distinguish networks.
const FIRST_OWN_LABEL: u32 = 16;

/// The label that announces an entropy label, which is a hash of the flow (RFC 6790).
const ENTROPY_FOLLOWS: u32 = 7;

/// Notes a tunnel header: whatever network comes next is inside it.
fn carry(headers: &mut Headers, state: &mut State, kind: Tunnel, vni: Option<u32>) {
    state.tunnel = Some(kind);
    put_vni(headers, vni);
}

/// Makes `vni` the innermost network identifier.
fn put_vni(headers: &mut Headers, vni: Option<u32>) {
    if let Some(outer) = std::mem::replace(&mut headers.vni, vni) {
        headers.labels = encapsulation::vni(headers.labels, outer);
    }
}

/// Begins a network header. If there was one before, it was that of a tunnel.
#[inline]
fn enter(headers: &mut Headers, state: &mut State) {
    if matches!(headers.network, Network::V4 | Network::V6) {
        step_inside(headers, state.tunnel.take());
    }
}

/// Makes the headers so far the outer ones.
#[cold]
fn step_inside(headers: &mut Headers, tunnel: Option<Tunnel>) {
    if tunnel.is_none() {
        put_vni(headers, None);
    }
    let kind = tunnel.unwrap_or(Tunnel::IpInIp);
    let outermost = Outer {
        source: headers.source,
        destination: headers.destination,
        source_port: headers.source_port,
        destination_port: headers.destination_port,
        tunnel: kind,
    };
    headers.between = headers.outer.is_some();
    headers.outer = Some(Outer { tunnel: kind, ..headers.outer.unwrap_or(outermost) });
    headers.encapsulation =
        encapsulation::ends(headers.encapsulation, kind, headers.source, headers.destination);
    headers.outer_fragments |= headers.fragment.is_some();
    rename_fields(headers);
    headers.ip_protocol = 0;
    headers.datagram_protocol = 0;
    headers.source_port = 0;
    headers.destination_port = 0;
    headers.fragment = None;
    headers.transport_payload = 0;
}

/// The fields of the first IP and UDP header become the outer ones; those of
/// headers between it and the innermost stay literal.
fn rename_fields(headers: &mut Headers) {
    let mut before = [Field { kind: FieldKind::Ipv4Length, offset: 0 }; MAX_FIELDS];
    let count = headers.fields().len();
    before[..count].copy_from_slice(headers.fields());
    headers.truncate_fields(0);
    for field in &before[..count] {
        let kind = match field.kind {
            FieldKind::IpId => FieldKind::OuterIpId,
            FieldKind::Checksum => FieldKind::OuterChecksum,
            other => other,
        };
        let is_computed = kind < FieldKind::IpId;
        if is_computed || headers.fields().iter().all(|named| named.kind != kind) {
            headers.push_field(kind, usize::from(field.offset));
        }
    }
}

#[cfg(test)]
mod tests;
