//! Memory accounting per query.
//!
//! The allocator reports allocated and freed bytes ([`changed`]). They count for the query of the
//! current thread, so the largest query can be found and stopped. A thread without a query counts
//! for [`Slot::NOBODY`]. The sum of all slots is the allocated memory of the process.
//!
//! A stopped query may ignore the stop and continue to allocate. If one allocation exceeds the
//! budget of all queries, or the query's memory would exceed twice the budget, its thread is
//! blocked forever ([`is_too_much`]).
//! The process and all other queries continue.
//!
//! Nothing here allocates, takes a lock or runs at thread exit, because the allocator calls it.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};

/// Number of slots, including [`Slot::NOBODY`].
pub const SLOTS: usize = 129;

/// Bytes a thread counts locally before it updates its slot.
const UNTOLD: isize = 64 << 10;

static HELD: [AtomicIsize; SLOTS] = [const { AtomicIsize::new(0) }; SLOTS];
/// Smaller allocations are never refused: allocations under a lock are small.
const SMALL: usize = 1 << 20;

static TRIM: OnceLock<fn()> = OnceLock::new();
static BUDGET: AtomicUsize = AtomicUsize::new(usize::MAX);
static REFUSED: [AtomicUsize; SLOTS] = [const { AtomicUsize::new(0) }; SLOTS];
static STOPPED: [AtomicBool; SLOTS] = [const { AtomicBool::new(false) }; SLOTS];

thread_local! {
    static WORKS_FOR: Cell<usize> = const { Cell::new(0) };
    static PENDING: Cell<isize> = const { Cell::new(0) };
}

/// A memory counter, one per query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(usize);

impl Slot {
    /// Counts memory outside queries.
    pub const NOBODY: Slot = Slot(0);

    /// All slots except `NOBODY`.
    pub fn all() -> impl Iterator<Item = Slot> {
        (1..SLOTS).map(Slot)
    }

    /// The slot of this thread.
    pub fn current() -> Slot {
        Slot(WORKS_FOR.try_with(Cell::get).unwrap_or(0))
    }

    /// Assigns this thread to this slot.
    pub fn enter(self) {
        flush();
        let _ = WORKS_FOR.try_with(|slot| slot.set(self.0));
    }

    /// Bytes allocated and not freed. It may be negative, because one thread may free what another allocated.
    pub fn held(self) -> isize {
        HELD.get(self.0).map_or(0, |held| held.load(Ordering::Relaxed))
    }

    /// Resets it for the next query. Remaining bytes move to `NOBODY`.
    pub fn clear(self) {
        let Some(held) = HELD.get(self.0).filter(|_| self != Slot::NOBODY) else { return };
        add(Slot::NOBODY.0, held.swap(0, Ordering::Relaxed));
        if let Some(refused) = REFUSED.get(self.0) {
            refused.store(0, Ordering::Relaxed);
        }
        self.set_stopped(false);
    }

    /// The size of a refused allocation, bytes; 0 if none. Its thread is blocked.
    pub fn refused(self) -> usize {
        REFUSED.get(self.0).map_or(0, |refused| refused.load(Ordering::Relaxed))
    }

    /// Sets whether the query of this slot must stop.
    pub fn set_stopped(self, stopped: bool) {
        if let Some(flag) = STOPPED.get(self.0).filter(|_| self != Slot::NOBODY) {
            flag.store(stopped, Ordering::Relaxed);
        }
    }

