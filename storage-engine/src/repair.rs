//! Makes a store readable again: rebuilds the catalog from what is still there.
//!
//! The logs are the truth, and every rolled-up object can be rebuilt from them. Where a log has holes, the segments
//! describe themselves. So a repair
//!
//! 1. writes roots, manifests, boundaries and ended generations again that are unreadable or lack facts;
//! 2. names segments whose commits are lost, in a log of its own, because it must not write to the logs of others;
//! 3. rolls all that up.
//!
//! Of truncated logs only the rest is the truth. What manifests had of their removed commits cannot be rebuilt: then the
//! segments describe themselves, too. Commits that retire layers are never removed, so a repair never names again what
//! was retired.
//!
//! A repair removes no recorded data, and does not count duplicates twice. The coverage and losses of lost commits
//! stay unknown. A crash at any point is harmless: the next repair continues.
//!
//! * [`adopt`]: decides which orphan segments to name (pure), and makes their entries
//! * `survey`: the contents of the catalog; `named`: its segments, on disk by slot
//! * `doubt`: the commits in doubt (pure)
//! * `elsewhere`: facts of a lost manifest that others have, too
//! * `forgotten`: generations that no root names any more
//! * `log`: the commits of a repair
//! * [`action`]: the request, actions and report of a repair
//! * [`run`]: executes the repair

pub mod action;
pub mod adopt;
mod doubt;
mod elsewhere;
mod forgotten;
mod log;
mod named;
pub mod run;
mod survey;

pub use action::{Action, Options, Report, Watch};
pub use adopt::Why;
pub use run::repair;

#[cfg(test)]
mod tests;
