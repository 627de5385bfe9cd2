//! Where a store is: a folder, or a bucket and a prefix in it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use capstan_model::{Failure, FailureKind};
use url::Url;

/// The location of a store, as a user writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A folder on a local disk: a path, or `file:///path`.
    Folder(PathBuf),
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// The common prefix of all names, without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl FromStr for Location {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let refuse = |why: &str| {
            Failure::new(
                FailureKind::Usage,
                format!(
                    "'{text}' is not the location of a store: {why}; write a folder, \
                     file:///folder or s3://bucket/prefix"
                ),
            )
        };
        if text.trim().is_empty() {
            return Err(refuse("it is empty"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Location::Folder(PathBuf::from(text)));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => Url::parse(text)
                .ok()
                .filter(|url| url.query().is_none() && url.fragment().is_none())
                .and_then(|url| url.to_file_path().ok())
                .map(Location::Folder)
                .ok_or_else(|| refuse("it does not name an absolute path of this machine")),
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
                if bucket.is_empty() || !bucket.chars().all(allowed) {
                    return Err(refuse("it has no bucket name"));
                }
                let prefix = prefix.trim_matches('/');
                object_store::path::Path::parse(prefix).map_err(|_| {
                    refuse("its prefix has an empty, '.' or '..' part, or a control character")
                })?;
                // S3 listings are XML, which does not preserve such blanks in names.
                if prefix != prefix.trim() {
                    return Err(refuse("its prefix begins or ends with a blank"));
                }
                Ok(Location::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
            }
            _ => Err(refuse(&format!("'{scheme}' is not supported"))),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Folder(path) => path.display().fmt(f),
            Location::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Location::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_parse_and_print() {
        for (text, shown) in [
            ("store", "store"),
            ("/var/lib/capstan", "/var/lib/capstan"),
            ("file:///var/lib/my%20store", "/var/lib/my store"),
            ("s3://packets", "s3://packets"),
            ("s3://packets/", "s3://packets"),
            ("S3://packets/a/b/", "s3://packets/a/b"),
        ] {
            let location: Location = text.parse().expect("a place");
            assert_eq!(location.to_string(), shown);
        }
    }

    #[test]
    fn invalid_locations_are_refused() {
        for text in [
            "",
            " ",
            "s3://",
            "s3:///x",
            "s3://a b/x",
            "s3://b/x//y",
            "s3://b/../y",
            "http://host/x",
            "gs://b",
            "file://host/x",
            "file:///x?y",
        ] {
            let failure = text.parse::<Location>().expect_err(text);
            assert_eq!(failure.kind(), FailureKind::Usage);
            assert!(failure.to_string().contains("s3://bucket/prefix"), "{failure}");
        }
    }
}
