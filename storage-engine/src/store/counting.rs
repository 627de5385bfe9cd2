//! Counts the requests to a store: a bucket charges for requests.

use std::fmt;
use std::ops::{Range, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Names per page of an S3 LIST.
const LIST_PAGE: u64 = 1_000;

/// Requests and bytes so far. Subtract an earlier value to get the difference.
///
/// Retries inside the client are not counted; LIST pages are computed from the number of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// GETs, whole or of a range.
    pub gets: u64,
    /// PUTs.
    pub puts: u64,
    /// LIST pages.
    pub lists: u64,
    /// HEADs.
    pub heads: u64,
    /// Objects deleted.
    pub deletes: u64,
    /// Bytes that GETs asked for and that exist.
    pub bytes_read: u64,
    /// Bytes sent in PUTs, including failed ones.
    pub bytes_written: u64,
}

impl Sub for Requests {
    type Output = Requests;

    fn sub(self, earlier: Requests) -> Requests {
        Requests {
            gets: self.gets.saturating_sub(earlier.gets),
            puts: self.puts.saturating_sub(earlier.puts),
            lists: self.lists.saturating_sub(earlier.lists),
            heads: self.heads.saturating_sub(earlier.heads),
            deletes: self.deletes.saturating_sub(earlier.deletes),
            bytes_read: self.bytes_read.saturating_sub(earlier.bytes_read),
            bytes_written: self.bytes_written.saturating_sub(earlier.bytes_written),
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    gets: AtomicU64,
    puts: AtomicU64,
    lists: AtomicU64,
    heads: AtomicU64,
    deletes: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// An object store that counts the requests to an inner one.
#[derive(Debug)]
pub struct Counting<T> {
    inner: T,
    counters: Arc<Counters>,
}

impl<T> Counting<T> {
    /// Starts the counters at zero.
    pub fn new(inner: T) -> Self {
        Counting { inner, counters: Arc::default() }
    }

    /// Requests and bytes so far.
    pub fn requests(&self) -> Requests {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Requests {
            gets: read(&self.counters.gets),
            puts: read(&self.counters.puts),
            lists: read(&self.counters.lists),
            heads: read(&self.counters.heads),
            deletes: read(&self.counters.deletes),
            bytes_read: read(&self.counters.bytes_read),
            bytes_written: read(&self.counters.bytes_written),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Counting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<T: ObjectStore> ObjectStore for Counting<T> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        count(&self.counters.puts, 1);
        count(&self.counters.bytes_written, payload.content_length() as u64);
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        // Each part is a PUT too, but this project never writes in parts.
        count(&self.counters.puts, 1);
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        count(if head { &self.counters.heads } else { &self.counters.gets }, 1);
        let result = self.inner.get_opts(location, options).await?;
        if !head {
            count(&self.counters.bytes_read, result.range.end.saturating_sub(result.range.start));
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // The inner store may join ranges that are near each other; this counts the requested ranges.
        count(&self.counters.gets, ranges.len() as u64);
        let got = self.inner.get_ranges(location, ranges).await?;
        count(&self.counters.bytes_read, got.iter().map(|bytes| bytes.len() as u64).sum());
        Ok(got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let counters = Arc::clone(&self.counters);
        let counted = locations.inspect(move |_| count(&counters.deletes, 1)).boxed();
        self.inner.delete_stream(counted)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        count_pages(&self.counters, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        count_pages(&self.counters, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.inner.list_with_delimiter(prefix).await?;
        let names = listed.objects.len() + listed.common_prefixes.len();
        count(&self.counters.lists, (names as u64).div_ceil(LIST_PAGE).max(1));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        count(&self.counters.puts, 1);
        self.inner.copy_opts(from, to, options).await
    }
}

fn count_pages(
    counters: &Arc<Counters>,
    listed: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let counters = Arc::clone(counters);
    count(&counters.lists, 1);
    let mut names = 0u64;
    listed
        .inspect(move |_| {
            names += 1;
            if names > 1 && names % LIST_PAGE == 1 {
                count(&counters.lists, 1);
            }
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn every_kind_is_counted() {
        let store = Counting::new(InMemory::new());
        let a = Path::from("a");
        store.put(&a, "0123456789".into()).await.unwrap();
        let before = store.requests();
        assert_eq!((before.puts, before.bytes_written), (1, 10));
        store.get(&a).await.unwrap();
        store.get_range(&a, 2..5).await.unwrap();
        store.head(&a).await.unwrap();
        let _: Vec<_> = store.list(None).try_collect().await.unwrap();
        store.list_with_delimiter(None).await.unwrap();
        store.delete(&a).await.unwrap();
        let expected = Requests {
            gets: 2,
            heads: 1,
            lists: 2,
            deletes: 1,
            bytes_read: 13,
            ..Requests::default()
        };
        assert_eq!(store.requests() - before, expected);
    }

    #[tokio::test]
    async fn long_lists_count_their_pages() {
        let store = Counting::new(InMemory::new());
        for number in 0..1_001 {
            store.put(&Path::from(format!("{number}")), "".into()).await.unwrap();
        }
        let _: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(store.requests().lists, 2);
    }
}
