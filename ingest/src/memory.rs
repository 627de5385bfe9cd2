//! What the process asks of the C library's allocator.

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
