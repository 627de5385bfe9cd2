//! The decoded headers of a packet: the flow key, the length of the decoded prefix, and the header
//! fields that storage can omit because they follow from others.
//!
//! `capstan-dissect` fills it in. The flow table reads the key from it, and the segment format reads
//! [`Headers::fields`].

use crate::address::Address;

/// Maximum header fields per packet in [`Headers::fields`].
pub const MAX_FIELDS: usize = 24;

/// TCP flag bits, as in the header's fourteenth byte (RFC 9293 section 3.1).
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// First sequence number.
    pub const SYN: u8 = 0x02;
    /// The connection is refused or torn down.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// A header field with its own column, or a computed value. Without it, the rest of the header is
/// the same for nearly every packet of a flow.
///
/// *Innermost* is the header of the flow key. *Outer* is any header around it. Every value is
/// big-endian on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FieldKind {
    /// IPv4 total length, 2 bytes at the field; computed from the packet's length.
    Ipv4Length = 0,
    /// IPv6 payload length, 2 bytes; computed from the packet's length.
    Ipv6Length = 1,
    /// UDP length, 2 bytes; computed from the packet's length.
    UdpLength = 2,
    /// IPv4 header checksum, 2 bytes; computed from the header.
    Ipv4Checksum = 3,
    /// Innermost IPv4 identification, 2 bytes.
    IpId = 4,
    /// Outermost IPv4 identification of a tunnel, 2 bytes.
    OuterIpId = 5,
    /// TCP sequence number, 4 bytes.
    TcpSeq = 6,
    /// TCP acknowledgement number, 4 bytes.
    TcpAck = 7,
    /// TCP flags, the 1 byte with CWR to FIN.
    TcpFlags = 8,
    /// TCP window, 2 bytes.
    TcpWindow = 9,
    /// TCP, UDP or ICMP checksum of the innermost transport, 2 bytes.
    Checksum = 10,
    /// TCP timestamp option's value, 4 bytes (RFC 7323).
    TcpTimestamp = 11,
    /// TCP timestamp option's echo reply, 4 bytes.
    TcpEcho = 12,
    /// UDP checksum of an outer header, 2 bytes.
    OuterChecksum = 13,
}

impl FieldKind {
    /// Size of the field in the header, bytes.
    pub fn width(self) -> usize {
        match self {
            FieldKind::TcpFlags => 1,
            FieldKind::TcpSeq
            | FieldKind::TcpAck
            | FieldKind::TcpTimestamp
            | FieldKind::TcpEcho => 4,
            _ => 2,
        }
    }

    /// The kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        use FieldKind::*;
        const ALL: [FieldKind; 14] = [
            Ipv4Length,
            Ipv6Length,
            UdpLength,
            Ipv4Checksum,
            IpId,
            OuterIpId,
            TcpSeq,
            TcpAck,
            TcpFlags,
            TcpWindow,
            Checksum,
            TcpTimestamp,
            TcpEcho,
            OuterChecksum,
        ];
        ALL.get(usize::from(number)).copied()
    }
}

/// The position of a [`FieldKind`]: the offset of its first byte from the packet's start.
///
/// For lengths and the IPv4 checksum this is the offset of the *field*. Its header starts 2 (IPv4
/// length), 4 (IPv6 length), 4 (UDP length) or 10 (IPv4 checksum) bytes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub kind: FieldKind,
    /// Byte offset from the start of the packet.
    pub offset: u16,
}

/// The network layer of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// Neither IP nor ARP: unknown ethertype, link type that is not decoded, damage.
    #[default]
    None,
    /// ARP for IPv4; `source` and `destination` are the sender's and target's addresses.
    Arp,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How an outer header carries the inner one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnel {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
    /// RFC 2784, 2890.
    Gre,
    /// IPv4 or IPv6 directly inside IP (protocols 4 and 41).
    IpInIp,
}

/// The outermost IP header of a tunnelled packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// Sender of the outer packet.
    pub source: Address,
    /// Receiver of the outer packet.
    pub destination: Address,
    /// UDP ports of the outer packet; 0 where the tunnel has none.
    pub source_port: u16,
    /// See `source_port`.
    pub destination_port: u16,
    /// How the inner packet is carried (the innermost tunnel's kind).
    pub tunnel: Tunnel,
}

/// A fragment of an IP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// The datagram's identification (16 bits in IPv4, 32 in IPv6).
    pub id: u32,
    /// Where the fragment's data stands in the datagram, bytes.
    pub offset: u32,
    /// More fragments follow.
    pub more: bool,
}

/// Identity of a datagram, shared by all its fragments, with its encapsulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// Sender of the datagram.
    pub source: Address,
    /// Receiver of the datagram.
    pub destination: Address,
    /// The protocol by the IPv4 header; 0 in IPv6, where it is not part of a datagram's
    /// identity (RFC 8200 section 4.5).
    pub ip_protocol: u8,
    /// Its identification.
    pub id: u32,
    /// See [`Headers::vlan`].
    pub vlan: Option<u16>,
    /// See [`Headers::vni`].
    pub vni: Option<u32>,
    /// See [`Headers::encapsulation`].
    pub encapsulation: u64,
    /// See [`Headers::labels`].
    pub labels: u64,
}

/// The fields of a TCP header that the flow table needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags, see [`tcp_flags`].
    pub flags: u8,
    /// Window as sent, unscaled.
    pub window: u16,
}

