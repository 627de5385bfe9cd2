//! Contents of a ring block: headers (`linux/if_packet.h`) and frames, which are restored in place
//! to wire format.
//!
//! The kernel stores two things outside the frame: the outermost VLAN tag and, for interfaces
//! without a known link header, everything below the network protocol. [`HEADROOM`] free bytes
//! before every frame hold them when they are restored.

use std::ops::Range;

use capstan_model::Time;
use capstan_model::bytes::{ne16, ne32};

/// Bytes reserved before each frame (`PACKET_RESERVE`): a cooked header and a tag.
pub(super) const HEADROOM: u32 = 32;

/// Bytes of a VLAN tag (IEEE 802.1Q: tag protocol and control information).
const TAG: usize = 4;
/// Bytes of the two addresses an Ethernet frame starts with; the tag follows.
const ADDRESSES: usize = 12;
/// Bytes of a version 2 cooked header (tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html).
const COOKED: usize = 20;
/// Bytes of `tpacket3_hdr`, after which the `sockaddr_ll` lies.
const HEADER: usize = 48;
/// Bytes of `sockaddr_ll`.
const ADDRESS: usize = 20;
/// The tag protocol where the kernel names none (802.1Q).
const DEFAULT_TAG_PROTOCOL: u16 = 0x8100;

/// The kind of link header of the frames of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// With an Ethernet header.
    Ethernet,
    /// With the IP header.
    Raw,
    /// With a header that the kernel removed: a cooked header replaces it.
    Cooked,
}

/// The header of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    /// Packets in it.
    pub(super) packets: u32,
    /// Offset of the first packet.
    pub(super) first: usize,
    /// Packets were dropped before the block was closed and are not yet counted.
    pub(super) losing: bool,
}

impl BlockHeader {
    /// Reads the header at the start of `block`.
    pub(super) fn read(block: &[u8]) -> Option<BlockHeader> {
        Some(BlockHeader {
            losing: ne32(block, 8)? & libc::TP_STATUS_LOSING != 0,
            packets: ne32(block, 12)?,
            first: ne32(block, 16)? as usize,
        })
    }
}

/// A packet in a block: its header, decoded, and where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// From this packet's header to the next one's, bytes; 0 in the last.
    pub(super) next: usize,
    /// The time stamp of the kernel.
    pub(super) time: Time,
    /// Its length on the wire, bytes.
    pub(super) length: u32,
    /// The direction or reception type (`PACKET_OUTGOING`, ...).
    pub(super) kind: u8,
    /// Where its captured bytes are in the block.
    start: usize,
    captured: usize,
    /// The VLAN tag that the kernel removed: tag protocol, control information.
    tag: Option<(u16, u16)>,
    /// The `sockaddr_ll`: the origin of the packet.
    address: [u8; ADDRESS],
}

impl Frame {
    /// Reads the packet header at `at`. None if it does not lie in the block.
    pub(super) fn read(block: &[u8], at: usize) -> Option<Frame> {
        let header = block.get(at..at.checked_add(HEADER + ADDRESS)?)?;
        let seconds = i64::from(ne32(header, 4)?);
        let nanos = i64::from(ne32(header, 8)?);
        let captured = ne32(header, 12)? as usize;
        let status = ne32(header, 20)?;
        let start = at.checked_add(usize::from(ne16(header, 24)?))?;
        if start.checked_add(captured)? > block.len() {
            return None;
        }
        let tag = (status & libc::TP_STATUS_VLAN_VALID != 0).then(|| {
            let named = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
            let protocol = if named { ne16(header, 36) } else { None };
            // The control information is 16 bits in a 32-bit field.
            (protocol.unwrap_or(DEFAULT_TAG_PROTOCOL), ne32(header, 32).unwrap_or(0) as u16)
        });
        let address: [u8; ADDRESS] = header.get(HEADER..)?.try_into().ok()?;
        Some(Frame {
            next: ne32(header, 0)? as usize,
            // u32 seconds are within the 292 years that `Time` can express.
            time: Time(seconds * 1_000_000_000 + nanos),
            length: ne32(header, 16)?,
            kind: address[10],
            start,
            captured,
            tag,
            address,
        })
    }

    /// Restores in place what the kernel removed, directly before the bytes of the frame. Returns the range of
    /// the complete frame and its length on the wire. None if the block has no room there; [`HEADROOM`] provides
    /// it.
    pub(super) fn complete(
        &self,
        block: &mut [u8],
        framing: Framing,
    ) -> Option<(Range<usize>, u32)> {
        let before = match framing {
            Framing::Ethernet => self.restore_tag(block)?,
            Framing::Raw => 0,
            Framing::Cooked => self.cook(block)?,
        };
        let whole = self.start.checked_sub(before)?..self.start + self.captured;
        Some((whole, self.length.saturating_add(before as u32)))
    }

    /// Writes the tag between the addresses and the type. Returns the number of bytes added.
    fn restore_tag(&self, block: &mut [u8]) -> Option<usize> {
        let Some((protocol, control)) = self.tag else { return Some(0) };
        if self.captured < ADDRESSES {
            return Some(0);
        }
        let room = block.get_mut(self.start.checked_sub(TAG)?..self.start + ADDRESSES)?;
        room.copy_within(TAG.., 0);
        room.get_mut(ADDRESSES..ADDRESSES + 2)?.copy_from_slice(&protocol.to_be_bytes());
        room.get_mut(ADDRESSES + 2..)?.copy_from_slice(&control.to_be_bytes());
        Some(TAG)
    }

