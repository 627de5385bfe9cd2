//! The pcapng file format (draft-ietf-opsawg-pcapng): sections of either byte order, any number of
//! interfaces with their own clocks, packets with options, and other blocks, which are kept for
//! export.

mod blocks;
mod options;
mod packets;
#[cfg(test)]
mod tests;

use capstan_model::block::block_type;
use capstan_model::link::Interface;
use capstan_model::packet::MAX_CAPTURED;
use capstan_model::{Block, Time};

use self::packets::Found;
use super::input::{Input, MAX_FRAME, u16_at, u32_at};
use super::ticks::Clock;
use super::{Cut, Lost, SourceError};

/// Block type and total length before a body, bytes.
const BLOCK_HEADER: usize = 8;

/// Block type, total length and total length again, bytes.
const EMPTY_BLOCK: usize = 12;

/// The longest block that is read completely, bytes; other readers have the same limit. Of a longer block only the
/// packet is read, without its options.
const MAX_BLOCK: usize = 16 << 20;

/// The longest valid block: the longest frame, its header and its options.
const LONGEST_BLOCK: usize = MAX_FRAME + (1 << 20);

/// Bytes that are read of a packet block longer than [`MAX_BLOCK`]: those that are kept, and its header.
const FRONT: usize = packets::DATA + MAX_CAPTURED;

/// Maximum number of interfaces of a source, so that a hostile one cannot fill the memory.
const MAX_INTERFACES: usize = 1 << 16;

/// A section header's byte-order magic as a big-endian section has it.
const BIG_ENDIAN: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];
const LITTLE_ENDIAN: [u8; 4] = [0x4d, 0x3c, 0x2b, 0x1a];

/// The interface number of statistics about an interface that the section does not have.
const NO_INTERFACE: u32 = u32::MAX;

/// State of an interface.
struct Known {
    clock: Clock,
    snap_length: u32,
    /// Dropped packets that were reported.
    dropped: u64,
    /// Time of the first packet that has one.
    first: Option<Time>,
    /// Time of the packet before.
    last: Option<Time>,
    /// When the dropped packets were counted last.
    counted: Option<Time>,
}

impl Known {
    /// Records a packet.
    #[inline]
    fn met(&mut self, time: Option<Time>) {
        if time.is_some() {
            self.first = self.first.or(time);
            self.last = time;
        }
    }
}

/// What comes next in a pcapng file.
pub(super) enum Step {
    Interface(Interface),
    Packet(Found),
    Block(Block),
    Lost(Lost),
    Cut(Cut),
    End,
}

/// Reads one pcapng file.
pub(super) struct PcapngReader {
    input: Input,
    big_endian: bool,
    /// All interfaces of the source, numbered over all its sections.
    interfaces: Vec<Known>,
    /// The number of the first interface of the current section.
    section_start: usize,
    packets: u64,
    /// Bytes of the last returned block.
    given: usize,
    /// Bytes after them that are not kept.
    left_out: usize,
    /// The losses and the truncation of the block at the front are reported already.
    lost_told: bool,
    cut_told: bool,
    scratch: Vec<u8>,
}

/// Whether a stream that starts with these bytes is pcapng.
pub(super) fn is_pcapng(first: &[u8]) -> bool {
    u32_at(first, 0, false) == block_type::SECTION_HEADER
        && matches!(first.get(8..12), Some(magic) if magic == BIG_ENDIAN || magic == LITTLE_ENDIAN)
}

impl PcapngReader {
    /// Reads a stream for which [`is_pcapng`] is true.
    pub(super) fn new(input: Input) -> PcapngReader {
        PcapngReader {
            input,
            big_endian: false,
            interfaces: Vec::new(),
            section_start: 0,
            packets: 0,
            given: 0,
            left_out: 0,
            lost_told: false,
            cut_told: false,
            scratch: Vec::new(),
        }
    }

    /// The stream below.
    pub(super) fn input(&self) -> &Input {
        &self.input
    }

    /// What comes next.
    pub(super) fn step(&mut self) -> Result<Step, SourceError> {
        self.input.take(std::mem::take(&mut self.given));
        if self.left_out > 0 && !self.input.skip(std::mem::take(&mut self.left_out))? {
            return Err(self.input.damaged("the file is truncated inside a block"));
        }
        let Some((kind, size)) = self.block()? else { return Ok(Step::End) };
        let found = match kind {
            block_type::ENHANCED_PACKET => self.enhanced_packet(size),
            block_type::SIMPLE_PACKET => self.simple_packet(size),
            block_type::PACKET => self.old_packet(size),
            _ => return self.other_block(kind, size),
        };
        let found = found.map_err(|what| self.input.damaged(what))?;
        let time = found.time();
        if found.dropped > 0 && !std::mem::replace(&mut self.lost_told, true) {
            let since = self.interfaces.get(found.interface as usize).and_then(|of| of.last);
            return Ok(Step::Lost(self.lost(found.interface, found.dropped, since, time)));
        }
        if found.cut > 0 && !std::mem::replace(&mut self.cut_told, true) {
            let interface = Some(found.interface);
            return Ok(Step::Cut(Cut { interface, bytes: found.cut as u64, time }));
        }
        (self.lost_told, self.cut_told) = (false, false);
        if let Some(known) = self.interfaces.get_mut(found.interface as usize) {
            known.met(time);
        }
        self.given = if size > MAX_BLOCK { FRONT } else { size };
        self.left_out = size - self.given;
        self.packets += 1;
        Ok(Step::Packet(found))
    }

