//! Reading the store: SQL tables, Flight SQL, PCAPNG export.

pub mod export;
pub mod flight;
pub mod http;
pub mod select;
pub mod sessions;
pub mod snapshot;
pub mod tables;
