//! Writes the file: interfaces before their first packet, other blocks at their place, in pieces of about a
//! megabyte.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bytes::Bytes;
use capstan_model::block::block_type;
use capstan_model::coverage::LossCause;
use capstan_model::link::Interface;
use capstan_model::{Block, Failure, FailureKind, Packet, Time};
use capstan_view::access::Principal;
use tokio::sync::mpsc::Sender;

use super::completeness::{Completeness, Lost};
use super::pcapng::{Fate, PcapngWriter, Section, SourceSection, Statistics, WriteError};
use super::records::Record;
use super::{Export, Order};

/// Size of a piece at which it is sent, bytes.
const PIECE: usize = 1 << 20;

/// Size at which the first piece is sent once it has packets, bytes: whoever waits for the file sees that it comes.
const FIRST_PIECE: usize = 64 << 10;

/// Room beside a piece for the packet that fills it, bytes.
const SLACK: usize = 64 << 10;

/// An interface of a generation: the generation's rank in the export, and its number there.
pub(super) type Point = (u32, u32);

/// The file, and the channel it is sent to.
#[derive(Debug)]
pub(super) struct Output<'a> {
    writer: PcapngWriter,
    buffer: Vec<u8>,
    to: &'a Sender<Bytes>,
    /// Writes all described interfaces of a generation, in their own order, together with its first interface. A
    /// segment describes the interfaces its recorder knew when its first packets came, so this is the recorder's
    /// order, although segments are opened only when due.
    whole_generations: bool,
    /// Packets of one generation are contiguous, so that each generation can have a section of its own.
    generations_apart: bool,
    /// The generation of the previous packet.
    state: Option<u32>,
    /// The source section of each generation's packets.
    sections: BTreeMap<u32, SourceSection>,
    /// Generations with several sections: their interfaces are written when first used.
    several_sections: BTreeSet<u32>,
    described: BTreeMap<Point, Interface>,
    /// The number of each interface in the file.
    numbers: BTreeMap<Point, u32>,
    /// The point of the previous packet and its number.
    last: Option<(Point, u32)>,
    /// Interfaces whose statistics came from the source.
    counted: BTreeSet<Point>,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Blocks of sources that could not be written.
    pub(super) blocks_left_out: u64,
    /// Packets whose options were damaged, written without them.
    pub(super) options_left_out: u64,
}