    /// Makes the next block available: its type and size with padding. None at the end.
    #[inline]
    fn block(&mut self) -> Result<Option<(u32, usize)>, SourceError> {
        if !self.input.fill(EMPTY_BLOCK)? {
            if self.input.at_end()? {
                return Ok(None);
            }
            return Err(self.input.damaged("the file is truncated inside a block's header"));
        }
        let header = self.input.bytes();
        let kind = u32_at(header, 0, self.big_endian);
        // The type of a section header is the same number in both byte orders.
        let big_endian = match (kind, header.get(8..12)) {
            (block_type::SECTION_HEADER, Some(magic)) if magic == BIG_ENDIAN => true,
            (block_type::SECTION_HEADER, Some(magic)) if magic == LITTLE_ENDIAN => false,
            (block_type::SECTION_HEADER, _) => {
                return Err(self.input.damaged("a section header without a byte-order mark"));
            }
            _ => self.big_endian,
        };
        let total = u32_at(header, 4, big_endian);
        let own = matches!(kind, block_type::SECTION_HEADER | block_type::INTERFACE);
        let longest = if own { MAX_BLOCK } else { LONGEST_BLOCK };
        if (total as usize) < EMPTY_BLOCK || total as usize > longest {
            return Err(self.input.damaged(format!(
                "a block (type {kind:#x}) of {total} bytes; its length must be from {EMPTY_BLOCK} \
                 to {longest}"
            )));
        }
        // Some writers do not count the padding, so the length need not be a multiple of four.
        let size = (total as usize).next_multiple_of(4);
        if !self.input.fill(if size > MAX_BLOCK { FRONT } else { size })? {
            let there = self.input.bytes().len();
            return Err(self.input.damaged(format!(
                "the file is truncated inside a block (type {kind:#x}): {there} of {total} bytes"
            )));
        }
        let again = u32_at(self.input.bytes(), size - 4, big_endian);
        if size <= MAX_BLOCK && again != total {
            return Err(self.input.damaged(format!(
                "a block (type {kind:#x}) with two different lengths: {total} and {again}"
            )));
        }
        self.big_endian = big_endian;
        Ok(Some((kind, size)))
    }

    /// Records that packets are reported missing.
    fn lost(
        &mut self,
        interface: u32,
        packets: u64,
        since: Option<Time>,
        noticed: Option<Time>,
    ) -> Lost {
        if let Some(known) = self.interfaces.get_mut(interface as usize) {
            known.dropped = known.dropped.saturating_add(packets);
        }
        Lost { interface: Some(interface), packets, live: false, since, noticed }
    }

    /// Records the statistics of an interface: dropped packets that nothing else reported are missing.
    fn statistics(&mut self, number: u32, body: &[u8]) -> Option<Lost> {
        let known = self.interfaces.get_mut(number as usize)?;
        let told = blocks::counts(body);
        let counted = known.clock.time(told.at);
        let since = known.counted.or_else(|| known.clock.time(told.start));
        let (since, untold) = (since.or(known.first), told.dropped.saturating_sub(known.dropped));
        known.counted = counted.or(known.counted);
        (untold > 0).then(|| self.lost(number, untold, since, counted))
    }

    /// Everything that is not a packet.
    fn other_block(&mut self, kind: u32, size: usize) -> Result<Step, SourceError> {
        if size > MAX_BLOCK {
            self.left_out = size;
            return Ok(Step::Cut(Cut { interface: None, bytes: size as u64, time: None }));
        }
        let body = self.input.bytes().get(BLOCK_HEADER..size - 4).unwrap_or_default();
        if kind == block_type::INTERFACE {
            let interface = blocks::interface(body, self.big_endian);
            let interface = interface.map_err(|what| self.input.damaged(what))?;
            return self.new_interface(interface, size);
        }
        let kept = blocks::keep(kind, body, self.big_endian);
        let mut kept = kept.map_err(|what| self.input.damaged(what))?;
        match kind {
            block_type::SECTION_HEADER => {
                let version = (u16_at(&kept.bytes, 4, false), u16_at(&kept.bytes, 6, false));
                // Some writers use 1.2 for 1.0 (draft, section 4.1).
                if !matches!(version, (1, 0 | 2)) {
                    let (major, minor) = version;
                    return Err(self.input.damaged(format!(
                        "a section of pcapng version {major}.{minor}, which is not known"
                    )));
                }
                self.section_start = self.interfaces.len();
            }
            block_type::INTERFACE_STATISTICS => {
                let interface = self.interface(u32_at(&kept.bytes, 0, false));
                let number = interface.map_or(NO_INTERFACE, |(number, _)| number);
                if let Some(field) = kept.bytes.first_chunk_mut::<4>() {
                    *field = number.to_le_bytes();
                }
                if let Some(lost) = self.statistics(number, &kept.bytes) {
                    return Ok(Step::Lost(lost));
                }
            }
            _ => {}
        }
        self.given = size;
        Ok(Step::Block(Block {
            block_type: kind,
            body: kept.bytes,
            big_endian: kept.big_endian,
            before: self.packets,
        }))
    }

    fn new_interface(&mut self, interface: Interface, size: usize) -> Result<Step, SourceError> {
        if self.interfaces.len() == MAX_INTERFACES {
            return Err(self.input.damaged(format!("more than {MAX_INTERFACES} interfaces")));
        }
        self.interfaces.push(Known {
            clock: Clock::new(interface.resolution, interface.offset_seconds),
            snap_length: interface.snap_length,
            dropped: 0,
            first: None,
            last: None,
            counted: None,
        });
        self.given = size;
        Ok(Step::Interface(interface))
    }
}
