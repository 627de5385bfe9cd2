//! What the process asks of the C library's allocator, and an allocator over it that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::time::Duration;

use capstan_model::account;

/// The system's allocator, which tells [`account`] what is allocated and given back. A process
/// that answers questions makes it the global one.
#[derive(Debug)]
pub struct Counting;

/// Holds the thread for ever if its question must not have so much: there is no way to refuse
/// memory that would not end the process.
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

// SAFETY: every call goes on to the system's allocator with what came in, and what that answers is
// given back as it is. Counting does not allocate, so it does not come back here.
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
        // What is large is not copied but mapped elsewhere, so only what it grows by is new.
        admit(new_size.saturating_sub(layout.size()));
        // SAFETY: as for `alloc`.
        let moved = unsafe { System.realloc(block, layout, new_size) };
        if !moved.is_null() {
            account::changed(size(new_size) - size(layout.size()));
        }
        moved
    }
}

/// Gives freed memory back to the system, which the allocator keeps for later otherwise.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and touches nothing but memory that is free, under the allocator's own locks.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Freed memory that may lie unused at the top of the heap, bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 256 << 20;
/// Blocks below this come from the heap, bytes; the C library takes no higher number.
#[cfg(target_env = "gnu")]
const FROM_HEAP: libc::c_int = 32 << 20;

/// Keeps the C library from keeping much more memory than is used, and from giving back what is
/// needed again at once. Call it before there are threads. Where the allocator is another than
/// glibc's, nothing is changed.
///
/// Segments come and go as some hundred blocks of a megabyte each. By default the C library maps
/// and unmaps each of them, and every page of it is cleared by the kernel once more: that took a
/// fifth of the processor time of an import.
///
/// By default it also has eight arenas a processor, and each keeps what the busiest moment of its
/// threads left behind: exporting 20 GB took 618 MiB of memory. With two it takes 360 MiB, with one
/// 280 MiB and 7 % more processor time, as its threads wait for each other.
/// `arenas` should be 1 for a process of few threads; 2 for one that unpacks or serves with many.
#[cfg_attr(not(target_env = "gnu"), allow(unused_variables))]
pub fn settle(arenas: u8) {
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
