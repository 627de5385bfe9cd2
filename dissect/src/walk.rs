//! Walks a packet's headers, outermost first.
//!
//! [`Walk`] is a small state machine. It knows the type of the [`Next`] header, its offset and the
//! end of the enclosing datagram. It yields a [`Header`] for each complete and valid header. It
//! stops at the first byte that is payload, cut off or contradictory ([`Stop`]).
//!
//! [`crate::decode()`] folds a walk into one record. To decode further (an ICMP error's quoted
//! packet, a reassembled datagram), start another walk there with [`Walk::at`].

mod link;
mod network;
mod transport;
mod tunnel;

use capstan_model::LinkType;
use capstan_model::headers::Fragment;
use capstan_model::ip_protocol;

/// Maximum number of headers of one walk. Real packets have a dozen at most; a longer stack is an attempt to make
/// decoding expensive.
pub const MAX_HEADERS: u8 = 32;

/// Maximum number of IP headers of one walk, so tunnels are at most one fewer.
pub const MAX_IP_HEADERS: u8 = 8;

/// The kind of the next header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The link header of a capture with this link type.
    Link(LinkType),
    /// Ethernet (IEEE 802.3), from the destination address on.
    Ethernet,
    /// What an ethertype names. Below 0x600 it is a length, and IEEE 802.2 LLC follows.
    Ethertype(u16),
    /// IEEE 802.2 LLC.
    Llc,
    /// An MPLS label stack entry (RFC 3032).
    Mpls,
    /// What follows the last label; nothing in the packet names it.
    MplsPayload,
    /// PPP from the address field on, which may be left out (RFC 1662).
    Ppp,
    /// PPP from the protocol field on.
    PppProtocol,
    /// IPv4 or IPv6, by the version in its first four bits.
    Ip,
    /// IPv4 (RFC 791).
    Ipv4,
    /// IPv6 (RFC 8200).
    Ipv6,
    /// What an IP protocol number names, inside IPv4.
    Ipv4Payload(u8),
    /// What a next-header number names, inside IPv6.
    Ipv6Payload(u8),
    /// A UDP datagram's payload, by the port it was sent to.
    UdpPayload(u16),
    /// ERSPAN with its 8-byte header (type II).
    Erspan2,
    /// ERSPAN with its 12-byte header (type III).
    Erspan3,
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// What follows is payload, or of a kind that is not decoded.
    Payload,
    /// The packet (or what was captured of it) ends inside the next header.
    Truncated,
    /// The next header contradicts itself or the length of the datagram it is in.
    Malformed,
    /// [`MAX_HEADERS`] or [`MAX_IP_HEADERS`] were returned, or the headers are longer than a 16-bit offset can express.
    TooDeep,
}

/// One header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Offset of its first byte from the start of the data.
    pub start: usize,
    /// Offset of the first byte after it (options and extensions of its own included).
    pub end: usize,
    /// What it is.
    pub kind: HeaderKind,
}

