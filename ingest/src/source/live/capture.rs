//! The capture of one interface: packet socket, kernel ring and counters.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use capstan_model::link::Interface;
use capstan_model::{LinkType, Time};
use capstan_storage_engine::store;

use super::frame::{BlockHeader, Frame, Framing, HEADROOM};
use super::links::Link;
use super::ring::{BlockRing, Shape};
use super::sys;

/// Raw IP over any link (`linux/if_arp.h`); libc has no name for it.
const ARPHRD_RAWIP: u16 = 519;
/// Maximum wait for the last block of an ended capture.
const LAST_BLOCK: Duration = Duration::from_secs(2);
/// Well above the time from the arrival of a packet to its place in the ring.
pub(super) const ON_ITS_WAY: Duration = Duration::from_millis(20);

/// The step of setting up a capture that failed, and its error.
#[derive(Debug)]
pub(super) struct SetupError {
    pub(super) step: &'static str,
    pub(super) source: io::Error,
}

/// A running capture on one interface.
#[derive(Debug)]
pub(super) struct Capture {
    /// The interface's number in this source's order; given by the source.
    pub(super) number: u32,
    /// Its number in the kernel when it was opened.
    pub(super) index: i32,
    /// Its name when it was opened.
    pub(super) name: String,
    /// The kind of link header of its frames.
    pub(super) framing: Framing,
    /// Each packet passes twice, outgoing and incoming: only the incoming one is kept.
    pub(super) loopback: bool,
    /// The packets.
    pub(super) ring: BlockRing,
    /// The block that comes next.
    pub(super) head: usize,
    /// Start of draining: no new packets enter the ring.
    ending: Option<Instant>,
    /// The same, by the system's clock.
    ended_at: Time,
    /// The time of the last reading of the drop counter.
    counted_at: Time,
    retire: Duration,
    socket: OwnedFd,
}

/// Kernel counters since their last reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// Packets put in the ring.
    pub(super) captured: u64,
    /// Packets for which the ring had no room.
    pub(super) dropped: u64,
    /// How often the ring became full.
    pub(super) freezes: u64,
    /// The previous reading, or the start of the capture.
    pub(super) since: Time,
    /// This reading.
    pub(super) until: Time,
}

impl Capture {
    /// Starts a capture. The socket receives nothing before its ring is ready, so every packet is
    /// either in the ring or counted as a drop.
    pub(super) fn open(
        link: &Link,
        shape: Shape,
        retire: Duration,
        promiscuous: bool,
    ) -> Result<Capture, SetupError> {
        let framing = framing(link.hardware);
        let kind = if framing == Framing::Cooked { libc::SOCK_DGRAM } else { libc::SOCK_RAW };
        let socket = step("opening a packet socket", sys::socket(libc::AF_PACKET, kind, 0))?;
        let set =
            |option: i32, value: &[u8]| sys::set_option(&socket, libc::SOL_PACKET, option, value);
        let version = (libc::tpacket_versions::TPACKET_V3 as i32).to_ne_bytes();
        step("choosing TPACKET_V3", set(libc::PACKET_VERSION, &version))?;
        step("reserving headroom", set(libc::PACKET_RESERVE, &HEADROOM.to_ne_bytes()))?;
        if link.loopback {
            // Keeps outgoing copies out of the ring and out of the drop count. Linux before 4.20 cannot:
            // there the copies are dropped later.
            let _ = set(libc::PACKET_IGNORE_OUTGOING, &1i32.to_ne_bytes());
        }
        let ring = step("allocating the capture ring", BlockRing::new(&socket, shape, retire))?;
        if promiscuous && !link.loopback {
            step("turning promiscuous mode on", set(libc::PACKET_ADD_MEMBERSHIP, &promisc(link)))?;
        }
        step("binding to the interface", sys::bind(&socket, &every_protocol(link)))?;
        Ok(Capture {
            number: 0,
            index: link.index,
            name: link.name.clone(),
            framing,
            loopback: link.loopback,
            ring,
            head: 0,
            ending: None,
            ended_at: Time::MAX,
            counted_at: store::now(),
            retire,
            socket,
        })
    }

    /// The descriptor to poll.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether a block waits to be read.
    pub(super) fn is_ready(&self) -> bool {
        self.ring.is_ours(self.head)
    }

    /// The header of the block that comes next, if it is ready.
    pub(super) fn next_block(&mut self) -> Option<BlockHeader> {
        self.ring.block(self.head).and_then(|block| BlockHeader::read(block))
    }

    /// Releases the next block and advances.
    pub(super) fn finish_block(&mut self) {
        self.ring.release(self.head);
        self.head = (self.head + 1) % self.ring.blocks();
    }

    /// The earliest time of undelivered packets in the ring, seen at `now` by the system clock. None
    /// if unknown.
    pub(super) fn unread_since(&mut self, now: Time) -> Option<Time> {
        // Reads the hint first and readiness last, so that a block that is handed over in between is noticed.
        let packets = self.ring.packets_hint(self.head);
        let first = if self.is_ready() { Some(self.first_time()?) } else { None };
        Some(unread_since(now, first, packets > 0, self.retire))
    }

    /// The time of the first packet in the block that comes next.
    fn first_time(&mut self) -> Option<Time> {
        let block = self.ring.block(self.head)?;
        let header = BlockHeader::read(block)?;
        Frame::read(block, header.first).map(|frame| frame.time)
    }

