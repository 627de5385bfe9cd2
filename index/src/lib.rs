//! The inverted index of a segment: which flows have this address, this port,
//! this server name.
//!
//! A *term* is a [`Field`] and the bytes of a value; its *postings* are the
//! ordinals of the flows (rows of the segment's flow layer) that have it. A
//! [`TermIndexBuilder`] collects postings while a segment is sealed and writes them as one
//! byte string; a [`TermIndex`] answers from those bytes without unpacking
//! more than the one block of terms and the one list that was asked for:
//!
//! ```
//! use capstan_index::{Field, TermIndex, TermIndexBuilder};
//!
//! let mut builder = TermIndexBuilder::new();
//! builder.add(Field::Port, &443u16.to_be_bytes(), 0);
//! builder.add(Field::Port, &443u16.to_be_bytes(), 2);
//! builder.add(Field::Sni, b"shop.example", 2);
//! let bytes = builder.finish(3)?;
//!
//! let index = TermIndex::open(&bytes)?;
//! let https = index.postings(Field::Port, &443u16.to_be_bytes())?;
//! let shop = index.postings(Field::Sni, b"shop.example")?;
//! assert_eq!((https & shop).iter().collect::<Vec<u32>>(), [2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Terms combined by and, or and not are a [`filter::FlowFilter`]; it can be asked of other things than an index, too.
//!
//! The byte layout is described in [`format`](mod@format) and in `docs/format.md`. The bytes are
//! checked as they are read. Damaged or hostile bytes give [`IndexError`], never a panic, and never
//! use more memory than a small multiple of their length. The container verifies their integrity
//! (block CRC and layer SHA-256), not this crate.

#![forbid(unsafe_code)]

mod bits;
mod builder;
mod field;
pub mod filter;
pub mod format;
mod list;
mod reader;

pub use builder::TermIndexBuilder;
pub use field::{End, Field, MAX_VALUE, PREFIX_EXACT, flow_value};
pub use reader::{IndexedTerm, Postings, TermIndex, Terms};

/// Why an index could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The bytes are no term index at all.
    #[error("not a term index: {0}")]
    NotAnIndex(&'static str),
    /// A term index of a format this version does not know.
    #[error("term index format {found} is newer than {known}, the newest this version reads")]
    TooNew {
        /// The format number met.
        found: u8,
        /// The newest format number this version reads.
        known: u8,
    },
    /// Bytes that cannot have been written by a builder.
    #[error("term index damaged: {0}")]
    Damaged(&'static str),
    /// A posting at or beyond the number of flows given to
    /// [`TermIndexBuilder::finish`].
    #[error("flow ordinal {ordinal} was indexed, but the segment has {flows} flows")]
    OrdinalBeyondFlows {
        /// The largest ordinal that was added.
        ordinal: u32,
        /// How many flows there are.
        flows: u32,
    },
    /// An index past what its 32-bit offsets can say.
    #[error("term index would exceed 4 GiB")]
    TooLarge,
}
