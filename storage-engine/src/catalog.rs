//! The catalog: what is in a store, as facts that are created once and never changed.
//!
//! A recorder registers each of its generations as a *writer* and then appends *commits* to a log
//! of its own, numbered from 0 without gaps:
//!
//! ```text
//! writers/<recorder>/<generation>          a Writer, as JSON
//! open/<recorder>-<generation>             empty: that log may go on
//! log/<recorder>/<generation>/<number>     a Commit, as JSON
//! ```
//!
//! Each commit holds the SHA-256 of the one before (the first one of its writer), so a log
//! cannot be changed in the middle unseen. Recorders never wait for each other: every log has
//! one owner.
//!
//! A *rollup* follows all open logs and rolls them up into *manifests*, one an hour, and a *root*
//! that says how far this has come:
//!
//! ```text
//! catalog/date=…/hour=…/<version>          a Manifest: what commits say of that hour
//! catalog/date=…/hour=…/part-<name>        facts that a manifest names, when they are many
//! catalog/wide/<version>                   a Manifest: what is of very many hours
//! catalog/roots/<version>                  the Root: positions in open logs, epoch
//! catalog/lives/<recorder>/<generation>    a generation that has ended
//! boundary/<number>                        versions of the root up to some number may be gone
//! lease/<reader>-<root>-<number>           empty: somebody reads as of that root
//! ```
//!
//! A reader takes the newest root, tails the logs that it names from there, and reads the
//! manifests of the hours it is asked about. What that costs does not grow with the history.
//!
//! Pure, a log being a row of byte strings to them:
//!
//! * [`entry`]: what is written in logs, and its checks; [`filter`]: which addresses a segment or an hour may hold
//! * [`chain`]: following one log, step by step; [`generation`]: what that comes to
//! * [`fact`]: one statement of a commit; [`slot`]: where in time it is kept; [`facts`]: commits taken apart by slot
//! * [`segment_state`]: what a segment has now, from what was said of it
//! * [`gap`]: an object that cannot be used, and which questions that concerns
//! * [`manifest`], [`part`], [`root`]: what is rolled up, the steps from one version to the next, and what
//!   holds of them
//! * [`state`]: logs together, and the questions put to them
//!
//! With IO:
//!
//! * [`mod@recorder`]: appending to a log; `load`: reading logs; [`succession`]: which process may go on with one
//! * `walk`: all logs one after the other; `by_slot`: what they say, kept on disk until its slot comes
//! * `versions`: reading and putting what is rolled up; `base`: the root that a view begins with
//! * [`rollup`]: rolling logs up; [`role`]: who does; [`sweep`]: removing what newer versions have replaced
//! * [`view`]: reading, with what is known of slots kept in `slots`; [`lease`]: keeping what a reader may still read

mod base;
pub(crate) mod by_slot;
pub mod chain;
pub mod entry;
pub mod fact;
pub mod facts;
pub mod filter;
pub mod gap;
pub mod generation;
pub mod hours;
pub mod lease;
mod load;
pub mod manifest;
pub mod part;
pub mod recorder;
pub mod role;
pub mod rollup;
pub mod root;
pub(crate) mod segment_state;
pub mod slot;
mod slots;
pub mod state;
pub mod succession;
pub mod sweep;
pub(crate) mod versions;
pub mod view;
pub(crate) mod walk;

pub use chain::{Chain, Problem};
pub use entry::{
    Commit, CommitDraft, Finished, Layer, LayerEntry, SegmentEntry, Source, SourceMark, Writer,
    WriterInfo, WriterKind,
};
pub use fact::{Change, Fact, What};
pub use facts::Attributed;
pub use filter::AddressFilter;
pub use gap::{About, Gap, GapKind};
pub use generation::{GenerationState, Import};
pub use lease::Lease;
pub use load::writer;
pub use recorder::Recorder;
pub use rollup::{Outcome, Rollup, RollupStats, Stay, Swept};
pub use segment_state::{Retired, SegmentState};
pub use slot::TimeSlot;
pub use state::{Catalog, CommitId, Segment, Totals};
pub use view::{Asked, CatalogView, Generations, Window};

#[cfg(test)]
mod tests;
