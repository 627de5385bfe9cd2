//! Converts errors of the object store into failures that tell a person what to do.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use capstan_model::{Failure, FailureKind};
use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use super::folder::FolderError;
use super::s3::fetch::NoCredentials;
use super::s3::renew::Refusal;

/// The failure of one operation: `what` names the operation and the place. Advice is added.
pub(crate) fn failure(what: impl Into<String>, error: Error) -> Failure {
    let what = what.into();
    if let Some((kind, words)) = own_words(&error) {
        return Failure::new(kind, format!("{what}: {words}"));
    }
    let (kind, advice) = judge(&error);
    let what = if advice.is_empty() { what } else { format!("{what}: {advice}") };
    Failure::caused_by(kind, what, error)
}

/// The failure of an operation that timed out without an answer.
pub(crate) fn no_answer(what: &str, waited: Duration) -> Failure {
    Failure::new(
        FailureKind::Unavailable,
        format!(
            "{what}: no answer within {} s: the store or the network is too slow or unavailable; \
             retry later",
            waited.as_secs()
        ),
    )
}

/// Whether the server refuses the credentials, so that new ones could help.
pub(crate) fn refusal(error: &Error) -> Option<Refusal> {
    let text = error.to_string();
    match code_in(&text) {
        Some(
            "ExpiredToken"
            | "TokenRefreshRequired"
            | "InvalidToken"
            | "InvalidAccessKeyId"
            | "ExpiredTokenException"
            | "InvalidClientTokenId"
            | "RequestExpired",
        ) => Some(Refusal::Certain),
        Some("SignatureDoesNotMatch" | "AccessDenied") => Some(Refusal::Doubtful),
        Some(_) => None,
        // An answer to HEAD has no body with a code. Only such answers are malformed.
        None => match status_in(&text) {
            Some(400) => Some(Refusal::Certain),
            Some(401 | 403) => Some(Refusal::Doubtful),
            _ => None,
        },
    }
}

/// Whether the server reports that the bucket does not exist.
pub(crate) fn is_missing_bucket(error: &Error) -> bool {
    code_in(&error.to_string()) == Some(NO_BUCKET)
}

/// A kind, and advice; empty where the kind is clear enough.
type Judgement = (FailureKind, &'static str);

const NO_BUCKET: &str = "NoSuchBucket";

/// A range is requested only where the catalog declares that the object has it.
const SHORTER: &str = "the object is shorter than its committed length";

const REFUSED: &str =
    "permission denied: allow it in the policy of the bucket or user, or use other credentials";
const BUSY: &str =
    "the server is overloaded or faulty, also after several retries: check it, or retry later";
const NOT_KNOWN: &str = "the server does not support the request: a store needs PUT with \
                         If-None-Match, as in AWS S3 and Ceph RGW";
const OTHER_REGION: &str = "the bucket is in another region: set AWS_REGION to it";
const SENT_AWAY: &str = "the server rejects the request; if its message gives no reason, check \
                         CAPSTAN_S3_ENCRYPTION and its keys";
const NO_KMS_KEY: &str =
    "the key service does not have this key, or it is disabled: check CAPSTAN_S3_KMS_KEY";

/// Error codes of servers: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.
const CODES: &[(&[&str], Judgement)] = &[
    (
        &[NO_BUCKET],
        (
            FailureKind::NotFound,
            "the bucket does not exist: create it, or check its name and the endpoint",
        ),
    ),
    (&["AccessDenied", "AllAccessDisabled", "AccountProblem"], (FailureKind::Permission, REFUSED)),
    (
        &["InvalidAccessKeyId"],
        (
            FailureKind::Permission,
            "the server does not know this access key: check AWS_ACCESS_KEY_ID or the profile, and that \
             the endpoint is the one the key is for",
        ),
    ),
    (
        &["SignatureDoesNotMatch"],
        (
            FailureKind::Permission,
            "the secret access key does not match the access key: check AWS_SECRET_ACCESS_KEY or \
             the profile",
        ),
    ),
    (
        &["ExpiredToken", "TokenRefreshRequired"],
        (
            FailureKind::Permission,
            "these credentials have expired (the session token has run out): get new temporary keys and \
             start again with them",
        ),
    ),
    (
        &["InvalidToken"],
        (
            FailureKind::Permission,
            "the session token does not match the keys: check AWS_SESSION_TOKEN, or unset it for \
             keys that need none",
        ),
    ),
    (
        &["RequestTimeTooSkewed"],
        (
            FailureKind::Permission,
            "this machine's clock and the server's differ too much: set the clock (NTP)",
        ),
    ),
    (
        &["QuotaExceeded"],
        (FailureKind::Full, "the quota of the bucket or user is exhausted: raise it"),
    ),
    (
        &[
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
        ],
        (FailureKind::Usage, OTHER_REGION),
    ),
    (&["NotImplemented", "MethodNotAllowed"], (FailureKind::Usage, NOT_KNOWN)),
    (&["InvalidArgument", "InvalidRequest"], (FailureKind::Usage, SENT_AWAY)),
    (
        &["KMS.NotFoundException", "KMS.DisabledException", "KMS.KMSInvalidStateException"],
        (FailureKind::Usage, NO_KMS_KEY),
    ),
    (
        &["SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout"],
        (FailureKind::Unavailable, BUSY),
    ),
];

/// Words in error texts that are more specific than the code.
const WORDS: &[(&str, Judgement)] = &[
    // Ceph calls a key of its key service an access key id.
    ("kms-keyid", (FailureKind::Usage, NO_KMS_KEY)),
];

/// The text of an error that Capstan itself made; it needs no advice.
fn own_words(error: &Error) -> Option<(FailureKind, String)> {
    chain(Some(error)).find_map(|cause| {
        if let Some(none) = cause.downcast_ref::<NoCredentials>() {
            return Some((none.kind, none.what.clone()));
        }
        match cause.downcast_ref() {
            Some(link @ FolderError::Link(_)) => Some((FailureKind::Usage, link.to_string())),
            _ => None,
        }
    })
}

fn judge(error: &Error) -> Judgement {
    let text = error.to_string();
    if let Some((_, judgement)) = WORDS.iter().find(|(words, _)| text.contains(words)) {
        return *judgement;
    }
    if let Some(judgement) = code_in(&text).and_then(judgement_of_code) {
        return judgement;
    }
    match error {
        Error::NotFound { .. } => (FailureKind::NotFound, ""),
        Error::AlreadyExists { .. } | Error::Precondition { .. } => (FailureKind::AlreadyThere, ""),
        // A folder has permissions, not credentials.
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            (FailureKind::Permission, if status_in(&text).is_some() { REFUSED } else { "" })
        }
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            (FailureKind::Usage, "")
        }
        other => judge_chain(other, &text),
    }
}

