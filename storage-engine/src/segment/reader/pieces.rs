//! Reads one flow part piece by piece, if it is too large for memory.
//!
//! The plan fixes the pieces (payload blocks fetched together) before the first fetch. The caller
//! fetches them in that order, with any prefetch depth. Packets are returned as far as rows and
//! payload reach.

use std::ops::Range;

use capstan_model::Failure;

use super::payload::{PayloadLeft, PayloadPlan, read_spans};
use super::{Fetch, Scan, Segment, Step};
use crate::segment::block::BlockDirectory;
use crate::segment::flows::FlowRow;
use crate::segment::packets::{ReadRow, Rebuilder, RowReader};
use crate::segment::template::Endpoints;
use crate::segment::{Corrupt, Layer};

/// Some of a part's payload: consecutive blocks of one layer that are fetched together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    layer: Layer,
    blocks: Range<usize>,
    /// Which of the blocks' raw bytes are the part's.
    own: Range<u64>,
}

/// Reads the packets of one flow part; see the module.
#[derive(Debug)]
pub struct PartReader {
    ordinal: u32,
    /// Of a packet that goes forward.
    ends: Endpoints,
    scan: Scan,
    reader: RowReader,
    rebuilder: Rebuilder,
    rows: Vec<ReadRow>,
    /// Rows put together, of those at hand.
    next_row: usize,
    /// Packets still to be put together.
    left: u64,
    payload: Vec<u8>,
    /// Payload handed out, of that at hand.
    next_byte: usize,
    /// Payload of the part that was not given yet, bytes.
    to_come: u64,
    /// Retention deleted some of the payload.
    is_cut: bool,
    packet: Vec<u8>,
}

/// What a [`PartReader`] needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// [`PartReader::read_rows`].
    Rows,
    /// [`PartReader::give`] of the next piece.
    Payload,
    /// Nothing: all packets are assembled.
    Nothing,
}

impl Segment {
    /// The payload of a flow part that is left, in pieces of at most `bytes` (raw; one block at least), in the order in
    /// which a [`PartReader`] needs them.
    pub fn pieces(&self, flow: &FlowRow, bytes: u64, left: PayloadLeft) -> Vec<Piece> {
        let place = &flow.placement;
        let mut pieces = Vec::new();
        if left >= PayloadLeft::Head {
            let head = (place.head_offset, u64::from(place.head_bytes));
            pieces.extend(cut(Layer::Head, &self.head, head, bytes));
        }
        if left == PayloadLeft::All {
            let body = (place.body_offset, place.body_bytes);
            pieces.extend(cut(Layer::Body, &self.body, body, bytes));
        }
        pieces
    }

    /// The plan to fetch a piece.
    pub fn piece_plan(&self, piece: &Piece) -> PayloadPlan {
        let (mut plan, blocks) = (PayloadPlan::default(), vec![piece.blocks.clone()]);
        if piece.layer == Layer::Head {
            plan.head = blocks
        } else {
            plan.body = blocks
        }
        plan
    }

    /// Fetches and decompresses a piece.
    ///
    /// # Errors
    /// [`Failure`] of the fetch, or of kind `Damaged` when a block's checksum differs.
    pub async fn read_piece(&self, fetch: &dyn Fetch, piece: &Piece) -> Result<Vec<u8>, Failure> {
        let directory = if piece.layer == Layer::Head { &self.head } else { &self.body };
        let blocks = std::slice::from_ref(&piece.blocks);
        let span = read_spans(fetch, piece.layer, directory, blocks).await?.pop();
        let cut_short = || Corrupt::new(piece.layer.name(), "payload is missing");
        let mut span = span.ok_or_else(cut_short)?;
        let place = |at: u64| usize::try_from(at.checked_sub(span.start)?).ok();
        let (from, to) = (place(piece.own.start), place(piece.own.end));
        let own = from.zip(to).filter(|(from, to)| from <= to && *to <= span.bytes.len());
        let (from, to) = own.ok_or_else(cut_short)?;
        span.bytes.truncate(to);
        span.bytes.drain(..from);
        Ok(span.bytes)
    }

    /// A reader of the packets of one flow part (a row as [`Segment::read_flows`] gave it), of whose payload so much is
    /// left.
    ///
    /// # Errors
    /// [`Corrupt`] when the row does not fit the segment.
    pub fn read_part(
        &self,
        ordinal: u32,
        flow: &FlowRow,
        left: PayloadLeft,
    ) -> Result<PartReader, Corrupt> {
        let head = u64::from(flow.placement.head_bytes);
        let to_come = match left {
            PayloadLeft::Nothing => 0,
            PayloadLeft::Head => head,
            PayloadLeft::All => flow.placement.body_bytes.saturating_add(head),
        };
        Ok(PartReader {
            ordinal,
            ends: Endpoints::of(&flow.part.key),
            scan: self.scan_packets(std::slice::from_ref(flow), None)?,
            reader: RowReader::default(),
            rebuilder: Rebuilder::default(),
            rows: Vec::new(),
            next_row: 0,
            left: flow.packets(),
            payload: Vec::new(),
            next_byte: 0,
            to_come,
            is_cut: left < PayloadLeft::All,
            packet: Vec::new(),
        })
    }
}

