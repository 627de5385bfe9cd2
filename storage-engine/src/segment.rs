//! A segment: the packets of one recorder in one slice of time, as layers.
//!
//! | layer | module | holds |
//! | --- | --- | --- |
//! | `body` | [`block`] | payload past the first 16 KiB of each flow part |
//! | `head` | [`block`] | the first 16 KiB of payload of each flow part |
//! | `packets.parquet` | [`packets`], [`template`], [`predict`] | a row a packet, from which its header is rebuilt |
//! | `flows.parquet` | [`flows`] | a row a flow part |
//! | `index` | [`index_layer`], [`pages`] | terms, block directories, footers and checksums of the other layers |
//!
//! [`layers`] is the registry of all kinds. A table may also be added to a sealed segment ([`Layer::Added`]).
//!
//! [`builder`] collects an open segment and seals it; [`reader`] opens one again.
//! The bytes are described in `docs/format.md`.

use capstan_model::{Failure, FailureKind};

pub mod block;
pub mod builder;
pub mod chunks;
pub mod column;
pub mod flows;
pub mod index_layer;
mod layer;
pub mod layers;
pub mod layout;
pub mod packets;
pub mod pages;
mod payload;
pub mod predict;
pub mod reader;
pub mod tabular;
pub mod template;
mod thrift;

pub use layer::{Directory, Layer, TableLayer, Version};
pub use layers::Layers;

/// Payload bytes of a flow part that go to the `head` layer; the rest is body.
pub const HEAD_CUTOFF: usize = 16 * 1024;

/// Sizes at which blocks of a payload layer are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Raw bytes at which a block is closed.
    pub full: usize,
    /// Raw bytes at which a block is closed if the next flow part is between two other hosts. A
    /// query for one remote host of a run then skips the blocks of others. A smaller value would
    /// only make more blocks.
    pub enough: usize,
}

/// Blocks of the `head` layer.
pub const HEAD_BLOCK: BlockSizes = BlockSizes { full: 64 * 1024, enough: 16 * 1024 };

/// Blocks of the `body` layer.
pub const BODY_BLOCK: BlockSizes = BlockSizes { full: 1024 * 1024, enough: 64 * 1024 };

/// Unreadable bytes of a segment: damaged, or written by a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{layer}: {what}")]
pub struct Corrupt {
    /// Which layer or part of one.
    pub layer: &'static str,
    /// What is wrong.
    pub what: String,
    /// [`FailureKind::Damaged`], or [`FailureKind::TooNew`].
    pub kind: FailureKind,
}

impl Corrupt {
    /// A damage error.
    pub fn new(layer: &'static str, what: impl Into<String>) -> Self {
        Corrupt { layer, what: what.into(), kind: FailureKind::Damaged }
    }

    /// A format number newer than this version knows.
    pub(crate) fn too_new(layer: &'static str, format: impl std::fmt::Display) -> Self {
        let what = format!("format {format} is newer than this version reads");
        Corrupt { layer, what, kind: FailureKind::TooNew }
    }

    /// The error for the user, about `subject` ("a segment", "segment x").
    pub fn of(self, subject: impl std::fmt::Display) -> Failure {
        let what = match self.kind {
            FailureKind::TooNew => format!("{subject} was written by a newer version"),
            _ => format!("{subject} is damaged"),
        };
        Failure::caused_by(self.kind, what, self)
    }
}

impl From<Corrupt> for Failure {
    fn from(error: Corrupt) -> Self {
        error.of("a segment")
    }
}
