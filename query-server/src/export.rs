//! PCAPNG out of a store: any window, as one file, in memory that does not grow with it.
//!
//! ```text
//! catalog -> segments that may match -> terms -> flows -> byte ranges -> packets -> merge -> file
//! ```
//!
//! Segments are sorted by where their first packet comes, and each is opened when what is
//! written has come that far (`order`). Its selected packets are read some flows at a time
//! (`read`; a very large flow piece by piece, `large`), put together in one flat buffer
//! (`records`) and sorted; what does not fit
//! into the memory allowed goes to a temporary file as a sorted run (`run`). `merge` takes
//! the least packet of all runs, again and again, and `output` writes it.
//!
//! What else a source had besides packets is written like this. Names and secrets
//! (pcapng name resolution and decryption secrets blocks) are written before the first packet
//! of their segment that they came before, and in any case when the segment ends: they help
//! reading a part of a capture, too; secrets also if no packet of their segment is in the file,
//! at its beginning, as long as there is one of the same recorder. Statistics, custom and unknown blocks say something about
//! the capture as a whole, and are written only if nothing was left out (all of time, all
//! flows). What was lost is written as statistics of the interface at the file's end,
//! unless the source's own are there.
//!
//! The same snapshot and options give the same bytes.

mod completeness;
mod large;
mod merge;
mod order;
mod output;
pub mod pcapng;
mod plan;
mod read;
mod records;
mod run;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub use self::completeness::{Completeness, Lost};
pub use crate::flight::export::Order;
use crate::select::Selection;
use crate::snapshot::{Cost, Snapshot};

/// Memory an export may take for packets, unless said otherwise, bytes.
pub const MEMORY: usize = 256 << 20;

/// The least memory an export works with, bytes.
pub const LEAST_MEMORY: usize = 1 << 20;

/// Pieces of the file (of about a megabyte) that may wait for who takes them.
const PIECES: usize = 4;

/// What to export, and how.
#[derive(Debug, Clone)]
pub struct Export {
    /// Which packets.
    pub selection: Selection,
    /// In which order.
    pub order: Order,
    /// Memory for packets, bytes; at least [`LEAST_MEMORY`].
    pub memory: usize,
    /// Where temporary files go when that is not enough.
    pub spill: PathBuf,
}

impl Export {
    /// An export with the usual memory, and temporary files where the system has them.
    pub fn new(selection: Selection, order: Order) -> Self {
        Export { selection, order, memory: MEMORY, spill: std::env::temp_dir() }
    }
}

/// What an export did.
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
    /// Segments of which it is not known whether some of their flows belong, as it is not
    /// known who their ends are. Those flows are not in the file.
    pub unknown: u64,
    /// How complete the window is, as far as the catalog knows.
    pub completeness: Completeness,
    /// What is wrong with the catalog's own objects about the window, in words: more may be
    /// missing than it knows.
    pub problems: Vec<String>,
    /// Packets that were cut because readers do not take longer ones; each says so.
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
    /// How many; those outside the window and, where not even the flows are known, those not
    /// selected count, too.
    pub packets: u64,
    /// Why.
    pub failure: Failure,
}

impl Report {
    /// What went wrong although a file was written: packets that could not be read.
    pub fn failure(&self) -> Option<Failure> {
        let first = self.skipped.first()?;
        let mut names: Vec<&str> = self.skipped.iter().map(|part| part.segment.as_str()).collect();
        names.dedup();
        let packets = self.skipped.iter().map(|part| part.packets).fold(0, u64::saturating_add);
        let reason = with_causes(&first.failure);
        Some(Failure::new(
            FailureKind::Damaged,
            format!(
                "{packets} packets are missing in the export, as they could not be read from {} ({reason})",
                match names.as_slice() {
                    [one] => format!("segment {one}"),
                    [one, rest @ ..] => format!("segment {one} and {} more", rest.len()),
                    [] => String::new(),
                }
            ),
        ))
    }
}

/// Writes the file, piece by piece, to `to`. What cannot be read because it is damaged or
/// gone is left out and named in the report; the rest is written.
///
/// This does work that takes long between its waits, and writes temporary files: run it where
/// that holds nobody up ([`stream()`] does).
///
/// # Errors
/// The store cannot be reached, the disk is full, or nobody takes the pieces: what was sent
/// until then is not a whole file.
pub async fn export(
    snapshot: &Arc<Snapshot>,
    what: &Export,
    to: &mpsc::Sender<Bytes>,
) -> Result<Report, Failure> {
    let snapshot = snapshot.begin();
    let report = merge::run(&snapshot, what, to).await;
    snapshot.end().await;
    report
}

/// What an export will read, without reading payload: `index` layers, flows and which rows
/// and blocks are needed.
///
/// # Errors
/// A segment cannot be read.
pub async fn plan(snapshot: &Arc<Snapshot>, what: &Export) -> Result<Cost, Failure> {
    plan::plan(snapshot, what).await
}

/// The file as a stream, made on threads for blocking work as it is taken. Ends with a failure
/// if the file is not whole, also when only some packets could not be read.
///
/// Dropping the stream stops the work.
pub fn stream(snapshot: Arc<Snapshot>, what: Export) -> BoxStream<'static, Result<Bytes, Failure>> {
    let (to, from) = mpsc::channel(PIECES);
    let work = tokio::task::spawn_blocking(move || {
        Handle::current().block_on(export(&snapshot, &what, &to))
    });
    let pieces =
        stream::unfold(
            from,
            |mut from| async move { from.recv().await.map(|piece| (Ok(piece), from)) },
        );
    let end = stream::once(async move {
        match work.await {
            Ok(Ok(report)) => report.failure(),
            Ok(Err(failure)) => Some(failure),
            Err(error) => {
                Some(Failure::caused_by(FailureKind::Other, "the export broke off", error))
            }
        }
    });
    pieces.chain(end.filter_map(async |failure| failure.map(Err))).boxed()
}
