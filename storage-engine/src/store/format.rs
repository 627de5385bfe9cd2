//! The `format` object: it marks a folder or a prefix as a store.

use capstan_model::{Failure, FailureKind, Time};
use serde::{Deserialize, Serialize};

use super::checked;

/// The format this version writes, and the newest one it reads.
///
/// The number is raised when an older reader would misread a store. Additions that an older reader may ignore (new
/// fields, new columns, new index fields) do not raise it.
pub const FORMAT: u32 = 3;

/// Value of `store` in every Capstan store.
const STORE: &str = "capstan";

/// The `format` object, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Always `capstan`.
    pub store: String,
    /// The format number.
    pub format: u32,
    /// The cluster's name.
    pub cluster: String,
    /// Version that created the store.
    pub created_by: String,
    /// Creation time, by the creator's clock.
    pub created_at: Time,
    /// Marks the create request.
    pub nonce: String,
}

impl Format {
    /// The `format` object of a new store.
    pub(crate) fn new(cluster: &str, now: Time, nonce: String) -> Format {
        Format {
            store: STORE.to_owned(),
            format: FORMAT,
            cluster: cluster.to_owned(),
            created_by: concat!("capstan ", env!("CARGO_PKG_VERSION")).to_owned(),
            created_at: now,
            nonce,
        }
    }

    /// Parses a `format` object found at `place`.
    ///
    /// The two fields that every version has are read first, so that a newer store is reported as newer, not as
    /// damaged. A changed object that still parses is used, with a logged warning: otherwise the whole store would be
    /// unreadable.
    pub(crate) fn read(bytes: &[u8], place: &str) -> Result<Format, Failure> {
        #[derive(Deserialize)]
        struct Head {
            store: String,
            format: u32,
        }
        let damaged = |error: serde_json::Error| {
            Failure::caused_by(
                FailureKind::Damaged,
                format!("the format object of {place} cannot be read; is this a Capstan store?"),
                error,
            )
        };
        let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
        if head.store != STORE {
            return Err(Failure::new(
                FailureKind::NotFound,
                format!(
                    "{place} is a store of '{}', not of Capstan: use another place",
                    head.store
                ),
            ));
        }
        if head.format > FORMAT {
            return Err(Failure::new(
                FailureKind::TooNew,
                format!(
                    "{place} has store format {}, and capstan {} supports up to {FORMAT}: use a \
                     newer version",
                    head.format,
                    env!("CARGO_PKG_VERSION"),
                ),
            ));
        }
        if checked::is_changed(head.format, bytes) {
            tracing::warn!("the format object of {place} is damaged: run capstan verify");
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_ignored_and_newer_formats_refused() {
        let format = Format::new("prod", Time(5), "n".to_owned());
        let mut json = serde_json::to_value(&format).unwrap();
        json["colour"] = "green".into();
        assert_eq!(Format::read(json.to_string().as_bytes(), "x").unwrap(), format);

        let newer = br#"{"store":"capstan","format":4,"shape":"other"}"#;
        let failure = Format::read(newer, "s3://b").expect_err("newer");
        assert_eq!(failure.kind(), FailureKind::TooNew);
        assert!(failure.to_string().contains("store format 4"), "{failure}");
    }

    #[test]
    fn foreign_and_damaged_format_objects_are_reported() {
        let other = Format::read(br#"{"store":"tar","format":1}"#, "x").expect_err("other");
        assert_eq!(other.kind(), FailureKind::NotFound);
        let damaged = Format::read(b"{", "x").expect_err("damaged");
        assert_eq!(damaged.kind(), FailureKind::Damaged);
    }
}