    /// Writes a cooked header. If there was a tag, the header has the protocol of the tag, like an ethertype, and
    /// the rest of the tag follows the header.
    fn cook(&self, block: &mut [u8]) -> Option<usize> {
        let mut header = [0u8; COOKED + TAG];
        let address = &self.address;
        let index = i32::from_ne_bytes(address[4..8].try_into().ok()?);
        let hardware = u16::from_ne_bytes(address[8..10].try_into().ok()?);
        header[..2].copy_from_slice(&address[2..4]);
        header[4..8].copy_from_slice(&index.to_be_bytes());
        header[8..10].copy_from_slice(&hardware.to_be_bytes());
        header[10..COOKED].copy_from_slice(&address[10..]);
        let mut length = COOKED;
        if let Some((protocol, control)) = self.tag {
            header[..2].copy_from_slice(&protocol.to_be_bytes());
            header[COOKED..COOKED + 2].copy_from_slice(&control.to_be_bytes());
            header[COOKED + 2..].copy_from_slice(&address[2..4]);
            length += TAG;
        }
        let room = block.get_mut(self.start.checked_sub(length)?..self.start)?;
        room.copy_from_slice(header.get(..length)?);
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with one packet at 48, its bytes at 48 + 128.
    fn block_with(frame: &[u8], tag: Option<(u16, u16)>) -> Vec<u8> {
        let mut block = vec![0u8; 512];
        block[12..16].copy_from_slice(&1u32.to_ne_bytes());
        block[16..20].copy_from_slice(&48u32.to_ne_bytes());
        let packet = &mut block[48..];
        packet[4..8].copy_from_slice(&1_700_000_000u32.to_ne_bytes());
        packet[8..12].copy_from_slice(&5u32.to_ne_bytes());
        packet[12..16].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        packet[16..20].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        packet[24..26].copy_from_slice(&128u16.to_ne_bytes());
        if let Some((protocol, control)) = tag {
            let status = libc::TP_STATUS_VLAN_VALID
                | if protocol == 0 { 0 } else { libc::TP_STATUS_VLAN_TPID_VALID };
            packet[20..24].copy_from_slice(&status.to_ne_bytes());
            packet[32..36].copy_from_slice(&u32::from(control).to_ne_bytes());
            packet[36..38].copy_from_slice(&protocol.to_ne_bytes());
        }
        packet[50..52].copy_from_slice(&0x0800u16.to_be_bytes());
        packet[52..56].copy_from_slice(&7i32.to_ne_bytes());
        packet[56..58].copy_from_slice(&512u16.to_ne_bytes());
        packet[58] = 4;
        packet[59] = 6;
        packet[60..68].copy_from_slice(&[1, 2, 3, 4, 5, 6, 0, 0]);
        packet[128..128 + frame.len()].copy_from_slice(frame);
        block
    }

    fn completed(frame: &[u8], tag: Option<(u16, u16)>, framing: Framing) -> (Vec<u8>, u32) {
        let mut block = block_with(frame, tag);
        let header = BlockHeader::read(&block).unwrap();
        assert_eq!((header.packets, header.losing), (1, false));
        let read = Frame::read(&block, header.first).unwrap();
        assert_eq!(read.time, Time(1_700_000_000_000_000_005));
        let (range, length) = read.complete(&mut block, framing).unwrap();
        (block[range].to_vec(), length)
    }

    #[test]
    fn a_tag_goes_between_the_addresses_and_the_type() {
        let frame: Vec<u8> = (0..20).collect();
        let (bytes, length) = completed(&frame, Some((0x88A8, 0x6123)), Framing::Ethernet);
        assert_eq!(bytes[..12], frame[..12]);
        assert_eq!(bytes[12..16], [0x88, 0xA8, 0x61, 0x23]);
        assert_eq!(bytes[16..], frame[12..]);
        assert_eq!(length, 24);
    }

    #[test]
    fn a_tag_without_a_protocol_is_802_1q_and_a_stump_gets_none() {
        let (bytes, _) = completed(&[9; 14], Some((0, 5)), Framing::Ethernet);
        assert_eq!(bytes[12..16], [0x81, 0, 0, 5]);
        let (bytes, length) = completed(&[9; 11], Some((0, 5)), Framing::Ethernet);
        assert_eq!((bytes.as_slice(), length), ([9u8; 11].as_slice(), 11));
    }

    #[test]
    fn frames_without_a_tag_stay_as_they_are() {
        for framing in [Framing::Ethernet, Framing::Raw] {
            assert_eq!(completed(&[7; 60], None, framing), (vec![7; 60], 60));
        }
    }

    #[test]
    fn a_cooked_header_says_where_the_packet_came_from() {
        let (bytes, length) = completed(&[0x45; 30], None, Framing::Cooked);
        let header = [8, 0, 0, 0, 0, 0, 0, 7, 2, 0, 4, 6, 1, 2, 3, 4, 5, 6, 0, 0];
        assert_eq!(bytes[..20], header);
        assert_eq!((&bytes[20..], length), ([0x45; 30].as_slice(), 50));
        let (bytes, length) = completed(&[0x45; 30], Some((0x8100, 3)), Framing::Cooked);
        assert_eq!(bytes[..2], [0x81, 0]);
        assert_eq!((&bytes[20..24], length), ([0, 3, 8, 0].as_slice(), 54));
    }

    #[test]
    fn headers_that_point_outside_the_block_are_refused() {
        let good = block_with(&[1; 20], None);
        for at in [0, 4, 12, 24, 30, 511, usize::MAX - 10] {
            // Whatever is read at a wrong place, nothing panics and nothing lies outside.
            if let Some(frame) = Frame::read(&good, at) {
                assert!(frame.start + frame.captured <= good.len());
            }
        }
        let mut long = good.clone();
        long[48 + 12..48 + 16].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(Frame::read(&long, 48), None);
        assert_eq!(BlockHeader::read(&good[..10]), None);
    }
}
