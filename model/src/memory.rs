//! Memory budgets: what a process may use, and how its parts share it. Pure.

use std::fmt;

/// Memory that a process may use, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryBudget(usize);

/// A budget that is too small.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given} of memory is too little: at least {least} are needed, of which the source takes {source_share}"
)]
pub struct BudgetTooSmall {
    given: MemoryBudget,
    least: MemoryBudget,
    source_share: MemoryBudget,
}

/// Memory of a process apart from the shares of its parts: program, threads, buffers of requests, and what the allocator
/// keeps between two uses.
const PROGRAM: usize = 80 << 20;

/// The rest of a budget has this many parts, of which each share has some.
const PARTS: usize = SOURCE + FLOWS + OPEN + SEGMENT + SEALED;
const SOURCE: usize = 2;
const FLOWS: usize = 3;
const OPEN: usize = 5;
const SEGMENT: usize = 4;
/// Sealing a segment of small flows takes three to four times the memory of the open segment: it sorts, compresses and
/// indexes.
const SEALED: usize = 14;

/// The smallest part: a segment takes at least four times as much.
const LEAST_PART: usize = 3 << 19;

/// Shares of a recorder or an import, bytes. The default is that of [`MemoryBudget::INGEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestShares {
    /// Capture rings of all interfaces together, or buffers of a capture file.
    pub source: usize,
    /// Flow table.
    pub flows: usize,
    /// All open segments together.
    pub open: usize,
    /// One open segment. One more waits in the queue of the upload.
    pub segment: usize,
    /// The segment that is sealed and uploaded.
    pub sealed: usize,
}

impl IngestShares {
    /// Shares of so many bytes in each part.
    const fn of_parts(source: usize, part: usize) -> IngestShares {
        IngestShares {
            source,
            flows: part * FLOWS,
            open: part * OPEN,
            segment: part * SEGMENT,
            sealed: part * SEALED,
        }
    }
}

impl Default for IngestShares {
    fn default() -> Self {
        IngestShares::of_parts(USUAL_PART * SOURCE, USUAL_PART)
    }
}

/// A part of the usual budget: segments of 128 MiB.
const USUAL_PART: usize = 32 << 20;

impl MemoryBudget {
    /// The budget of a recorder or an import unless said otherwise.
    pub const INGEST: MemoryBudget = MemoryBudget(PROGRAM + PARTS * USUAL_PART);

    /// A budget of so many MiB.
    pub fn from_mib(mib: usize) -> MemoryBudget {
        MemoryBudget(mib.saturating_mul(1 << 20))
    }

    /// The budget in bytes.
    pub fn bytes(self) -> usize {
        self.0
    }

    /// Divides the budget of a recorder or an import. `source` is the memory of the capture rings, if it is given.
    ///
    /// # Errors
    /// The budget is too small.
    pub fn for_ingest(self, source: Option<usize>) -> Result<IngestShares, BudgetTooSmall> {
        let rest = self.0.saturating_sub(PROGRAM);
        let source = source.unwrap_or((rest / PARTS).max(LEAST_PART) * SOURCE);
        let others = PARTS - SOURCE;
        let least = PROGRAM.saturating_add(source).saturating_add(others * LEAST_PART);
        if self.0 < least {
            let least = MemoryBudget(least.div_ceil(1 << 20) << 20);
            return Err(BudgetTooSmall { given: self, least, source_share: MemoryBudget(source) });
        }
        Ok(IngestShares::of_parts(source, (rest - source) / others))
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn total(shares: IngestShares) -> usize {
        let IngestShares { source, flows, open, segment, sealed } = shares;
        PROGRAM + source + flows + open + segment + sealed
    }

    #[test]
    fn shares_of_the_usual_budget() {
        let shares = MemoryBudget::INGEST.for_ingest(None).unwrap();
        let expected = IngestShares {
            source: 64 * MIB,
            flows: 96 * MIB,
            open: 160 * MIB,
            segment: 128 * MIB,
            sealed: 448 * MIB,
        };
        assert_eq!((shares, total(shares)), (expected, MemoryBudget::INGEST.bytes()));
        assert_eq!(shares, IngestShares::default());
        assert_eq!(MemoryBudget::INGEST.to_string(), "976 MiB");
    }

    #[test]
    fn shares_never_exceed_their_budget() {
        for mib in [160, 200, 512, 513, 4_096] {
            let budget = MemoryBudget::from_mib(mib);
            for shares in [budget.for_ingest(Some(12 * MIB)), budget.for_ingest(None)] {
                let shares = shares.unwrap();
                assert!(total(shares) <= budget.bytes() && total(shares) > budget.bytes() - MIB);
                assert!(shares.segment <= shares.open && shares.segment >= 6 * MIB, "{shares:?}");
            }
        }
    }

    #[test]
    fn budget_that_is_too_small_is_refused_with_the_least_that_fits() {
        let error = MemoryBudget::from_mib(100).for_ingest(Some(64 * MIB)).unwrap_err();
        let words = error.to_string();
        for said in ["100 MiB", "at least 183 MiB", "takes 64 MiB"] {
            assert!(words.contains(said), "{words}");
        }
        assert!(MemoryBudget::from_mib(183).for_ingest(Some(64 * MIB)).is_ok());
        assert!(MemoryBudget::from_mib(122).for_ingest(None).is_ok());
        assert!(MemoryBudget::from_mib(121).for_ingest(None).is_err());
        assert!(MemoryBudget::from_mib(usize::MAX).for_ingest(None).is_ok());
        assert!(MemoryBudget::from_mib(1).for_ingest(Some(usize::MAX)).is_err());
    }
}
