//! Extents, the unit of the cache, and their keys.

use std::ops::Range;

use object_store::path::Path;
use sha2::{Digest, Sha256};

use crate::store::Store;

/// A range of an object that is cached as a unit, with its checksum: a page, a block, an `index` layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Its byte range.
    pub range: Range<u64>,
    /// Its checksum.
    pub check: Check,
}

/// The checksum of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// CRC32C of all but the first `skip` bytes, from the `index` layer.
    Crc32c {
        /// Length of a block's header, which the `index` layer repeats.
        skip: usize,
        /// The CRC32C of the rest.
        crc: u32,
    },
    /// SHA-256 (hex), from a commit.
    Sha256(String),
}

impl Extent {
    /// Its length, bytes.
    pub fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether `bytes` match its checksum.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.len()
            && match &self.check {
                Check::Crc32c { skip, crc } => {
                    bytes.get(*skip..).is_some_and(|checked| crc32c::crc32c(checked) == *crc)
                }
                Check::Sha256(known) => hex::encode(Sha256::digest(bytes)) == *known,
            }
    }
}

/// An object: store, cluster and name, as half a SHA-256. That is enough because content is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object([u8; 16]);

impl Object {
    /// Identifies an object by the location of its store, the nonce of that store (a location may be
    /// reused, a store may be copied) and its name.
    pub fn of(store: &Store, path: &Path) -> Object {
        let mut hash = Sha256::new();
        for part in [store.place(), &store.format().nonce, path.as_ref()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Object(half)
    }
}

/// The cache key of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    object: Object,
    start: u64,
    end: u64,
}

impl Key {
    pub(super) fn of(object: Object, extent: &Extent) -> Key {
        Key { object, start: extent.range.start, end: extent.range.end }
    }

    /// Length of the extent, bytes.
    pub(super) fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The name of its file: `<object>-<start>-<end>`, in hex.
    pub(super) fn file_name(&self) -> String {
        format!("{}-{:x}-{:x}", hex::encode(self.object.0), self.start, self.end)
    }

    /// Parses a file name; none for a foreign file.
    pub(super) fn parse(file_name: &str) -> Option<Key> {
        let mut parts = file_name.split('-');
        let mut object = [0; 16];
        hex::decode_to_slice(parts.next()?, &mut object).ok()?;
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let key = Key { object: Object(object), start: number()?, end: number()? };
        (key.file_name() == file_name).then_some(key)
    }

    /// One of 256 folders, evenly distributed.
    pub(super) fn shard(&self) -> u8 {
        self.object.0[0]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn cache_names_differ_by_store_cluster_and_object() {
        let bucket = Arc::new(InMemory::new());
        let stores = [
            Store::on(bucket.clone(), "a").await.unwrap(),
            Store::on(bucket, "b").await.unwrap(),
            // Another store at what says it is the same place.
            Store::on(Arc::new(InMemory::new()), "a").await.unwrap(),
        ];
        let mut all: Vec<Object> = stores
            .iter()
            .flat_map(|store| ["x/y", "x/z"].map(|path| Object::of(store, &Path::from(path))))
            .collect();
        assert_eq!(Object::of(&stores[0], &Path::from("x/y")), all[0]);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn file_names_parse_and_foreign_files_are_ignored() {
        let key = Key { object: Object([0xab; 16]), start: 7, end: 0x1_0000_0000 };
        assert_eq!(Key::parse(&key.file_name()), Some(key));
        let name = key.file_name();
        for other in ["lock", "", "-", &name[1..], &format!("{name}.new"), &name.to_uppercase()] {
            assert_eq!(Key::parse(other), None, "{other}");
        }
    }

    #[test]
    fn cached_bytes_are_verified_against_length_and_checksum() {
        let crc = crc32c::crc32c(b"cd");
        let extent = Extent { range: 10..14, check: Check::Crc32c { skip: 2, crc } };
        assert!(extent.holds(b"abcd") && extent.holds(b"xycd"));
        assert!(!extent.holds(b"abce") && !extent.holds(b"cd") && !extent.holds(b""));
        let known = hex::encode(Sha256::digest(b"abcd"));
        let extent = Extent { range: 0..4, check: Check::Sha256(known) };
        assert!(extent.holds(b"abcd") && !extent.holds(b"abce"));
    }
}
