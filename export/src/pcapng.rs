//! Writes packets and related blocks as pcapng (draft-ietf-opsawg-pcapng) into a buffer; the caller drains the
//! buffer and sends it.
//!
//! Times are written in nanoseconds since 1970. An interface with a finer clock, and a time beyond 64 bits of
//! nanoseconds, keep the source's own ticks, so that nothing is rounded. A packet without a time becomes a
//! simple packet block, the only kind that has none. Such a block always means the first interface of its
//! section, so one from another interface opens a new section. So does a packet from another section of its
//! source, as far as the order of packets allows.

mod blocks;
mod bytes;
mod clock;
mod section;
#[cfg(test)]
mod tests;

use capstan_model::Packet;
use capstan_model::block::block_type;
use capstan_model::link::Interface;
use capstan_model::packet::{MAX_CAPTURED, Stamp};

use std::ops::Range;

pub use self::blocks::{Fate, SECRETS_TLS_KEY_LOG, Statistics};
use self::bytes::{BlockStart, Options};
pub(crate) use self::bytes::{about_packet, with_comment};
use self::clock::Clock;
pub use self::section::{Section, SourceSection};

/// The longest captured length that Wireshark and tshark read on most link types, bytes. They abandon the rest
/// of a file at a longer packet.
pub const WIRESHARK_LONGEST: usize = 262_144;

const NO_TIME: &str = "this packet has no timestamp; the timestamp in its record is a placeholder";

/// Why something cannot be written. The buffer is unchanged then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No interface has this number.
    #[error("no interface {0} was written before its packet")]
    Interface(u32),
    /// Longer than a reader takes.
    #[error("{what} of {length} bytes cannot be written into one block")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// How long it is, bytes.
        length: usize,
    },
    /// The packet's options are not a list of options.
    #[error("the options of a packet are damaged")]
    Options,
}

/// One interface of the file.
#[derive(Debug)]
struct Declared {
    interface: Interface,
    /// The clocks it can be written with, the preferred one first: nanoseconds since 1970 unless its own is
    /// finer or has an offset, its own, and two that together reach every time.
    clocks: [Clock; 4],
    /// Its number in the present section, written with each of them.
    numbers: [Option<u32>; 4],
}

impl Declared {
    fn new(interface: &Interface) -> Declared {
        let own = Clock::of(interface);
        let keeps_own = own.is_finer_than_nanos() || own.offset_seconds != 0;
        let usual = if keeps_own { own } else { Clock::NANOS };
        let clocks = [usual, own, Clock::NANOS, Clock::EARLY];
        Declared { interface: interface.clone(), clocks, numbers: [None; 4] }
    }

    fn usual_clock(&self) -> Clock {
        let [usual, ..] = self.clocks;
        usual
    }
}

/// Writes one file. Every method appends to the buffer it is given.
#[derive(Debug)]
pub struct PcapngWriter {
    section: Section,
    /// The source sections of the packets in the present section.
    sources: Vec<SourceSection>,
    /// The present section's header in the buffer, until the buffer is drained.
    header: Option<Range<usize>>,
    interfaces: Vec<Declared>,
    /// Interfaces in the present section.
    count: u32,
    /// The present section's interface 0 and its snap length as written.
    first: Option<(u32, u32)>,
    longest: usize,
    cut: u64,
}

impl PcapngWriter {
    /// Begins a file.
    pub fn new(section: Section, out: &mut Vec<u8>) -> PcapngWriter {
        let mut writer = PcapngWriter {
            section,
            sources: Vec::new(),
            header: None,
            interfaces: Vec::new(),
            count: 0,
            first: None,
            longest: WIRESHARK_LONGEST,
            cut: 0,
        };
        writer.begin_section(out);
        writer
    }

    /// Limits captured bytes to this many a packet, at most [`MAX_CAPTURED`], instead of [`WIRESHARK_LONGEST`].
    /// A packet that is cut has a comment about it.
    pub fn with_longest(mut self, bytes: usize) -> PcapngWriter {
        self.longest = bytes.min(MAX_CAPTURED);
        self
    }

    /// Number of packets that were cut to that limit.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Sets the source sections of the following packets: their options are written. If they differ from the
    /// present section's, that section ends, unless it has no interface yet.
    pub fn sources(&mut self, sources: Vec<SourceSection>, out: &mut Vec<u8>) {
        if sources == self.sources {
            return;
        }
        self.sources = sources;
        match self.header.take().filter(|_| self.count == 0) {
            Some(header) => {
                let behind = out.split_off(header.end.min(out.len()));
                out.truncate(header.start);
                self.begin_section(out);
                out.extend_from_slice(&behind);
            }
            None => self.begin_section(out),
        }
    }

    /// The caller has drained the buffer.
    pub fn taken(&mut self) {
        self.header = None;
    }

    /// Writes an interface and returns its number for [`Packet::interface`]: 0, 1, ….
    pub fn interface(&mut self, interface: &Interface, out: &mut Vec<u8>) -> u32 {
        // 2^32 interfaces do not fit into memory.
        let index = self.interfaces.len() as u32;
        let declared = Declared::new(interface);
        let clock = declared.usual_clock();
        self.interfaces.push(declared);
        self.declare(index, clock, out);
        index
    }

