//! The store: objects in a folder or a bucket, under rules that hold everywhere.
//!
//! Two kinds of object, two ways to write them:
//!
//! * *Data* ([`Store::put_new`]) has a name nobody else uses. If the name is taken, it was
//!   an earlier try of the same writer, which its length confirms.
//! * *Catalog names* ([`Store::create`]) are raced for. The server decides by create if
//!   absent; where its answer is lost or doubtful, the object is read back: the body holds a
//!   [`nonce`](Store::nonce()), so the bytes say whose it is.
//!
//! Nothing is ever overwritten. Reading never makes a store; [`Store::open_or_create`] does.
//! Every request has a time limit, is sent again where that can help (`patience`), and is counted
//! ([`Store::requests`]).

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use capstan_model::{Failure, FailureKind, Time};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

pub(crate) mod checked;
mod counting;
mod env;
mod failure;
mod folder;
mod format;
mod list;
mod location;
pub mod names;
mod patience;
mod place;
mod prices;
mod probe;
mod read;
mod s3;

pub use counting::{Counting, Requests};
#[cfg(feature = "planted")]
pub use env::Planted;
pub use env::{Env, nonce, now};
pub use format::{FORMAT, Format};
pub use location::Location;
pub use prices::Prices;
pub use s3::{ProfileFile, S3Credentials, S3Encryption, S3Keys, S3Options, S3Style};

use env::SystemEnv;
use failure::failure;
use patience::{Limits, Means, Tried, Waiting};
use place::{Access, Place};

/// GETs in flight of one [`Store::get_ranges`].
const RANGES_AT_ONCE: usize = 16;

/// How a store is reached.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// For buckets.
    pub s3: S3Options,
    /// What a bucket's requests cost. A folder's cost nothing.
    pub prices: Prices,
}

impl Options {
    /// What the environment says; see [`S3Options::from_env`].
    ///
    /// # Errors
    ///
    /// Settings that do not fit together.
    pub fn from_env() -> Result<Options, Failure> {
        Ok(Options { s3: S3Options::from_env()?, ..Options::default() })
    }
}

/// How a create ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// The name holds our bytes.
    Created,
    /// The name was taken: it holds another's bytes.
    Lost,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, relative to the cluster.
    pub path: Path,
    /// Its length.
    pub bytes: u64,
    /// When it was created, by the store's clock.
    pub modified: Time,
}

/// One cluster's objects. Cloning is cheap; clones count together.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<Counting<PrefixStore<Arc<dyn ObjectStore>>>>,
    /// For messages: the location and cluster.
    place: Arc<str>,
    format: Arc<Format>,
    /// A local disk has no time limits: a blocked write cannot be taken back.
    remote: bool,
    /// Listings come in the order of their names, and can go on behind any of them.
    ordered: bool,
    prices: Prices,
    means: Means,
}

impl Store {
    /// Opens a store that exists.
    ///
    /// # Errors
    ///
    /// [`FailureKind::NotFound`] if the folder or bucket is not there, is no store, or has no
    /// such cluster, each in its own words; [`FailureKind::TooNew`], [`FailureKind::Permission`],
    /// [`FailureKind::Unavailable`].
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

    /// Opens a store whose `format` object may be missing or damaged; it is put anew then, unless this
    /// is a rehearsal. Whether it was, or would be.
    ///
    /// # Errors
    ///
    /// As for [`Store::open`]; [`FailureKind::NotFound`] if nothing that is there is of a store.
    pub async fn open_damaged(
        location: &Location,
        cluster: &str,
        options: &Options,
        rehearsal: bool,
    ) -> Result<(Store, bool), Failure> {
        names::check_cluster(cluster)?;
        Place::connect(location, options, Access::Read)?.open_damaged(cluster, rehearsal).await
    }

    /// Opens a store, and makes it first if there is none. A place that holds other things
    /// where the store would be is refused, and so is one that lets two creates of one name win.
    ///
    /// # Errors
    ///
    /// As for [`Store::open`], except for what is not there; [`FailureKind::Usage`] for a
    /// place that cannot be a store.
    pub async fn open_or_create(
        location: &Location,
        cluster: &str,
        options: &Options,
    ) -> Result<Store, Failure> {
        names::check_cluster(cluster)?;
        let place = Place::connect(location, options, Access::Create)?;
        place.open_or_create(cluster).await
    }

    /// A store on any object store, made if there is none: for tests and simulations.
    ///
    /// # Errors
    ///
    /// As for [`Store::open_or_create`].
    pub async fn on(objects: Arc<dyn ObjectStore>, cluster: &str) -> Result<Store, Failure> {
        names::check_cluster(cluster)?;
        Store::simulated(objects, cluster, Arc::new(SystemEnv)).await
    }

