//! Writing a payload layer: the bytes of successive flow parts packed into blocks.

use bytes::Bytes;

use super::BlockSizes;
use super::block::{self, Block, BlockDirectory, Encoder};
use super::chunks::Chunks;

/// A payload layer that is complete.
pub(super) struct PayloadLayer {
    /// The object, in pieces that follow each other.
    pub(super) parts: Vec<Bytes>,
    /// Where its blocks lie.
    pub(super) directory: BlockDirectory,
}

/// Packs payload of successive flow parts into blocks of one layer.
pub(super) struct PayloadWriter {
    layer: PayloadLayer,
    /// Raw bytes of the block that is being filled.
    open: Chunks,
    /// All of them are known to be encrypted.
    open_encrypted: bool,
    sizes: BlockSizes,
}

impl PayloadWriter {
    pub(super) fn new(sizes: BlockSizes) -> Self {
        let parts = vec![Bytes::copy_from_slice(&block::file_header())];
        PayloadWriter {
            layer: PayloadLayer { parts, directory: BlockDirectory::new() },
            open: Chunks::default(),
            open_encrypted: true,
            sizes,
        }
    }

    /// Raw offset at which the next byte goes.
    pub(super) fn offset(&self) -> u64 {
        self.layer.directory.raw_bytes() + self.open.len() as u64
    }

    /// Adds one part's bytes; a part of less than a block is never split.
    pub(super) fn add(&mut self, raw: Chunks, encrypted: bool, encoder: &mut Encoder) {
        if raw.is_empty() {
            return;
        }
        self.open.append(raw);
        self.open_encrypted &= encrypted;
        if self.open.len() >= self.sizes.full {
            self.close(encoder);
        }
    }

    /// The next part is between two other hosts.
    pub(super) fn hosts_change(&mut self, encoder: &mut Encoder) {
        if self.open.len() >= self.sizes.enough {
            self.close(encoder);
        }
    }

    /// Adds a block that is complete already. Nothing may be open.
    pub(super) fn add_block(&mut self, block: Block) {
        self.layer.parts.push(Bytes::copy_from_slice(&block.header.to_bytes()));
        self.layer.parts.extend(block.stored);
        self.layer.directory.push(block.header);
    }

    /// Ends the block that is being filled; returns the raw offset after it.
    pub(super) fn close(&mut self, encoder: &mut Encoder) -> u64 {
        if !self.open.is_empty() {
            let block = encoder.encode(std::mem::take(&mut self.open), !self.open_encrypted);
            self.add_block(block);
        }
        self.open_encrypted = true;
        self.layer.directory.raw_bytes()
    }

    /// The layer; what is open is closed before by the caller.
    pub(super) fn finish(self) -> PayloadLayer {
        self.layer
    }
}
