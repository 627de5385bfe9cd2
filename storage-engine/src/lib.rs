//! The bucket: segment format, catalog, object IO, integrity.
//!
//! * [`store`]: objects in a folder or a bucket
//! * [`catalog`]: what is in a store: writers, commits, reading them
//! * [`segment`]: the layers of a segment, writing and reading them
//! * [`verify`]: whether a store is what was written

#![forbid(unsafe_code)]

pub mod catalog;
// No order of a map goes into a segment: golden files are equal byte for byte.
#[allow(clippy::disallowed_types)]
pub mod segment;
pub mod store;
pub mod verify;
