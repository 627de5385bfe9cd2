//! Verifies a store: every object that the catalog names exists and has its original bytes.
//!
//! * [`finding`]: the possible faults, their severity, and what stays readable
//! * [`listing`]: compares the objects of an hour with the catalog
//! * [`content`]: compares the bytes of a layer with its checksums
//! * `rolled_up`: checks the rolled-up catalog, by itself and against the logs
//! * [`run`]: checks a whole store, hour by hour, with IO
//!
//! Verification changes nothing. The first three modules are pure.

pub mod content;
pub mod finding;
pub mod listing;
mod rolled_up;
pub mod run;

pub use finding::{Finding, Severity, What};
pub use run::{Options, Report, Watch, verify};

#[cfg(test)]
mod tests;
