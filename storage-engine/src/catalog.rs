//! The catalog: the contents of a store, as facts that are created once and never changed.
//!
//! A recorder registers each of its generations as a *writer*. It then appends *commits* to its own log, numbered
//! from 0 without gaps:
//!
//! ```text
//! writers/<recorder>/<generation>          a Writer, as JSON
//! open/<recorder>-<generation>             empty: the log may still grow
//! log/<recorder>/<generation>/<number>     a Commit, as JSON
//! checkpoint/<recorder>/<generation>/<number>   the state of a log before that commit
//! ```
//!
//! Each commit holds the SHA-256 of the previous commit (the first commit: of its writer), so a change in the middle
//! of a log is detected. Recorders never wait for each other: every log has one owner. Commits before a checkpoint may
//! be removed: the log is *truncated*.
//!
//! A *rollup* follows all open logs and rolls them up into *manifests*, one per hour. A *root* records how far the
//! rollup has come:
//!
//! ```text
//! catalog/date=…/hour=…/<version>          a Manifest: the facts of that hour
//! catalog/date=…/hour=…/part-<name>        facts that a manifest names, when there are many
//! catalog/wide/<version>                   a Manifest: facts that touch very many hours
//! catalog/roots/<version>                  the Root: positions in open logs, epoch
//! catalog/lives/<recorder>/<generation>    a generation that has ended
//! boundary/<number>                        versions of the root below a limit may be removed
//! lease/<reader>-<root>-<number>           empty: a reader uses that root
//! ```
//!
//! A reader takes the newest root, tails the logs from the positions in it, and reads the manifests of the requested
//! hours. The cost does not grow with the history.
//!
//! Pure modules, which see a log as a sequence of byte strings:
//!
//! * [`entry`]: the entries of logs, and their checks
//! * `terms`: whether a filter of flows may match, decided from an entry or a manifest
//! * [`chain`]: follows one log, step by step; [`generation`]: the sums over one log
//! * [`fact`]: one statement of a commit; [`slot`]: the place in time of a fact; [`facts`]: commits split by slot
//! * [`SegmentState`]: the current state of a segment, computed from its changes
//! * [`gap`]: an unusable object, and the questions that it affects
//! * [`manifest`], [`part`], [`root`]: rolled-up objects, the steps between versions, and their invariants
//! * [`state`]: all logs together, and queries on them
//! * `sums`: compares manifests with checkpoints
//!
//! Modules with IO:
//!
//! * [`mod@recorder`]: appends to a log; `load`: reads logs; [`succession`]: which process may continue an import
//! * `walk`: reads all logs one after the other; `by_slot`: keeps their facts on disk until their slot is processed
//! * `versions`: reads and writes rolled-up objects; `base`: the root that a view begins with; `checkpoint`: where
//!   truncated logs begin
//! * [`rollup`]: rolls logs up; [`role`]: decides which process does; [`sweep`]: removes replaced versions
//! * [`view`]: reads the catalog, with a cache of manifests in `slots`; [`lease`]: protects objects that a reader
//!   needs

mod base;
pub(crate) mod by_slot;
pub mod chain;
pub(crate) mod checkpoint;
pub(crate) mod commit_id;
pub mod entry;
pub mod fact;
pub mod facts;
pub mod gap;
pub mod generation;
pub mod hours;
pub mod invariants;
pub mod lease;
pub(crate) mod load;
pub mod manifest;
pub mod names;
pub mod part;
#[cfg(feature = "planted")]
pub mod readable;
pub mod recorder;
pub mod role;
pub mod rollup;
pub mod root;
pub(crate) mod segment_entry;
pub(crate) mod segment_state;
pub mod slot;
mod slots;
mod source;
pub mod state;
pub mod succession;
pub(crate) mod sums;
pub mod sweep;
mod terms;
mod unknown_fields;
pub(crate) mod versions;
pub mod view;
pub(crate) mod walk;
pub(crate) mod window;

pub use chain::{Chain, Problem};
pub use commit_id::CommitId;
pub use entry::{Commit, CommitDraft, Finished, Layer, Writer, WriterInfo, WriterKind};
pub use fact::{Change, Fact, What};
pub use facts::Attributed;
pub use gap::{About, Gap, GapKind};
pub use generation::{GenerationState, Import};
pub use lease::Lease;
pub use load::writer;
pub use recorder::Recorder;
pub use rollup::{Outcome, Rollup, RollupStats, Stay, Swept};
pub use segment_entry::{DirectoryEntry, LayerEntry, SegmentEntry};
pub use segment_state::{Retired, Segment, SegmentState};
pub use slot::TimeSlot;
pub use source::{Source, SourceHash, SourceMark};
pub use state::{Catalog, Totals};
pub use unknown_fields::UnknownFields;
pub use view::{CatalogView, Generations};
pub use window::{Asked, Window};

#[cfg(test)]
mod tests;
