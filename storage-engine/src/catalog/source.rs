//! An imported capture, and how far it was read.

use serde::{Deserialize, Serialize};

/// A capture that is imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name, as given by the user.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Identity of the capture before it is read: a SHA-256 over its length and samples of its bytes, hex.
    pub sketch: String,
}

/// The read position in a source, and a hash of the bytes before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMark {
    /// Bytes from the start of the source, as stored (compressed, if it is).
    pub bytes: u64,
    /// Their hash: a field `blake3` or `sha256`.
    #[serde(flatten)]
    pub hash: SourceHash,
    /// Some bytes could not be parsed: the source is damaged. The readable packets are committed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
}

impl SourceMark {
    /// Whether it has a field that versions before BLAKE3 cannot read.
    pub(crate) fn is_blake3(&self) -> bool {
        self.hash.blake3().is_some()
    }
}

/// A hash of the beginning of a source, hex. It recognises a file that was imported before; it is no evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceHash {
    /// BLAKE3 with 32 bytes of output, as `b3sum` prints it.
    Blake3(String),
    /// SHA-256, in commits of earlier versions.
    Sha256(String),
}

impl SourceHash {
    /// The BLAKE3 hash, if it is one.
    pub fn blake3(&self) -> Option<&str> {
        match self {
            SourceHash::Blake3(hash) => Some(hash),
            SourceHash::Sha256(_) => None,
        }
    }

    /// The SHA-256 hash, if it is one.
    pub fn sha256(&self) -> Option<&str> {
        match self {
            SourceHash::Sha256(hash) => Some(hash),
            SourceHash::Blake3(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_kinds_of_hashes_are_fields() {
        let blake3 =
            SourceMark { bytes: 5, hash: SourceHash::Blake3("ab".to_owned()), damaged: false };
        let stored = json!({"bytes": 5, "blake3": "ab"});
        assert_eq!(serde_json::to_value(&blake3).unwrap(), stored);
        assert_eq!(serde_json::from_value::<SourceMark>(stored).unwrap(), blake3);
        let sha256 =
            SourceMark { bytes: 5, hash: SourceHash::Sha256("cd".to_owned()), damaged: true };
        let stored = json!({"bytes": 5, "sha256": "cd", "damaged": true, "later": 1});
        assert_eq!(serde_json::from_value::<SourceMark>(stored).unwrap(), sha256);
        for wrong in [json!({"bytes": 5}), json!({"bytes": 5, "md5": "x"}), json!({"sha256": "x"})]
        {
            assert!(serde_json::from_value::<SourceMark>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
