//! For tests: an object store that loses requests and answers on demand.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

/// The fault of one PUT, or one listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The request arrives; the answer is lost.
    AnswerLost,
    /// The request is lost.
    RequestLost,
    /// 409 although the name is free.
    Conflict,
    /// The request arrives twice, and the answer is to the second.
    SentTwice,
    /// Another writer was faster, and the answer is lost.
    Beaten,
    /// 403.
    Forbidden,
    /// The listing breaks off after that many names.
    ListingCut(usize),
    /// Of objects that are deleted together, only the first so many are, and the others have no answer.
    DeletesCut(usize),
}

/// A store in memory with faults, used up from the back.
#[derive(Debug, Default)]
pub(crate) struct Unreliable {
    inner: InMemory,
    mishaps: Mutex<Vec<Mishap>>,
    /// Requests to delete, of one or several objects.
    pub(crate) deletes: AtomicUsize,
    /// Whether each of them is answered with 403.
    pub(crate) deletes_forbidden: AtomicBool,
}

impl Unreliable {
    /// Sets the faults of the next PUTs and listings, the last element first.
    pub(crate) fn will(&self, mishaps: Vec<Mishap>) {
        *self.mishaps.lock().unwrap() = mishaps;
    }
}

impl fmt::Display for Unreliable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unreliable")
    }
}

fn lost() -> Error {
    let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
    Error::Generic { store: "test", source: source.into() }
}

#[async_trait::async_trait]
impl ObjectStore for Unreliable {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult, Error> {
        let path = || location.to_string();
        let mishap = self.mishaps.lock().unwrap().pop();
        match mishap {
            None | Some(Mishap::ListingCut(_) | Mishap::DeletesCut(_)) => {}
            Some(Mishap::RequestLost) => return Err(lost()),
            Some(Mishap::Conflict) => {
                return Err(Error::AlreadyExists { path: path(), source: "409 Conflict".into() });
            }
            Some(Mishap::Forbidden) => {
                return Err(Error::PermissionDenied { path: path(), source: "403".into() });
            }
            Some(Mishap::Beaten) => {
                self.inner.put_opts(location, "rival".into(), options).await?;
                return Err(lost());
            }
            Some(Mishap::AnswerLost) => {
                self.inner.put_opts(location, payload, options).await?;
                return Err(lost());
            }
            Some(Mishap::SentTwice) => {
                self.inner.put_opts(location, payload.clone(), options.clone()).await?;
            }
        }
        self.inner.put_opts(location, payload, options).await
    }
    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>, Error> {
        self.inner.put_multipart_opts(location, options).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult, Error> {
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path, Error>>,
    ) -> BoxStream<'static, Result<Path, Error>> {
        self.deletes.fetch_add(1, Ordering::Relaxed);
        if self.deletes_forbidden.load(Ordering::Relaxed) {
            let forbidden = |path: Path| Error::PermissionDenied {
                path: path.to_string(),
                source: "403".into(),
            };
            return locations.map(move |path| Err(forbidden(path?))).boxed();
        }
        let mishap = self.mishaps.lock().unwrap().pop();
        let Some(Mishap::DeletesCut(after)) = mishap else {
            return self.inner.delete_stream(locations);
        };
        let first = self.inner.delete_stream(locations.take(after).boxed());
        first.chain(futures::stream::once(async { Err(lost()) })).boxed()
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        let mishap = self.mishaps.lock().unwrap().pop();
        let Some(Mishap::ListingCut(after)) = mishap else { return self.inner.list(prefix) };
        let cut = futures::stream::once(async { Err(lost()) });
        self.inner.list(prefix).take(after).chain(cut).boxed()
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult, Error> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<(), Error> {
        self.inner.copy_opts(from, to, options).await
    }
}
