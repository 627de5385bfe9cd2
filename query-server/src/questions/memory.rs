//! One memory budget for all queries and exports.
//!
//! The memory of a query is what the allocator counts for its threads, whoever allocates: planning, operators,
//! functions, results. Exports reserve memory in advance.

use std::fmt;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// What the process may allocate beyond its idle memory, apart from queries and exports: growth of caches and
/// opened segments, bytes.
const PROCESS_OVERHEAD: usize = 256 << 20;

/// Memory state of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    /// Memory it holds, bytes.
    pub(super) held: usize,
    /// It was cancelled, and frees its memory while it ends.
    pub(super) stopped: bool,
}

/// Chooses the query to stop, if any: the largest, if the queries that are not stopped yet exceed the budget.
/// `process` is what the process has allocated beyond its idle memory: memory that moves between threads can
/// make a query seem smaller than it is.
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

/// A memory pool that refuses a cancelled query. Operators ask it again and again.
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
    fn largest_query_is_stopped_when_memory_is_exhausted() {
        let runs = |held| View { held, stopped: false };
        let ends = |held| View { held, stopped: true };
        let budget = 1_000;
        for (questions, reserved, process, expected) in [
            (vec![], 5_000, 5_000, None),
            (vec![runs(400), runs(600)], 0, 0, None),
            (vec![runs(400), runs(601)], 0, 0, Some(1)),
            (vec![runs(400), runs(100)], 600, 0, Some(0)),
            // A cancelled query frees memory for the others.
            (vec![runs(400), ends(5_000)], 0, 5_400, None),
            (vec![runs(1_001), ends(5_000)], 0, 6_001, Some(0)),
            // No query seems to hold it.
            (vec![runs(10), runs(20)], 0, PROCESS_OVERHEAD + 1_000, None),
            (vec![runs(10), runs(20)], 0, PROCESS_OVERHEAD + 1_001, Some(1)),
        ] {
            assert_eq!(victim(&questions, reserved, process, budget), expected, "{questions:?}");
        }
    }
}
