//! The pcap file format (draft-ietf-opsawg-pcap) and its dialects: microseconds or
//! nanoseconds, both byte orders, the longer record headers of patched libpcaps and
//! of Nokia, Ixia's and AIX's variants, lengths in the old order.

use std::ops::Range;

use capstan_model::link::Interface;
use capstan_model::packet::{MAX_CAPTURED, Stamp};
use capstan_model::{LinkType, Time};

use super::input::{Input, MAX_FRAME, u16_at, u32_at};
use super::{Cut, SourceError};

/// The header before the first record, bytes.
const FILE_HEADER: usize = 24;

/// Maximum number of records that are inspected to detect the dialect of a file, of those that have arrived.
const LOOK_AT: usize = 8;

/// A length on the wire that hardly any packet has, bytes.
const HUGE: u32 = 64 << 20;

/// Set in the link type field if its top four bits have the length of the frame check sequence.
const FCS_PRESENT: u32 = 0x0400_0000;

/// The pcapng option with the length of the frame check sequence at the end of a packet, bytes.
const IF_FCSLEN: u16 = 13;

/// The meaning of the magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Magic {
    big_endian: bool,
    nanos: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The usual one. Some patched libpcaps and Nokia used it too.
    Standard,
    /// Alexey Kuznetzov's: longer record headers.
    Modified,
    /// Ixia's: the total length of all records follows the file header.
    Ixia,
}

impl Magic {
    /// Recognises a pcap file by its first four bytes.
    pub(super) fn of(first: [u8; 4]) -> Option<Magic> {
        let known = |number| match number {
            0xa1b2_c3d4_u32 => Some((false, Kind::Standard)),
            0xa1b2_3c4d => Some((true, Kind::Standard)),
            0xa1b2_cd34 => Some((false, Kind::Modified)),
            0x1c00_01ac | 0x1c00_01ab => Some((true, Kind::Ixia)),
            _ => None,
        };
        let magic =
            |big_endian| move |(nanos, kind): (bool, Kind)| Magic { big_endian, nanos, kind };
        known(u32::from_le_bytes(first))
            .map(magic(false))
            .or_else(|| known(u32::from_be_bytes(first)).map(magic(true)))
    }
}

/// Which of a record's two lengths is the captured one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lengths {
    CapturedFirst,
    WireFirst,
    /// Version 2.3 was written both ways: the smaller one is the captured length.
    Either,
}

/// The layout of the records of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    big_endian: bool,
    /// Bytes of a record before its packet: 16, or more in the dialects.
    header: usize,
    lengths: Lengths,
    /// Nanoseconds per unit of the second time field.
    fraction_nanos: i64,
}

/// One record's header.
#[derive(Debug, Clone, Copy)]
struct Record {
    time: Time,
    captured: u32,
    wire: u32,
    /// The time's second field is below a second.
    sound_time: bool,
}

impl Layout {
    #[inline]
    fn record(&self, bytes: &[u8]) -> Record {
        let field = |at| u32_at(bytes, at, self.big_endian);
        let (first, second) = (field(8), field(12));
        let (captured, wire) = match self.lengths {
            Lengths::CapturedFirst => (first, second),
            Lengths::WireFirst => (second, first),
            Lengths::Either => (first.min(second), first.max(second)),
        };
        let fraction = i64::from(field(4)) * self.fraction_nanos;
        // 2^32 seconds and 2^32 microseconds are far below 2^63 nanoseconds.
        let time = Time(i64::from(field(0)) * 1_000_000_000 + fraction);
        Record { time, captured, wire, sound_time: fraction < 1_000_000_000 }
    }

    /// Reads the records at the start of `bytes`, at most [`LOOK_AT`], as far as they have arrived. Stops at the first
    /// one for which `wrong` holds. Returns the number of records before it, and whether there is one.
    fn look(&self, mut bytes: &[u8], wrong: fn(&Record) -> bool) -> (usize, bool) {
        let mut count = 0;
        while count < LOOK_AT && bytes.len() >= self.header {
            let record = self.record(bytes);
            if wrong(&record) {
                return (count, true);
            }
            count += 1;
            bytes = bytes.get(self.header + record.captured as usize..).unwrap_or_default();
        }
        (count, false)
    }

