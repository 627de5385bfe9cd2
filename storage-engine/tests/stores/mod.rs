//! Golden stores, opened in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use capstan_storage_engine::store::Store;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

/// The folder of golden stores.
pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Every golden store there is, by number.
pub(crate) fn all() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(golden()).unwrap();
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("store").is_dir())
        .collect();
    found.sort();
    found
}

/// The files below a folder, as objects in memory: nothing may be written to them.
async fn in_memory(folder: &Path) -> Arc<InMemory> {
    let objects = Arc::new(InMemory::new());
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
            let name = object_store::path::Path::parse(name).unwrap();
            let bytes = Bytes::from(std::fs::read(&path).unwrap());
            objects.put(&name, bytes.into()).await.unwrap();
        }
    }
    objects
}

/// A golden store, in memory.
pub(crate) async fn open(folder: &Path) -> Store {
    let objects = in_memory(&folder.join("store")).await;
    Store::on(objects as Arc<dyn ObjectStore>, "golden").await.unwrap()
}
