//! Packet dissection without IO: decodes headers and labels the application protocol.
//!
//! * [`decode()`]: the front of a packet as [`capstan_model::Headers`]
//! * [`walk`]: the same headers one by one, outermost first
//! * [`mod@label`]: the application protocol from a flow's first payload bytes and its ports, and
//!   the fields of a TLS ClientHello
//!
//! Every function is pure and accepts untrusted bytes: no input causes a panic, an allocation, or a
//! run time beyond its length.

#![forbid(unsafe_code)]

pub mod decode;
pub mod label;
pub mod walk;

#[cfg(test)]
mod testing;

pub use decode::{decode, decode_into, first_fragments, tunnels};
pub use label::{fallback, label};