    /// As [`Store::on`], with less patience than usual.
    #[cfg(test)]
    pub(crate) async fn hurried(
        objects: Arc<dyn ObjectStore>,
        cluster: &str,
    ) -> Result<Store, Failure> {
        Place::simulated(objects, Arc::new(SystemEnv)).hurried().open_or_create(cluster).await
    }

    /// As [`Store::on`], with a clock and chance of its own.
    ///
    /// # Errors
    ///
    /// As for [`Store::open_or_create`].
    pub async fn simulated(
        objects: Arc<dyn ObjectStore>,
        cluster: &str,
        env: Arc<dyn Env>,
    ) -> Result<Store, Failure> {
        names::check_cluster(cluster)?;
        Place::simulated(objects, env).open_or_create(cluster).await
    }

    /// Whether somebody waits for this store, which does not answer or refuses: then whoever is asked
    /// to stop need not wait for what is under way.
    pub fn is_in_trouble(&self) -> bool {
        self.means.waits.in_trouble()
    }

    /// The time, by this machine's clock.
    pub fn now(&self) -> Time {
        self.means.env.now()
    }

    /// 32 hex digits that no other process and no other call has: they mark whose write an
    /// object is. Unique, not secret.
    pub fn nonce(&self) -> String {
        env::nonce_of(&*self.means.env)
    }

    /// A wait between half of `full` and `full`, so that many who failed together do not come back
    /// together.
    pub(crate) fn jitter(&self, full: Duration) -> Duration {
        env::jitter_of(&*self.means.env, full)
    }

    /// Whether a fault is to be made.
    #[cfg(feature = "planted")]
    pub(crate) fn planted(&self, fault: Planted) -> bool {
        self.means.env.planted() == Some(fault)
    }

