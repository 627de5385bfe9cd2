//! Reading the store: SQL tables, Flight SQL, PCAPNG export.

pub mod export;
pub mod flight;
pub mod select;
pub mod snapshot;
