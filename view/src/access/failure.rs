//! Failures under a mask. The text of a failure names objects, and those may hold only hidden flows.

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
    Failure::redacted(kind, words)
}

/// A failure about the memory that queries share, as a masked principal gets it.
pub(super) fn limited() -> Failure {
    Failure::redacted(FailureKind::Full, LIMITED)
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
            assert!(!failure.is_redacted());
            let told = redacted(&failure);
            assert!(told.is_redacted() && redacted(&told).is_redacted());
            assert_eq!(redacted(&told).to_string(), told.to_string());
            // Another failure with these words, or above it, is not.
            assert!(!Failure::new(told.kind(), told.to_string()).is_redacted());
            assert!(!Failure::caused_by(kind, told.to_string(), told).is_redacted());
        }
        assert!(limited().is_redacted());
    }
}
