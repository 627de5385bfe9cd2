//! Golden stores, in memory, for tests that change them, and what segments of tests have.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use capstan_model::{Address, FlowKey};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::store::Store;

pub(crate) const CLUSTER: &str = "golden";

/// A store in memory as the newest golden one.
pub(crate) async fn golden() -> (Arc<InMemory>, Store) {
    in_memory(3).await
}

/// A store in memory as a golden one. Of those before 3 nothing is rolled up.
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

/// Objects of which one is put right after each listing that should have it: lists leave it out, and it can be read.
#[derive(Debug)]
pub(crate) struct PutAfterListing {
    pub(crate) objects: Arc<InMemory>,
    pub(crate) name: Path,
}

impl fmt::Display for PutAfterListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[async_trait::async_trait]
impl ObjectStore for PutAfterListing {
    async fn put_opts(&self, at: &Path, what: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(at, what, how).await
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(at, how).await
    }
    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(at, how).await
    }
    fn delete_stream(
        &self,
        of: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(of)
    }
    fn list(&self, below: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let name = self.name.clone();
        let others = move |of: &ObjectMeta| futures::future::ready(of.location != name);
        self.objects.list(below).try_filter(others).boxed()
    }
    async fn list_with_delimiter(&self, below: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.objects.list_with_delimiter(below).await?;
        listed.objects.retain(|of| of.location != self.name);
        Ok(listed)
    }
    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, how).await
    }
}

/// The golden store, once for each of its logs, whose last commit is put while the store is read.
pub(crate) async fn growing() -> Vec<(String, Arc<InMemory>, Store)> {
    let (objects, _) = golden().await;
    let mut last = BTreeMap::new();
    for name in names(&objects).await.into_iter().filter(|name| name.starts_with("log/")) {
        let log = name.rsplit_once('/').unwrap().0.to_owned();
        last.insert(log, name);
    }
    let mut stores = Vec::new();
    for name in last.into_values() {
        let (objects, _) = golden().await;
        let growing = PutAfterListing { objects: Arc::clone(&objects), name: full(&name) };
        stores.push((name, objects, Store::on(Arc::new(growing), CLUSTER).await.unwrap()));
    }
    stores
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
