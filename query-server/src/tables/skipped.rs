//! Records what a statement could not read. The answer has everything else, and ends with an error that names
//! what is missing. A client that reads row by row gets all rows, and no partial answer looks complete.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::{Gap, SegmentEntry};
use datafusion::catalog::Session;
use datafusion::error::Result;

use super::external;

/// Number of missing objects that are named one by one.
const NAMED: usize = 8;

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
    /// Whether a statement continues without an unreadable object. A retry would not help.
    pub(super) fn may_skip(failure: &Failure) -> bool {
        matches!(failure.kind(), FailureKind::Damaged | FailureKind::NotFound | FailureKind::TooNew)
    }

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

/// The failure that ends the incomplete result `what`; none if it is complete. A newer version is suggested only
/// if that version wrote all missing objects.
pub(crate) fn left_out(
    what: &str,
    kinds: impl IntoIterator<Item = FailureKind>,
    words: &[impl AsRef<str>],
) -> Option<Failure> {
    let damaged = kinds.into_iter().map(|kind| kind != FailureKind::TooNew).max()?;
    let kind = if damaged { FailureKind::Damaged } else { FailureKind::TooNew };
    let mut named: Vec<&str> = words.iter().take(NAMED).map(AsRef::as_ref).collect();
    let more = format!("and {} more", words.len().saturating_sub(NAMED));
    if words.len() > NAMED {
        named.push(&more);
    }
    let what = format!(
        "{what} lacks unreadable data and has everything else: {}; run capstan verify for details",
        named.join("; ")
    );
    Some(Failure::new(kind, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_failures_are_not_skipped() {
        let of = |kind| Skipped::may_skip(&Failure::new(kind, "x"));
        assert!(of(FailureKind::Damaged) && of(FailureKind::NotFound) && of(FailureKind::TooNew));
        assert!(!of(FailureKind::Unavailable) && !of(FailureKind::Permission));
        assert!(!of(FailureKind::Full) && !of(FailureKind::Interrupted));
        assert!(Skipped::default().failure().is_none());
    }

    #[test]
    fn failure_kind_is_too_new_only_if_all_missing_data_is() {
        use FailureKind::{Damaged, NotFound, TooNew};
        for (kinds, expected) in [
            (vec![TooNew], TooNew),
            (vec![TooNew, TooNew], TooNew),
            (vec![TooNew, Damaged], Damaged),
            (vec![NotFound, TooNew], Damaged),
        ] {
            let words: Vec<String> = (0..kinds.len()).map(|n| format!("part {n}")).collect();
            let failure = left_out("x", kinds, &words).expect("something is missing");
            assert_eq!(failure.kind(), expected);
            assert!(failure.to_string().contains("x lacks unreadable data"), "{failure}");
        }
        let many: Vec<String> = (0..20).map(|n| format!("part {n}")).collect();
        let words = left_out("x", [Damaged], &many).expect("something is missing").to_string();
        assert!(words.contains("part 7; and 12 more") && !words.contains("part 8"), "{words}");
    }
}