/// The kind of a header, with the fields that are needed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderKind {
    /// Ethernet, Linux cooked, BSD loopback, PPP framing: a link header.
    Link,
    /// An IEEE 802.1Q or 802.1ad tag; `start` is at its identifier, after the
    /// ethertype that announced it.
    Vlan {
        /// VLAN identifier, 12 bits.
        id: u16,
    },
    /// IEEE 802.2 LLC with a SNAP header.
    Snap,
    /// One MPLS label stack entry.
    Mpls {
        /// The label, 20 bits.
        label: u32,
    },
    /// A pseudowire control word (RFC 4385).
    ControlWord,
    /// PPPoE session header (RFC 2516).
    Pppoe,
    /// A whole ARP or reverse ARP packet (RFC 826, 903).
    Arp {
        /// Sender's and target's protocol address, where they are IPv4.
        addresses: Option<([u8; 4], [u8; 4])>,
    },
    /// IPv4 with its options. Its addresses are numbers because those stay in
    /// registers on their way to a visitor.
    Ipv4 {
        /// Source address.
        source: u32,
        /// Destination address.
        destination: u32,
        /// Protocol number.
        protocol: u8,
        /// Set when it is a piece of a larger datagram.
        fragment: Option<Fragment>,
    },
    /// The fixed IPv6 header.
    Ipv6 {
        /// Source address.
        source: [u8; 16],
        /// Destination address.
        destination: [u8; 16],
        /// Next header.
        protocol: u8,
    },
    /// An IPv6 extension header other than a fragment header, or an
    /// authentication header (RFC 4302) in IPv4.
    Extension {
        /// Next header.
        protocol: u8,
    },
    /// An IPv6 fragment header.
    FragmentExtension {
        /// Next header.
        protocol: u8,
        /// Set when the datagram is really in pieces (RFC 6946 allows one that is not).
        fragment: Option<Fragment>,
    },
    /// TCP with its options (RFC 9293).
    Tcp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// Sequence number, acknowledgement number, flags, window.
        tcp: capstan_model::headers::Tcp,
        /// Offset of the time stamp option's value, if there is one.
        timestamp: Option<usize>,
    },
    /// UDP (RFC 768).
    Udp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
    },
    /// The SCTP common header (RFC 9260).
    Sctp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
    },
    /// The ports of a TCP, UDP or SCTP header that is cut or damaged behind them. It has no
    /// length: the header is payload.
    Ports {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
    },
    /// Type, code and checksum of ICMP or ICMPv6 (RFC 792, 4443).
    Icmp {
        /// The identifier of an echo request or reply.
        echo: Option<u16>,
    },
    /// VXLAN (RFC 7348).
    Vxlan {
        /// Network identifier, 24 bits.
        vni: u32,
    },
    /// GENEVE with its options (RFC 8926).
    Geneve {
        /// Network identifier, 24 bits.
        vni: u32,
    },
    /// GRE with its optional fields (RFC 2784, 2890; version 1: RFC 2637).
    Gre {
        /// The key of a version 0 header.
        key: Option<u32>,
    },
    /// ERSPAN inside GRE.
    Erspan {
        /// The mirror session, 10 bits.
        session: u16,
        /// The VLAN that the frame was seen in, 12 bits.
        vlan: u16,
    },
}

/// Receives the headers of a packet, outermost first.
pub trait Visit {
    /// One whole header, or the ports of one that is not. `limit` is where the innermost datagram that says its
    /// own length ends, which may be `header` itself.
    fn header(&mut self, header: Header, limit: usize);
}

/// A walk over the headers of one packet. It is an iterator that knows its position. [`Walk::run`] with a [`Visit`] costs
/// less, because the compiler makes a copy of the visitor for each kind of header.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    data: &'a [u8],
    offset: usize,
    limit: usize,
    ethertype: u16,
    headers: u8,
    ip_headers: u8,
    state: Result<Next, Stop>,
}

impl<'a> Walk<'a> {
    /// Starts at the first byte of a captured packet. `wire_length` is its length on the wire; a length below the captured
    /// one is ignored.
    #[inline]
    pub fn new(link: LinkType, data: &'a [u8], wire_length: u32) -> Self {
        let wire = usize::try_from(wire_length).unwrap_or(usize::MAX);
        Walk::at(Next::Link(link), data, 0, wire.max(data.len()))
    }

    /// Starts at `offset` inside `data` with a header that is known to be
    /// there. `limit` is where the datagram round it ends (may be past `data`).
    #[inline]
    pub fn at(next: Next, data: &'a [u8], offset: usize, limit: usize) -> Self {
        Walk { data, offset, limit, ethertype: 0, headers: 0, ip_headers: 0, state: Ok(next) }
    }

    /// Where the next header, or the payload, starts.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Where the innermost datagram that says its own length ends on the wire;
    /// may be past the data, and before it where the link pads.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The last ethertype so far, 0 if none.
    pub fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// The next header's kind, or why the walk ended.
    pub fn state(&self) -> Result<Next, Stop> {
        self.state
    }

    /// Passes every header to `visit`, and returns why the walk ended.
    #[inline]
    pub fn run(&mut self, visit: &mut impl Visit) -> Stop {
        let mut state = self.usual(visit);
        let stop = loop {
            match state {
                Ok(next) => state = self.read(next, visit),
                Err(stop) => break stop,
            }
        };
        self.state = Err(stop);
        stop
    }