fn judge_chain(error: &Error, text: &str) -> Judgement {
    for error in chain(Some(error)) {
        match error.downcast_ref() {
            Some(FolderError::NoHardLinks(_)) => return (FailureKind::Usage, ""),
            Some(FolderError::Gone(_)) => return (FailureKind::NotFound, ""),
            Some(FolderError::Link(_) | FolderError::Io { .. }) | None => {}
        }
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return judge_http(error);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return (Failure::io("", io::Error::from(error.kind())).kind(), "");
        }
    }
    // Only object_store sees the server's answer; the error text carries it.
    if text.contains("redirect without LOCATION") {
        return (FailureKind::Usage, OTHER_REGION);
    }
    // The first is the text of a folder, the second of a store in memory.
    if ["Requested range was invalid", "but object was only"].iter().any(|of| text.contains(of)) {
        return (FailureKind::Damaged, SHORTER);
    }
    match status_in(text) {
        Some(416) => (FailureKind::Damaged, SHORTER),
        Some(501) => (FailureKind::Usage, NOT_KNOWN),
        Some(507) => (FailureKind::Full, "the server has no space left: free some"),
        Some(408 | 429 | 500..=599) => (FailureKind::Unavailable, BUSY),
        _ => (FailureKind::Other, ""),
    }
}

type AnyError = dyn StdError + 'static;

