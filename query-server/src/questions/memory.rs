//! One budget of memory for all questions and exports.
//!
//! What a question holds is what the allocator counted for its threads, whatever took it:
//! planning, operators, functions, results. Exports reserve what they may take.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

use super::threads::Shared;

/// What the process may allocate beside questions and exports while these run, beyond what it
/// had before: what caches and opened segments may grow by, bytes.
const PROCESS_OVERHEAD: usize = 256 << 20;

/// What is known of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    /// Memory it holds, bytes.
    pub(super) held: usize,
    /// It was told to end, and gives its memory back as it does.
    pub(super) stopped: bool,
}

/// Which question is to be stopped, if one is: the largest, if all that are not stopped yet hold
/// more than there is. `process` is what the whole process has allocated since nothing ran: where
/// memory is given from thread to thread, a question may seem to hold less than it does.
pub(super) fn victim(
    questions: &[View],
    reserved: usize,
    process: usize,
    budget: usize,
) -> Option<usize> {
    let sum = |stopped: bool| {
        let of = questions.iter().filter(|view| view.stopped == stopped);
        of.map(|view| view.held).fold(0, usize::saturating_add)
    };
    let ending = sum(true);
    let over = sum(false).saturating_add(reserved) > budget
        || process.saturating_sub(ending) > budget.saturating_add(PROCESS_OVERHEAD);
    if !over {
        return None;
    }
    let left = questions.iter().enumerate().filter(|(_, view)| !view.stopped);
    left.max_by_key(|(_, view)| view.held).map(|(place, _)| place)
}

/// A part of the budget that is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(super) shared: Arc<Shared>,
    pub(super) bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shared.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A pool that gives nothing to a question that is to end. Operators ask it again and again.
#[derive(Debug)]
pub(crate) struct StoppablePool<P>(pub(crate) P);

impl<P: MemoryPool> fmt::Display for StoppablePool<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<P: MemoryPool> MemoryPool for StoppablePool<P> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.0.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.0.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.0.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.0.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if super::is_stopped() {
            return Err(DataFusionError::ResourcesExhausted("the query was stopped".to_owned()));
        }
        self.0.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.0.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.0.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_question_goes_when_there_is_no_more() {
        let runs = |held| View { held, stopped: false };
        let ends = |held| View { held, stopped: true };
        let budget = 1_000;
        for (questions, reserved, process, expected) in [
            (vec![], 5_000, 5_000, None),
            (vec![runs(400), runs(600)], 0, 0, None),
            (vec![runs(400), runs(601)], 0, 0, Some(1)),
            (vec![runs(400), runs(100)], 600, 0, Some(0)),
            // One that ends makes room for the others.
            (vec![runs(400), ends(5_000)], 0, 5_400, None),
            (vec![runs(1_001), ends(5_000)], 0, 6_001, Some(0)),
            // Nobody seems to hold it.
            (vec![runs(10), runs(20)], 0, PROCESS_OVERHEAD + 1_000, None),
            (vec![runs(10), runs(20)], 0, PROCESS_OVERHEAD + 1_001, Some(1)),
        ] {
            assert_eq!(victim(&questions, reserved, process, budget), expected, "{questions:?}");
        }
    }
}
