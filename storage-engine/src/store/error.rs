//! Why an operation of a store failed, for decisions of this crate.
//!
//! [`Failure`] is for people: its kinds say what a user can do, and several causes have one kind. A lost race and a
//! port in use are both "exists already"; a missing object and a missing bucket are both "not found".

use std::error::Error as StdError;

use capstan_model::{Failure, FailureKind};
use object_store::Error;

use super::failure::{failure, is_missing_bucket};
use super::folder::FolderError;

/// Why an operation failed. Each has the failure for people.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// No object has the name. The store itself is there.
    Absent(Failure),
    /// An object has the name already.
    Taken(Failure),
    /// The folder or bucket of the store is not there.
    Gone(Failure),
    /// The store refuses: permission, quota, a request that it does not support. Nothing was changed.
    Refused(Failure),
    /// The store does not answer, or its answer decides nothing. What was asked for may have happened.
    InDoubt(Failure),
    /// The object is shorter than its committed length, or the answer makes no sense.
    Unusable(Failure),
}

impl StoreError {
    /// The error of an operation: `what` names the operation and the place.
    pub(super) fn of(what: impl Into<String>, error: Error) -> StoreError {
        let (is_gone, is_absent) = (is_gone_error(&error), matches!(error, Error::NotFound { .. }));
        StoreError::judged(failure(what, error), is_gone, is_absent)
    }

    /// The error for a failure, by its kind: a failure that no answer of the store caused.
    pub(super) fn of_failure(failure: Failure) -> StoreError {
        StoreError::judged(failure, false, false)
    }

    fn judged(failure: Failure, is_gone: bool, is_absent: bool) -> StoreError {
        match failure.kind() {
            _ if is_gone => StoreError::Gone(failure),
            FailureKind::NotFound if is_absent => StoreError::Absent(failure),
            FailureKind::AlreadyThere => StoreError::Taken(failure),
            _ if is_refused(&failure) => StoreError::Refused(failure),
            _ if is_in_doubt(&failure) => StoreError::InDoubt(failure),
            _ => StoreError::Unusable(failure),
        }
    }

    /// Whether a write that failed with this certainly changed nothing.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            StoreError::Absent(_) | StoreError::Gone(_) | StoreError::Refused(_) => true,
            StoreError::Taken(_) | StoreError::InDoubt(_) | StoreError::Unusable(_) => false,
        }
    }

    /// The failure for people.
    pub(super) fn failure(&self) -> &Failure {
        match self {
            StoreError::Absent(failure)
            | StoreError::Taken(failure)
            | StoreError::Gone(failure)
            | StoreError::Refused(failure)
            | StoreError::InDoubt(failure)
            | StoreError::Unusable(failure) => failure,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error {
            StoreError::Absent(failure)
            | StoreError::Taken(failure)
            | StoreError::Gone(failure)
            | StoreError::Refused(failure)
            | StoreError::InDoubt(failure)
            | StoreError::Unusable(failure) => failure,
        }
    }
}

/// Distinguishes a missing object from an unreadable one.
pub(super) fn present<T>(outcome: Result<T, StoreError>) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Absent(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a failure says that the folder or bucket of the store is not there. Then nothing is known about any object.
pub(crate) fn is_store_gone(failure: &Failure) -> bool {
    failure.source().and_then(|source| source.downcast_ref()).is_some_and(is_gone_error)
}

/// Whether the store refuses. Nothing was changed.
pub(crate) fn is_refused(failure: &Failure) -> bool {
    matches!(failure.kind(), FailureKind::Permission | FailureKind::Usage | FailureKind::Full)
}

/// Whether the store does not answer, or its answer decides nothing: the caller may retry.
pub(crate) fn is_in_doubt(failure: &Failure) -> bool {
    failure.kind() == FailureKind::Unavailable
}

fn is_gone_error(error: &Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut causes = std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this)
    });
    is_missing_bucket(error)
        || causes.any(|cause| matches!(cause.downcast_ref(), Some(FolderError::Gone(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Generic { store: "test", source: source.into() }
    }

    fn not_found(words: &str) -> Error {
        Error::NotFound { path: "x".to_owned(), source: words.into() }
    }

    #[test]
    fn a_missing_store_is_no_missing_object() {
        let absent = StoreError::of("read x", not_found("404: <Code>NoSuchKey</Code>"));
        assert!(matches!(absent, StoreError::Absent(_)), "{absent:?}");
        assert!(!is_store_gone(absent.failure()) && absent.is_certain());
        assert!(matches!(present::<()>(Err(absent)), Ok(None)));
        for error in [
            not_found("404: <Code>NoSuchBucket</Code>"),
            generic("status code: 404 Not Found, <Code>NoSuchBucket</Code>"),
            generic(FolderError::Gone("/x".into())),
        ] {
            let gone = StoreError::of("read x", error);
            assert!(matches!(gone, StoreError::Gone(_)), "{gone:?}");
            assert!(is_store_gone(gone.failure()) && gone.is_certain());
            assert_eq!(gone.failure().kind(), FailureKind::NotFound);
            assert!(present::<()>(Err(gone)).is_err());
        }
        // Some other file is missing, which says nothing about the object.
        let other = generic(std::io::Error::from(std::io::ErrorKind::NotFound));
        let other = StoreError::of("write x", other);
        assert!(matches!(other, StoreError::Unusable(_)) && !other.is_certain(), "{other:?}");
        assert!(present::<()>(Err(other)).is_err());
    }

    #[test]
    fn only_refusals_are_certain_to_have_changed_nothing() {
        let exists = || Error::AlreadyExists { path: "x".to_owned(), source: "409".into() };
        let timed_out = || generic(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let forbidden = || Error::PermissionDenied { path: "x".to_owned(), source: "no".into() };
        let certain = |error| StoreError::of("create x", error).is_certain();
        assert_eq!([exists(), timed_out(), forbidden()].map(certain), [false, false, true]);
        let of = |error| StoreError::of("create x", error);
        assert!(matches!(of(exists()), StoreError::Taken(_)));
        assert!(matches!(of(timed_out()), StoreError::InDoubt(_)));
        assert!(matches!(of(forbidden()), StoreError::Refused(_)));
    }
}
