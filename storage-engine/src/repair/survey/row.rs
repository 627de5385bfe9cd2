//! Reads a sequence of versions, some of which may be unreadable.

use std::collections::BTreeSet;
use std::future::Future;

use capstan_model::{Failure, FailureKind};
use object_store::path::Path;

use crate::catalog::entry::sha256_hex;
use crate::catalog::versions::Versioned;
use crate::store::Store;

/// A sequence of versions.
#[derive(Debug)]
pub(in crate::repair) struct Row<T> {
    /// The newest readable version.
    pub(in crate::repair) readable: Option<T>,
    /// The highest existing number; 0 if there is none.
    pub(in crate::repair) newest: u64,
    /// SHA-256 of its bytes, hex.
    pub(in crate::repair) newest_sha256: String,
    /// Unreadable versions.
    pub(in crate::repair) damaged: Vec<u64>,
    /// Readable versions before the newest one.
    pub(super) older: Vec<u64>,
}

/// None if an object is damaged, so that the survey continues.
pub(super) fn sound<T>(read: Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Err(failure) if failure.kind() == FailureKind::Damaged => Ok(None),
        read => read,
    }
}

impl<T> Row<Versioned<T>> {
    pub(super) async fn read<F>(
        store: &Store,
        there: BTreeSet<u64>,
        name: impl Fn(u64) -> Path,
        read: impl Fn(u64) -> F,
    ) -> Result<Self, Failure>
    where
        F: Future<Output = Result<Option<Versioned<T>>, Failure>>,
    {
        let newest = there.last().copied().unwrap_or(0);
        let (mut readable, mut damaged, mut older) = (None, Vec::new(), Vec::new());
        for version in there {
            match sound(read(version).await)? {
                Some(found) => {
                    readable = Some(found);
                    older.push(version);
                }
                None => damaged.push(version),
            }
        }
        older.pop();
        let newest_sha256 = match (&readable, damaged.last() == Some(&newest)) {
            (Some(found), false) => found.sha256.clone(),
            _ if newest == 0 => String::new(),
            _ => sha256_hex(&store.get_if_present(&name(newest)).await?.unwrap_or_default()),
        };
        Ok(Row { readable, newest, newest_sha256, damaged, older })
    }

    /// Keeps only the required content of the readable version.
    pub(super) fn map<U>(self, needed: impl FnOnce(T) -> U) -> Row<U> {
        let Row { readable, newest, newest_sha256, damaged, older } = self;
        Row { readable: readable.map(|of| needed(of.value)), newest, newest_sha256, damaged, older }
    }
}