    /// Reads the kernel counters, which resets them to zero.
    pub(super) fn take_counted(&mut self) -> io::Result<Counted> {
        let since = std::mem::replace(&mut self.counted_at, store::now());
        let bytes: [u8; 12] = sys::option(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS)?;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let dropped = u64::from(u32::from_ne_bytes([e, f, g, h]));
        // The packet count of the kernel includes dropped packets.
        let seen = u64::from(u32::from_ne_bytes([a, b, c, d]));
        let freezes = u64::from(u32::from_ne_bytes([i, j, k, l]));
        let captured = seen.saturating_sub(dropped);
        Ok(Counted { captured, dropped, freezes, since, until: store::now() })
    }

    /// Takes the error of the socket (the interface went down or is gone). Otherwise every poll would report it.
    pub(super) fn clear_error(&self) -> io::Result<()> {
        sys::option::<4>(&self.socket, libc::SOL_SOCKET, libc::SO_ERROR).map(drop)
    }

    /// Whether the interface still exists. An interface that is down exists: the kernel continues when it comes
    /// up.
    pub(super) fn is_attached(&self) -> io::Result<bool> {
        let address: [u8; 8] = sys::bound_address(&self.socket)?;
        let [.., a, b, c, d] = address;
        Ok(i32::from_ne_bytes([a, b, c, d]) == self.index)
    }

    /// Stops accepting packets.
    pub(super) fn end(&mut self, now: Instant) -> io::Result<()> {
        if self.ending.is_none() {
            self.ended_at = store::now();
            sys::reject_everything(&self.socket)?;
            self.ending = Some(now);
        }
        Ok(())
    }

    /// The end of its coverage.
    pub(super) fn listened_until(&self) -> Time {
        self.ended_at.min(store::now())
    }

    /// The time up to which the number of dropped packets is known.
    pub(super) fn counted_at(&self) -> Time {
        self.counted_at
    }

    /// Whether the capture is being drained.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether it is ending and everything was read. A timer of the kernel hands over a block that is not full,
    /// so the capture waits for its packets.
    pub(super) fn is_drained(&self, now: Instant) -> bool {
        let Some(since) = self.ending else { return false };
        let waited = now.saturating_duration_since(since);
        let empty = self.ring.packets_hint(self.head) == 0 || waited >= LAST_BLOCK;
        // Reads the hint first and readiness last, so that a block that is handed over in between is noticed.
        waited >= self.retire.max(ON_ITS_WAY) && empty && !self.is_ready()
    }
}

/// The earliest time of undelivered packets in a ring. The next block is either handed over and
/// begins with a packet at `first`, or not handed over, with or without packets. Pure.
///
/// The kernel hands over a block that is not full `retire` after its first packet, by a timer that
/// may be late by as much.
fn unread_since(now: Time, first: Option<Time>, has_packets: bool, retire: Duration) -> Time {
    let back = |time: Time, by: Duration| {
        Time(time.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    };
    let unread = match first {
        // Packets are stamped before they are put in, and may overtake each other in between.
        Some(first) => first.min(now),
        None if has_packets => back(now, 2 * retire),
        None => now,
    };
    back(unread, ON_ITS_WAY)
}

/// The kind of link header of a hardware type (`ARPHRD_*`).
pub(super) fn framing(hardware: u16) -> Framing {
    match hardware {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Framing::Ethernet,
        libc::ARPHRD_NONE | ARPHRD_RAWIP => Framing::Raw,
        _ => Framing::Cooked,
    }
}

/// The description of `link` for readers of the capture.
pub(super) fn describe(link: &Link) -> Interface {
    const HARDWARE_ADDRESS: u16 = 6; // pcapng if_MACaddr
    let framing = framing(link.hardware);
    let mut options = Vec::new();
    if let (Framing::Ethernet, Ok(address)) = (framing, <[u8; 6]>::try_from(&*link.address))
        && address != [0; 6]
    {
        options.extend_from_slice(&HARDWARE_ADDRESS.to_le_bytes());
        options.extend_from_slice(&6u16.to_le_bytes());
        options.extend_from_slice(&address);
        options.extend_from_slice(&[0; 2]);
    }
    Interface {
        link_type: match framing {
            Framing::Ethernet => LinkType::ETHERNET,
            Framing::Raw => LinkType::RAW,
            Framing::Cooked => LinkType::LINUX_SLL2,
        },
        snap_length: 0,
        name: Some(link.name.clone()),
        resolution: 9,
        offset_seconds: 0,
        options,
    }
}

/// A `packet_mreq` for promiscuous mode: every frame on the wire.
fn promisc(link: &Link) -> [u8; 16] {
    let mut request = [0u8; 16];
    request[..4].copy_from_slice(&link.index.to_ne_bytes());
    request[4..6].copy_from_slice(&(libc::PACKET_MR_PROMISC as u16).to_ne_bytes());
    request
}

/// A `sockaddr_ll` for all protocols on one interface.
fn every_protocol(link: &Link) -> [u8; 20] {
    let mut address = [0u8; 20];
    address[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&(libc::ETH_P_ALL as u16).to_be_bytes());
    address[4..8].copy_from_slice(&link.index.to_ne_bytes());
    address
}

fn step<T>(step: &'static str, result: io::Result<T>) -> Result<T, SetupError> {
    result.map_err(|source| SetupError { step, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_packets_delay_the_coverage() {
        let now = Time(10_000_000_000);
        let millis = |of: i64| Time(of * 1_000_000);
        let retire = Duration::from_millis(60);
        for (first, has_packets, expected) in [
            (None, false, millis(9_980)),
            (None, true, millis(9_860)),
            (Some(millis(7_000)), true, millis(6_980)),
            // The clock was set back.
            (Some(millis(11_000)), true, millis(9_980)),
        ] {
            assert_eq!(unread_since(now, first, has_packets, retire), expected, "{first:?}");
        }
    }
}