/// An error and all its sources.
fn chain(mut next: Option<&AnyError>) -> impl Iterator<Item = &AnyError> {
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// A request without an answer, or with a partial one.
fn judge_http(error: &HttpError) -> Judgement {
    let causes = || chain(error.source());
    let says = |words: &str| causes().any(|cause| cause.to_string().contains(words));
    if says("invalid peer certificate") {
        // A retry does not help.
        return (
            FailureKind::Usage,
            "the server's certificate is not trusted: set AWS_CA_BUNDLE to its authority's file, \
             and address the server by the name in its certificate",
        );
    }
    let is = |kind| {
        causes().filter_map(|c| c.downcast_ref::<io::Error>()).any(|error| error.kind() == kind)
    };
    let advice = if is(io::ErrorKind::ConnectionRefused) {
        "connection refused: is the S3 server running, and the endpoint right?"
    } else if says("dns error") {
        "the server's name cannot be resolved: check the endpoint and this machine's DNS"
    } else if error.kind() == HttpErrorKind::Connect {
        "the server is unreachable: check the endpoint, the network and firewalls"
    } else {
        "the connection was lost: check the network and the S3 server"
    };
    match error.kind() {
        HttpErrorKind::Decode => (FailureKind::Other, ""),
        _ => (FailureKind::Unavailable, advice),
    }
}

fn judgement_of_code(code: &str) -> Option<Judgement> {
    CODES.iter().find(|(codes, _)| codes.contains(&code)).map(|(_, judgement)| *judgement)
}

/// The code in the text of an error answer, or of the result for one of several objects.
fn code_in(text: &str) -> Option<&str> {
    let within = |begin, end| text.split_once(begin)?.1.split_once(end).map(|(code, _)| code);
    within("<Code>", "</Code>").or_else(|| within("(code: ", ")"))
}

/// The HTTP status in the text of an error answer.
fn status_in(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Generic { store: "test", source: source.into() }
    }

    fn forbidden(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::PermissionDenied { path: "x".to_owned(), source: source.into() }
    }

    fn kind(error: &Error) -> FailureKind {
        judge(error).0
    }

    /// The text of what object_store makes of an answer.
    fn answer(status: &str, code: &str) -> String {
        format!("Server returned non-2xx status code: {status}: <Error><Code>{code}</Code></Error>")
    }

    #[test]
    fn error_kinds_are_distinguished() {
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

    #[test]
    fn error_code_takes_precedence_over_the_status() {
        use FailureKind::*;
        for (error, kind, words) in [
            (forbidden(answer("403 Forbidden", "QuotaExceeded")), Full, "quota"),
            (forbidden(answer("403 Forbidden", "RequestTimeTooSkewed")), Permission, "clock"),
            (forbidden(answer("403 Forbidden", "NotKnownYet")), Permission, "policy"),
            (
                generic(answer("416 Requested Range Not Satisfiable", "InvalidRange")),
                Damaged,
                "shorter",
            ),
            (
                generic(answer("416 Requested Range Not Satisfiable", "NotKnownYet")),
                Damaged,
                "shorter",
            ),
            (generic(answer("400 Bad Request", "ExpiredToken")), Permission, "have expired"),
            (
                generic(answer("400 Bad Request", "AuthorizationHeaderMalformed")),
                Usage,
                "AWS_REGION",
            ),
            (
                generic(answer("400 Bad Request", "KMS.NotFoundException")),
                Usage,
                "CAPSTAN_S3_KMS_KEY",
            ),
            (generic(answer("400 Bad Request", "NotKnownYet")), Other, ""),
            // As `object_store` reports one of several objects that were deleted together.
            (
                generic("DeleteObjects request failed for key x: no (code: AccessDenied)"),
                Permission,
                "policy",
            ),
            (generic(answer("501 Not Implemented", "NotKnownYet")), Usage, "If-None-Match"),
            (generic(answer("507 Insufficient Storage", "NotKnownYet")), Full, "no space"),
        ] {
            let text = error.to_string();
            let failure = failure("write x to s3://b", error);
            assert_eq!(failure.kind(), kind, "{text}");
            let expected =
                if words.is_empty() { "write x to s3://b" } else { "write x to s3://b: " };
            assert!(failure.to_string().starts_with(expected), "{failure}");
            assert!(failure.to_string().contains(words), "{failure}");
            assert!(failure.source().is_some());
        }
    }

    #[test]
    fn error_code_is_printed_once() {
        let mut codes: Vec<&str> =
            CODES.iter().flat_map(|(codes, _)| codes.iter().copied()).collect();
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all);
    }

    #[test]
    fn permission_error_of_a_folder_does_not_mention_credentials() {
        let failure = failure("open /x", forbidden(io::Error::from_raw_os_error(13)));
        assert_eq!(
            (failure.kind(), failure.to_string()),
            (FailureKind::Permission, "open /x".into())
        );
    }

    /// What happens below a connection that is not made, as the HTTP client nests it.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Below(&'static str, #[source] Option<io::Error>);

    #[test]
    fn connection_failures_are_distinguished() {
        use HttpErrorKind::{Connect, Decode, Interrupted};
        let refused = || Some(io::Error::from(io::ErrorKind::ConnectionRefused));
        for (kind, below, expected, words) in [
            (Connect, Below("tcp", refused()), FailureKind::Unavailable, "connection refused"),
            (Connect, Below("dns error", None), FailureKind::Unavailable, "DNS"),
            (Connect, Below("deadline", None), FailureKind::Unavailable, "firewalls"),
            (
                Connect,
                Below("invalid peer certificate: UnknownIssuer", None),
                FailureKind::Usage,
                "AWS_CA_BUNDLE",
            ),
            (Interrupted, Below("reset", None), FailureKind::Unavailable, "connection was lost"),
            (Decode, Below("not a number", None), FailureKind::Other, ""),
        ] {
            let failure = failure("read x", generic(HttpError::new(kind, below)));
            assert_eq!(failure.kind(), expected, "{failure}");
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }

    #[test]
    fn timeout_has_a_message() {
        let failure = no_answer("read x of s3://b", Duration::from_secs(31));
        assert_eq!(failure.kind(), FailureKind::Unavailable);
        assert!(failure.to_string().starts_with("read x of s3://b: no answer within 31 s"));
    }
}