    /// The fast path for nearly every packet: TCP or UDP in IPv4 in Ethernet. It calls the same functions as
    /// [`Walk::read`], with branches that a processor predicts well.
    #[inline]
    fn usual(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        if self.state != Ok(Next::Link(LinkType::ETHERNET)) {
            return self.state;
        }
        let state = self.ethernet(visit);
        if state != Ok(Next::Ethertype(link::ethertype::IPV4)) {
            return state;
        }
        match self.ipv4(visit) {
            Ok(Next::Ipv4Payload(ip_protocol::TCP)) => self.tcp(visit),
            Ok(Next::Ipv4Payload(ip_protocol::UDP)) => self.udp(visit),
            state => state,
        }
    }

    #[inline]
    fn read(&mut self, next: Next, visit: &mut impl Visit) -> Result<Next, Stop> {
        match next {
            Next::Link(link) => self.link(visit, link),
            Next::Ethernet => self.ethernet(visit),
            Next::Ethertype(ethertype) => self.by_ethertype(visit, ethertype),
            Next::Llc => self.llc(visit),
            Next::Mpls => self.mpls(visit),
            Next::MplsPayload => self.mpls_payload(visit),
            Next::Ppp => self.ppp(visit),
            Next::PppProtocol => self.ppp_protocol(visit),
            Next::Ip => self.ip(visit),
            Next::Ipv4 => self.ipv4(visit),
            Next::Ipv6 => self.ipv6(visit),
            Next::Ipv4Payload(protocol) => self.by_protocol(visit, protocol, false),
            Next::Ipv6Payload(protocol) => self.by_protocol(visit, protocol, true),
            Next::UdpPayload(port) => self.by_port(visit, port),
            Next::Erspan2 => self.erspan2(visit),
            Next::Erspan3 => self.erspan3(visit),
        }
    }

    /// The next `N` bytes, if they are captured and inside the datagram.
    #[inline]
    fn need<const N: usize>(&self) -> Result<&'a [u8; N], Stop> {
        let rest = self.data.get(self.offset..).unwrap_or_default();
        let bytes = rest.first_chunk().ok_or(Stop::Truncated)?;
        self.check(N)?;
        Ok(bytes)
    }

    /// Whether `length` more bytes are captured and inside the datagram. A header that reaches past the end of the packet
    /// is truncated, even if its datagram ends there, too.
    #[inline]
    fn check(&self, length: usize) -> Result<(), Stop> {
        let end = self.offset.saturating_add(length);
        if end > self.data.len() {
            Err(Stop::Truncated)
        } else if end > self.limit {
            Err(Stop::Malformed)
        } else {
            Ok(())
        }
    }

    /// Ends the current header after `length` bytes, which were checked, and passes it to the visitor.
    #[inline]
    fn give(
        &mut self,
        visit: &mut impl Visit,
        length: usize,
        kind: HeaderKind,
    ) -> Result<(), Stop> {
        let (start, end) = (self.offset, self.offset + length);
        if self.headers >= MAX_HEADERS || end > usize::from(u16::MAX) {
            return Err(Stop::TooDeep);
        }
        self.headers += 1;
        self.offset = end;
        visit.header(Header { start, end, kind }, self.limit);
        Ok(())
    }

    /// The byte at `at` bytes after the place, captured or not.
    #[inline]
    fn peek(&self, at: usize) -> Option<u8> {
        self.data.get(self.offset.checked_add(at)?).copied()
    }
}

impl Iterator for Walk<'_> {
    type Item = Header;

    fn next(&mut self) -> Option<Header> {
        let mut given = Given(None);
        self.state = self.read(self.state.ok()?, &mut given);
        given.0
    }
}

/// Keeps the header it is shown.
struct Given(Option<Header>);

impl Visit for Given {
    fn header(&mut self, header: Header, _limit: usize) {
        self.0 = Some(header);
    }
}

#[cfg(test)]
pub(crate) mod tests;
