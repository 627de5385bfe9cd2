//! From what the object store says to what a person can do about it.

use std::error::Error as StdError;
use std::io;

use capstan_model::{Failure, FailureKind};
use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use super::folder::FolderError;

/// A failure of one operation: `what` says what was tried and where.
pub(crate) fn failure(what: impl Into<String>, error: Error) -> Failure {
    Failure::caused_by(kind(&error), what, error)
}

/// What kind of failure an error is.
pub(crate) fn kind(error: &Error) -> FailureKind {
    match error {
        Error::NotFound { .. } => FailureKind::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => FailureKind::AlreadyThere,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => FailureKind::Permission,
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            FailureKind::Usage
        }
        other => kind_of_chain(other),
    }
}

fn kind_of_chain(error: &Error) -> FailureKind {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(FolderError::NoHardLinks(_)) = error.downcast_ref() {
            return FailureKind::Usage;
        }
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return match error.kind() {
                HttpErrorKind::Decode => FailureKind::Other,
                _ => FailureKind::Unavailable,
            };
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Failure::io("", io::Error::from(error.kind())).kind();
        }
        next = error.source();
    }
    // What the server answered is known to object_store alone; its text carries it.
    let text = error.to_string();
    if text.contains("redirect without LOCATION") {
        // The bucket is in another region than was set.
        return FailureKind::Usage;
    }
    match status_in(&text) {
        Some(507) => FailureKind::Full,
        Some(408 | 429 | 500..=599) => FailureKind::Unavailable,
        _ => FailureKind::Other,
    }
}

/// The HTTP status in the text of an answer that was not a success.
fn status_in(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// Whether the server says that the bucket itself is not there.
pub(crate) fn is_missing_bucket(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && error.to_string().contains("NoSuchBucket")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Generic { store: "test", source: source.into() }
    }

    #[test]
    fn kinds_are_told_apart() {
        let full = io::Error::from_raw_os_error(28);
        assert_eq!(kind(&generic(full)), FailureKind::Full);
        let links = FolderError::NoHardLinks("/x".into());
        assert_eq!(kind(&generic(links)), FailureKind::Usage);
        let wrapped = FolderError::Io {
            what: "write",
            path: "/x".into(),
            source: io::Error::from_raw_os_error(13),
        };
        assert_eq!(kind(&generic(wrapped)), FailureKind::Permission);
        let busy = "Server returned non-2xx status code: 503 Service Unavailable: SlowDown";
        assert_eq!(kind(&generic(busy)), FailureKind::Unavailable);
        assert_eq!(kind(&generic("status code: 4")), FailureKind::Other);
    }
}
