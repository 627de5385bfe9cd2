//! Flows and their parts.

use std::fmt;

use crate::address::Address;
use crate::id::FlowId;
use crate::identity::Identity;
use crate::link::LinkType;
use crate::protocol::Protocol;
use crate::time::Time;

/// Direction of a packet in its flow. The number indexes the `[_; 2]` counters of [`FlowPart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From the flow's source (its initiator, as far as known) to its destination.
    Forward = 0,
    /// The reverse.
    Backward = 1,
}

impl Direction {
    /// The opposite direction.
    pub fn reverse(self) -> Direction {
        match self {
            Direction::Forward => Direction::Backward,
            Direction::Backward => Direction::Forward,
        }
    }
}

/// How a flow ended, as far as observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum FlowEnd {
    /// Still open when the part was sealed.
    #[default]
    Open = 0,
    /// FIN in both directions.
    Fin = 1,
    /// RST.
    Reset = 2,
    /// No packet within the time-out.
    Timeout = 3,
    /// A new connection reused its addresses and ports before its end was observed.
    Replaced = 4,
    /// Evicted from a full flow table.
    Evicted = 5,
}

impl FlowEnd {
    /// Every way to end, by number.
    pub const ALL: [FlowEnd; 6] = [
        FlowEnd::Open,
        FlowEnd::Fin,
        FlowEnd::Reset,
        FlowEnd::Timeout,
        FlowEnd::Replaced,
        FlowEnd::Evicted,
    ];

    /// The name used in SQL.
    pub fn name(self) -> &'static str {
        match self {
            FlowEnd::Open => "open",
            FlowEnd::Fin => "fin",
            FlowEnd::Reset => "reset",
            FlowEnd::Timeout => "timeout",
            FlowEnd::Replaced => "replaced",
            FlowEnd::Evicted => "evicted",
        }
    }
}

impl fmt::Display for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The flow key: addresses, ports and protocol. The same in all parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowKey {
    /// The initiator, as far as known.
    pub source: Address,
    /// The other end.
    pub destination: Address,
    /// 0 where there are no ports.
    pub source_port: u16,
    /// 0 where there are no ports.
    pub destination_port: u16,
    /// IP protocol number; 0 for what is not IP.
    pub ip_protocol: u8,
    /// Innermost VLAN identifier.
    pub vlan: Option<u16>,
    /// Innermost virtual network identifier.
    pub vni: Option<u32>,
    /// The last ethertype; tells pseudo-flows of non-IP packets apart.
    pub ethertype: u16,
    /// For a pseudo-flow the link type and interface belong to the key.
    pub pseudo: Option<(LinkType, u32)>,
    /// For fragments without their first fragment: the datagram's identification.
    pub fragment_id: Option<u32>,
}

impl FlowKey {
    /// The key with source and destination swapped.
    #[must_use]
    pub fn reversed(self) -> FlowKey {
        FlowKey {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
}

/// The part of one flow in one segment. A row of `flows.parquet`.
///
/// Each counter has a merge rule for parts of one flow: *sum*, *min*, *max*, *or*, *first* or *last*
/// (of the parts in time order).
#[derive(Debug, Clone, PartialEq)]
pub struct FlowPart {
    /// The same in all segments of the flow.
    pub id: FlowId,
    /// The flow key. *first*.
    pub key: FlowKey,
    /// Ends of the outermost IP header, if tunnelled. *first*.
    pub outer: Option<(Address, Address)>,
    /// The application protocol label. *last that is not unknown*.
    pub protocol: Protocol,
    /// TLS server name, as the client sent it. *first that is set*.
    pub sni: Option<String>,
    /// TLS application protocol offered first by the client. *first that is set*.
    pub alpn: Option<String>,
    /// Earliest packet; none if no packet has a time. *min*.
    pub first: Option<Time>,
    /// Latest packet. *max*.
    pub last: Option<Time>,
    /// Packets each way. *sum*.
    pub packets: [u64; 2],
    /// Bytes on the wire each way, link header included. *sum*.
    pub bytes: [u64; 2],
    /// Transport payload bytes on the wire each way. *sum*.
    pub payload: [u64; 2],
    /// TCP flags seen each way. *or*.
    pub tcp_flags: [u8; 2],
    /// This part holds the flow's first packet. *or*.
    pub opened: bool,
    /// How the flow ended, if it ended in this part. *last*.
    pub end: FlowEnd,
    /// Who source and destination are; none if nothing is known of either.
    pub identity: Option<Box<[Identity; 2]>>,
}

impl FlowPart {
    /// An empty part.
    pub fn new(id: FlowId, key: FlowKey) -> Self {
        FlowPart {
            id,
            key,
            outer: None,
            protocol: Protocol::Unknown,
            sni: None,
            alpn: None,
            first: None,
            last: None,
            packets: [0; 2],
            bytes: [0; 2],
            payload: [0; 2],
            tcp_flags: [0; 2],
            opened: false,
            end: FlowEnd::Open,
            identity: None,
        }
    }

    /// Swaps source and destination, and so the directions.
    pub fn turn(&mut self) {
        self.key = self.key.reversed();
        self.packets.reverse();
        self.bytes.reverse();
        self.payload.reverse();
        self.tcp_flags.reverse();
        if let Some(identity) = &mut self.identity {
            identity.reverse();
        }
    }

    /// Counts one packet.
    #[inline]
    pub fn count(
        &mut self,
        direction: Direction,
        time: Option<Time>,
        length: u32,
        payload: u32,
        flags: u8,
    ) {
        let way = direction as usize;
        self.packets[way] += 1;
        self.bytes[way] += u64::from(length);
        self.payload[way] += u64::from(payload);
        self.tcp_flags[way] |= flags;
        if let Some(time) = time {
            self.first = Some(self.first.map_or(time, |first| first.min(time)));
            self.last = Some(self.last.map_or(time, |last| last.max(time)));
        }
    }
}