impl<'a> Output<'a> {
    /// Begins the file.
    pub(super) fn new(
        section: Section,
        whole_generations: bool,
        generations_apart: bool,
        to: &'a Sender<Bytes>,
    ) -> Output<'a> {
        let mut buffer = Vec::with_capacity(PIECE + SLACK);
        let writer = PcapngWriter::new(section, &mut buffer);
        Output {
            writer,
            buffer,
            to,
            whole_generations,
            generations_apart,
            state: None,
            sections: BTreeMap::new(),
            several_sections: BTreeSet::new(),
            described: BTreeMap::new(),
            numbers: BTreeMap::new(),
            last: None,
            counted: BTreeSet::new(),
            packets: 0,
            bytes: 0,
            blocks_left_out: 0,
            options_left_out: 0,
        }
    }

    /// Number of packets that were cut to the length readers accept.
    pub(super) fn cut(&self) -> u64 {
        self.writer.cut()
    }

    /// Adds interfaces; known ones stay as they are.
    pub(super) fn describe(&mut self, state: u32, interfaces: &BTreeMap<u32, Interface>) {
        for (number, interface) in interfaces {
            self.described.entry((state, *number)).or_insert_with(|| interface.clone());
        }
    }

    /// The number of an interface in the file; writes the interface first if needed. None if it was not
    /// described.
    #[inline]
    fn number_of(&mut self, point: Point) -> Option<u32> {
        match self.last {
            Some((last, number)) if last == point => Some(number),
            _ => {
                let number = self.find_or_declare(point)?;
                self.last = Some((point, number));
                Some(number)
            }
        }
    }

    fn find_or_declare(&mut self, point: Point) -> Option<u32> {
        if let Some(number) = self.numbers.get(&point) {
            return Some(*number);
        }
        let whole = (point.0, 0)..=(point.0, u32::MAX);
        let is_whole = self.whole_generations && !self.several_sections.contains(&point.0);
        self.declare(if is_whole { whole } else { point..=point });
        self.numbers.get(&point).copied()
    }

    /// Writes the interfaces of these points that are known and not in the file yet.
    fn declare(&mut self, points: RangeInclusive<Point>) {
        for (point, interface) in self.described.range(points) {
            let (writer, buffer) = (&mut self.writer, &mut self.buffer);
            self.numbers.entry(*point).or_insert_with(|| writer.interface(interface, buffer));
        }
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// Its interface was not described.
    #[inline]
    pub(super) fn packet(&mut self, state: u32, record: &Record<'_>) -> Result<(), Failure> {
        let unknown = || {
            let what = format!("a packet names interface {}, which is unknown", record.interface);
            Failure::new(FailureKind::Damaged, what)
        };
        if self.state != Some(state) {
            self.begin_generation(state);
        }
        let interface = self.number_of((state, record.interface)).ok_or_else(unknown)?;
        let mut packet = Packet {
            interface,
            stamp: record.stamp,
            length: record.length,
            data: record.data,
            options: record.options,
        };
        let mut written = self.writer.packet(&packet, &[], &mut self.buffer);
        if written == Err(WriteError::Options) {
            self.options_left_out += 1;
            packet.options = &[];
            written = self.writer.packet(&packet, &[], &mut self.buffer);
        }
        written.map_err(|error| {
            Failure::caused_by(FailureKind::Damaged, "a packet cannot be written", error)
        })?;
        self.packets += 1;
        Ok(())
    }

    /// Switches to packets of another generation.
    #[cold]
    fn begin_generation(&mut self, state: u32) {
        self.state = Some(state);
        if self.generations_apart {
            let section = self.sections.get(&state).cloned();
            self.writer.sources(section.into_iter().collect(), &mut self.buffer);
        }
    }

    /// Announces the blocks of a generation.
    pub(super) fn expect_blocks<'b>(
        &mut self,
        state: u32,
        blocks: impl Iterator<Item = &'b Block>,
    ) {
        let known = self.sections.get(&state).cloned();
        let mut sections: Vec<_> =
            known.into_iter().chain(blocks.filter_map(SourceSection::of)).collect();
        sections.dedup();
        if sections.len() > 1 {
            self.several_sections.insert(state);
        }
    }

    /// The following packets of a generation belong to another section of its source.
    fn section(&mut self, state: u32, section: SourceSection) {
        self.sections.insert(state, section);
        if self.generations_apart {
            self.begin_generation(state);
            return;
        }
        // Packets of all generations share one section, which lists all their source sections.
        let mut all: Vec<SourceSection> = Vec::new();
        for section in self.sections.values() {
            if !all.contains(section) {
                all.push(section.clone());
            }
        }
        self.writer.sources(all, &mut self.buffer);
    }

    /// Writes described interfaces that are not in the file yet: those without packets.
    pub(super) fn declare_all(&mut self) {
        self.declare((0, 0)..=(u32::MAX, u32::MAX));
    }

    /// Writes a block of decryption secrets. It stands before the interfaces.
    pub(super) fn secret(&mut self, block: &Block) {
        match self.writer.block(block, |_| None, &mut self.buffer) {
            Fate::Written => {}
            _ => self.blocks_left_out += 1,
        }
    }

    /// Writes a block that came with a source.
    pub(super) fn block(&mut self, state: u32, block: &Block) {
        if let Some(section) = SourceSection::of(block) {
            return self.section(state, section);
        }
        if self.whole_generations && !self.several_sections.contains(&state) {
            self.declare((state, 0)..=(state, u32::MAX));
        }
        let there = block.body.first_chunk().copied().map(u32::from_le_bytes);
        let statistics = block.block_type == block_type::INTERFACE_STATISTICS;
        let point = there.filter(|_| statistics).map(|number| (state, number));
        let number = point.and_then(|point| self.find_or_declare(point));
        match self.writer.block(block, |_| number, &mut self.buffer) {
            Fate::Written => self.counted.extend(point),
            // The file has its own section header and interfaces.
            Fate::OwnKind => {}
            Fate::ByteOrder | Fate::NotToBeCopied | Fate::NoInterface => self.blocks_left_out += 1,
        }
    }

    /// Writes the losses at interfaces of this file, unless their sources' own statistics are in it.
    /// `generation_of` gives the rank of a generation.
    ///
    /// # Errors
    /// None in practice: the interfaces exist.
    pub(super) fn losses(
        &mut self,
        losses: &[Lost],
        generation_of: impl Fn(&Lost) -> Option<u32>,
    ) -> Result<(), Failure> {
        let mut counts: BTreeMap<Point, Statistics> = BTreeMap::new();
        for lost in losses {
            let Some(point) =
                generation_of(lost).and_then(|state| self.only_point(state, lost.interface))
            else {
                continue;
            };
            if self.counted.contains(&point) || lost.packets == 0 {
                continue;
            }
            // The file has 0 for an unknown time.
            let at = lost.range.map_or(Time(0), |range| range.end);
            let counted = counts.entry(point).or_insert(Statistics {
                at,
                start: None,
                end: None,
                received: None,
                dropped_by_interface: None,
                dropped_by_system: None,
                delivered: None,
            });
            counted.at = counted.at.max(at);
            let counter = match lost.cause {
                LossCause::KernelDrop => &mut counted.dropped_by_system,
                LossCause::SourceDrop => &mut counted.dropped_by_interface,
                LossCause::SourceDamaged => continue,
            };
            *counter = Some(counter.unwrap_or(0).saturating_add(lost.packets));
        }
        for (point, counted) in counts {
            let dropped = counted.dropped_by_interface.or(counted.dropped_by_system);
            if let Some(number) = self.numbers.get(&point).filter(|_| dropped.is_some()) {
                self.writer.statistics(*number, &counted, &mut self.buffer).map_err(|error| {
                    Failure::caused_by(FailureKind::Other, "statistics cannot be written", error)
                })?;
            }
        }
        Ok(())
    }

    /// The point of a loss: its own interface, or the only one of its generation in this file.
    fn only_point(&self, state: u32, interface: Option<u32>) -> Option<Point> {
        if let Some(interface) = interface {
            return Some((state, interface));
        }
        let mut points = self.numbers.keys().filter(|point| point.0 == state);
        let only = points.next().copied();
        only.filter(|_| points.next().is_none())
    }

    /// Ends the file with its closing comment.
    pub(super) fn end(&mut self, words: String) {
        self.writer.end(vec![words], &mut self.buffer);
    }

    /// Whether there is enough for a piece.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= PIECE
    }

    /// Whether there is enough for a piece, now that there are packets.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        let enough = if self.bytes == 0 { FIRST_PIECE } else { PIECE };
        self.buffer.len() >= enough
    }

    /// Whether the reader of the file is gone.
    pub(super) fn is_unwanted(&self) -> bool {
        self.to.is_closed()
    }

    /// Sends the buffered piece; waits while the reader is behind (back-pressure).
    ///
    /// # Errors
    /// Of kind `Interrupted` when the reader is gone.
    pub(super) async fn send(&mut self) -> Result<(), Failure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE + SLACK));
        self.writer.taken();
        self.bytes += piece.len() as u64;
        self.to.send(piece.into()).await.map_err(|_| unwanted())
    }
}

