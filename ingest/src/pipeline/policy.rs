//! When an open segment is complete.

use std::time::Duration;

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
        SealPolicy {
            bytes: 128 * MIB,
            segment_memory: 128 << 20,
            memory: 160 << 20,
            age: None,
            hours: 8,
            span: Some(MIB),
        }
    }

    /// For live capture: by size or age.
    pub fn live(age: Duration) -> Self {
        SealPolicy { age: Some(age), span: None, ..SealPolicy::import() }
    }
}

/// Hours one span segment may touch: its catalog entry names each.
pub(super) const SPAN_HOURS: usize = 1024;
