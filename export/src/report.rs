//! The report of an export, and the closing comment of its file. The beginning is written before any packet is
//! read, so only the end can state that nothing was left out.

use capstan_model::Failure;
use capstan_model::block::block_type;
use capstan_model::failure::with_causes;
use capstan_model::words::count;
use capstan_storage_engine::catalog::Gap;
use capstan_view::left_out;

use super::Completeness;

/// Prefix of the comment in a file's last block. A file without it was cut off.
const ENDING: &str = "end of the file";

/// Most bytes of that comment.
const ENDING_BYTES: usize = 16 << 10;

/// Upper bound for the last block of a file, bytes.
pub const LAST_BLOCK: usize = 2 * ENDING_BYTES;

/// Segments that are named one by one.
const NAMED: usize = 8;

/// The result of an export.
#[derive(Debug, Default)]
pub struct Report {
    /// Packets written.
    pub packets: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Segments that were opened.
    pub segments: u64,
    /// Segments, or parts of them, that could not be read: their packets are missing.
    pub skipped: Vec<Skipped>,
    /// Segments with flows for which the selection cannot be decided, because the identities of their ends are
    /// unknown. Those flows are not in the file.
    pub unknown: u64,
    /// How complete the window is, as far as the catalog knows.
    pub completeness: Completeness,
    /// Remarks on the selection, for the reader of the file, in words.
    pub remarks: Vec<String>,
    /// Packets that were cut because readers do not accept longer ones; each has a comment.
    pub cut: u64,
    /// Blocks of sources (not packets) that could not be written.
    pub blocks_left_out: u64,
    /// Packets whose damaged options were left out.
    pub options_left_out: u64,
    /// Bytes that went through temporary files.
    pub spilled: u64,
}

/// Packets that could not be read.
#[derive(Debug)]
pub struct Skipped {
    /// In which segment.
    pub segment: String,
    /// How many. Includes packets outside the window and, if the flows could not be read, unselected ones.
    pub packets: u64,
    /// Why.
    pub failure: Failure,
}

impl Report {
    /// The failure of an export that wrote a file: unreadable packets, and gaps of the catalog that may hide
    /// more.
    pub fn failure(&self) -> Option<Failure> {
        let of_gaps = self.completeness.gaps.iter().map(Gap::failure_kind);
        let kinds = of_gaps.chain(self.skipped.iter().map(|part| part.failure.kind()));
        left_out("the export", kinds, &self.unreadable())
    }

    /// What could not be read, in words.
    fn unreadable(&self) -> Vec<String> {
        let gaps = self.completeness.gaps.iter().map(Gap::to_string);
        gaps.chain(self.segments_skipped()).collect()
    }

    /// Segments that could not be read completely, in words; of several reasons the first.
    fn segments_skipped(&self) -> Vec<String> {
        let mut words = Vec::new();
        let parts = self.skipped.chunk_by(|a, b| a.segment == b.segment);
        for part in parts.clone().take(NAMED) {
            let [first, ..] = part else { continue };
            let packets = part.iter().map(|part| part.packets).fold(0, u64::saturating_add);
            let reason = with_causes(&first.failure);
            let packets = count(packets, "packet");
            words.push(format!("{packets} of segment {} ({reason})", first.segment));
        }
        let more = parts.skip(NAMED).flatten().map(|part| part.packets);
        let (parts, packets) = more
            .fold((0_u64, 0_u64), |(parts, sum), packets| (parts + 1, sum.saturating_add(packets)));
        if parts > 0 {
            words.push(format!("{} of other segments", count(packets, "packet")));
        }
        words
    }

    /// Other contents that are not in the file, or not as captured, in words.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.remarks.clone();
        notes.extend(self.completeness.lost());
        notes.extend(self.completeness.deleted.known());
        let counted = [
            (
                self.unknown,
                "segment",
                "without known identities of the ends: whether their packets match is unknown",
            ),
            (self.cut, "packet", "truncated, because readers do not accept longer packets"),
            (self.blocks_left_out, "block", "of a source left out: it cannot be written"),
            (self.options_left_out, "packet", "without its options, which are damaged"),
        ];
        let counted = counted.into_iter().filter(|(number, ..)| *number > 0);
        notes.extend(counted.map(|(number, noun, what)| format!("{} {what}", count(number, noun))));
        notes.extend(self.completeness.not_certain());
        notes
    }

    /// The closing comment of the file.
    pub(super) fn ending(&self) -> String {
        let mut missing = self.unreadable();
        missing.extend(self.notes());
        let packets = count(self.packets, "packet");
        // Unknown coverage is not a known loss.
        let unknown = self.completeness.not_certain();
        if !missing.is_empty() && missing == unknown {
            let unknown = unknown.join("; ");
            return format!("{ENDING}; nothing was left out: {packets}; {unknown}");
        }
        if missing.is_empty() {
            return format!(
                "{ENDING}, which is complete: {packets}, and nothing was left out; {}",
                self.completeness.words()
            );
        }
        let missing = missing.join("; ");
        let mut words = format!("{ENDING}, which is not complete: it has {packets}; {missing}");
        words.truncate(words.floor_char_boundary(ENDING_BYTES));
        words
    }
}

/// Whether a file with these last bytes ([`LAST_BLOCK`] of them or the whole file) was written to its end, even
/// if packets were left out.
pub fn is_ended(tail: &[u8]) -> bool {
    let number = |at: usize| tail.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let last_block = || {
        let length = number(tail.len().checked_sub(4)?)? as usize;
        let start = tail.len().checked_sub(length)?;
        let block = tail.get(start..)?;
        let is_section = number(start) == Some(block_type::SECTION_HEADER);
        Some(is_section && block.windows(ENDING.len()).any(|at| at == ENDING.as_bytes()))
    };
    last_block().unwrap_or(false)
}