/// The blocks that hold some raw bytes (where they begin, how many), in pieces.
fn cut(
    layer: Layer,
    directory: &BlockDirectory,
    (offset, length): (u64, u64),
    bytes: u64,
) -> Vec<Piece> {
    let end = offset.saturating_add(length);
    let mut pieces: Vec<Piece> = Vec::new();
    for block in directory.blocks_of(offset, end) {
        let upto = directory.raw_start(block + 1);
        match pieces.last_mut() {
            Some(piece) if upto - directory.raw_start(piece.blocks.start) <= bytes => {
                piece.blocks.end = block + 1;
                piece.own.end = upto.min(end);
            }
            _ => pieces.push(Piece {
                layer,
                blocks: block..block + 1,
                own: directory.raw_start(block).max(offset)..upto.min(end),
            }),
        }
    }
    pieces
}

impl PartReader {
    /// Packets that were not put together yet.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Packets that may be put together now, and what they can take at most beside their
    /// headers, bytes.
    pub fn at_hand(&self) -> (usize, usize) {
        (self.rows.len() - self.next_row, self.payload.len() - self.next_byte)
    }

    /// Reads more rows. Only the first call fetches.
    ///
    /// # Errors
    /// [`Failure`] of the fetch, or of kind `Damaged`.
    pub async fn read_rows(&mut self, fetch: &dyn Fetch) -> Result<(), Failure> {
        self.rows.drain(..self.next_row);
        self.next_row = 0;
        loop {
            match self.scan.step()? {
                Step::Rows(batch) => {
                    self.reader.read(&batch, &mut self.rows)?;
                    return Ok(());
                }
                Step::Needs(ranges) => {
                    let bytes = fetch.fetch(self.scan.layer(), &ranges).await?;
                    self.scan.give(ranges, bytes)?;
                }
                Step::End => return Err(bad("rows are missing").into()),
            }
        }
    }

    /// Gives the next piece of payload, as [`Segment::read_piece`] gave it.
    pub fn give(&mut self, mut piece: Vec<u8>) {
        self.to_come = self.to_come.saturating_sub(piece.len() as u64);
        if self.next_byte < self.payload.len() {
            // The rest of a packet that reaches into this piece.
            self.payload.drain(..self.next_byte);
            self.payload.append(&mut piece);
        } else {
            self.payload = piece;
        }
        self.next_byte = 0;
    }

    /// Puts packets together, as far as rows and payload reach, and hands each to `each`: its
    /// row and its captured bytes, as [`PacketRows::assemble`](super::PacketRows::assemble) does.
    ///
    /// # Errors
    /// [`Corrupt`] when header or payload do not fit together. What `each` got is right.
    pub fn assemble(&mut self, mut each: impl FnMut(&ReadRow, &[u8])) -> Result<Wants, Corrupt> {
        while self.left > 0 {
            let Some(read) = self.rows.get(self.next_row) else { return Ok(Wants::Rows) };
            if read.row.flow != self.ordinal {
                return Err(bad("a row of another flow"));
            }
            let length = self.reader.payload_length(&read.row)?;
            let end = self.next_byte.checked_add(length).ok_or_else(|| bad("payload length"))?;
            let payload = match self.payload.get(self.next_byte..end) {
                Some(payload) => payload,
                None if self.to_come > 0 => return Ok(Wants::Payload),
                None if self.is_cut => self.payload.get(self.next_byte..).unwrap_or_default(),
                None => return Err(bad("payload ends before its packets")),
            };
            self.packet.clear();
            let templates = self.reader.templates();
            self.rebuilder.header(&read.row, templates, self.ends, &mut self.packet)?;
            self.packet.extend_from_slice(payload);
            each(read, &self.packet);
            self.next_byte += payload.len();
            self.next_row += 1;
            self.left -= 1;
        }
        if self.to_come > 0 || self.next_byte < self.payload.len() {
            return Err(bad("payload behind the last packet"));
        }
        Ok(Wants::Nothing)
    }
}

fn bad(what: &str) -> Corrupt {
    Corrupt::new("packets", what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::block::{BlockHeader, Codec};

    #[test]
    fn pieces_end_at_blocks_and_each_block_is_in_one_piece() {
        let mut directory = BlockDirectory::new();
        for raw in [100, 200, 50, 400, 10, 10] {
            directory.push(BlockHeader { codec: Codec::Stored, key: 0, raw, stored: raw, crc: 0 });
        }
        let cut = |from, length, bytes| -> Vec<_> {
            let pieces = cut(Layer::Body, &directory, (from, length), bytes).into_iter();
            pieces.map(|piece| (piece.blocks, piece.own)).collect()
        };
        assert_eq!(
            cut(20, 735, 300),
            [(0..2, 20..300), (2..3, 300..350), (3..4, 350..750), (4..5, 750..755)]
        );
        assert_eq!(cut(0, 770, u64::MAX), [(0..6, 0..770)]);
        assert_eq!(cut(120, 10, 1), [(1..2, 120..130)]);
        assert_eq!(cut(5, 0, 10), []);
    }
}