/// The decoded headers at the front of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// Bytes from the packet's start up to the end of the last understood
    /// header. What follows is payload. Never more than the captured length.
    pub prefix: u16,
    /// The last ethertype seen (0 if none).
    pub ethertype: u16,
    /// Innermost VLAN identifier (12 bits), if tagged.
    pub vlan: Option<u16>,
    /// VXLAN or GENEVE network identifier (24 bits), or GRE key, of the innermost tunnel.
    pub vni: Option<u32>,
    /// The outermost IP header, if the flow's is inside a tunnel.
    pub outer: Option<Outer>,
    /// There are IP headers between `outer` and the innermost: nested tunnels.
    pub between: bool,
    /// Hash of the encapsulation that is equal in both directions: the VLAN tags outside the
    /// innermost one, and the two ends of every tunnel, unordered. 0 if there is none.
    pub encapsulation: u64,
    /// Hash of the encapsulation that may differ by direction: MPLS labels, ERSPAN's session and
    /// VLAN, and the network identifiers of tunnels outside the innermost one. 0 if there is none.
    pub labels: u64,
    /// An outer IP packet is the first fragment of a datagram: later ones belong to this flow.
    pub outer_fragments: bool,
    /// Kind of the innermost network layer.
    pub network: Network,
    /// Innermost source.
    pub source: Address,
    /// Innermost destination.
    pub destination: Address,
    /// Innermost IP protocol (the last next-header of IPv6); 0 if none.
    pub ip_protocol: u8,
    /// TCP, UDP, SCTP source port; ICMP echo: the identifier in both ports; else 0.
    pub source_port: u16,
    /// See `source_port`.
    pub destination_port: u16,
    /// Set when the innermost IP packet is a fragment.
    pub fragment: Option<Fragment>,
    /// The protocol number in the innermost IPv4 header itself; 0 for IPv6.
    pub datagram_protocol: u8,
    /// Set when a TCP header was understood.
    pub tcp: Option<Tcp>,
    /// Bytes of the transport's payload on the wire by the IP header's own
    /// length (trailers not counted); 0 if there is no transport.
    pub transport_payload: u32,
    /// Number of valid entries in `fields`.
    field_count: u8,
    /// See [`Headers::fields`].
    fields: [Field; MAX_FIELDS],
    /// A header was cut off by the snap length or the packet's end.
    pub truncated: bool,
    /// A header contradicts itself; decoding stopped before it.
    pub malformed: bool,
}

impl Default for Headers {
    #[inline]
    fn default() -> Self {
        Headers::EMPTY
    }
}

impl Headers {
    /// Empty headers. A constant, so that a new packet takes one copy.
    pub const EMPTY: Headers = Headers {
        prefix: 0,
        ethertype: 0,
        vlan: None,
        vni: None,
        outer: None,
        between: false,
        encapsulation: 0,
        labels: 0,
        outer_fragments: false,
        network: Network::None,
        source: Address::NONE,
        destination: Address::NONE,
        ip_protocol: 0,
        source_port: 0,
        destination_port: 0,
        fragment: None,
        datagram_protocol: 0,
        tcp: None,
        transport_payload: 0,
        field_count: 0,
        fields: [Field { kind: FieldKind::Ipv4Length, offset: 0 }; MAX_FIELDS],
        truncated: false,
        malformed: false,
    };

    /// The fields of the prefix that have a column of their own or can be
    /// computed, in order of their offset. All lie wholly inside the prefix.
    pub fn fields(&self) -> &[Field] {
        &self.fields[..usize::from(self.field_count)]
    }

    /// The datagram that the innermost IP packet is a fragment of.
    pub fn datagram(&self) -> Option<Datagram> {
        let fragment = self.fragment?;
        Some(Datagram {
            source: self.source,
            destination: self.destination,
            ip_protocol: self.datagram_protocol,
            id: fragment.id,
            vlan: self.vlan,
            vni: self.vni,
            encapsulation: self.encapsulation,
            labels: self.labels,
        })
    }

    /// Adds a field. Beyond [`MAX_FIELDS`] a field stays literal, which costs bytes but loses nothing.
    #[inline]
    pub fn push_field(&mut self, kind: FieldKind, offset: usize) {
        let at = usize::from(self.field_count);
        if let (Some(slot), Ok(offset)) = (self.fields.get_mut(at), u16::try_from(offset)) {
            *slot = Field { kind, offset };
            self.field_count += 1;
        }
    }

    /// Adds several fields of one header, in order of their offset. One bounds check for all,
    /// because every packet takes this path.
    #[inline]
    pub fn push_fields<const N: usize>(&mut self, fields: [(FieldKind, usize); N]) {
        let at = usize::from(self.field_count);
        let Some(slots) = self.fields.get_mut(at..at + N) else {
            return fields.into_iter().for_each(|(kind, offset)| self.push_field(kind, offset));
        };
        let highest = fields.iter().map(|(_, offset)| *offset).max().unwrap_or(0);
        if highest > usize::from(u16::MAX) {
            return;
        }
        for (slot, (kind, offset)) in slots.iter_mut().zip(fields) {
            *slot = Field { kind, offset: offset as u16 };
        }
        self.field_count += N as u8;
    }

    /// Removes the fields from index `count` on, because their header is incomplete.
    #[inline]
    pub fn truncate_fields(&mut self, count: usize) {
        self.field_count = self.field_count.min(u8::try_from(count).unwrap_or(u8::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_numbers_round_trip() {
        for number in 0..=20 {
            if let Some(kind) = FieldKind::from_number(number) {
                assert_eq!(kind as u8, number);
            } else {
                assert!(number > FieldKind::OuterChecksum as u8);
            }
        }
    }

    #[test]
    fn too_many_fields_stay_literal() {
        let mut headers = Headers::default();
        for offset in 0..100 {
            headers.push_field(FieldKind::IpId, offset);
        }
        assert_eq!(headers.fields().len(), MAX_FIELDS);
    }
}
