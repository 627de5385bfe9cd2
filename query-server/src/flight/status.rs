//! Error conversion: DataFusion's errors to [`Failure`]s, those to gRPC statuses, and on the client the reverse.

use std::error::Error;

use capstan_model::{Failure, FailureKind};
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::object_store::Error as StoreError;
use tonic::{Code, Status};

/// Most bytes of words in a status once percent-encoded. A status travels in a
/// header, and gRPC's C++ clients refuse headers of more than 8 KiB in all.
const MAX_WORDS: usize = 4 << 10;

/// The gRPC code of a kind.
fn code(kind: FailureKind) -> Code {
    match kind {
        FailureKind::Other => Code::Internal,
        FailureKind::Usage => Code::InvalidArgument,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::Permission => Code::PermissionDenied,
        FailureKind::Full => Code::ResourceExhausted,
        FailureKind::Damaged => Code::DataLoss,
        FailureKind::TooNew => Code::FailedPrecondition,
        FailureKind::Unavailable => Code::Unavailable,
        FailureKind::AlreadyThere => Code::AlreadyExists,
        FailureKind::Busy => Code::Aborted,
        FailureKind::Interrupted => Code::Cancelled,
    }
}

fn kind(code: Code) -> FailureKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => FailureKind::Usage,
        Code::NotFound => FailureKind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => FailureKind::Permission,
        Code::ResourceExhausted => FailureKind::Full,
        Code::DataLoss => FailureKind::Damaged,
        Code::FailedPrecondition => FailureKind::TooNew,
        Code::Unavailable | Code::DeadlineExceeded => FailureKind::Unavailable,
        Code::AlreadyExists => FailureKind::AlreadyThere,
        Code::Aborted => FailureKind::Busy,
        Code::Cancelled => FailureKind::Interrupted,
        Code::Ok | Code::Unknown | Code::Internal => FailureKind::Other,
    }
}

/// A failure as a status: its words, then those of what caused it.
pub(super) fn to_status(failure: &Failure) -> Status {
    Status::new(code(failure.kind()), bounded(&chain(failure)))
}

/// A status that another server sent, as a failure of the same kind.
pub(super) fn from_status(status: &Status) -> Failure {
    let words = match status.message() {
        "" => format!("the server answered with {}", status.code()),
        words => words.to_owned(),
    };
    match status.source() {
        // A transport error of tonic's: its own words ("transport error") say little.
        Some(source) => Failure::new(kind(status.code()), format!("{words}: {}", chain(source))),
        None => Failure::new(kind(status.code()), words),
    }
}

/// What went wrong in a query. A [`Failure`] that a table raised keeps its kind.
pub(super) fn from_query(error: &DataFusionError) -> Failure {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(link) = next {
        if let Some(failure) = link.downcast_ref::<Failure>() {
            return match failure.is_redacted() {
                true => Failure::redacted(failure.kind(), failure.to_string()),
                false => Failure::new(failure.kind(), chain(failure)),
            };
        }
        next = link.source();
    }
    let root = error.find_root();
    let usage = |words: String| Failure::new(FailureKind::Usage, words);
    match root {
        DataFusionError::SQL(parser, _) => {
            let words = parser.to_string();
            let words = words.strip_prefix("sql parser error: ").unwrap_or(&words);
            usage(format!("invalid SQL: {words}"))
        }
        // Most of these say so themselves.
        DataFusionError::NotImplemented(words) if words.contains("upport") => usage(words.clone()),
        DataFusionError::NotImplemented(words) => usage(format!("not supported: {words}")),
        DataFusionError::Plan(words)
        | DataFusionError::Configuration(words)
        | DataFusionError::Execution(words)
        | DataFusionError::Substrait(words) => usage(words.clone()),
        DataFusionError::SchemaError(schema, _) => usage(schema.to_string()),
        DataFusionError::ArrowError(arrow, _) => from_arrow(arrow),
        DataFusionError::ResourcesExhausted(words) => {
            Failure::new(FailureKind::Full, format!("the query exceeds its memory limit: {words}"))
        }
        DataFusionError::ParquetError(parquet) => {
            Failure::new(FailureKind::Damaged, format!("a stored table cannot be read: {parquet}"))
        }
        DataFusionError::ObjectStore(store) => from_store(store),
        DataFusionError::IoError(io) => Failure::new(
            FailureKind::Other,
            format!("the query failed while reading or spilling: {io}"),
        ),
        DataFusionError::ExecutionJoin(_) => Failure::new(
            FailureKind::Other,
            "a part of the query crashed; the server's log has more",
        ),
        DataFusionError::Internal(words) => Failure::new(
            FailureKind::Other,
            format!("unexpected error of the query engine: {words}"),
        ),
        other => Failure::new(FailureKind::Other, other.strip_backtrace()),
    }
}

/// Whether the memory that queries share was used up: the text names operators of all of them.
pub(super) fn is_of_shared_memory(error: &DataFusionError) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(link) = next {
        if let Some(DataFusionError::ResourcesExhausted(_)) = link.downcast_ref() {
            return true;
        }
        next = link.source();
    }
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

