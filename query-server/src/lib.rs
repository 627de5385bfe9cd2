//! Reading the store: SQL tables, Flight SQL, PCAPNG export.
//!
//! * [`access`]: who asks, and what they may see
//! * [`view`]: the store at a moment, and segments opened for reading
//! * [`select`]: which flows a query selects
//! * [`tables`]: SQL tables over a view; [`sessions`]: tables that follow the store
//! * [`export`]: PCAPNG of a window
//! * [`questions`]: running queries within limits
//! * [`flight`]: Arrow Flight SQL; [`http`]: PCAPNG and status over HTTP

#![forbid(unsafe_code)]

pub mod access;
pub mod export;
pub mod flight;
pub mod http;
pub mod listen;
pub mod questions;
pub mod select;
pub mod sessions;
pub mod tables;
pub mod view;
