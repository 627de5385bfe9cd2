//! The memory shared with the kernel: a ring of blocks (packet(7), TPACKET_V3).
//!
//! The status word of a block says whether the kernel or this process owns it. The kernel fills a
//! block, sets the word, and leaves the block alone until we clear the word. This module keeps that
//! protocol. It reads no packet.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::sys;

/// Offset of the status word of a block (`tpacket_block_desc`, `linux/if_packet.h`).
const STATUS_AT: usize = 8;
/// Offset of the packet count of a block.
const PACKETS_AT: usize = 12;

/// The size of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of a block: a multiple of every page size in use (64 KiB). A frame
    /// longer than a block, less its headers, is cut by the kernel.
    pub(super) block_bytes: u32,
    /// Number of blocks.
    pub(super) blocks: u32,
}

impl Shape {
    /// Bytes of the whole ring.
    pub(super) fn bytes(self) -> usize {
        self.block_bytes as usize * self.blocks as usize
    }
}

/// The mapped receive ring of one packet socket.
#[derive(Debug)]
pub(super) struct BlockRing {
    base: NonNull<u8>,
    shape: Shape,
}

// SAFETY: the mapping is plain memory owned by this value alone; no thread is
// bound to it.
unsafe impl Send for BlockRing {}

impl BlockRing {
    /// Creates and maps a receive ring for `socket`, a packet socket in the mode TPACKET_V3. A block that is not
    /// full is handed over `retire` after its first packet.
    pub(super) fn new(socket: impl AsFd, shape: Shape, retire: Duration) -> io::Result<BlockRing> {
        // One "frame" per block: version 3 packs packets of any length, and checks only the product.
        let request = [
            shape.block_bytes,
            shape.blocks,
            shape.block_bytes,
            shape.blocks,
            u32::try_from(retire.as_millis()).unwrap_or(u32::MAX).max(1),
            0,
            0,
        ];
        let request: Vec<u8> = request.iter().flat_map(|field| field.to_ne_bytes()).collect();
        sys::set_option(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new mapping at an address of the kernel's choice; it disturbs
        // no memory that Rust knows. The kernel refuses a length that is not
        // exactly the ring's.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                shape.bytes(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(base.cast::<u8>()) {
            Some(base) => Ok(BlockRing { base, shape }),
            None => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.shape.blocks as usize
    }

    /// The ring's size.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether block `index` is ours to read.
    pub(super) fn is_ours(&self, index: usize) -> bool {
        // Acquire: what the kernel wrote before it set the word is visible afterwards.
        self.word(index, STATUS_AT).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// The packet count of block `index`, also while the kernel fills it: a hint whether to wait for it.
    pub(super) fn packets_hint(&self, index: usize) -> u32 {
        self.word(index, PACKETS_AT).load(Ordering::Acquire)
    }

    /// The bytes of block `index`, if it is ours. They may be changed: the kernel reads nothing of them but the
    /// status word.
    pub(super) fn block(&mut self, index: usize) -> Option<&mut [u8]> {
        if !self.is_ours(index) {
            return None;
        }
        let length = self.shape.block_bytes as usize;
        // SAFETY: `is_ours` has checked that `index` is inside the ring and that
        // the block is ours; it stays so until `release`, which needs `&mut self`
        // and so cannot run while this slice lives. Pages of a ring are zeroed by
        // the kernel, so every byte is initialised.
        Some(unsafe {
            std::slice::from_raw_parts_mut(self.base.as_ptr().add(index * length), length)
        })
    }

    /// Gives block `index` back to the kernel.
    pub(super) fn release(&mut self, index: usize) {
        // Release: our reads and writes are over before the kernel may fill it.
        self.word(index, STATUS_AT).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }

    /// A word that the kernel writes too.
    fn word(&self, index: usize, at: usize) -> &AtomicU32 {
        assert!(index < self.blocks(), "block {index} of a ring of {}", self.blocks());
        let offset = index * self.shape.block_bytes as usize + at;
        // SAFETY: inside the mapping (index checked above, `at` is within the 48
        // bytes of a block's header), aligned to 4 (blocks are page aligned), and
        // only used atomically here. While a slice of the block lives, the kernel
        // does not write it and we hold `&mut self`.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }
}

impl Drop for BlockRing {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; no slice of it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.shape.bytes()) };
    }
}