    /// This layout; or one with another record header, if the records are plausible in that one and not in this
    /// one.
    fn or_dialect(self, headers: &[usize], records: &[u8]) -> Layout {
        if !self.look(records, Record::is_impossible).1 {
            return self;
        }
        let dialects = headers.iter().map(|&header| Layout { header, ..self });
        let sound = |dialect: &Layout| match dialect.look(records, Record::is_odd) {
            (count @ 2.., false) => count,
            _ => 0,
        };
        dialects.filter(|dialect| sound(dialect) > 0).max_by_key(sound).unwrap_or(self)
    }
}

impl Record {
    /// Values that no writer produces. (If a file of a dialect is read in the plain layout, seconds are at the
    /// place of the fraction or of the length.)
    fn is_impossible(&self) -> bool {
        self.captured as usize > MAX_CAPTURED || !self.sound_time
    }

    /// Values that few writers produce: a captured length above the length on the wire, or a huge packet.
    fn is_odd(&self) -> bool {
        self.is_impossible() || self.captured > self.wire || self.wire > HUGE
    }
}

/// Where a record's packet lies in [`PcapReader::bytes`], and what its header says.
pub(super) struct Found {
    pub(super) stamp: Stamp,
    pub(super) length: u32,
    pub(super) data: Range<usize>,
}

/// What comes next in a pcap file.
pub(super) enum Step {
    Interface(Interface),
    Packet(Found),
    Cut(Cut),
    End,
}

/// Reads one pcap file.
pub(super) struct PcapReader {
    input: Input,
    layout: Layout,
    /// The interface, until it is returned: before the first packet.
    interface: Option<Interface>,
    /// Bytes of the last returned record.
    given: usize,
    /// Bytes after them that are not kept.
    left_out: usize,
    /// It was reported that the record at the front is truncated.
    cut_told: bool,
}

impl PcapReader {
    /// Reads the file header; `magic` is what the first four bytes are.
    pub(super) fn new(mut input: Input, magic: Magic) -> Result<PcapReader, SourceError> {
        if !input.fill(FILE_HEADER)? {
            return Err(input.damaged("the file ends inside its 24-byte header"));
        }
        let Magic { big_endian, nanos, kind } = magic;
        let header = input.bytes();
        let version = (u16_at(header, 4, big_endian), u16_at(header, 6, big_endian));
        let snap_length = u32_at(header, 16, big_endian);
        let network = u32_at(header, 20, big_endian);
        let lengths = match version {
            (0 | 1, _) => {
                let (major, minor) = version;
                return Err(input.not_a_capture(format!(
                    "pcap version {major}.{minor} is not supported (2.0 and later are supported)"
                )));
            }
            // DG/UX writes 543 and the old order.
            (2, 0..=2) | (543, _) => Lengths::WireFirst,
            (2, 3) => Lengths::Either,
            _ => Lengths::CapturedFirst,
        };
        let aix = aix_link_type(version, network).filter(|_| kind == Kind::Standard);
        let link_type = match aix {
            Some(link_type) => link_type,
            None => link_type(network).ok_or_else(|| {
                input.not_a_capture(format!("link type {network:#x} is not assigned"))
            })?,
        };
        let nanos = nanos || aix.is_some();
        let interface = Interface {
            link_type,
            snap_length,
            name: None,
            resolution: if nanos { 9 } else { 6 },
            offset_seconds: 0,
            options: fcs_option(network),
        };
        input.take(FILE_HEADER);
        if kind == Kind::Ixia {
            if !input.fill(4)? {
                return Err(input.damaged("the file ends before its records' total length"));
            }
            input.take(4);
        }
        let fraction_nanos = if nanos { 1 } else { 1_000 };
        let plain = Layout { big_endian, header: 16, lengths, fraction_nanos };
        // Records that have arrived decide, so that a live pipe is not delayed.
        let (plain, others): (_, &[usize]) = match kind {
            Kind::Standard => (plain, &[24, 20]),
            Kind::Modified => (Layout { header: 24, ..plain }, &[28]),
            Kind::Ixia => (plain, &[]),
        };
        let layout = plain.or_dialect(others, input.bytes());
        let interface = Some(interface);
        Ok(PcapReader { input, layout, interface, given: 0, left_out: 0, cut_told: false })
    }

