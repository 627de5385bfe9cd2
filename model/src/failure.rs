//! Error kinds: coarse, and each says what the caller can do.

use std::fmt;

/// The kind of an error, as far as a user must distinguish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Something unexpected; retrying may or may not help.
    Other,
    /// The request itself is wrong: an unknown column, a range whose end is before its start.
    Usage,
    /// The store, bucket, file or interface does not exist, or is not a store.
    NotFound,
    /// A permission or a right is missing.
    Permission,
    /// A disk or a quota is full.
    Full,
    /// Input or stored data is damaged. The readable part was read.
    Damaged,
    /// The store or file was written by a newer version.
    TooNew,
    /// The store cannot be reached or answers too late.
    Unavailable,
    /// It exists already (an import of the same source).
    AlreadyThere,
    /// Another process does the same.
    Busy,
    /// The user stopped it (Ctrl-C).
    Interrupted,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [FailureKind; 11] = [
        FailureKind::Other,
        FailureKind::Usage,
        FailureKind::NotFound,
        FailureKind::Permission,
        FailureKind::Full,
        FailureKind::Damaged,
        FailureKind::TooNew,
        FailureKind::Unavailable,
        FailureKind::AlreadyThere,
        FailureKind::Busy,
        FailureKind::Interrupted,
    ];

    /// The exit code of the command line: stable, listed in `docs/commands.md`.
    pub fn exit_code(self) -> u8 {
        match self {
            FailureKind::Other => 1,
            FailureKind::Usage => 2,
            FailureKind::NotFound => 3,
            FailureKind::Permission => 4,
            FailureKind::Full => 5,
            FailureKind::Damaged => 6,
            FailureKind::TooNew => 7,
            FailureKind::Unavailable => 8,
            FailureKind::AlreadyThere => 9,
            FailureKind::Busy => 10,
            FailureKind::Interrupted => 130,
        }
    }
}

/// An error with its kind: a sentence that says what happened and where, what
/// to do about it, and the error below it, if any.
#[derive(Debug)]
pub struct Failure {
    kind: FailureKind,
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    is_redacted: bool,
}

impl Failure {
    /// A failure without an underlying error.
    pub fn new(kind: FailureKind, what: impl Into<String>) -> Self {
        Failure { kind, what: what.into(), source: None, is_redacted: false }
    }

    /// A failure in place of another one whose text is not for whoever asked. Neither `what` nor the kind says more than
    /// they may know.
    pub fn redacted(kind: FailureKind, what: impl Into<String>) -> Self {
        Failure { is_redacted: true, ..Failure::new(kind, what) }
    }

    /// A failure that another error caused. `what` does not repeat that error's text.
    pub fn caused_by(
        kind: FailureKind,
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Failure { source: Some(source.into()), ..Failure::new(kind, what) }
    }

    /// A failure of an IO call. The kind follows from the error.
    pub fn io(what: impl Into<String>, error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => FailureKind::NotFound,
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                FailureKind::Permission
            }
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                FailureKind::Full
            }
            std::io::ErrorKind::AlreadyExists => FailureKind::AlreadyThere,
            std::io::ErrorKind::TimedOut
            | std::io::ErrorKind::ConnectionRefused
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::HostUnreachable
            | std::io::ErrorKind::NetworkUnreachable => FailureKind::Unavailable,
            _ => FailureKind::Other,
        };
        Failure::caused_by(kind, what, error)
    }

    /// What kind it is.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// Whether it was made by [`Failure::redacted`]. A failure that it caused was not.
    pub fn is_redacted(&self) -> bool {
        self.is_redacted
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The messages of an error and its causes. Library errors often repeat their cause at the end;
/// those repetitions are removed.
pub fn words(error: &dyn std::error::Error) -> Vec<String> {
    let mut all = vec![error.to_string()];
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let words = cause.to_string();
        if !all.last().is_some_and(|above| above.ends_with(&words)) {
            all.push(words);
        }
    }
    all
}

/// An error and what caused it, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    words(error).join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn cause_is_printed_once() {
        #[derive(Debug)]
        struct Library(&'static str, Failure);
        impl fmt::Display for Library {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", self.0, self.1)
            }
        }
        impl Error for Library {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.1)
            }
        }
        let kind = FailureKind::Damaged;
        let end = Failure::new(kind, "20 bytes long");
        let range = Failure::caused_by(kind, "invalid range", end);
        let short = Failure::caused_by(kind, "too short", Library("store: ", range));
        let failure = Failure::caused_by(kind, "reading x", short);
        assert_eq!(
            with_causes(&failure),
            "reading x: too short: store: invalid range: 20 bytes long"
        );
    }

    #[test]
    fn redaction_is_a_mark_and_not_a_text() {
        let kind = FailureKind::Damaged;
        let redacted = Failure::redacted(kind, "a part cannot be read");
        let text = redacted.to_string();
        assert!(redacted.is_redacted() && redacted.kind() == kind && redacted.source().is_none());
        assert!(!Failure::new(kind, text.clone()).is_redacted());
        assert!(!Failure::caused_by(kind, text, redacted).is_redacted());
    }

    #[test]
    fn full_disk_is_distinguished_from_missing_permission() {
        let full = Failure::io("write x", std::io::Error::from_raw_os_error(28));
        assert_eq!((full.kind(), full.kind().exit_code()), (FailureKind::Full, 5));
        let rights = Failure::io("open x", std::io::Error::from_raw_os_error(13));
        assert_eq!(rights.kind(), FailureKind::Permission);
        assert!(rights.source().is_some());
    }
}
