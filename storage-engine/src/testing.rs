//! Golden stores, in memory, for tests that change them, and what segments of tests have.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use capstan_model::{Address, FlowKey};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::store::Store;

pub(crate) const CLUSTER: &str = "golden";

/// A store in memory as the newest golden one.
pub(crate) async fn golden() -> (Arc<InMemory>, Store) {
    in_memory(3).await
}

/// A store in memory as a golden one. Of those before 3 nothing is folded.
pub(crate) async fn in_memory(number: u32) -> (Arc<InMemory>, Store) {
    let golden = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let root = golden.join(number.to_string()).join("store");
    let objects = Arc::new(InMemory::new());
    for file in files(&root) {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&file).unwrap();
        objects.put(&Path::from(name), bytes.into()).await.unwrap();
    }
    let store = Store::on(Arc::clone(&objects) as Arc<dyn ObjectStore>, CLUSTER).await.unwrap();
    (objects, store)
}

fn files(folder: &FilePath) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The names of all objects below the cluster.
pub(crate) async fn names(objects: &InMemory) -> Vec<String> {
    let listed: Vec<_> = objects.list(None).try_collect().await.unwrap();
    let mut names: Vec<String> = listed
        .into_iter()
        .map(|object| object.location.as_ref().strip_prefix("golden/").unwrap().to_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn full(name: &str) -> Path {
    Path::from(format!("{CLUSTER}/{name}"))
}

/// A flow of UDP.
pub(crate) fn key() -> FlowKey {
    FlowKey {
        source: Address::v4([10, 0, 0, 1]),
        destination: Address::v4([10, 0, 0, 2]),
        source_port: 40_000,
        destination_port: 53,
        ip_protocol: 17,
        vlan: None,
        vni: None,
        ethertype: 0x0800,
        pseudo: None,
        fragment_id: None,
    }
}
