//! When an open segment is complete.

use std::time::Duration;

use capstan_model::IngestShares;

/// Rules by which open segments are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealPolicy {
    /// Captured bytes at which a segment is sealed.
    pub bytes: u64,
    /// Bytes of memory one open segment may take before it is sealed early.
    pub segment_memory: usize,
    /// Bytes of memory all open segments together may take; over it the largest is sealed.
    pub memory: usize,
    /// Age at which a segment is sealed; none for an import.
    pub age: Option<Duration>,
    /// Hours open at a time; a further one seals the oldest.
    pub hours: usize,
    /// Captured bytes an hour may have in the one segment that spans sparse
    /// hours; none if every hour has its own segments from the start (live).
    pub span: Option<u64>,
}

const MIB: u64 = 1024 * 1024;

impl SealPolicy {
    /// For capture files: by size and at the end only.
    pub fn import() -> Self {
        let usual = IngestShares::default();
        SealPolicy {
            bytes: 128 * MIB,
            segment_memory: usual.segment,
            memory: usual.open,
            age: None,
            hours: 8,
            span: Some(MIB),
        }
    }

    /// For live capture: by size or age.
    pub fn live(age: Duration) -> Self {
        SealPolicy { age: Some(age), span: None, ..SealPolicy::import() }
    }

    /// The same within the shares of another budget.
    pub fn within(self, shares: &IngestShares) -> Self {
        SealPolicy { segment_memory: shares.segment, memory: shares.open, ..self }
    }
}

/// Hours one span segment may touch: its catalog entry names each.
pub(super) const SPAN_HOURS: usize = 1024;
