//! Memory budgets: what a process may use, and how its parts share it. Pure.

use std::fmt;

/// Memory that a process may use, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryBudget(usize);

/// A budget that is too small.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given} of memory is too little: at least {least} are needed, of which {what} takes {share}"
)]
pub struct BudgetTooSmall {
    given: MemoryBudget,
    least: MemoryBudget,
    /// The part whose share is fixed, and the share.
    what: &'static str,
    share: MemoryBudget,
}

/// Memory of a process apart from the shares of its parts: program, threads, buffers of requests, and what the allocator
/// keeps between two uses.
const PROGRAM: usize = 96 << 20;

/// The rest of a budget has this many parts, of which each share has some.
const PARTS: usize = SOURCE + FLOWS + OPEN + SEGMENT + SEALED;
const SOURCE: usize = 2;
const FLOWS: usize = 3;
const OPEN: usize = 5;
const SEGMENT: usize = 4;
/// Sealing a segment of small flows takes three to four times the memory of the open segment: it sorts, compresses and
/// indexes.
const SEALED: usize = 14;

/// The smallest part: a segment takes at least four times as much. In smaller ones, what sealing needs for any segment would
/// exceed its share.
const LEAST_PART: usize = 3 << 20;

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

/// Shares of a server, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerShares {
    /// Cached pieces of segments.
    pub cache: usize,
    /// Opened segments.
    pub opened: usize,
    /// All queries and exports together. They wait, or are refused, beyond it.
    pub queries: usize,
}

/// The most memory that the cache, and the opened segments, take unless said otherwise: an eighth of a smaller budget.
const MOST_CACHED: usize = 64 << 20;

/// The least memory of queries and exports.
const LEAST_QUERIES: usize = 12 << 20;

/// A part of the usual budget: segments of 128 MiB.
const USUAL_PART: usize = 32 << 20;

impl MemoryBudget {
    /// The budget of a recorder or an import unless said otherwise.
    pub const INGEST: MemoryBudget = MemoryBudget(PROGRAM + PARTS * USUAL_PART);

    /// A budget of so many MiB.
    pub fn from_mib(mib: usize) -> MemoryBudget {
        MemoryBudget(mib.saturating_mul(1 << 20))
    }

    /// A budget of so many bytes.
    pub fn from_bytes(bytes: usize) -> MemoryBudget {
        MemoryBudget(bytes)
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
            let least = MemoryBudget(least.checked_next_multiple_of(1 << 20).unwrap_or(least));
            let (what, share) = ("the source", MemoryBudget(source));
            return Err(BudgetTooSmall { given: self, least, what, share });
        }
        Ok(IngestShares::of_parts(source, (rest - source) / others))
    }

    /// Divides the budget of a server. `cache` is the memory of its cache, if it is given.
    ///
    /// # Errors
    /// The budget is too small.
    pub fn for_server(self, cache: Option<usize>) -> Result<ServerShares, BudgetTooSmall> {
        let eighth = self.0 / 8;
        let cache = cache.unwrap_or(eighth.min(MOST_CACHED));
        let opened = eighth.min(MOST_CACHED);
        let queries = self.0.saturating_sub(cache.saturating_add(opened));
        if queries >= LEAST_QUERIES {
            return Ok(ServerShares { cache, opened, queries });
        }
        // Opened segments take an eighth, so the others have seven.
        let others = cache.saturating_add(LEAST_QUERIES);
        let least = others.div_ceil(7).saturating_mul(8).min(others.saturating_add(MOST_CACHED));
        let least = MemoryBudget(least.div_ceil(1 << 20).saturating_mul(1 << 20));
        let (what, share) = ("the cache", MemoryBudget(cache));
        Err(BudgetTooSmall { given: self, least, what, share })
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
        assert_eq!(MemoryBudget::INGEST.to_string(), "992 MiB");
    }

    #[test]
    fn shares_never_exceed_their_budget() {
        for mib in [200, 512, 513, 4_096] {
            let budget = MemoryBudget::from_mib(mib);
            for shares in [budget.for_ingest(Some(12 * MIB)), budget.for_ingest(None)] {
                let shares = shares.unwrap();
                assert!(total(shares) <= budget.bytes() && total(shares) > budget.bytes() - MIB);
                assert!(shares.segment <= shares.open && shares.segment >= 12 * MIB, "{shares:?}");
            }
        }
    }

    #[test]
    fn budget_that_is_too_small_is_refused_with_the_least_that_fits() {
        let error = MemoryBudget::from_mib(100).for_ingest(Some(64 * MIB)).unwrap_err();
        let words = error.to_string();
        for said in ["100 MiB", "at least 238 MiB", "takes 64 MiB"] {
            assert!(words.contains(said), "{words}");
        }
        assert!(MemoryBudget::from_mib(238).for_ingest(Some(64 * MIB)).is_ok());
        assert!(MemoryBudget::from_mib(180).for_ingest(None).is_ok());
        assert!(MemoryBudget::from_mib(179).for_ingest(None).is_err());
        assert!(MemoryBudget::from_mib(usize::MAX).for_ingest(None).is_ok());
        assert!(MemoryBudget::from_mib(1).for_ingest(Some(usize::MAX)).is_err());
    }

    #[test]
    fn queries_of_a_server_get_what_its_caches_leave() {
        let shares = |mib, cache: Option<usize>| {
            let shares = MemoryBudget::from_mib(mib).for_server(cache.map(|mib| mib * MIB));
            shares.map(|of| [of.cache / MIB, of.opened / MIB, of.queries / MIB])
        };
        assert_eq!(shares(16, None), Ok([2, 2, 12]));
        assert_eq!(shares(256, None), Ok([32, 32, 192]));
        assert_eq!(shares(4_096, None), Ok([64, 64, 3_968]));
        assert_eq!(shares(4_096, Some(1_024)), Ok([1_024, 64, 3_008]));
        assert_eq!(shares(256, Some(0)), Ok([0, 32, 224]));
        for (mib, cache, least) in [(256, 256, 307), (8, 2, 16), (2_048, 2_000, 2_076)] {
            let words = shares(mib, Some(cache)).unwrap_err().to_string();
            assert!(words.contains(&format!("at least {least} MiB")), "{words}");
            assert!(words.contains(&format!("the cache takes {cache} MiB")), "{words}");
            assert!(shares(least, Some(cache)).is_ok() && shares(least - 1, Some(cache)).is_err());
        }
        assert!(MemoryBudget::from_mib(1).for_server(Some(usize::MAX)).is_err());
    }
}
