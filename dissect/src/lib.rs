//! Bytes to meaning, without IO: which headers a packet starts with, and what
//! its flow speaks.
//!
//! * [`decode()`]: the front of a packet as [`capstan_model::Headers`]
//! * [`walk`]: the same headers one by one, outermost first
//! * [`mod@label`]: the application protocol by a flow's first payload bytes and
//!   its ports, and what a TLS client asks for
//!
//! Everything is a pure function of bytes that nobody vouches for: no input
//! makes it panic, allocate or run for longer than its length allows.

#![forbid(unsafe_code)]

mod bytes;
pub mod decode;
pub mod label;
pub mod walk;

#[cfg(test)]
mod testing;

pub use decode::{decode, decode_into, first_fragments, tunnels};
pub use label::{fallback, label};