/// The failure that the reader of the file is gone.
pub(super) fn unwanted() -> Failure {
    Failure::new(FailureKind::Interrupted, "the client cancelled the export")
}

/// The section header of the file.
pub(super) fn section(what: &Export, who: &Principal, completeness: &Completeness) -> Section {
    let range = what.selection.range;
    let bound = |time: Time, open: Time, name: &str| {
        if time == open { name.to_owned() } else { time.to_string() }
    };
    let window = if range.is_all() {
        "all of time".to_owned()
    } else {
        let from = bound(range.start, Time::MIN, "the beginning");
        format!("{from} to {}", bound(range.end, Time::MAX, "the end"))
    };
    let words = what.selection.words();
    let flows = if words.is_empty() { "all flows".to_owned() } else { words };
    let order = match what.order {
        Order::Time => "in order of time",
        Order::Recorded => "as recorded",
    };
    // Flows without identities are not missing in the window.
    let said = match what.selection.asks_identity() {
        true => format!("unknown whether complete; of the window: {}", completeness.words()),
        false => completeness.words(),
    };
    let mut comments = vec![format!("{window}; {flows}; {order}"), said];
    comments.extend(what.selection.remarks());
    if who.is_masked() {
        comments.push(format!("only the flows that '{}' may see", who.name()));
    }
    comments.push(
        "the last comment of this file says what could not be read; a file without it was cut off"
            .to_owned(),
    );
    Section {
        application: Some(concat!("capstan ", env!("CARGO_PKG_VERSION")).to_owned()),
        comments,
        ..Section::default()
    }
}

#[cfg(test)]
mod tests {
    use capstan_view::select::Selection;

    use super::*;

    fn said(selection: Selection) -> Vec<String> {
        let what = Export::new(selection, Order::Time);
        section(&what, &Principal::everything(), &Completeness::default()).comments
    }

    #[test]
    fn export_header_states_unknown_facts() {
        let whole = said(Selection::default());
        assert!(whole[1].starts_with("complete coverage of the window"), "{whole:?}");
        let pods = said(Selection { pods: vec!["shop/web".to_owned()], ..Selection::default() });
        assert!(pods[1].starts_with("unknown whether complete"), "{pods:?}");
        assert!(pods[2].contains("without recorded pod identities"), "{pods:?}");
        let ips = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| ip.parse().unwrap()).to_vec();
        let between = said(Selection { hosts: ips, ..Selection::default() });
        assert!(between[2].starts_with("3 addresses"), "{between:?}");
    }
}
