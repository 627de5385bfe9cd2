//! What a statement could not read. The answer has all else, and ends with an error that says what is
//! missing in it: who reads rows as they come has them, and nobody takes a part for the whole.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::SegmentEntry;

/// Segments that are named one by one.
const NAMED: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    segments: Mutex<BTreeMap<String, Reason>>,
}

/// Why a segment is not in the answer, or not all of it.
#[derive(Debug, Clone)]
struct Reason {
    kind: FailureKind,
    /// What went wrong, and when its packets are of.
    words: String,
}

impl Skipped {
    /// Whether a statement goes on without what could not be read. Trying again would not help.
    pub(super) fn may_skip(failure: &Failure) -> bool {
        matches!(failure.kind(), FailureKind::Damaged | FailureKind::NotFound | FailureKind::TooNew)
    }

    /// Notes that some of a segment is not in the answer. Of several reasons the first counts.
    pub(super) fn add(&self, entry: &SegmentEntry, failure: &Failure) {
        let when = match (entry.first, entry.last) {
            (Some(first), Some(last)) => format!(", packets from {first} to {last}"),
            _ => String::new(),
        };
        let words = format!("{}{when}", with_causes(failure));
        let reason = Reason { kind: failure.kind(), words };
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        segments.entry(entry.name.clone()).or_insert(reason);
    }

    /// What is missing in the answer; none if nothing is.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = segments.values().next()?.kind;
        let kind = if kind == FailureKind::NotFound { FailureKind::Damaged } else { kind };
        let mut named: Vec<&str> =
            segments.values().take(NAMED).map(|reason| reason.words.as_str()).collect();
        let more = format!("and {} more segments", segments.len().saturating_sub(NAMED));
        if segments.len() > NAMED {
            named.push(&more);
        }
        let what = format!(
            "the answer is without what cannot be read, and has all else: {}; capstan verify says more",
            named.join("; ")
        );
        Some(Failure::new(kind, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_there_at_the_next_try_is_not_skipped() {
        let of = |kind| Skipped::may_skip(&Failure::new(kind, "x"));
        assert!(of(FailureKind::Damaged) && of(FailureKind::NotFound) && of(FailureKind::TooNew));
        assert!(!of(FailureKind::Unavailable) && !of(FailureKind::Permission));
        assert!(!of(FailureKind::Full) && !of(FailureKind::Interrupted));
        assert!(Skipped::default().failure().is_none());
    }
}