    /// Writes a packet; `comments` are added to its options.
    ///
    /// A packet without a time cannot have comments.
    ///
    /// # Errors
    /// Its interface was not written, its options are no options.
    pub fn packet(
        &mut self,
        packet: &Packet<'_>,
        comments: &[&str],
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        if !bytes::are_options(packet.options) {
            return Err(WriteError::Options);
        }
        let (clock, ticks, note) = match self.ticks(packet.interface, packet.stamp)? {
            Some((clock, ticks)) => (clock, ticks, None),
            None if self.simple_packet(packet, out) => return Ok(()),
            None => (self.declared(packet.interface)?.usual_clock(), 0, Some(NO_TIME)),
        };
        let number = self.declare(packet.interface, clock, out);
        let data = packet.data.get(..self.longest).unwrap_or(packet.data);
        let block = BlockStart::new(block_type::ENHANCED_PACKET, out);
        for field in [
            number,
            (ticks >> 32) as u32,
            ticks as u32,
            // Bounded by `longest`.
            data.len() as u32,
            packet.length,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(data);
        bytes::pad(data.len(), out);
        let mut options = Options::new(out);
        options.ready(packet.options);
        comments.iter().copied().chain(note).for_each(|comment| options.comment(comment));
        if data.len() < packet.data.len() {
            self.cut += 1;
            options.comment(&format!(
                "truncated to {} of {} captured bytes",
                data.len(),
                packet.data.len()
            ));
        }
        options.end();
        block.end(out);
        Ok(())
    }

    /// Writes the closing comments of the file in a section without packets: readers show section comments as
    /// comments of the whole file.
    pub fn end(&mut self, comments: Vec<String>, out: &mut Vec<u8>) {
        self.section.comments = comments;
        self.begin_section(out);
    }

    fn declared(&self, interface: u32) -> Result<&Declared, WriteError> {
        self.interfaces.get(interface as usize).ok_or(WriteError::Interface(interface))
    }

    /// The clock and ticks that a stamp is written with. None if it has no time.
    fn ticks(&self, interface: u32, stamp: Stamp) -> Result<Option<(Clock, u64)>, WriteError> {
        let declared = self.declared(interface)?;
        Ok(match stamp {
            Stamp::At(time) => {
                declared.clocks.into_iter().find_map(|clock| Some((clock, clock.ticks(time)?)))
            }
            Stamp::Raw { ticks, .. } => Some((Clock::of(&declared.interface), ticks)),
            Stamp::None => None,
        })
    }

    fn begin_section(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        let block = BlockStart::new(block_type::SECTION_HEADER, out);
        out.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        out.extend_from_slice(&[1, 0, 0, 0]);
        // The section's length is not known while it is written.
        out.extend_from_slice(&u64::MAX.to_le_bytes());
        section::options(&self.section, &self.sources, out);
        block.end(out);
        self.header = Some(start..out.len());
        self.count = 0;
        self.first = None;
        for declared in &mut self.interfaces {
            declared.numbers = [None; 4];
        }
    }

    /// The number in the present section of an interface with this clock, which must be one of its own; writes
    /// the interface if the section lacks it.
    fn declare(&mut self, interface: u32, clock: Clock, out: &mut Vec<u8>) -> u32 {
        let next = self.count;
        let Some(declared) = self.interfaces.get_mut(interface as usize) else { return next };
        let known = declared.clocks.iter().zip(&mut declared.numbers);
        let Some((_, slot)) = known.into_iter().find(|(known, _)| **known == clock) else {
            return next;
        };
        if let Some(number) = *slot {
            return number;
        }
        *slot = Some(next);
        let snap_length = declared.interface.snap_length;
        bytes::interface(&declared.interface, snap_length, clock, out);
        self.first.get_or_insert((interface, snap_length));
        self.count += 1;
        next
    }

    /// Writes a packet without a time as a simple packet block, if possible.
    fn simple_packet(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) -> bool {
        let Some(declared) = self.interfaces.get(packet.interface as usize) else { return false };
        let captured = packet.data.len() as u64;
        // Readers take the captured length from the snap length.
        let fits = |snap_length: u32| match snap_length {
            0 => captured == u64::from(packet.length),
            snap_length => captured == u64::from(packet.length.min(snap_length)),
        };
        let cut_off = packet.data.len() as u32;
        let usual = declared.interface.snap_length;
        let Some(snap_length) = [usual, cut_off].into_iter().find(|length| fits(*length)) else {
            return false;
        };
        if packet.data.len() > self.longest || !packet.options.is_empty() {
            return false;
        }
        let here = self
            .first
            .is_some_and(|(interface, written)| interface == packet.interface && fits(written));
        if !here {
            let clock = declared.usual_clock();
            self.begin_section(out);
            if snap_length == usual {
                self.declare(packet.interface, clock, out);
            } else if let Some(declared) = self.interfaces.get(packet.interface as usize) {
                bytes::interface(&declared.interface, snap_length, clock, out);
                self.first = Some((packet.interface, snap_length));
                self.count = 1;
            }
        }
        let block = BlockStart::new(block_type::SIMPLE_PACKET, out);
        out.extend_from_slice(&packet.length.to_le_bytes());
        out.extend_from_slice(packet.data);
        block.end(out);
        true
    }
}
