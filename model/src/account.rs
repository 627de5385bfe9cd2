//! Whose memory is counted where.
//!
//! The allocator of the process tells how much memory is taken and given back
//! ([`changed`]). It is counted for the question that the thread works for, so that the question
//! that takes most can be found and stopped. A thread works for nobody ([`Slot::NOBODY`]) unless
//! it was told otherwise. The sum of all slots is what the process has allocated.
//!
//! Only a question that is stopped and does not hear it can go on to take memory. Where that
//! becomes twice what all questions may take, or is as much in one piece, its thread is held for
//! ever ([`is_too_much`]): the process and all other questions go on.
//!
//! Nothing here allocates, takes a lock or runs when a thread ends: the allocator calls it.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};

/// Slots there are, the one for nobody included.
pub const SLOTS: usize = 129;

/// What a thread counts for itself before it tells the others, bytes.
const UNTOLD: isize = 64 << 10;

static HELD: [AtomicIsize; SLOTS] = [const { AtomicIsize::new(0) }; SLOTS];
/// Pieces below this are never too much: what is allocated while others wait for a lock is small.
const SMALL: usize = 1 << 20;

static TRIM: OnceLock<fn()> = OnceLock::new();
static BUDGET: AtomicUsize = AtomicUsize::new(usize::MAX);
static REFUSED: [AtomicUsize; SLOTS] = [const { AtomicUsize::new(0) }; SLOTS];
static STOPPED: [AtomicBool; SLOTS] = [const { AtomicBool::new(false) }; SLOTS];

thread_local! {
    static WORKS_FOR: Cell<usize> = const { Cell::new(0) };
    static PENDING: Cell<isize> = const { Cell::new(0) };
}

/// A place to count memory at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(usize);

impl Slot {
    /// Counts what no question is answered with.
    pub const NOBODY: Slot = Slot(0);

    /// All slots but that for nobody.
    pub fn all() -> impl Iterator<Item = Slot> {
        (1..SLOTS).map(Slot)
    }

    /// The slot this thread works for.
    pub fn current() -> Slot {
        Slot(WORKS_FOR.try_with(Cell::get).unwrap_or(0))
    }

    /// From here on this thread works for this slot.
    pub fn enter(self) {
        flush();
        let _ = WORKS_FOR.try_with(|slot| slot.set(self.0));
    }

    /// Bytes that were allocated for it and not given back. Other threads may have given back
    /// what it allocated and the other way round, so it may be less than nothing.
    pub fn held(self) -> isize {
        HELD.get(self.0).map_or(0, |held| held.load(Ordering::Relaxed))
    }

    /// Makes it ready for its next question: what is still held is counted for nobody.
    pub fn clear(self) {
        let Some(held) = HELD.get(self.0).filter(|_| self != Slot::NOBODY) else { return };
        add(Slot::NOBODY.0, held.swap(0, Ordering::Relaxed));
        if let Some(refused) = REFUSED.get(self.0) {
            refused.store(0, Ordering::Relaxed);
        }
        self.set_stopped(false);
    }

    /// The piece that was too much for it, bytes; nothing if none was. Its thread is held.
    pub fn refused(self) -> usize {
        REFUSED.get(self.0).map_or(0, |refused| refused.load(Ordering::Relaxed))
    }

    /// Says whether what this slot works on is to end.
    pub fn set_stopped(self, stopped: bool) {
        if let Some(flag) = STOPPED.get(self.0).filter(|_| self != Slot::NOBODY) {
            flag.store(stopped, Ordering::Relaxed);
        }
    }

    /// Whether what this slot works on is to end.
    pub fn is_stopped(self) -> bool {
        STOPPED.get(self.0).is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// Says how the allocator gives freed memory back to the system. The first to say so counts.
pub fn set_trim(trim: fn()) {
    let _ = TRIM.set(trim);
}

/// Gives memory that was freed and is kept for later back to the system, if the allocator can. Takes some
/// milliseconds for each hundred megabytes.
pub fn trim() {
    if let Some(trim) = TRIM.get() {
        trim();
    }
}

/// Sets what all questions of this process may take, bytes.
pub fn set_budget(bytes: usize) {
    BUDGET.store(bytes, Ordering::Relaxed);
}

/// What all questions of this process may take, bytes; the highest number if nothing was set.
pub fn budget() -> usize {
    BUDGET.load(Ordering::Relaxed)
}

/// What the question of this thread may still take if it had the whole budget, bytes. Whoever works
/// for nobody may take what they like.
pub fn room() -> usize {
    let slot = Slot::current();
    flush();
    let held = usize::try_from(slot.held()).unwrap_or(0);
    if slot == Slot::NOBODY { usize::MAX } else { budget().saturating_sub(held) }
}

/// Whether a piece is so large that the question of this thread must not have it. The caller holds
/// the thread for ever; that is noted for [`Slot::refused`].
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

/// Counts bytes that were allocated (or given back, below zero) on this thread.
#[inline]
pub fn changed(bytes: isize) {
    // A thread that is ending may have no counters any more.
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

/// Tells what this thread counted for itself. Threads that come and go call it before they end.
pub fn flush() {
    let _ = PENDING.try_with(|pending| add(Slot::current().0, pending.replace(0)));
}

/// Bytes this thread allocated are somebody else's from here on.
pub fn hand_over(bytes: usize) {
    let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
    let slot = Slot::current();
    if slot != Slot::NOBODY {
        add(slot.0, -bytes);
        add(Slot::NOBODY.0, bytes);
    }
}

/// Bytes that a thread which works for nobody allocated are this thread's from here on.
pub fn take_over(bytes: usize) {
    let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
    let slot = Slot::current();
    if slot != Slot::NOBODY {
        add(slot.0, bytes);
        add(Slot::NOBODY.0, -bytes);
    }
}

/// Bytes that the process has allocated, about: each thread may have some thousands more or less.
pub fn allocated() -> usize {
    let sum = HELD.iter().map(|held| held.load(Ordering::Relaxed)).fold(0, isize::saturating_add);
    usize::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_for_whom_the_thread_works() {
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
    fn one_piece_over_the_budget_or_all_over_twice_is_too_much() {
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
    fn who_works_for_nobody_is_never_stopped() {
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
