//! Places that keep the promise, and servers that lie in each way that was met.

use std::fmt;
use std::time::Duration;

use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::*;
use crate::store::unreliable::{Mishap, Unreliable};
use crate::store::world::{Machine, jitter_of};

/// How a server lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Yes to every create.
    Overwrites,
    /// It looks whether the name is free and writes a while later: of calls that do not overlap
    /// one wins. Calls reach it at different times.
    LooksThenWrites { reach_within: Duration, writes_after: Duration },
    /// The first is told that it won; what the others wrote is kept.
    KeepsTheLast,
}

#[derive(Debug)]
struct Lying {
    inner: InMemory,
    lie: Lie,
}

impl Lying {
    fn new(lie: Lie) -> Lying {
        Lying { inner: InMemory::new(), lie }
    }
}

impl fmt::Display for Lying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.lie)
    }
}

fn taken(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "412".into() }
}

#[async_trait::async_trait]
impl ObjectStore for Lying {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        options.mode = PutMode::Overwrite;
        let is_taken = async || self.inner.head(location).await.is_ok();
        match self.lie {
            Lie::Overwrites => self.inner.put_opts(location, payload, options).await,
            Lie::LooksThenWrites { reach_within, writes_after } => {
                tokio::time::sleep(jitter_of(&Machine, reach_within * 2) - reach_within).await;
                if is_taken().await {
                    return Err(taken(location));
                }
                tokio::time::sleep(writes_after).await;
                self.inner.put_opts(location, payload, options).await
            }
            Lie::KeepsTheLast => {
                let was_taken = is_taken().await;
                let put = self.inner.put_opts(location, payload, options).await;
                if was_taken { Err(taken(location)) } else { put }
            }
        }
    }
    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn probed(objects: &dyn ObjectStore) -> std::result::Result<(), Failure> {
    probe(objects, &Path::from("probe"), "s3://b", MANY).await
}

#[tokio::test]
async fn a_store_with_one_winner_passes_and_nothing_stays() {
    let store = InMemory::new();
    probed(&store).await.unwrap();
    assert!(store.list_with_delimiter(None).await.unwrap().common_prefixes.is_empty());
}

#[tokio::test]
async fn an_honest_store_behind_a_bad_network_passes() {
    let store = Unreliable::default();
    store.will(vec![Mishap::SentTwice; 3 * WRITERS]);
    probed(&store).await.unwrap();
}

#[tokio::test]
async fn a_store_that_overwrites_is_refused_with_words() {
    let failure = probed(&Lying::new(Lie::Overwrites)).await.expect_err("overwrites");
    assert_eq!(failure.kind(), FailureKind::Usage);
    assert!(failure.to_string().contains("8 were told"), "{failure}");
}

#[tokio::test]
async fn a_store_that_keeps_anothers_bytes_is_refused_with_words() {
    let failure = probed(&Lying::new(Lie::KeepsTheLast)).await.expect_err("keeps the last");
    assert_eq!(failure.kind(), FailureKind::Usage);
    assert!(failure.to_string().contains("another's object"), "{failure}");
}

/// If its second call of eight comes after the first has written, a race finds nothing. Where that takes
/// a tenth of the time within which the calls arrive, that is a chance of 0.9 to the eighth power, and
/// of 1 in 25,000 for twelve races; with the quarter of this test there is none worth a number.
#[tokio::test]
async fn a_store_that_is_honest_only_to_one_at_a_time_is_found_out() {
    let lie = Lie::LooksThenWrites {
        reach_within: Duration::from_millis(20),
        writes_after: Duration::from_millis(5),
    };
    let store = Lying::new(lie);
    let path = Path::from("in-turn");
    for expected in [true, false, false] {
        let put = store.put_opts(&path, "x".into(), PutMode::Create.into()).await;
        assert_eq!(put.is_ok(), expected, "one after the other it keeps the promise");
    }
    let failures = join_all((0..20).map(|_| async {
        let store = Lying::new(lie);
        probed(&store).await.expect_err("it lets several win")
    }))
    .await;
    for failure in failures {
        assert_eq!(failure.kind(), FailureKind::Usage);
        assert!(failure.to_string().contains("were told that they won"), "{failure}");
    }
}
