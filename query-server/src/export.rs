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
//! The file's beginning says what was listened to; its last block, an empty section, says whether anything was
//! left out (`report`). A file without that was cut off.
//!
//! The same view and options give the same bytes.

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
use std::sync::Arc;

use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub use self::completeness::{Completeness, Lost};
pub use self::report::{LAST_BLOCK, Report, Skipped, is_ended};
pub use crate::flight::export::Order;
use crate::select::Selection;
use crate::view::{Cost, StoreView};

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
    view: &Arc<StoreView>,
    what: &Export,
    to: &mpsc::Sender<Bytes>,
) -> Result<Report, Failure> {
    let view = view.begin();
    let report = merge::run(&view, what, to).await;
    view.end().await;
    report
}

/// What an export will read, without reading payload: `index` layers, flows and which rows
/// and blocks are needed.
///
/// # Errors
/// A segment cannot be read.
pub async fn plan(view: &Arc<StoreView>, what: &Export) -> Result<Cost, Failure> {
    plan::plan(view, what).await
}

/// The file as a stream, made on threads for blocking work as it is taken. Ends with a failure
/// if the file is not whole, also when only some packets could not be read.
///
/// Dropping the stream stops the work.
pub fn stream(view: Arc<StoreView>, what: Export) -> BoxStream<'static, Result<Bytes, Failure>> {
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
                Some(Failure::caused_by(FailureKind::Other, "the export broke off", error))
            }
        }
    });
    pieces.chain(end.filter_map(async |failure| failure.map(Err))).boxed()
}
