//! The three kinds of packet blocks.

use std::ops::Range;

use capstan_model::packet::{MAX_CAPTURED, Stamp};
use capstan_model::{Packet, Time};

use super::options::{self, Options, Place, code};
use super::{Known, MAX_BLOCK, PcapngReader};
use crate::source::input::{u16_at, u32_at};

/// The drop count of a packet block (obsolete kind) if it is unknown.
const DROPS_UNKNOWN: u16 = u16::MAX;

/// Where the captured bytes are in a packet block with a time.
pub(super) const DATA: usize = 28;

/// Where a packet's options lie.
enum OptionBytes {
    /// In the block, as they are.
    There(Range<usize>),
    /// Converted, in the scratch buffer of the reader.
    Changed,
}

/// Where a packet lies in the buffer, and what its block says.
pub(in super::super) struct Found {
    pub(super) interface: u32,
    stamp: Stamp,
    length: u32,
    data: Range<usize>,
    options: OptionBytes,
    /// Packets that the block says were lost before this one.
    pub(super) dropped: u64,
    /// Captured bytes that are not kept.
    pub(super) cut: usize,
}

impl Found {
    /// Its time stamp, if it has one.
    #[inline]
    pub(super) fn time(&self) -> Option<Time> {
        self.stamp.time()
    }
}

impl PcapngReader {
    /// The packet that was found, where it lies. Valid until the next step.
    #[inline]
    pub(in super::super) fn packet(&self, found: Found) -> Packet<'_> {
        let bytes = self.input.bytes();
        let options = match found.options {
            OptionBytes::There(range) => bytes.get(range).unwrap_or_default(),
            OptionBytes::Changed => &self.scratch,
        };
        Packet {
            interface: found.interface,
            stamp: found.stamp,
            length: found.length,
            data: bytes.get(found.data).unwrap_or_default(),
            options,
        }
    }

    fn field(&self, at: usize) -> u32 {
        u32_at(self.input.bytes(), at, self.big_endian)
    }

    /// The interface a section numbers `index`: its number in the source.
    #[inline]
    pub(super) fn interface(&self, index: u32) -> Result<(u32, &Known), String> {
        let number = self.section_start.saturating_add(index as usize);
        match self.interfaces.get(number) {
            // Fits: there are at most MAX_INTERFACES.
            Some(known) => Ok((number as u32, known)),
            None => {
                let count = self.interfaces.len() - self.section_start;
                Err(format!("a packet of interface {index} in a section with {count} interfaces"))
            }
        }
    }

    /// Section 4.3.
    #[inline]
    pub(super) fn enhanced_packet(&mut self, size: usize) -> Result<Found, String> {
        self.stamped_packet(size, self.field(8), None)
    }

    /// Section A.1 of the draft: the packet block, which is obsolete, but still found in files.
    pub(super) fn old_packet(&mut self, size: usize) -> Result<Found, String> {
        let index = u32::from(u16_at(self.input.bytes(), 8, self.big_endian));
        let drops = u16_at(self.input.bytes(), 10, self.big_endian);
        self.stamped_packet(size, index, (drops != DROPS_UNKNOWN).then_some(drops))
    }

    /// The common part of both kinds of packet blocks with a time. `drops` is a drop count outside the options;
    /// it becomes an option.
    #[inline]
    fn stamped_packet(
        &mut self,
        size: usize,
        index: u32,
        drops: Option<u16>,
    ) -> Result<Found, String> {
        let room = size
            .checked_sub(DATA + 4)
            .ok_or_else(|| format!("a packet block of {size} bytes is too short"))?;
        let (interface, known) = self.interface(index)?;
        let ticks = u64::from(self.field(12)) << 32 | u64::from(self.field(16));
        let stamp = known.clock.stamp(ticks);
        let captured = self.field(20) as usize;
        let kept = kept(captured, room)?;
        let data = DATA..DATA + kept;
        let list = match size {
            ..=MAX_BLOCK => (DATA + captured.next_multiple_of(4))..size - 4,
            // They are behind what was read.
            _ => 0..0,
        };
        let mut found = Found {
            interface,
            stamp,
            length: self.field(24),
            data,
            options: OptionBytes::There(0..0),
            dropped: 0,
            cut: captured - kept,
        };
        if !list.is_empty() || drops.is_some() {
            self.read_options(&mut found, list, drops)?;
        }
        Ok(found)
    }

    /// Checks the options of a packet, converts them if the section is big-endian, and finds the drop count among
    /// them.
    fn read_options(
        &mut self,
        found: &mut Found,
        list: Range<usize>,
        drops: Option<u16>,
    ) -> Result<(), String> {
        let start = list.start;
        let bytes = self.input.bytes().get(list).unwrap_or_default();
        let mut counted = drops.map(u64::from);
        let mut options = Options::new(bytes, Place::Packet, self.big_endian);
        for option in options.by_ref() {
            let option = option?;
            if option.code == code::EPB_DROPCOUNT {
                counted = options::number(option.value, self.big_endian);
            }
        }
        let length = options.passed();
        found.dropped = counted.unwrap_or(0);
        if self.big_endian || drops.is_some() {
            self.scratch.clear();
            options::normalise(&mut self.scratch, bytes, Place::Packet, self.big_endian)?;
            if let Some(drops) = drops {
                let value = u64::from(drops).to_le_bytes();
                let option = options::RawOption { code: code::EPB_DROPCOUNT, value: &value };
                options::push(&mut self.scratch, Place::Packet, option, false);
            }
            found.options = OptionBytes::Changed;
        } else {
            found.options = OptionBytes::There(start..start + length);
        }
        Ok(())
    }

    /// Section 4.4: no time, no options, always the first interface of the section. The captured length follows
    /// from the snap length of the interface.
    pub(super) fn simple_packet(&self, size: usize) -> Result<Found, String> {
        const DATA: usize = 12;
        let room = size
            .checked_sub(DATA + 4)
            .ok_or_else(|| format!("a simple packet block of {size} bytes is too short"))?;
        let (interface, known) = self.interface(0)?;
        let length = self.field(8);
        let captured = match known.snap_length {
            0 => length,
            snap_length => length.min(snap_length),
        } as usize;
        let kept = kept(captured, room)?;
        Ok(Found {
            interface,
            stamp: Stamp::None,
            length,
            data: DATA..DATA + kept,
            options: OptionBytes::There(0..0),
            dropped: 0,
            cut: captured - kept,
        })
    }
}

/// Number of captured bytes that are kept. The captured bytes must fit into the `room` of their block.
#[inline]
fn kept(captured: usize, room: usize) -> Result<usize, String> {
    if captured > room {
        return Err(format!(
            "a packet of {captured} captured bytes in a block with room for {room}"
        ));
    }
    Ok(captured.min(MAX_CAPTURED))
}
