//! Names that the store itself needs, whatever is kept in it. The other names are in
//! [`catalog::names`](crate::catalog::names).

use capstan_model::{Failure, FailureKind};
use object_store::path::Path;

/// `format`: marks the store and holds its format number.
pub fn format() -> Path {
    Path::from("format")
}

/// Folders with recorded data and its logs: a cluster with one of them is a store, even without `format`.
pub(super) fn recorded() -> [Path; 3] {
    ["writers", "log", "data"].map(Path::from)
}

/// `probe`: the folder of temporary objects that test the store.
pub(crate) fn probes() -> Path {
    Path::from("probe")
}

/// `probe/<nonce>`.
pub(crate) fn probe(nonce: &str) -> Path {
    Path::from(format!("probe/{nonce}"))
}

/// The first path elements of all objects in a store.
pub const TOP: [&str; 10] = [
    "format",
    "writers",
    "log",
    "checkpoint",
    "data",
    "probe",
    "open",
    "catalog",
    "boundary",
    "lease",
];

/// Checks a cluster name: it is used as a folder name and must be valid everywhere.
///
/// # Errors
///
/// [`FailureKind::Usage`] with the rule.
pub(crate) fn check_cluster(name: &str) -> Result<(), Failure> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && name.len() <= 63 && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Usage,
        format!(
            "'{name}' cannot be a cluster's name: 1 to 63 letters, digits, '.', '_' or '-' of ASCII, \
             the first a letter or digit"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_name_is_a_folder_name() {
        for name in ["default", "prod-eu.1", "A_b"] {
            check_cluster(name).unwrap();
        }
        for name in ["", ".staging", "..", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert_eq!(check_cluster(name).expect_err(name).kind(), FailureKind::Usage);
        }
    }
}
