//! Writes and removals: data objects, catalog names, and what is not needed any more.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use capstan_model::{Failure, FailureKind, Time};
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

#[cfg(feature = "planted")]
use super::Planted;
use super::error::{StoreError, present};
use super::patience::{Tried, Waiting};
use super::{Created, Store, names};

/// Objects of one request to delete: the most that S3 accepts.
const DELETED_AT_ONCE: usize = 1_000;

impl Store {
    /// Writes a data object, whose name only this writer uses, from consecutive pieces. Idempotent.
    ///
    /// # Errors
    ///
    /// [`FailureKind::AlreadyThere`] if the name holds an object of another length.
    pub async fn put_new(&self, path: &Path, parts: Vec<Bytes>) -> Result<(), Failure> {
        let content: PutPayload = parts.into_iter().collect();
        let length = content.content_length() as u64;
        let what = || format!("write {path} to {}", self.place);
        // An object exists: retries only check what it is.
        let is_there = AtomicBool::new(false);
        self.retried(self.means.patience.writing(length), what, || async {
            if !is_there.load(Ordering::Relaxed) {
                let put = self.objects.put_opts(path, content.clone(), PutMode::Create.into());
                match put.await {
                    // An earlier try of this call arrived after all, or is still in flight (409).
                    Err(Error::AlreadyExists { .. }) => is_there.store(true, Ordering::Relaxed),
                    put => return put.map(|_| ()),
                }
            }
            match self.objects.head(path).await {
                Ok(present) if present.size == length => Ok(()),
                Ok(present) => Err(Error::AlreadyExists {
                    path: path.to_string(),
                    source: format!("an object of {} bytes has the name", present.size).into(),
                }),
                Err(Error::NotFound { .. }) => {
                    is_there.store(false, Ordering::Relaxed);
                    Err(not_there_yet())
                }
                Err(error) => Err(error),
            }
        })
        .await?;
        Ok(())
    }

    /// Creates a catalog name if absent. `bytes` must hold a [`nonce`](Store::nonce()) drawn for this call, or for
    /// earlier tries of the same create.
    ///
    /// # Errors
    ///
    /// The owner of the name is unknown: then the caller may retry with the same bytes.
    pub async fn create(&self, path: &Path, bytes: Bytes) -> Result<Created, Failure> {
        let what = format!("create {path} in {}", self.place);
        let limits = self.means.patience.writing(bytes.len() as u64);
        let mut waiting = self.waiting(limits, what);
        loop {
            let put = self.objects.put_opts(path, bytes.clone().into(), PutMode::Create.into());
            let tried = match self.attempt(&mut waiting, put).await {
                Ok(_) => return Ok(Created::Created),
                Err(tried) => tried,
            };
            if tried.error.is_certain() {
                waiting.again(tried).await?;
                continue;
            }
            #[cfg(feature = "planted")]
            if matches!(tried.error, StoreError::Taken(_)) && self.planted(Planted::TakenIsOurs) {
                return Ok(Created::Created);
            }
            // Taken, refused, or no answer: the object itself tells which writer created it.
            let doubt = match self.get_if_present(path).await? {
                Some(present) if present == bytes => return Ok(Created::Created),
                Some(_) => return Ok(Created::Lost),
                // It does not exist (yet): a rival that won the name may have failed too.
                None if matches!(tried.error, StoreError::Taken(_)) => {
                    let what = waiting.what();
                    Tried::broken_off(format!(
                        "{what}: cannot tell which process created the name; retry"
                    ))
                }
                None => tried,
            };
            waiting.again(doubt).await?;
        }
    }

    /// Sends a create once, and does not check the outcome if there is no answer.
    pub(super) async fn create_once(&self, path: &Path, bytes: Bytes) -> Result<(), StoreError> {
        let limits = self.means.patience.writing(bytes.len() as u64);
        let mut waiting = self.waiting(limits, format!("create {path} in {}", self.place));
        let put = self.objects.put_opts(path, bytes.into(), PutMode::Create.into());
        self.attempt(&mut waiting, put).await.map(|_| ()).map_err(|tried| tried.error)
    }

    /// Removes an object. A missing object is no error.
    ///
    /// # Errors
    ///
    /// Errors of the store.
    pub async fn delete(&self, path: &Path) -> Result<(), Failure> {
        let what = || format!("delete {path} of {}", self.place);
        let limits = self.means.patience.writing(0);
        present(self.retried(limits, what, || self.objects.delete(path)).await).map(|_| ())
    }

    /// Removes objects. Missing objects are no error. A bucket gets a request for each 1,000 objects.
    ///
    /// # Errors
    ///
    /// The error of the first object that could not be removed; others of its request may be removed.
    pub async fn delete_many(&self, paths: &[Path]) -> Result<(), Failure> {
        if !self.remote {
            for path in paths {
                self.delete(path).await?;
            }
            return Ok(());
        }
        for batch in paths.chunks(DELETED_AT_ONCE) {
            let first = batch.first().map(Path::as_ref).unwrap_or_default();
            let what = format!("delete {} objects of {}, such as {first}", batch.len(), self.place);
            let mut waiting = self.waiting(self.means.patience.writing(0), what);
            let mut left = batch.to_vec();
            while let Err(tried) = self.delete_batch(&mut left, &mut waiting).await {
                waiting.again(tried).await?;
            }
        }
        Ok(())
    }

    /// Removes objects with one request, and takes those that are removed out of `left`.
    async fn delete_batch(
        &self,
        left: &mut Vec<Path>,
        waiting: &mut Waiting<'_>,
    ) -> Result<(), Tried> {
        let paths = stream::iter(left.clone().into_iter().map(Ok)).boxed();
        let deleting = self.objects.delete_stream(paths);
        let outcomes: Vec<Result<Path, Error>> =
            self.attempt(waiting, async { Ok(deleting.collect().await) }).await?;
        let mut failed = None;
        let mut removed = std::collections::BTreeSet::new();
        for outcome in outcomes {
            match outcome {
                Ok(path) => {
                    removed.insert(path);
                }
                Err(Error::NotFound { .. }) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        left.retain(|path| !removed.contains(path));
        match failed {
            None => Ok(()),
            Some(error) => self.attempt(waiting, std::future::ready(Err(error))).await,
        }
    }

    /// The current time by the store's own clock. Creates an object to read it, and removes that object.
    ///
    /// # Errors
    ///
    /// Errors of the store.
    pub async fn clock(&self) -> Result<Time, Failure> {
        let path = names::probe(&self.nonce());
        self.put_new(&path, Vec::new()).await?;
        let made = self.head(&path).await?;
        if let Err(failure) = self.delete(&path).await {
            // A writer may lack permission to delete; then a small object remains.
            tracing::debug!(%failure, "{path} stays");
        }
        made.map(|object| object.modified).ok_or_else(|| {
            let what = format!("{path} was created in {} and does not exist", self.place);
            Failure::new(FailureKind::Unavailable, what)
        })
    }
}

/// The name is taken but the object does not exist: its writer has not finished.
fn not_there_yet() -> Error {
    let source =
        std::io::Error::new(std::io::ErrorKind::TimedOut, "an unfinished write has the name");
    Error::Generic { store: "store", source: source.into() }
}
