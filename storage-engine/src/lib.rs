//! The store: segment format, catalog, object IO and its cache, integrity.
//!
//! * [`store`]: objects in a folder or a bucket
//! * [`catalog`]: what is in a store: writers, commits, reading them
//! * [`term_filters`]: what the catalog says of the terms in a segment or an hour
//! * [`segment`]: the layers of a segment, writing and reading them
//! * [`cache`]: pieces of data objects, kept in memory and on a local disk
//! * [`fetch`]: a committed segment's layers, straight from the store
//! * [`verify`]: whether a store is what was written
//! * [`repair`]: making it readable again

#![forbid(unsafe_code)]

pub mod cache;
pub mod catalog;
pub mod fetch;
pub mod repair;
// No order of a map goes into a segment: golden files are equal byte for byte.
#[allow(clippy::disallowed_types)]
pub mod segment;
pub mod store;
pub mod term_filters;
#[cfg(test)]
mod testing;
pub mod verify;
