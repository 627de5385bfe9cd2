//! The store: objects in a folder or a bucket, under rules that hold everywhere.
//!
//! There are two kinds of objects, with two ways to write them:
//!
//! * *Data* ([`Store::put_new`]) has a name that only one writer uses. If the name is taken, an earlier try of the
//!   same writer succeeded. The length confirms this.
//! * *Catalog names* ([`Store::create`]) are subject to races. The server decides by create if absent. If its answer
//!   is lost or ambiguous, the object is read back: the body holds a [`nonce`](Store::nonce()) that identifies the
//!   writer.
//!
//! Nothing is ever overwritten. Reading never creates a store; [`Store::open_or_create`] does. Every request has a
//! time-out, is retried where a retry can help (`patience`), and is counted ([`Store::requests`]).

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capstan_model::{Failure, Time};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt};

pub(crate) mod checked;
mod counting;
mod env;
mod error;
mod failure;
mod folder;
mod format;
mod list;
mod location;
mod metrics;
pub(crate) mod names;
mod patience;
mod place;
mod prices;
mod probe;
mod read;
mod s3;
mod write;

pub use counting::{Counting, Requests};
#[cfg(feature = "planted")]
pub use env::Planted;
pub use env::{Env, nonce, now};
pub use format::{FORMAT, Format};
pub use location::Location;
pub use prices::Prices;
pub use s3::{ProfileFile, S3Credentials, S3Encryption, S3Keys, S3Options, S3Style};

use env::SystemEnv;
use error::{StoreError, present};
pub(crate) use error::{is_in_doubt, is_refused, is_store_gone};
use patience::{Limits, Means, Tried, Waiting};
use place::{Access, Place};

/// GETs in flight of one [`Store::get_ranges`].
const RANGES_AT_ONCE: usize = 16;

/// Options for access to a store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// For buckets.
    pub s3: S3Options,
    /// Prices of a bucket's requests. Requests to a folder are free.
    pub prices: Prices,
}

impl Options {
    /// Reads the options from the environment; see [`S3Options::from_env`].
    ///
    /// # Errors
    ///
    /// Settings that do not fit together.
    pub fn from_env() -> Result<Options, Failure> {
        Ok(Options { s3: S3Options::from_env()?, ..Options::default() })
    }
}

/// Outcome of a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// The name holds our bytes.
    Created,
    /// The name was taken: it holds the bytes of another writer.
    Lost,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, relative to the cluster.
    pub path: Path,
    /// Its length.
    pub bytes: u64,
    /// Creation time, by the store's clock.
    pub modified: Time,
}

/// The objects of one cluster. Cloning is cheap; clones share their counters.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<Counting<PrefixStore<Arc<dyn ObjectStore>>>>,
    /// For messages: the location and cluster.
    place: Arc<str>,
    format: Arc<Format>,
    /// Remote stores have time-outs. A local disk has none: a blocked write cannot be cancelled.
    remote: bool,
    /// Listings are ordered by name, and can continue after any name.
    ordered: bool,
    prices: Prices,
    means: Means,
}

impl Store {
    /// Opens an existing store.
    ///
    /// # Errors
    ///
    /// `FailureKind::NotFound` if the folder or bucket does not exist, is no store, or has no such cluster, each
    /// with its own message; `FailureKind::TooNew`, `FailureKind::Permission`, `FailureKind::Unavailable`.
    pub async fn open(
        location: &Location,
        cluster: &str,
        options: &Options,
    ) -> Result<Store, Failure> {
        names::check_cluster(cluster)?;
        let place = Place::connect(location, options, Access::Read)?;
        match place.open(cluster).await? {
            Some(store) => Ok(store),
            None => Err(place.no_store(cluster).await),
        }
    }

    /// Opens a store whose `format` object may be missing or damaged. Writes it again then, unless this is a dry run.
    /// Returns whether it was, or would be, written.
    ///
    /// # Errors
    ///
    /// Like [`Store::open`]; `FailureKind::NotFound` if nothing of a store exists.
    pub async fn open_damaged(
        location: &Location,
        cluster: &str,
        options: &Options,
        rehearsal: bool,
    ) -> Result<(Store, bool), Failure> {
        names::check_cluster(cluster)?;
        Place::connect(location, options, Access::Read)?.open_damaged(cluster, rehearsal).await
    }

    /// Opens a store, and creates it first if there is none. Refuses a place that holds other things, and a place
    /// that lets two creates of one name succeed.
    ///
    /// # Errors
    ///
    /// Like [`Store::open`], except for a missing store; `FailureKind::Usage` for a place that cannot be a store.
    pub async fn open_or_create(
        location: &Location,
        cluster: &str,
        options: &Options,
    ) -> Result<Store, Failure> {
        names::check_cluster(cluster)?;
        let place = Place::connect(location, options, Access::Create)?;
        place.open_or_create(cluster).await
    }

    /// A store on any object store, created if there is none: for tests and simulations.
    ///
    /// # Errors
    ///
    /// Like [`Store::open_or_create`].
    pub async fn on(objects: Arc<dyn ObjectStore>, cluster: &str) -> Result<Store, Failure> {
        names::check_cluster(cluster)?;
        Store::simulated(objects, cluster, Arc::new(SystemEnv)).await
    }

    /// Like [`Store::on`], with shorter time-outs.
    #[cfg(test)]
    pub(crate) async fn hurried(
        objects: Arc<dyn ObjectStore>,
        cluster: &str,
    ) -> Result<Store, Failure> {
        Place::simulated(objects, Arc::new(SystemEnv)).hurried().open_or_create(cluster).await
    }