    /// The objects by name relative to the cluster, counted; for readers that speak
    /// `object_store` themselves.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects) as Arc<dyn ObjectStore>
    }

    /// Requests and bytes so far, of all clones.
    pub fn requests(&self) -> Requests {
        self.objects.requests()
    }

    /// What requests cost here.
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// What the store says of itself.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Where it is, for messages: the location and the cluster.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Writes a data object, whose name is this writer's alone, from pieces that follow each
    /// other. Safe to call again.
    ///
    /// # Errors
    ///
    /// [`FailureKind::AlreadyThere`] if the name holds something of another length.
    pub async fn put_new(&self, path: &Path, parts: Vec<Bytes>) -> Result<(), Failure> {
        let content: PutPayload = parts.into_iter().collect();
        let length = content.content_length() as u64;
        let what = || format!("write {path} to {}", self.place);
        // Something is there: only what it is remains to be asked, however often that takes.
        let is_there = AtomicBool::new(false);
        self.retried(self.means.patience.writing(length), what, || async {
            if !is_there.load(Ordering::Relaxed) {
                let put = self.objects.put_opts(path, content.clone(), PutMode::Create.into());
                match put.await {
                    // An earlier try of ours arrived after all, or is still on its way (409).
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
        .await
    }

    /// Creates a catalog name if it is absent. `bytes` must hold a [`nonce`](Store::nonce()) drawn
    /// for this call, or for earlier tries of this very create.
    ///
    /// # Errors
    ///
    /// When it cannot be told who has the name: then calling again with the same bytes is right.
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
            if is_certain(tried.kind()) {
                waiting.again(tried).await?;
                continue;
            }
            #[cfg(feature = "planted")]
            if tried.kind() == FailureKind::AlreadyThere && self.planted(Planted::TakenIsOurs) {
                return Ok(Created::Created);
            }
            // Taken, turned away, or no answer: the object itself knows, and who has it is one like us.
            let doubt = match self.get_if_present(path).await? {
                Some(present) if present == bytes => return Ok(Created::Created),
                Some(_) => return Ok(Created::Lost),
                // Not there (yet): a rival that was given precedence may have failed too.
                None if tried.kind() == FailureKind::AlreadyThere => {
                    let what = waiting.what();
                    Tried::broken_off(format!(
                        "{what}: it cannot be told who has the name; try again"
                    ))
                }
                None => tried,
            };
            waiting.again(doubt).await?;
        }
    }

    /// Sends a create once, and does not look what became of it if there is no answer.
    pub(crate) async fn create_once(&self, path: &Path, bytes: Bytes) -> Result<(), Failure> {
        let limits = self.means.patience.writing(bytes.len() as u64);
        let mut waiting = self.waiting(limits, format!("create {path} in {}", self.place));
        let put = self.objects.put_opts(path, bytes.into(), PutMode::Create.into());
        self.attempt(&mut waiting, put).await.map(|_| ()).map_err(|tried| tried.failure)
    }

    /// Reads a whole object.
    ///
    /// # Errors
    ///
    /// [`FailureKind::NotFound`] if it is not there.
    pub async fn get(&self, path: &Path) -> Result<Bytes, Failure> {
        self.read(path, None).await
    }

    /// Reads a whole object, if it is there.
    ///
    /// # Errors
    ///
    /// When it cannot be told whether it is there, or cannot be read.
    pub async fn get_if_present(&self, path: &Path) -> Result<Option<Bytes>, Failure> {
        present(self.get(path).await)
    }

    /// Reads a range of bytes; what lies past the object's end is left out.
    ///
    /// # Errors
    ///
    /// [`FailureKind::NotFound`] if the object is not there.
    pub async fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes, Failure> {
        self.read(path, Some(range)).await
    }

    /// Reads several ranges, each with a request of its own, many at a time. Joining ranges that
    /// lie near each other is the caller's plan to make.
    ///
    /// # Errors
    ///
    /// The first range that fails; the others are given up.
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

    /// An object's length and time, if it is there.
    ///
    /// # Errors
    ///
    /// When it cannot be told.
    pub async fn head(&self, path: &Path) -> Result<Option<Listed>, Failure> {
        let what = || format!("look at {path} of {}", self.place);
        let limits = self.means.patience.reading();
        present(self.retried(limits, what, || self.objects.head(path)).await.map(listed))
    }

    /// Removes an object. One that is not there is no error.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn delete(&self, path: &Path) -> Result<(), Failure> {
        let what = || format!("delete {path} of {}", self.place);
        let limits = self.means.patience.writing(0);
        present(self.retried(limits, what, || self.objects.delete(path)).await).map(|_| ())
    }

    /// The time by the store's own clock, learned from an object that is made for it and removed again.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn clock(&self) -> Result<Time, Failure> {
        let path = names::probe(&self.nonce());
        self.put_new(&path, Vec::new()).await?;
        let made = self.head(&path).await?;
        if let Err(failure) = self.delete(&path).await {
            // Who may create need not be allowed to delete; what stays is a name.
            tracing::debug!(%failure, "{path} stays");
        }
        made.map(|object| object.modified).ok_or_else(|| {
            let what = format!("{path} was made in {} and is not there", self.place);
            Failure::new(FailureKind::Unavailable, what)
        })
    }

    /// Whether the object `format` is not what was written when the store was made.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn is_format_changed(&self) -> Result<bool, Failure> {
        let bytes = self.get(&names::format()).await?;
        Ok(self.is_format_damaged(&bytes))
    }

    /// The names right below a prefix: folders and objects. An empty prefix is the cluster's own.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn names_below(&self, prefix: &Path) -> Result<(Vec<Path>, Vec<Listed>), Failure> {
        let what = || format!("list {prefix} of {}", self.place);
        let list = || self.objects.list_with_delimiter(Some(prefix));
        let below = self.retried(self.means.patience.listing(), what, list).await?;
        Ok((below.common_prefixes, below.objects.into_iter().map(listed).collect()))
    }

    fn waiting(&self, limits: Limits, what: String) -> Waiting<'_> {
        Waiting::new(&self.means, limits, what)
    }

    /// One try within its limit; on a local disk it is waited for.
    async fn attempt<T>(
        &self,
        waiting: &mut Waiting<'_>,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Tried> {
        if self.remote {
            return waiting.attempt(operation).await;
        }
        let outcome = operation.await;
        outcome.map_err(|error| Tried::finally(failure(waiting.what(), error)))
    }

    /// Runs an operation, again if the store was away.
    async fn retried<T, F>(
        &self,
        limits: Limits,
        what: impl Fn() -> String,
        operation: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if !self.remote {
            return operation().await.map_err(|error| failure(what(), error));
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

/// A name that is taken and not there: the one who took it has not finished.
fn not_there_yet() -> Error {
    let source = std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the name is taken by a write that has not finished",
    );
    Error::Generic { store: "store", source: source.into() }
}

/// Failures after which nobody can have created anything.
fn is_certain(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Permission | FailureKind::NotFound | FailureKind::Usage | FailureKind::Full
    )
}

/// Tells what is not there from what cannot be read.
pub(crate) fn present<T>(outcome: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.kind() == FailureKind::NotFound => Ok(None),
        Err(failure) => Err(failure),
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
