//! Keys of the flow table, and the choice of a flow's source.

use std::hash::BuildHasher;

use capstan_model::headers::{Network, tcp_flags};
use capstan_model::{FlowKey, Headers, LinkType};
use foldhash::fast::RandomState;

/// A flow key without direction: the lower (address, port) comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    low: u128,
    high: u128,
    /// Low port, high port, the innermost VLAN plus one (0 for none), IP protocol, kind of the rest.
    ports: u64,
    /// See [`Headers::encapsulation`].
    encapsulation: u64,
    /// Fragment id, or link type, ethertype and interface of a pseudo-flow.
    rest: u64,
}

impl Key {
    /// The key of a packet, and whether its source is the low end. `fragment` is
    /// the datagram's identification when the ports are not known.
    pub(super) fn of(
        headers: &Headers,
        link_type: LinkType,
        interface: u32,
        fragment: Option<u32>,
    ) -> (Key, bool) {
        let source = (u128::from_be_bytes(headers.source.0), headers.source_port);
        let destination = (u128::from_be_bytes(headers.destination.0), headers.destination_port);
        let source_low = source <= destination;
        let (low, high) = if source_low { (source, destination) } else { (destination, source) };
        let (kind, rest) = match (headers.network, fragment) {
            (Network::None, _) => {
                let pseudo = u64::from(link_type.0) << 48
                    | u64::from(headers.ethertype) << 32
                    | u64::from(interface);
                (1_u64, pseudo)
            }
            (Network::Arp, _) => (2, 0),
            (_, Some(id)) => (3, u64::from(id)),
            _ => (0, 0),
        };
        let key = Key {
            low: low.0,
            high: high.0,
            ports: u64::from(low.1) << 48
                | u64::from(high.1) << 32
                | headers.vlan.map_or(0, |vlan| u64::from(vlan & 0x0fff) + 1) << 16
                | u64::from(headers.ip_protocol) << 8
                | kind,
            encapsulation: headers.encapsulation,
            rest,
        };
        (key, source_low)
    }

    /// The hash of this key and circuit.
    #[inline]
    pub(super) fn hash(&self, hasher: &RandomState, circuit: u64) -> u64 {
        // One value less to hash per packet. A sender who controls all three values can make only a
        // few collide.
        let around = self.rest ^ self.encapsulation.rotate_left(32) ^ circuit;
        hasher.hash_one((self.low, self.high, self.ports, around))
    }

    /// Whether both ends are known. False for fragments without ports and for packets without a
    /// network layer.
    pub(super) fn is_of_two_ends(&self) -> bool {
        self.ports & 0xff == 0
    }

    /// The stored flow key, given the packet that opened the flow.
    pub(super) fn flow_key(
        &self,
        headers: &Headers,
        link_type: LinkType,
        interface: u32,
        from_source: bool,
    ) -> FlowKey {
        let pseudo = headers.network == Network::None;
        let ends = [
            (headers.source, headers.source_port),
            (headers.destination, headers.destination_port),
        ];
        let [source, destination] = if from_source { ends } else { [ends[1], ends[0]] };
        let kind = self.ports & 0xff;
        FlowKey {
            source: source.0,
            destination: destination.0,
            source_port: source.1,
            destination_port: destination.1,
            ip_protocol: headers.ip_protocol,
            vlan: headers.vlan,
            vni: headers.vni,
            ethertype: headers.ethertype,
            pseudo: pseudo.then_some((link_type, interface)),
            fragment_id: (kind == 3).then_some(self.rest as u32),
        }
    }
}

/// The circuit: the innermost tunnel's network identifier and [`Headers::labels`]. It tells flows
/// with one key apart and may differ between the directions of one flow. 0 if there is none.
#[inline]
pub(super) fn circuit(headers: &Headers) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let vni = headers.vni.map_or(0, |vni| u64::from(vni) + 1);
    headers.labels.wrapping_add(vni.wrapping_mul(SPREAD))
}

/// First ephemeral (client) port. RFC 6335 says 49152, Linux starts at 32768.
const EPHEMERAL: u16 = 32_768;

/// Whether the sender of a flow's first packet is the flow's source.
pub(super) fn sent_by_source(headers: &Headers) -> bool {
    if let Some(tcp) = headers.tcp
        && tcp.flags & tcp_flags::SYN != 0
    {
        return tcp.flags & tcp_flags::ACK == 0;
    }
    let answers = headers.source_port != 0
        && headers.source_port < EPHEMERAL
        && headers.destination_port >= EPHEMERAL;
    !answers
}
