//! Making a store readable again: what the catalog says is made anew from what is still there.
//!
//! The logs are the truth, and all that is rolled up can be made from them; where a log has holes, the
//! segments themselves say what they are. So a repair
//!
//! 1. puts roots, manifests, boundaries and ended generations anew that cannot be read or lack facts;
//! 2. names segments whose commits are lost: in a log of its own, as theirs is not its to write;
//! 3. rolls up all that.
//!
//! Nothing that was recorded is removed, and what is there twice is not counted twice. What was listened to,
//! and what was lost, is not known of lost commits, and stays unknown. Breaking off anywhere is no harm:
//! the next repair goes on.
//!
//! * [`adopt`]: which segments nobody names are to be named (pure), and their entries
//! * `survey`: what there is; `named`: the segments of it, on disk by slot
//! * `doubt`: which commits are in doubt (pure)
//! * `forgotten`: generations that no root names any more
//! * `log`: what a repair commits
//! * [`action`]: what is asked, done, and told
//! * [`run`]: doing it

pub mod action;
pub mod adopt;
mod doubt;
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
