//! Checking a store: is everything there that the catalog names, and is it what was written?
//!
//! * [`finding`]: what can be wrong, how bad it is, and what can still be read
//! * [`listing`]: the objects of an hour against what the catalog says of it
//! * [`content`]: the bytes of a layer against its checksums
//! * `rolled up`: the rolled-up catalog, by itself and against the logs
//! * [`run`]: all of a store, hour by hour, with IO
//!
//! Nothing is changed. The first three are pure.

pub mod content;
pub mod finding;
pub mod listing;
mod rolled_up;
pub mod run;

pub use finding::{Finding, Severity, What};
pub use run::{Options, Report, Watch, verify};

#[cfg(test)]
mod tests;