    /// Like [`Store::on`], with its own clock and random numbers.
    ///
    /// # Errors
    ///
    /// Like [`Store::open_or_create`].
    pub async fn simulated(
        objects: Arc<dyn ObjectStore>,
        cluster: &str,
        env: Arc<dyn Env>,
    ) -> Result<Store, Failure> {
        names::check_cluster(cluster)?;
        Place::simulated(objects, env).open_or_create(cluster).await
    }

    /// Whether an operation waits for this store because it does not answer or refuses. A process that must stop need
    /// not wait for pending operations then.
    pub fn is_in_trouble(&self) -> bool {
        self.means.waits.in_trouble()
    }

    /// Whether requests go to another machine, so that each takes some milliseconds before its first byte.
    pub fn is_remote(&self) -> bool {
        self.remote
    }

    /// The time, by this machine's clock.
    pub fn now(&self) -> Time {
        self.means.env.now()
    }

    /// 32 hex digits, unique to this process and call: they identify the writer of an object. Unique, not secret.
    pub fn nonce(&self) -> String {
        env::nonce_of(&*self.means.env)
    }

    /// A random wait between half of `full` and `full`, so that clients that failed together do not retry together.
    pub(crate) fn jitter(&self, full: Duration) -> Duration {
        env::jitter_of(&*self.means.env, full)
    }

    /// Whether a planted fault is active.
    #[cfg(feature = "planted")]
    pub(crate) fn planted(&self, fault: Planted) -> bool {
        self.means.env.planted() == Some(fault)
    }

    /// The objects by name relative to the cluster, with counted requests; for readers that use `object_store`
    /// directly.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects) as Arc<dyn ObjectStore>
    }

    /// Requests and bytes so far, of all clones.
    pub fn requests(&self) -> Requests {
        self.objects.requests()
    }

    /// Prices of requests to this store.
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// The content of the `format` object.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Location and cluster, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Reads a whole object.
    ///
    /// # Errors
    ///
    /// `FailureKind::NotFound` if it does not exist.
    pub async fn get(&self, path: &Path) -> Result<Bytes, Failure> {
        Ok(self.read(path, None).await?)
    }

    /// Reads a whole object, if it exists.
    ///
    /// # Errors
    ///
    /// The object cannot be read, or its existence is unknown.
    pub async fn get_if_present(&self, path: &Path) -> Result<Option<Bytes>, Failure> {
        present(self.read(path, None).await)
    }

    /// Reads a range of bytes; omits bytes past the object's end.
    ///
    /// # Errors
    ///
    /// `FailureKind::NotFound` if the object does not exist.
    pub async fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes, Failure> {
        Ok(self.read(path, Some(range)).await?)
    }

    /// Like [`Store::get_range`], if the object exists.
    pub(crate) async fn get_range_if_present(
        &self,
        path: &Path,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, Failure> {
        present(self.read(path, Some(range)).await)
    }

    /// Reads several ranges concurrently, one request per range. The caller should join ranges that are near each
    /// other.
    ///
    /// # Errors
    ///
    /// The error of the first range that fails; the other requests are cancelled.
    pub async fn get_ranges(
        &self,
        path: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, Failure> {
        stream::iter(ranges.to_vec())
            .map(|range| self.get_range(path, range))
            .buffered(RANGES_AT_ONCE)
            .try_collect()
            .await
    }

    /// An object's length and time, if it exists.
    ///
    /// # Errors
    ///
    /// Its existence is unknown.
    pub async fn head(&self, path: &Path) -> Result<Option<Listed>, Failure> {
        let what = || format!("look at {path} of {}", self.place);
        let limits = self.means.patience.reading();
        present(self.retried(limits, what, || self.objects.head(path)).await.map(listed))
    }

    /// Whether the object `format` has other bytes than at the creation of the store.
    ///
    /// # Errors
    ///
    /// Errors of the store.
    pub async fn is_format_changed(&self) -> Result<bool, Failure> {
        let bytes = self.get(&names::format()).await?;
        Ok(self.is_format_damaged(&bytes))
    }

    /// The names right below a prefix: folders and objects. An empty prefix is the cluster's own.
    ///
    /// # Errors
    ///
    /// Errors of the store.
    pub async fn names_below(&self, prefix: &Path) -> Result<(Vec<Path>, Vec<Listed>), Failure> {
        let what = || format!("list {prefix} of {}", self.place);
        let list = || self.objects.list_with_delimiter(Some(prefix));
        let below = self.retried(self.means.patience.listing(), what, list).await?;
        Ok((below.common_prefixes, below.objects.into_iter().map(listed).collect()))
    }

    fn waiting(&self, limits: Limits, what: String) -> Waiting<'_> {
        Waiting::new(&self.means, limits, what)
    }

    /// One try with a time-out; on a local disk it has none.
    async fn attempt<T>(
        &self,
        waiting: &mut Waiting<'_>,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Tried> {
        if self.remote {
            return waiting.attempt(operation).await;
        }
        let outcome = operation.await;
        outcome.map_err(|error| Tried::finally(StoreError::of(waiting.what(), error)))
    }

    /// Runs an operation, with retries while the store is unavailable.
    async fn retried<T, F>(
        &self,
        limits: Limits,
        what: impl Fn() -> String,
        operation: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if !self.remote {
            return operation().await.map_err(|error| StoreError::of(what(), error));
        }
        let mut waiting = self.waiting(limits, what());
        loop {
            match waiting.attempt(operation()).await {
                Ok(value) => return Ok(value),
                Err(tried) => waiting.again(tried).await?,
            }
        }
    }
}

fn listed(meta: object_store::ObjectMeta) -> Listed {
    // Only years before 1678 and after 2261 do not fit.
    let modified = Time(meta.last_modified.timestamp_nanos_opt().unwrap_or_default());
    Listed { path: meta.location, bytes: meta.size, modified }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod unreliable;