    /// Whether the query of this slot must stop.
    pub fn is_stopped(self) -> bool {
        STOPPED.get(self.0).is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// Sets the function that returns freed memory to the system. Only the first call counts.
pub fn set_trim(trim: fn()) {
    let _ = TRIM.set(trim);
}

/// Returns memory cached by the allocator to the system, if the allocator can. Takes some
/// milliseconds per hundred megabytes.
pub fn trim() {
    if let Some(trim) = TRIM.get() {
        trim();
    }
}

/// Sets the memory budget of all queries, bytes.
pub fn set_budget(bytes: usize) {
    BUDGET.store(bytes, Ordering::Relaxed);
}

/// The memory budget of all queries, bytes; the maximum number if not set.
pub fn budget() -> usize {
    BUDGET.load(Ordering::Relaxed)
}

/// Bytes that this thread's query may still take if it had the whole budget. Unlimited for a thread
/// without a query.
pub fn room() -> usize {
    let slot = Slot::current();
    flush();
    let held = usize::try_from(slot.held()).unwrap_or(0);
    if slot == Slot::NOBODY { usize::MAX } else { budget().saturating_sub(held) }
}

/// Whether an allocation is too large for this thread's query. The caller blocks the thread forever.
/// [`Slot::refused`] records the size.
#[inline]
pub fn is_too_much(bytes: usize) -> bool {
    bytes >= SMALL && is_too_much_for(Slot::current(), bytes)
}

fn is_too_much_for(slot: Slot, bytes: usize) -> bool {
    let budget = BUDGET.load(Ordering::Relaxed);
    let held = usize::try_from(slot.held()).unwrap_or(0);
    let too_much = slot != Slot::NOBODY
        && (bytes > budget || held.saturating_add(bytes) > budget.saturating_mul(2));
    if let Some(refused) = REFUSED.get(slot.0).filter(|_| too_much) {
        refused.store(bytes, Ordering::Relaxed);
    }
    too_much
}

fn add(slot: usize, bytes: isize) {
    if let Some(held) = HELD.get(slot) {
        held.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Counts allocated bytes of this thread (negative if freed).
#[inline]
pub fn changed(bytes: isize) {
    // A thread at exit may have no counters any more.
    let _ = PENDING.try_with(|pending| {
        let sum = pending.get().saturating_add(bytes);
        if (-UNTOLD..=UNTOLD).contains(&sum) {
            pending.set(sum);
        } else {
            pending.set(0);
            add(Slot::current().0, sum);
        }
    });
}

/// Flushes the local count of this thread. Short-lived threads call it before they end.
pub fn flush() {
    let _ = PENDING.try_with(|pending| add(Slot::current().0, pending.replace(0)));
}

/// Moves bytes of this thread to another owner.
pub fn hand_over(bytes: usize) {
    let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
    let slot = Slot::current();
    if slot != Slot::NOBODY {
        add(slot.0, -bytes);
        add(Slot::NOBODY.0, bytes);
    }
}

/// Moves bytes allocated by a `NOBODY` thread to this thread.
pub fn take_over(bytes: usize) {
    let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
    let slot = Slot::current();
    if slot != Slot::NOBODY {
        add(slot.0, bytes);
        add(Slot::NOBODY.0, -bytes);
    }
}

/// Approximate bytes allocated by the process. Each thread may be off by some thousands.
pub fn allocated() -> usize {
    let sum = HELD.iter().map(|held| held.load(Ordering::Relaxed)).fold(0, isize::saturating_add);
    usize::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_for_the_query_of_the_thread() {
        let (one, other) = (Slot(7), Slot(8));
        let work = move || {
            one.enter();
            changed(10 << 20);
            changed(-(1 << 20));
            changed(100);
            flush();
            assert_eq!(one.held(), (9 << 20) + 100);
            hand_over(1 << 20);
            other.enter();
            changed(1 << 20);
            take_over(100);
            flush();
        };
        std::thread::spawn(work).join().unwrap();
        assert_eq!((one.held(), other.held()), ((8 << 20) + 100, (1 << 20) + 100));
        let before = allocated();
        one.clear();
        assert_eq!((one.held(), allocated()), (0, before));
    }

    #[test]
    fn allocation_over_the_budget_or_sum_over_twice_the_budget_is_too_much() {
        let slot = Slot(10);
        set_budget(100 << 20);
        std::thread::spawn(move || {
            assert!(!is_too_much(1 << 40) && room() == usize::MAX, "it works for nobody");
            slot.enter();
            assert!(!is_too_much(100 << 20) && is_too_much((100 << 20) + 1));
            assert_eq!((slot.refused(), room()), ((100 << 20) + 1, 100 << 20));
            changed(190 << 20);
            assert_eq!(room(), 0);
            assert!(!is_too_much(10 << 20) && is_too_much(11 << 20));
            changed(900 << 20);
            assert!(!is_too_much(SMALL - 1));
            slot.clear();
            assert_eq!(slot.refused(), 0);
            Slot::NOBODY.enter();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn thread_without_a_query_is_never_stopped() {
        Slot::NOBODY.set_stopped(true);
        assert!(!Slot::current().is_stopped());
        let slot = Slot(9);
        slot.set_stopped(true);
        std::thread::spawn(move || {
            slot.enter();
            assert!(Slot::current().is_stopped());
        })
        .join()
        .unwrap();
        slot.clear();
        assert!(!slot.is_stopped());
    }
}