/// Values that do not fit are errors of the request; other errors are internal.
fn from_arrow(error: &ArrowError) -> Failure {
    if let ArrowError::InvalidArgumentError(words) = error
        && words.contains("non UTF-8 data")
    {
        let what = "payload, header and data are binary and seldom valid UTF-8 text: \
                    octet_length(payload) counts bytes, encode(payload, 'hex') shows them, and \
                    payload = X'00ff' compares them";
        return Failure::new(FailureKind::Usage, what);
    }
    let kind = match error {
        ArrowError::CastError(_)
        | ArrowError::ParseError(_)
        | ArrowError::ComputeError(_)
        | ArrowError::DivideByZero
        | ArrowError::ArithmeticOverflow(_)
        | ArrowError::InvalidArgumentError(_) => FailureKind::Usage,
        _ => FailureKind::Other,
    };
    Failure::new(kind, error.to_string())
}

fn from_store(error: &StoreError) -> Failure {
    let kind = match error {
        StoreError::NotFound { .. } => FailureKind::NotFound,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            FailureKind::Permission
        }
        _ => FailureKind::Unavailable,
    };
    Failure::new(kind, format!("the store failed: {error}"))
}

/// An error's text and those of its causes, without repetitions.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        next = cause.source();
    }
    words
}

/// The words, cut where their encoding would outgrow a header.
fn bounded(words: &str) -> String {
    let mut encoded = 0;
    for (at, c) in words.char_indices() {
        // Everything but printable ASCII becomes %XX, byte by byte.
        encoded += if c.is_ascii_graphic() || c == ' ' { 1 } else { 3 * c.len_utf8() };
        if encoded > MAX_WORDS {
            return format!("{} […]", &words[..at]);
        }
    }
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::BinaryArray;
    use datafusion::arrow::compute::{CastOptions, cast_with_options};
    use datafusion::arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn every_kind_survives_the_way_to_the_client() {
        for kind in FailureKind::ALL {
            let back = from_status(&to_status(&Failure::new(kind, "why")));
            assert_eq!((back.kind(), back.to_string().as_str()), (kind, "why"));
        }
    }

    #[test]
    fn use_of_shared_memory_is_told_from_other_limits() {
        let pool = || DataFusionError::ResourcesExhausted("SortExec[3] holds most".to_owned());
        let full = |cause: Option<DataFusionError>| {
            let (kind, words) = (FailureKind::Full, "repeat(…) would make up to 9 bytes");
            DataFusionError::External(Box::new(match cause {
                Some(cause) => Failure::caused_by(kind, words, cause),
                None => Failure::new(kind, words),
            }))
        };
        for (error, expected) in [
            (pool(), true),
            (pool().context("sort"), true),
            (ArrowError::ExternalError(Box::new(pool())).into(), true),
            (full(Some(pool())), true),
            (full(Some(pool())).context("scan"), true),
            (full(None), false),
            (DataFusionError::Plan("no such table".to_owned()), false),
        ] {
            assert_eq!(is_of_shared_memory(&error), expected, "{error}");
        }
    }

    #[test]
    fn a_failure_inside_a_table_keeps_its_kind_and_its_causes() {
        let io = std::io::Error::other("the cable is out");
        let failure = Failure::caused_by(FailureKind::Unavailable, "cannot read the bucket", io);
        let error = DataFusionError::ArrowError(
            Box::new(ArrowError::ExternalError(Box::new(
                DataFusionError::External(Box::new(failure)).context("scan"),
            ))),
            None,
        );
        let found = from_query(&error);
        assert_eq!(found.kind(), FailureKind::Unavailable);
        assert_eq!(found.to_string(), "cannot read the bucket: the cable is out");
        assert!(!found.is_redacted());
    }

    #[test]
    fn a_redacted_failure_inside_a_table_stays_redacted() {
        let failure = Failure::redacted(FailureKind::Damaged, "a part cannot be read");
        let error = DataFusionError::External(Box::new(failure)).context("scan");
        let found = from_query(&error);
        assert_eq!(
            (found.to_string().as_str(), found.is_redacted()),
            ("a part cannot be read", true)
        );
    }

    #[test]
    fn binary_used_as_text_gets_a_hint() {
        let bytes = BinaryArray::from_vec(vec![b"\xff\xfe"]);
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let error = cast_with_options(&bytes, &DataType::Utf8, &strict).expect_err("it is no text");
        let found = from_query(&DataFusionError::ArrowError(Box::new(error), None));
        assert_eq!(found.kind(), FailureKind::Usage);
        assert!(found.to_string().contains("octet_length(payload)"), "{found}");
    }

    #[test]
    fn internal_error_has_no_datafusion_bug_report_text() {
        let found = from_query(&DataFusionError::Internal("odd".into()));
        assert_eq!(found.kind(), FailureKind::Other);
        assert!(!found.to_string().contains("github"), "{found}");
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        let cut = bounded(&"ä".repeat(10_000));
        assert!(cut.ends_with("[…]") && cut.len() < MAX_WORDS, "{}", cut.len());
        assert_eq!(bounded("short"), "short");
    }
}
