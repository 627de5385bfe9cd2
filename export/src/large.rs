//! A flow part that is larger than a slice, read piece by piece.

use std::collections::VecDeque;
use std::sync::Arc;

use capstan_model::{Failure, FailureKind, TimeRange};
use capstan_storage_engine::segment::reader::{PartReader, Piece, Wants};
use capstan_view::ScopedSegment;

use super::read::{Prefetch, Push, SegmentExtras, Slice};
use super::records::{Arena, HEADER};

/// Pieces that are prefetched while one is assembled.
const AHEAD: usize = 2;

/// Bytes a packet may take beside its payload: record, raw ticks, headers.
const PACKET_OVERHEAD: usize = HEADER + 8 + 128;

/// See the module.
#[derive(Debug)]
pub(super) struct LargePart {
    open: Arc<ScopedSegment>,
    part: PartReader,
    /// Pieces that are not requested yet.
    pieces: VecDeque<Piece>,
    coming: VecDeque<Prefetch<Vec<u8>>>,
}

impl LargePart {
    /// Begins to read the one flow of a slice.
    ///
    /// # Errors
    /// Its row does not fit the segment.
    pub(super) fn begin(
        open: &Arc<ScopedSegment>,
        slice: &Slice,
        slice_bytes: u64,
    ) -> Result<LargePart, Failure> {
        let nothing = || Failure::new(FailureKind::Other, "a slice without a flow");
        let (ordinal, flow) = slice.first().ok_or_else(nothing)?;
        let part = open.read_part(ordinal, flow)?;
        let pieces = open.pieces(flow, slice_bytes).into();
        Ok(LargePart { open: Arc::clone(open), part, pieces, coming: VecDeque::new() })
    }

    /// Packets that are not assembled yet.
    pub(super) fn left(&self) -> u64 {
        self.part.left()
    }

    /// Upper bound for the bytes that the next [`LargePart::assemble`] adds.
    pub(super) fn size(&self) -> usize {
        let (packets, payload) = self.part.at_hand();
        packets.saturating_mul(PACKET_OVERHEAD).saturating_add(payload)
    }

    /// Assembles the packets inside the range, as far as the read pieces reach. Returns what to read next; none
    /// at the end.
    ///
    /// # Errors
    /// Stored bytes do not fit together.
    pub(super) fn assemble(
        &mut self,
        range: TimeRange,
        beside: &SegmentExtras,
        arena: &mut Arena,
    ) -> Result<Option<Wants>, Failure> {
        arena.expect(self.part.at_hand().0, self.size());
        let mut push = Push::new(range, beside, arena);
        let wants = self.part.assemble(|read, data| push.packet(read, data));
        push.end()?;
        Ok(Some(wants?).filter(|wants| *wants != Wants::Nothing))
    }

    /// Reads the wanted pieces, and prefetches the next ones.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) async fn read(&mut self, wants: Wants) -> Result<(), Failure> {
        while self.coming.len() < AHEAD
            && let Some(piece) = self.pieces.pop_front()
        {
            let open = Arc::clone(&self.open);
            let read = async move { open.read_piece(&piece).await };
            self.coming.push_back(Prefetch::start(read));
        }
        match wants {
            Wants::Rows => self.part.read_rows(&*self.open).await?,
            Wants::Payload => match self.coming.pop_front() {
                Some(piece) => self.part.give(piece.wait().await?),
                None => {
                    let what = "a flow has more payload than the segment has for it";
                    return Err(Failure::new(FailureKind::Damaged, what));
                }
            },
            Wants::Nothing => {}
        }
        Ok(())
    }
}
