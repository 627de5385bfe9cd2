//! Records what a statement could not read. The answer has everything else, and ends with an error that names
//! what is missing. A client that reads row by row gets all rows, and no partial answer looks complete.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::{Gap, SegmentEntry};
use capstan_view::left_out;
use datafusion::catalog::Session;
use datafusion::error::Result;

use super::external;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    /// By name: of a segment, or of an object of the catalog.
    reasons: Mutex<BTreeMap<String, Reason>>,
}

/// Why something is missing in the answer, completely or in part.
#[derive(Debug, Clone)]
struct Reason {
    kind: FailureKind,
    /// The error, and the time range it is about.
    words: String,
}

impl Skipped {
    fn reasons(&self) -> MutexGuard<'_, BTreeMap<String, Reason>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a part of a segment is missing in the answer. Of several reasons the first counts.
    pub(super) fn add(&self, entry: &SegmentEntry, failure: &Failure) {
        let when = match (entry.first, entry.last) {
            (Some(first), Some(last)) => format!(", packets from {first} to {last}"),
            _ => String::new(),
        };
        let words = format!("{}{when}", with_causes(failure));
        let reason = Reason { kind: failure.kind(), words };
        self.reasons().entry(entry.name.clone()).or_insert(reason);
    }

    /// Records that the catalog hides facts that the answer may need.
    pub(super) fn add_gap(&self, gap: &Gap) {
        let reason = Reason { kind: gap.failure_kind(), words: gap.to_string() };
        self.reasons().entry(gap.object.clone()).or_insert(reason);
    }

    /// What is missing in the answer; none if nothing is.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let reasons = self.reasons();
        let words: Vec<&str> = reasons.values().map(|reason| reason.words.as_str()).collect();
        left_out("the answer", reasons.values().map(|reason| reason.kind), &words)
    }
}

/// Records the gaps of the catalog for a statement that is being planned. A table may answer from the catalog
/// alone, and then no scan runs that could record them.
///
/// # Errors
/// The first gap, if the session has no record.
pub(super) fn note(session: &dyn Session, gaps: &[Gap]) -> Result<()> {
    match (session.config().get_extension::<Skipped>(), gaps) {
        (Some(skipped), gaps) => gaps.iter().for_each(|gap| skipped.add_gap(gap)),
        (None, [gap, ..]) => {
            return Err(external(Failure::new(gap.failure_kind(), gap.to_string())));
        }
        (None, []) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_answer_has_no_failure() {
        assert!(Skipped::default().failure().is_none());
    }
}
