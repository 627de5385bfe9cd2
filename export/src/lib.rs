//! Exports PCAPNG from a store: any window, as one file, in memory that does not grow with it.
//!
//! ```text
//! catalog -> segments that may match -> terms -> flows -> byte ranges -> packets -> merge -> file
//! ```
//!
//! Segments are sorted by the position of their first packet. A segment is opened when the output reaches that
//! position (`order`). Its selected packets are read some flows at a time (`read`; a very large flow piece by
//! piece, `large`), assembled in one flat buffer (`records`) and sorted. What exceeds the memory budget goes to
//! a temporary file as a sorted run (`run`). `merge` repeatedly takes the least packet of all runs, and `output`
//! writes it.
//!
//! Blocks of a source that are not packets are written as follows. Names and secrets (pcapng name resolution and
//! decryption secrets blocks) keep their place before the packets of their segment, and are written by its end
//! at the latest: they help to read a part of a capture, too. Secrets of a segment without packets in the file
//! are written at its beginning, if the file has a packet of the same recorder. Statistics, custom and unknown
//! blocks describe the capture as a whole. They are written only if nothing was left out (all of time, all
//! flows). Losses are written as interface statistics at the file's end, unless the source's own are there.
//!
//! The file's beginning states the coverage; its last block, an empty section, states whether anything was left
//! out (`report`). A file without that block was cut off.
//!
//! A principal with a mask gets the packets of visible flows. The file has no blocks of the source, no packet counts of
//! losses, and of interfaces only those of its packets (`docs/access.md`).
//!
//! The same view, principal and options give the same bytes.

#![forbid(unsafe_code)]

mod completeness;
mod large;
mod merge;
mod order;
mod output;
pub mod pcapng;
mod plan;
mod read;
mod records;
mod report;
mod run;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use capstan_view::access::{Principal, Right};
use capstan_view::select::Selection;
use capstan_view::{Cost, ScopedView};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub use self::completeness::{Completeness, Lost};
pub use self::order::Order;
pub use self::report::{LAST_BLOCK, Report, Skipped, is_ended};

/// Default memory of an export for packets, bytes.
pub const MEMORY: usize = 256 << 20;

/// The least memory an export works with, bytes.
pub const LEAST_MEMORY: usize = 1 << 20;

/// Pieces of the file (of about a megabyte) that may be queued for the reader.
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
    /// Folder for temporary files when that is not enough.
    pub spill: PathBuf,
}

impl Export {
    /// An export with default memory, and temporary files in the system's folder.
    pub fn new(selection: Selection, order: Order) -> Self {
        Export { selection, order, memory: MEMORY, spill: std::env::temp_dir() }
    }
}

/// Writes the file, piece by piece, to `to`. Leaves out what is damaged or gone, names it in the report, and
/// writes the rest.
///
/// Computes for long between awaits, and writes temporary files: run it where that blocks no other task
/// ([`stream()`] does).
///
/// # Errors
/// The store cannot be reached, the disk is full, or the reader is gone: the pieces sent so far are not a whole
/// file. The principal may not export.
pub async fn export(
    view: &ScopedView,
    what: &Export,
    to: &mpsc::Sender<Bytes>,
) -> Result<Report, Failure> {
    allowed(view.who())?;
    let pinned = view.begin();
    let report = merge::run(&pinned, what, to).await;
    pinned.end().await;
    report.map_err(|failure| view.redacted(failure))
}

/// Refuses an export that needs a right which a principal lacks. Files have whole packets.
///
/// # Errors
/// Of kind `Permission`.
pub fn allowed(who: &Principal) -> Result<(), Failure> {
    who.require(Right::Export, "an export")?;
    who.require(Right::PayloadRead, "an export, which has whole packets,")
}

/// Plans the reads of an export without reading payload: `index` layers, flows, and which rows and blocks are
/// needed.
///
/// # Errors
/// A segment cannot be read. The principal may not export, or lacks [`Right::CatalogRead`]: costs depend on all flows.
pub async fn plan(view: &ScopedView, what: &Export) -> Result<Cost, Failure> {
    allowed(view.who())?;
    view.who().require(Right::CatalogRead, "the cost of an export")?;
    plan::plan(view, what).await
}

/// The file as a stream, made on threads for blocking work as it is read. Ends with a failure if the file is
/// incomplete, also when only some packets could not be read.
///
/// Dropping the stream cancels the work.
pub fn stream(view: ScopedView, what: Export) -> BoxStream<'static, Result<Bytes, Failure>> {
    let (to, from) = mpsc::channel(PIECES);
    let work =
        tokio::task::spawn_blocking(move || Handle::current().block_on(export(&view, &what, &to)));
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
                Some(Failure::caused_by(FailureKind::Other, "the export was aborted", error))
            }
        }
    });
    pieces.chain(end.filter_map(async |failure| failure.map(Err))).boxed()
}
