//! Ingest: from packets to segments in a store.
//!
//! ```text
//! source -> pipeline (decode, flow_table, label, segment builder) -> upload -> catalog commit
//! ```
//!
//! * [`source`]: packet sources: capture files, streams, live interfaces
//! * [`flow_table`]: assigns packets to flows
//! * [`metrics`]: counters of a recorder, readable while it runs
//! * [`pipeline`]: writes packets into open segments
//! * [`upload`]: seals, uploads, commits
//! * [`import`]: imports a capture file
//! * [`record`]: records live interfaces

pub mod flow_table;
pub mod import;
pub mod metrics;
pub mod pipeline;
pub mod record;
pub mod source;
pub mod upload;