    /// The bytes [`Found::data`] points into.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.input.bytes()
    }

    /// The stream below.
    pub(super) fn input(&self) -> &Input {
        &self.input
    }

    /// What comes next. A packet's range is valid until the next call.
    #[inline]
    pub(super) fn step(&mut self) -> Result<Step, SourceError> {
        self.input.take(std::mem::take(&mut self.given));
        if self.left_out > 0 && !self.input.skip(std::mem::take(&mut self.left_out))? {
            return Err(self.input.damaged("the file is truncated inside a packet"));
        }
        if let Some(interface) = self.interface.take() {
            return Ok(Step::Interface(interface));
        }
        let header = self.layout.header;
        if !self.input.fill(header)? {
            if self.input.at_end()? {
                return Ok(Step::End);
            }
            return Err(self.input.damaged("the file is truncated inside a packet's header"));
        }
        let record = self.layout.record(self.input.bytes());
        let captured = record.captured as usize;
        if captured > MAX_FRAME {
            return Err(self.input.damaged(format!(
                "a packet of {captured} captured bytes exceeds the maximum of {MAX_FRAME}"
            )));
        }
        let kept = captured.min(MAX_CAPTURED);
        let size = header + kept;
        if !self.input.fill(size)? {
            let there = self.input.bytes().len() - header.min(self.input.bytes().len());
            return Err(self.input.damaged(format!(
                "the file is truncated inside a packet: {there} of {captured} captured bytes"
            )));
        }
        let cut = captured - kept;
        if cut > 0 && !std::mem::replace(&mut self.cut_told, true) {
            return Ok(Step::Cut(Cut {
                interface: Some(0),
                bytes: cut as u64,
                time: Some(record.time),
            }));
        }
        self.cut_told = false;
        self.given = size;
        self.left_out = cut;
        Ok(Step::Packet(Found {
            stamp: Stamp::At(record.time),
            length: record.wire,
            data: header..size,
        }))
    }
}

/// The LINKTYPE_ number of the link type field of a file header. The upper bits of the field have the length of the
/// frame check sequence. None if the rest is above every link type (only NetBSD's private address families are).
fn link_type(network: u32) -> Option<LinkType> {
    u16::try_from(network & 0x03ff_ffff).ok().map(LinkType)
}

/// AIX writes version 2.2, interface types of RFC 1573 and nanoseconds. No other writer used these numbers with that
/// version.
fn aix_link_type(version: (u16, u16), network: u32) -> Option<LinkType> {
    if version != (2, 2) {
        return None;
    }
    match network {
        6 => Some(LinkType::ETHERNET),
        9 => Some(LinkType(6)),
        15 => Some(LinkType(10)),
        24 => Some(LinkType::NULL),
        _ => None,
    }
}

/// The length of the frame check sequence as a pcapng interface option, if the link type field has one. The field
/// counts 16-bit words, the option counts bytes.
fn fcs_option(network: u32) -> Vec<u8> {
    if network & FCS_PRESENT == 0 {
        return Vec::new();
    }
    let bytes = ((network >> 28) * 2) as u8;
    let [code_low, code_high] = IF_FCSLEN.to_le_bytes();
    vec![code_low, code_high, 1, 0, bytes, 0, 0, 0]
}

#[cfg(test)]
#[path = "pcap/tests.rs"]
mod tests;
