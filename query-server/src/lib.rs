//! Answers from the store: SQL tables, Flight SQL, HTTP.
//!
//! * [`tables`]: SQL tables over a view; [`sessions`]: tables that follow the store
//! * [`questions`]: running queries within limits
//! * [`flight`]: Arrow Flight SQL; [`http`]: PCAPNG and status over HTTP

#![forbid(unsafe_code)]

pub mod flight;
pub mod http;
pub mod listen;
pub mod questions;
pub mod sessions;
pub mod tables;
#[cfg(test)]
mod testing;
