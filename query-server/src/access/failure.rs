//! Failures under a mask. The text of a failure names objects, and those may hold only hidden flows.

use std::error::Error;

use capstan_model::{Failure, FailureKind};

/// What a masked principal is told about data that cannot be read.
pub(super) const UNREADABLE: &str = "a part of the store cannot be read";

/// What a masked principal is told about a question that needs too much.
const LIMITED: &str = "the question needs more memory or disk space than it may use: ask for less";

/// A failure of the store as a masked principal gets it.
pub(super) fn redacted(failure: &Failure) -> Failure {
    let (kind, words) = match failure.kind() {
        FailureKind::Damaged | FailureKind::NotFound | FailureKind::TooNew => {
            (FailureKind::Damaged, UNREADABLE)
        }
        FailureKind::Full => (FailureKind::Full, LIMITED),
        FailureKind::Unavailable => {
            (FailureKind::Unavailable, "the store is unavailable: try again later")
        }
        FailureKind::Interrupted => (FailureKind::Interrupted, "reading was stopped"),
        // Nothing that a principal asks makes the store fail like this.
        FailureKind::Other
        | FailureKind::Usage
        | FailureKind::Permission
        | FailureKind::AlreadyThere
        | FailureKind::Busy => {
            (FailureKind::Other, "the store cannot be read: the server's log has the reason")
        }
    };
    Failure::new(kind, words)
}

/// A failure about the memory that queries share, as a masked principal gets it.
pub(super) fn limited() -> Failure {
    Failure::new(FailureKind::Full, LIMITED)
}

/// Whether a failure is as a masked principal gets it: it has nothing to hide.
pub(super) fn is_redacted(failure: &Failure) -> bool {
    failure.source().is_none() && failure.to_string() == redacted(failure).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacted_failure_names_no_object() {
        for kind in FailureKind::ALL {
            let cause = Failure::new(kind, "segment 0123 at data/0123");
            let told = redacted(&Failure::caused_by(kind, "recorder 0123 failed", cause));
            assert!(!capstan_model::failure::with_causes(&told).contains("0123"), "{told}");
        }
        let kind = |kind| redacted(&Failure::new(kind, "x")).kind();
        // Whether an object is damaged or was removed is not told.
        assert_eq!(kind(FailureKind::NotFound), kind(FailureKind::Damaged));
        assert_eq!(kind(FailureKind::Unavailable), FailureKind::Unavailable);
    }

    #[test]
    fn redacted_failure_is_recognised() {
        for kind in FailureKind::ALL {
            let failure = Failure::new(kind, "segment 0123 at data/0123");
            assert!(!is_redacted(&failure));
            assert!(is_redacted(&redacted(&failure)));
            assert!(is_redacted(&redacted(&redacted(&failure))));
            let words = redacted(&failure).to_string();
            assert!(!is_redacted(&Failure::caused_by(kind, words, failure)));
        }
        assert!(is_redacted(&limited()));
    }
}
