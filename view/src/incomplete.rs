//! Answers that lack what cannot be read: which failures an answer survives, and the failure that ends it.

use capstan_model::{Failure, FailureKind};

/// Number of missing objects that are named one by one.
const NAMED: usize = 8;

/// Whether an answer continues without what cannot be read. A retry would not help, and the rest can be read.
pub fn may_skip(failure: &Failure) -> bool {
    matches!(failure.kind(), FailureKind::Damaged | FailureKind::NotFound | FailureKind::TooNew)
}

/// The failure that ends the incomplete result `what`; none if it is complete. A newer version is suggested only
/// if that version wrote all missing objects.
pub fn left_out(
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
        let of = |kind| may_skip(&Failure::new(kind, "x"));
        assert!(of(FailureKind::Damaged) && of(FailureKind::NotFound) && of(FailureKind::TooNew));
        assert!(!of(FailureKind::Unavailable) && !of(FailureKind::Permission));
        assert!(!of(FailureKind::Full) && !of(FailureKind::Interrupted));
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
