//! Statements over stores made by the real pipeline.

mod docs;
mod duckdb;
mod explain;
mod fixture;
mod flows;
mod kinds;
mod more;
mod packets;
mod pinned;
mod predicates;
