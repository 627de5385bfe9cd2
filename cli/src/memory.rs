//! Settings of the C library's allocator, and a counting allocator on top of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::time::Duration;

use capstan_model::account;

/// The system allocator plus byte counting in [`account`]. A process that runs queries makes it the
/// global allocator.
#[derive(Debug)]
pub(crate) struct Counting;

/// Blocks the thread forever if its query may not take this much memory. Refusing the allocation
/// would end the process.
#[inline]
fn admit(bytes: usize) {
    if account::is_too_much(bytes) {
        loop {
            std::thread::sleep(Duration::from_secs(3_600));
        }
    }
}

fn size(bytes: usize) -> isize {
    // No allocation is larger than `isize::MAX`.
    bytes as isize
}

// SAFETY: every call passes its arguments unchanged to the system's allocator, and returns its result unchanged.
// Counting does not allocate, so there is no recursion.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        admit(layout.size());
        // SAFETY: the caller's promises are those that are asked for here.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            account::changed(size(layout.size()));
        }
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        admit(layout.size());
        // SAFETY: as for `alloc`.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            account::changed(size(layout.size()));
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for `alloc`.
        unsafe { System.dealloc(block, layout) };
        account::changed(-size(layout.size()));
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // A large block is remapped, not copied, so only its growth is new memory.
        admit(new_size.saturating_sub(layout.size()));
        // SAFETY: as for `alloc`.
        let moved = unsafe { System.realloc(block, layout, new_size) };
        if !moved.is_null() {
            account::changed(size(new_size) - size(layout.size()));
        }
        moved
    }
}

/// Returns memory that the allocator caches to the system.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and touches nothing but memory that is free, under the allocator's own locks.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unused bytes that may stay at the top of the heap.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 256 << 20;
/// Blocks below this size come from the heap, bytes. The C library accepts no higher number.
#[cfg(target_env = "gnu")]
const FROM_HEAP: libc::c_int = 32 << 20;

/// Limits how much freed memory the C library keeps, without returning memory that is needed again
/// at once. Call it before any thread starts. It does nothing with allocators other than glibc's.
///
/// Segments come and go as some hundred blocks of one megabyte. By default the C library maps and
/// unmaps each block, and the kernel clears every page again. That took a fifth of the processor
/// time of an import.
///
/// By default glibc has eight arenas per processor. Each keeps the peak memory of its threads:
/// exporting 20 GB took 618 MiB. Two arenas take 360 MiB. One takes 280 MiB and 7 % more processor
/// time, because threads wait for each other. `arenas` should be 1 for a process with few threads,
/// and 2 for one that decompresses or serves with many.
#[cfg_attr(not(target_env = "gnu"), allow(unused_variables))]
pub(crate) fn configure_allocator(arenas: u8) {
    account::set_trim(trim);
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and touches nothing but the allocator's own settings, under
    // its own lock. It refuses numbers it does not like, which leaves all as it was.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_HEAP);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::from(arenas));
    }
}
