//! Places: connecting to a location, finding a store in it, creating one.

use std::sync::Arc;

use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;

use super::env::{Env, SystemEnv, nonce_of};
use super::error::StoreError;
use super::failure::failure;
use super::folder::Folder;
use super::patience::{Means, USUAL};
use super::s3::Connected;
use super::{Counting, Created, Format, Location, Options, Prices, Store, checked, names, probe};

/// Whether a place may be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Create,
}

/// A connected location, with any number of clusters in it.
pub(super) struct Place {
    root: Arc<dyn ObjectStore>,
    /// Where an older version may have put a store of this name.
    older: Option<Older>,
    text: String,
    remote: bool,
    ordered: bool,
    access: Access,
    prices: Prices,
    means: Means,
}

/// Older versions encoded a prefix before it became part of keys, which are encoded again on the wire: `grün` became
/// `gr%C3%BCn` in the bucket.
struct Older {
    root: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// A store and the bytes of its `format` object.
struct Found {
    store: Store,
    format: Bytes,
}

impl Place {
    pub(super) fn connect(
        location: &Location,
        options: &Options,
        access: Access,
    ) -> Result<Place, Failure> {
        let text = location.to_string();
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let (patience, waits) = (USUAL, Arc::default());
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
                Ok(Place {
                    root: Arc::new(folder),
                    older: None,
                    text,
                    remote: false,
                    ordered: false,
                    access,
                    prices: Prices::FREE,
                    means: Means { patience, waits, credentials: None, env },
                })
            }
            Location::S3 { bucket, prefix } => {
                let Connected { client, credentials } = options.s3.connect(bucket)?;
                let (now, before) = keys(prefix)?;
                let older = before.map(|prefix| Older {
                    root: Arc::new(PrefixStore::new(client.clone(), prefix.clone())),
                    prefix,
                });
                Ok(Place {
                    root: Arc::new(PrefixStore::new(client, now)),
                    older,
                    text,
                    remote: true,
                    ordered: true,
                    access,
                    prices: options.prices,
                    means: Means { patience, waits, credentials: Some(credentials), env },
                })
            }
        }
    }

    /// On any object store.
    pub(super) fn simulated(root: Arc<dyn ObjectStore>, env: Arc<dyn Env>) -> Place {
        Place {
            text: root.to_string(),
            root,
            older: None,
            remote: true,
            ordered: false,
            access: Access::Create,
            prices: Prices::default(),
            means: Means { patience: USUAL, waits: Arc::default(), credentials: None, env },
        }
    }

    /// With shorter time-outs.
    #[cfg(test)]
    pub(super) fn hurried(mut self) -> Place {
        self.means.patience = USUAL.hurried();
        self
    }

    pub(super) fn cluster(&self, cluster: &str) -> Store {
        self.cluster_at(&self.root, cluster)
    }

    fn cluster_at(&self, root: &Arc<dyn ObjectStore>, cluster: &str) -> Store {
        let place = format!("store {} (cluster {cluster})", self.text);
        self.below(root, Path::from(cluster), cluster, place)
    }

    /// Everything in the place, as if it were one cluster.
    fn whole(&self, root: &Arc<dyn ObjectStore>) -> Store {
        self.below(root, Path::default(), "", self.text.clone())
    }

    fn below(
        &self,
        root: &Arc<dyn ObjectStore>,
        prefix: Path,
        cluster: &str,
        place: String,
    ) -> Store {
        let scoped = PrefixStore::new(Arc::clone(root), prefix);
        let env = &*self.means.env;
        Store {
            objects: Arc::new(Counting::new(scoped)),
            place: place.into(),
            format: Arc::new(Format::new(cluster, env.now(), nonce_of(env))),
            remote: self.remote,
            ordered: self.ordered,
            prices: self.prices,
            means: self.means.clone(),
        }
    }

    /// The store, if it exists.
    pub(super) async fn open(&self, cluster: &str) -> Result<Option<Store>, Failure> {
        Ok(self.find(cluster).await?.map(|found| found.store))
    }

    async fn find(&self, cluster: &str) -> Result<Option<Found>, Failure> {
        let found = self.find_at(&self.root, cluster).await?;
        let Some(older) = &self.older else { return Ok(found) };
        let before = self.find_at(&older.root, cluster).await?;
        if found.is_none() || before.is_none() {
            return Ok(found.or(before));
        }
        let what = format!(
            "two stores match {} (cluster {cluster}): one below this key, and one that an older \
             version created below the key '{}'; address the older one by that key, and move one \
             of them",
            self.text, older.prefix
        );
        match self.access {
            Access::Create => Err(Failure::new(FailureKind::Usage, what)),
            Access::Read => {
                tracing::warn!("{what}; using the newer one");
                Ok(found)
            }
        }
    }

    async fn find_at(
        &self,
        root: &Arc<dyn ObjectStore>,
        cluster: &str,
    ) -> Result<Option<Found>, Failure> {
        let mut store = self.cluster_at(root, cluster);
        match store.read(&names::format(), None).await {
            Ok(format) => {
                store.format = Arc::new(Format::read(&format, &store.place)?);
                Ok(Some(Found { store, format }))
            }
            Err(StoreError::Absent(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The store, with its `format` object written again if that is unusable; see [`Store::open_damaged`].
    pub(super) async fn open_damaged(
        &self,
        cluster: &str,
        rehearsal: bool,
    ) -> Result<(Store, bool), Failure> {
        let is_there = match self.find(cluster).await {
            Ok(Some(Found { store, format })) if !store.is_format_damaged(&format) => {
                if !rehearsal {
                    self.check(&store, format).await?;
                }
                return Ok((store, false));
            }
            Ok(found) => found.is_some(),
            Err(failure) if failure.kind() == FailureKind::Damaged => true,
            Err(failure) => return Err(failure),
        };
        let Some(store) = self.remains(cluster).await? else {
            return Err(self.no_store(cluster).await);
        };
        if !rehearsal {
            if is_there {
                store.delete(&names::format()).await?;
            }
            let _won = store.create(&names::format(), to_json(store.format())?).await?;
        }
        Ok((store, true))
    }

    /// A store with more objects than `format`.
    async fn remains(&self, cluster: &str) -> Result<Option<Store>, Failure> {
        let ours = names::recorded();
        for root in self.roots() {
            let store = self.cluster_at(root, cluster);
            let (below, _) = store.names_below(&Path::default()).await?;
            if below.iter().any(|folder| ours.contains(folder)) {
                return Ok(Some(store));
            }
        }
        Ok(None)
    }

    fn roots(&self) -> impl Iterator<Item = &Arc<dyn ObjectStore>> {
        std::iter::once(&self.root).chain(self.older.as_ref().map(|older| &older.root))
    }

    /// Explains why there is no such store, and what is there instead.
    pub(super) async fn no_store(&self, cluster: &str) -> Failure {
        let there = match self.clusters().await {
            Ok(there) => there,
            Err(failure) => return failure,
        };
        let what = if there.is_empty() {
            format!(
                "{} is not a Capstan store: capstan import and capstan record create one; or \
                 check the location",
                self.text
            )
        } else {
            format!("store {} has no cluster '{cluster}'; it has: {}", self.text, there.join(", "))
        };
        Failure::new(FailureKind::NotFound, what)
    }

    /// The clusters that have a store here.
    async fn clusters(&self) -> Result<Vec<String>, Failure> {
        let mut clusters = Vec::new();
        for root in self.roots() {
            let whole = self.whole(root);
            let (folders, _) = whole.names_below(&Path::default()).await?;
            for folder in folders {
                if whole.head(&folder.clone().join("format")).await?.is_some() {
                    clusters.extend(folder.filename().map(str::to_owned));
                }
            }
        }
        Ok(clusters)
    }

    pub(super) async fn open_or_create(&self, cluster: &str) -> Result<Store, Failure> {
        if let Some(Found { store, format }) = self.find(cluster).await? {
            self.check(&store, format).await?;
            return Ok(store);
        }
        let store = self.cluster(cluster);
        let probes = names::probes();
        let (folders, objects) = store.names_below(&Path::default()).await?;
        let foreign = folders.iter().chain(objects.iter().map(|object| &object.path));
        if let Some(found) = foreign.into_iter().find(|path| **path != probes) {
            // Another process may have made the store in between.
            if let Some(store) = self.open(cluster).await? {
                return Ok(store);
            }
            return Err(Failure::new(
                FailureKind::Usage,
                format!(
                    "cannot create {}: '{found}' exists, but no format object; use another \
                     location, or restore the format object if this was a store",
                    store.place
                ),
            ));
        }
        let rounds = if self.remote { probe::MANY } else { probe::FEW };
        probe::probe(&store, &probes, rounds).await?;
        match store.create(&names::format(), to_json(store.format())?).await? {
            Created::Created => Ok(store),
            Created::Lost => match self.open(cluster).await? {
                Some(store) => Ok(store),
                None => Err(self.no_store(cluster).await),
            },
        }
    }

    /// Checks whether the server honours create if absent now: it may be another server than at creation, or be
    /// configured otherwise. A file system is unlikely to change.
    async fn check(&self, store: &Store, format: Bytes) -> Result<(), Failure> {
        if !self.remote || store.is_format_damaged(&format) {
            return Ok(());
        }
        probe::check(store, format).await
    }
}

impl Store {
    /// Whether the bytes of the object `format` were changed.
    pub(super) fn is_format_damaged(&self, bytes: &[u8]) -> bool {
        checked::is_changed(self.format.format, bytes)
    }
}

/// The key prefix of a location, and the key prefix that older versions used, if it differs.
fn keys(prefix: &str) -> Result<(Path, Option<Path>), Failure> {
    let now = Path::parse(prefix).map_err(|error| {
        Failure::caused_by(FailureKind::Usage, format!("'{prefix}' is no prefix"), error)
    })?;
    let before = Path::from(prefix);
    Ok((now.clone(), (before != now).then_some(before)))
}

fn to_json(format: &Format) -> Result<Bytes, Failure> {
    let bytes = checked::to_bytes(format).map_err(|error| {
        Failure::caused_by(FailureKind::Other, "write the format object", error)
    })?;
    Ok(bytes.into())
}

/// Diagnoses a folder before it is opened.
fn check_folder(path: &std::path::Path) -> Result<(), Failure> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::new(
            FailureKind::NotFound,
            format!("{shown} is a file, not a store: give the folder of the store"),
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::caused_by(
            FailureKind::NotFound,
            format!(
                "no store at {shown}: capstan import and capstan record create one; or check the \
                 location"
            ),
            error,
        )),
        Err(error) => Err(Failure::io(format!("open the store {shown}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_used_unchanged_in_keys() {
        for (prefix, before) in [
            ("", None),
            ("plain/a-b_c.d", None),
            ("caps tan/a+b", None),
            ("x=y&z", None),
            ("grün/日本", Some("gr%C3%BCn/%E6%97%A5%E6%9C%AC")),
            ("~team", Some("%7Eteam")),
            ("100%41", Some("100%2541")),
            ("a#b?c*d", Some("a%23b%3Fc%2Ad")),
        ] {
            let (now, older) = keys(prefix).unwrap();
            assert_eq!(now.as_ref(), prefix);
            assert_eq!(older.as_ref().map(Path::as_ref), before, "{prefix}");
        }
        assert!(keys("a//b").is_err() && keys("a/../b").is_err());
    }
}
