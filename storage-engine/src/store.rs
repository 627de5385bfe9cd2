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
//! Every request has a time limit that grows with its bytes, and is counted
//! ([`Store::requests`]).

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capstan_model::{Failure, FailureKind, Time};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

pub(crate) mod checked;
mod counting;
mod failure;
mod folder;
mod format;
mod location;
pub mod names;
mod prices;
mod probe;
mod s3;
mod world;

pub use counting::{Counting, Requests};
pub use format::{FORMAT, Format};
pub use location::Location;
pub use prices::Prices;
pub use s3::{S3Credentials, S3Encryption, S3Keys, S3Options, S3Style};
#[cfg(feature = "planted")]
pub use world::Planted;
pub use world::{World, nonce, now};

use failure::{failure, is_missing_bucket, no_answer};
use folder::Folder;
use world::Machine;

/// Tries of one operation before it is given up, each with its own time limit.
const TRIES: u32 = 4;

/// Wait before the second try; doubles from there on.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Time for all races of the test of a new store: a few requests each.
const PROBE_LIMIT: Duration = Duration::from_secs(300);

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
    prices: Prices,
    world: Arc<dyn World>,
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
        Store::simulated(objects, cluster, Arc::new(Machine)).await
    }

    /// As [`Store::on`], with a clock and chance of its own.
    ///
    /// # Errors
    ///
    /// As for [`Store::open_or_create`].
    pub async fn simulated(
        objects: Arc<dyn ObjectStore>,
        cluster: &str,
        world: Arc<dyn World>,
    ) -> Result<Store, Failure> {
        names::check_cluster(cluster)?;
        let (text, prices) = (objects.to_string(), Prices::default());
        let place = Place { text, root: objects, remote: true, prices, world };
        place.open_or_create(cluster).await
    }

    /// The time, by this machine's clock.
    pub fn now(&self) -> Time {
        self.world.now()
    }

    /// 32 hex digits that no other process and no other call has: they mark whose write an
    /// object is. Unique, not secret.
    pub fn nonce(&self) -> String {
        world::nonce_of(&*self.world)
    }

    /// A wait between half of `full` and `full`, so that many who failed together do not come back
    /// together.
    pub(crate) fn jitter(&self, full: Duration) -> Duration {
        world::jitter_of(&*self.world, full)
    }

    /// Whether a fault is to be made.
    #[cfg(feature = "planted")]
    pub(crate) fn planted(&self, fault: Planted) -> bool {
        self.world.planted() == Some(fault)
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
        self.retried(length, what, || async {
            let put = self.objects.put_opts(path, content.clone(), PutMode::Create.into());
            match put.await {
                Ok(_) => Ok(()),
                // An earlier try of ours arrived after all, or is still on its way (409).
                Err(error @ Error::AlreadyExists { .. }) => match self.objects.head(path).await {
                    Ok(present) if present.size == length => Ok(()),
                    Ok(_) => Err(error),
                    Err(Error::NotFound { .. }) => Err(not_there_yet()),
                    Err(error) => Err(error),
                },
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
        let what = || format!("create {path} in {}", self.place);
        let mut wait = FIRST_WAIT;
        let mut last = None;
        for _ in 0..TRIES {
            if last.is_some() {
                tokio::time::sleep(self.jitter(wait)).await;
                wait *= 2;
            }
            let put = self.objects.put_opts(path, bytes.clone().into(), PutMode::Create.into());
            let answer = limited(self.remote, bytes.len() as u64, &what, put).await;
            let doubt = match answer {
                Ok(_) => return Ok(Created::Created),
                Err(failure) if is_certain(failure.kind()) => return Err(failure),
                #[cfg(feature = "planted")]
                Err(failure)
                    if failure.kind() == FailureKind::AlreadyThere
                        && self.planted(Planted::TakenIsOurs) =>
                {
                    return Ok(Created::Created);
                }
                Err(failure) => failure,
            };
            // Taken, turned away, or no answer: the object itself knows, and who has it is one like us.
            match present(self.get_of_about(path, bytes.len() as u64).await) {
                Ok(Some(present)) if present == bytes => return Ok(Created::Created),
                Ok(Some(_)) => return Ok(Created::Lost),
                // Not there (yet): a rival that was given precedence may have failed too.
                Ok(None) => last = Some(doubt),
                Err(failure) => last = Some(failure),
            }
        }
        // Not known to be another's: who is told that stops for good.
        let doubt = format!("{}: it cannot be told who has the name; try again", what());
        Err(match last {
            Some(last) if last.kind() == FailureKind::AlreadyThere => {
                Failure::caused_by(FailureKind::Unavailable, doubt, last)
            }
            Some(last) => last,
            None => Failure::new(FailureKind::Unavailable, doubt),
        })
    }

    /// Reads a whole object.
    ///
    /// # Errors
    ///
    /// [`FailureKind::NotFound`] if it is not there.
    pub async fn get(&self, path: &Path) -> Result<Bytes, Failure> {
        // The length is not known before the answer; nothing read whole is larger than this.
        self.get_of_about(path, 64 << 20).await
    }

    /// Reads a whole object of about this length: so long it may take.
    async fn get_of_about(&self, path: &Path, bytes: u64) -> Result<Bytes, Failure> {
        let what = || format!("read {path} of {}", self.place);
        self.retried(bytes, what, || async { self.objects.get(path).await?.bytes().await }).await
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
        let length = range.end.saturating_sub(range.start);
        let what = || format!("read {path} of {} from {} on", self.place, range.start);
        self.retried(length, what, || self.objects.get_range(path, range.clone())).await
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
        present(self.retried(0, what, || self.objects.head(path)).await.map(listed))
    }

    /// All objects below a prefix, in the order of their names (a folder gives its own order).
    pub fn list(&self, prefix: &Path) -> BoxStream<'_, Result<Listed, Failure>> {
        let below = prefix.clone();
        self.listing(prefix, move || self.objects.list(Some(&below)))
    }

    /// All objects below a prefix whose names come after one.
    pub fn list_after(
        &self,
        prefix: &Path,
        after: &Path,
    ) -> BoxStream<'_, Result<Listed, Failure>> {
        let (below, after) = (prefix.clone(), after.clone());
        self.listing(prefix, move || self.objects.list_with_offset(Some(&below), &after))
    }

    fn listing<'a>(
        &'a self,
        prefix: &Path,
        list: impl Fn() -> BoxStream<'static, Result<object_store::ObjectMeta, Error>>
        + Send
        + Sync
        + 'a,
    ) -> BoxStream<'a, Result<Listed, Failure>> {
        let what = format!("list {prefix} of {}", self.place);
        let begun = async move {
            // One that breaks off before its first name is begun again: most have one answer in all.
            let begin = || async {
                let mut names = list().fuse();
                Ok((names.try_next().await?, names))
            };
            let (first, rest) = self.retried(0, || what.clone(), begin).await?;
            let named = what.clone();
            let rest = rest.map(move |meta| meta.map_err(|error| failure(&named, error))).boxed();
            let rest = if self.remote { each_within(time_limit(0), what, rest) } else { rest };
            Ok::<_, Failure>(stream::iter(first.map(Ok)).chain(rest).map_ok(listed))
        };
        stream::once(begun).try_flatten().boxed()
    }

    /// Removes an object. One that is not there is no error.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn delete(&self, path: &Path) -> Result<(), Failure> {
        let what = || format!("delete {path} of {}", self.place);
        present(self.retried(0, what, || self.objects.delete(path)).await).map(|_| ())
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
        Ok(checked::is_changed(self.format.format, &bytes))
    }

    /// The names right below a prefix: folders and objects. An empty prefix is the cluster's own.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn names_below(&self, prefix: &Path) -> Result<(Vec<Path>, Vec<Listed>), Failure> {
        let what = || format!("list {prefix} of {}", self.place);
        let below =
            self.retried(0, what, || self.objects.list_with_delimiter(Some(prefix))).await?;
        Ok((below.common_prefixes, below.objects.into_iter().map(listed).collect()))
    }

    /// Runs an operation within its time limit, again if the store was away.
    async fn retried<T, F>(
        &self,
        bytes: u64,
        what: impl Fn() -> String,
        operation: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut wait = FIRST_WAIT;
        let mut tries = 1;
        loop {
            match limited(self.remote, bytes, &what, operation()).await {
                Err(failure) if tries < TRIES && failure.kind() == FailureKind::Unavailable => {
                    tracing::debug!(%failure, tries, "trying again");
                    tokio::time::sleep(self.jitter(wait)).await;
                    wait *= 2;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Runs one try within its time limit.
async fn limited<T>(
    remote: bool,
    bytes: u64,
    what: impl Fn() -> String,
    operation: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    let told = async { operation.await.map_err(|error| failure(what(), error)) };
    in_time(remote, time_limit(bytes), &what, told).await
}

/// Gives up what takes longer than `limit`; on a local disk it is waited for.
async fn in_time<T>(
    remote: bool,
    limit: Duration,
    what: impl Fn() -> String,
    operation: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    if !remote {
        return operation.await;
    }
    let outcome = tokio::time::timeout(limit, operation).await;
    outcome.unwrap_or_else(|_| Err(no_answer(&what(), limit)))
}

/// A stream that ends with a failure if its next item takes longer than `limit`: of a listing, that
/// is one request.
fn each_within<T: Send + 'static>(
    limit: Duration,
    what: String,
    items: BoxStream<'_, Result<T, Failure>>,
) -> BoxStream<'_, Result<T, Failure>> {
    stream::unfold(Some((items, what)), move |open| async move {
        let (mut items, what) = open?;
        match tokio::time::timeout(limit, items.next()).await {
            Ok(item) => Some((item?, Some((items, what)))),
            Err(_) => Some((Err(no_answer(&what, limit)), None)),
        }
    })
    .boxed()
}

/// 30 s, and a second for every megabyte.
fn time_limit(bytes: u64) -> Duration {
    Duration::from_secs(30 + bytes / 1_000_000)
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

/// Whether a place may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Create,
}

/// A location that was reached, with any number of clusters in it.
struct Place {
    root: Arc<dyn ObjectStore>,
    text: String,
    remote: bool,
    prices: Prices,
    world: Arc<dyn World>,
}

impl Place {
    fn connect(location: &Location, options: &Options, access: Access) -> Result<Place, Failure> {
        let text = location.to_string();
        match location {
            Location::Folder(path) => {
                let (folder, what) = match access {
                    Access::Create => (Folder::create(path), "make a store in"),
                    Access::Read => {
                        check_folder(path)?;
                        (Folder::open(path), "open")
                    }
                };
                let folder = folder.map_err(|error| failure(format!("{what} {text}"), error))?;
                let world = Arc::new(Machine);
                let prices = Prices::FREE;
                Ok(Place { root: Arc::new(folder), text, remote: false, prices, world })
            }
            Location::S3 { bucket, prefix } => {
                let client = options.s3.connect(bucket)?;
                let root = PrefixStore::new(client, prefix.as_str());
                let world = Arc::new(Machine);
                let prices = options.prices;
                Ok(Place { root: Arc::new(root), text, remote: true, prices, world })
            }
        }
    }

    fn cluster(&self, cluster: &str) -> Store {
        let scoped = PrefixStore::new(Arc::clone(&self.root), cluster);
        let world = Arc::clone(&self.world);
        let nonce = world::nonce_of(&*world);
        Store {
            objects: Arc::new(Counting::new(scoped)),
            place: format!("store {} (cluster {cluster})", self.text).into(),
            format: Arc::new(Format::new(cluster, world.now(), nonce)),
            remote: self.remote,
            prices: self.prices,
            world,
        }
    }

    /// The store, if there is one.
    async fn open(&self, cluster: &str) -> Result<Option<Store>, Failure> {
        let mut store = self.cluster(cluster);
        match store.get(&names::format()).await {
            Ok(bytes) => {
                store.format = Arc::new(Format::read(&bytes, &store.place)?);
                Ok(Some(store))
            }
            Err(failure) if failure.kind() == FailureKind::NotFound => self.absent(failure),
            Err(failure) => Err(failure),
        }
    }

    /// The store, its `format` object put anew if that cannot be used; see [`Store::open_damaged`].
    async fn open_damaged(&self, cluster: &str, rehearsal: bool) -> Result<(Store, bool), Failure> {
        let is_there = match self.open(cluster).await {
            Ok(Some(store)) if !store.is_format_changed().await? => return Ok((store, false)),
            Ok(found) => found.is_some(),
            Err(failure) if failure.kind() == FailureKind::Damaged => true,
            Err(failure) => return Err(failure),
        };
        let store = self.cluster(cluster);
        let (below, _) = store.names_below(&Path::default()).await?;
        let ours = [names::writers(None), names::log(None), names::data()];
        if !below.iter().any(|folder| ours.contains(folder)) {
            return Err(self.no_store(cluster).await);
        }
        if !rehearsal {
            if is_there {
                store.delete(&names::format()).await?;
            }
            let _won = store.create(&names::format(), to_json(store.format())?).await?;
        }
        Ok((store, true))
    }

    /// A `format` that is not found: because its bucket is not, or because there is no store.
    fn absent(&self, missing: Failure) -> Result<Option<Store>, Failure> {
        let source = std::error::Error::source(&missing);
        if source.and_then(|source| source.downcast_ref()).is_some_and(is_missing_bucket) {
            return Err(missing);
        }
        Ok(None)
    }

    /// Why there is no such store, and what there is instead.
    async fn no_store(&self, cluster: &str) -> Failure {
        let there = match self.clusters().await {
            Ok(there) => there,
            Err(failure) => return failure,
        };
        let what = if there.is_empty() {
            format!(
                "{} is not a Capstan store: importing or recording into it makes one, or check \
                 the place",
                self.text
            )
        } else {
            format!("store {} has no cluster '{cluster}'; it has: {}", self.text, there.join(", "))
        };
        Failure::new(FailureKind::NotFound, what)
    }

    /// The clusters that have a store here.
    async fn clusters(&self) -> Result<Vec<String>, Failure> {
        let what = || format!("list {}", self.text);
        let top = limited(self.remote, 0, what, self.root.list_with_delimiter(None)).await?;
        let mut clusters = Vec::new();
        for folder in top.common_prefixes {
            let format = folder.clone().join("format");
            if present(limited(self.remote, 0, what, self.root.head(&format)).await)?.is_some() {
                clusters.extend(folder.filename().map(str::to_owned));
            }
        }
        Ok(clusters)
    }

    async fn open_or_create(&self, cluster: &str) -> Result<Store, Failure> {
        if let Some(store) = self.open(cluster).await? {
            return Ok(store);
        }
        let store = self.cluster(cluster);
        let probes = names::probes();
        let what = || format!("list {}", store.place);
        let all = store.objects.list_with_delimiter(None);
        let there = limited(self.remote, 0, what, all).await?;
        let foreign = there.common_prefixes.iter().chain(there.objects.iter().map(|o| &o.location));
        if let Some(found) = foreign.into_iter().find(|path| **path != probes) {
            // Another process may have made the store in between.
            if let Some(store) = self.open(cluster).await? {
                return Ok(store);
            }
            return Err(Failure::new(
                FailureKind::Usage,
                format!(
                    "{} cannot be made: '{found}' is there already, but no format object; use \
                     another place, or put the format object back if this was a store",
                    store.place
                ),
            ));
        }
        let rounds = if self.remote { probe::MANY } else { probe::FEW };
        let probed = probe::probe(&store.objects, &probes, &store.place, rounds);
        let what = || format!("test {}", store.place);
        in_time(self.remote, PROBE_LIMIT, what, probed).await?;
        match store.create(&names::format(), to_json(store.format())?).await? {
            Created::Created => Ok(store),
            Created::Lost => match self.open(cluster).await? {
                Some(store) => Ok(store),
                None => Err(self.no_store(cluster).await),
            },
        }
    }
}

fn to_json(format: &Format) -> Result<Bytes, Failure> {
    let bytes = checked::to_bytes(format).map_err(|error| {
        Failure::caused_by(FailureKind::Other, "write the format object", error)
    })?;
    Ok(bytes.into())
}

/// Says what is wrong with a folder before it is opened.
fn check_folder(path: &std::path::Path) -> Result<(), Failure> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::new(
            FailureKind::NotFound,
            format!("{shown} is a file, not a store: name the store's folder"),
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::caused_by(
            FailureKind::NotFound,
            format!(
                "there is no store at {shown}: importing or recording into it makes one, or check \
                 the place"
            ),
            error,
        )),
        Err(error) => Err(Failure::io(format!("open the store {shown}"), error)),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod unreliable;
