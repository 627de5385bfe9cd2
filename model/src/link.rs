//! Link types and capture interfaces.

use serde::{Deserialize, Serialize};

/// A link-layer type, by its LINKTYPE_ number (tcpdump.org/linktypes.html), as
/// capture files carry it. Every number is kept; only some are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: a four-byte address family in the capturing host's byte order.
    pub const NULL: LinkType = LinkType(0);
    /// Ethernet.
    pub const ETHERNET: LinkType = LinkType(1);
    /// PPP, with or without HDLC framing.
    pub const PPP: LinkType = LinkType(9);
    /// Raw IP as some BSD platforms number it in old files (DLT_RAW 12).
    pub const RAW_BSD: LinkType = LinkType(12);
    /// Raw IP as OpenBSD numbers it (DLT_RAW 14).
    pub const RAW_OPENBSD: LinkType = LinkType(14);
    /// PPP over HDLC.
    pub const PPP_HDLC: LinkType = LinkType(50);
    /// PPPoE.
    pub const PPP_ETHER: LinkType = LinkType(51);
    /// Raw IPv4 or IPv6.
    pub const RAW: LinkType = LinkType(101);
    /// OpenBSD loopback: a four-byte address family in network byte order.
    pub const LOOP: LinkType = LinkType(108);
    /// Linux "cooked" capture, version 1.
    pub const LINUX_SLL: LinkType = LinkType(113);
    /// Raw IPv4.
    pub const IPV4: LinkType = LinkType(228);
    /// Raw IPv6.
    pub const IPV6: LinkType = LinkType(229);
    /// Linux "cooked" capture, version 2.
    pub const LINUX_SLL2: LinkType = LinkType(276);
}

/// One interface (capture point) a recorder has seen, as described in the file
/// or by the kernel. Its number within the recorder's generation is its place
/// in the list, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The link type of every packet on it.
    pub link_type: LinkType,
    /// Longest captured length, bytes; 0 is unlimited.
    pub snap_length: u32,
    /// Name ("eth0"), if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Ticks a second of its time stamps in the source, as pcapng's `if_tsresol`
    /// writes it (6 = microseconds, 9 = nanoseconds, high bit: power of two).
    pub resolution: u8,
    /// Seconds that were added to its raw ticks (pcapng `if_tsoffset`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset_seconds: i64,
    /// The remaining options of the pcapng interface block, little-endian
    /// code, length, value, padding to four, as the format has it; empty if none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<u8>,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}
