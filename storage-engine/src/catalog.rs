//! The catalog: what is in a store, as facts that are created once and never changed.
//!
//! A recorder registers each of its lives as a *writer* and then appends *commits* to a log
//! of its own, numbered from 0 without gaps:
//!
//! ```text
//! writers/<recorder>/<generation>          a Writer, as JSON
//! log/<recorder>/<generation>/<number>     a Commit, as JSON
//! ```
//!
//! Each commit holds the SHA-256 of the one before (the first one of its writer), so a log
//! cannot be changed in the middle unseen. Recorders never wait for each other: every log has
//! one owner.
//!
//! * [`entry`]: what is written, and its checks
//! * [`filter`]: which addresses a segment may hold
//! * [`chain`]: following one log, step by step
//! * [`state`]: all logs together, and the questions put to them
//! * [`mod@recorder`]: appending, with IO
//! * [`mod@load`]: reading, with IO
//!
//! `entry`, `filter`, `chain` and `state` are pure: a log is a row of byte strings to them.
//!
//! # What comes on top
//!
//! Readers follow every log from its start. Folding logs into one manifest an hour
//! (`catalog/date=…/hour=…/<version>`), the root with its epochs beside the manifests, boundaries
//! below which numbers are gone, and repair from the segments' own `index` layers all build on
//! these facts without changing them: a manifest is a [`state::Catalog`] of one hour with each
//! writer's [`chain::Chain`], from which a reader goes on as it does here from number 0.

pub mod chain;
pub mod entry;
pub mod filter;
pub mod load;
pub mod recorder;
pub mod state;

pub use chain::{Chain, Problem};
pub use entry::{
    Commit, CommitDraft, Finished, Layer, LayerEntry, SegmentEntry, Source, SourceMark, Writer,
    WriterInfo, WriterKind,
};
pub use filter::AddressFilter;
pub use recorder::Recorder;
pub use state::{Catalog, Import, Segment, Totals};

#[cfg(test)]
mod tests;
