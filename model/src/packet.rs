//! One captured packet, borrowed from the place it was read into.

use crate::time::{Hour, Time};

/// The longest captured length that is kept, bytes.
pub const MAX_CAPTURED: usize = 512 * 1024;

/// When a packet was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// Nanoseconds since 1970 UTC.
    At(Time),
    /// A time outside what 64-bit nanoseconds can say (before 1677, after 2262),
    /// or finer than a nanosecond: the source's raw ticks, whose unit and offset
    /// are the interface's. The nanosecond time is given where one exists.
    Raw {
        /// Ticks as the source has them.
        ticks: u64,
        /// The time cut to nanoseconds, if it fits.
        time: Option<Time>,
    },
    /// The source has none (pcapng simple packet blocks).
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

/// One packet on its way from a source into a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Which interface saw it, by its number in the recorder's generation.
    pub interface: u32,
    /// When.
    pub stamp: Stamp,
    /// Its length on the wire, bytes. May be smaller than what was captured in
    /// odd files; it is kept as the source says.
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
