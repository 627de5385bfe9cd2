//! One captured packet, borrowed from the read buffer.

use crate::time::{Hour, Time};

/// The longest captured length that is kept, bytes.
pub const MAX_CAPTURED: usize = 512 * 1024;

/// The time stamp of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// Nanoseconds since 1970 UTC.
    At(Time),
    /// A time outside the range of 64-bit nanoseconds (before 1677, after 2262), or finer than a
    /// nanosecond: the source's raw ticks in the interface's unit and offset. The nanosecond time is
    /// given where one exists.
    Raw {
        /// Ticks as the source has them.
        ticks: u64,
        /// The time cut to nanoseconds, if it fits.
        time: Option<Time>,
    },
    /// No time (pcapng simple packet blocks).
    None,
}

impl Stamp {
    /// The nanosecond time, if there is one.
    pub fn time(self) -> Option<Time> {
        match self {
            Stamp::At(time) => Some(time),
            Stamp::Raw { time, .. } => time,
            Stamp::None => None,
        }
    }
}

/// A packet on its way from a source to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Which interface saw it, by its number in the recorder's generation.
    pub interface: u32,
    /// When.
    pub stamp: Stamp,
    /// Length on the wire, bytes. Odd files have less than was captured; the value stays as in the source.
    pub length: u32,
    /// The captured bytes, from the link header on.
    pub data: &'a [u8],
    /// pcapng options of the packet (comments, flags, hashes, drop counts):
    /// little-endian code, length, value, padding to four, without the end mark.
    pub options: &'a [u8],
}

impl Packet<'_> {
    /// The hour it belongs to.
    pub fn hour(&self) -> Hour {
        self.stamp.time().map_or(Hour::UNKNOWN, Time::hour)
    }
}
