//! A folder as an object store that survives power loss.
//!
//! An object is created in five steps: its bytes go to a file in `.staging` under
//! the root, which is synced; the object's directories are made and synced; the staged
//! file is hard-linked to its name, which fails if the name exists and so decides every
//! race; the directory is synced; the staged name is removed. Whatever the machine does in
//! between, a name that can be seen has all its bytes, and a create that was answered is
//! there after a crash. What a crash leaves in `.staging` is harmless and removed a day later.
//!
//! Objects are never overwritten, copied or renamed: those calls are refused. Below the root no
//! symbolic link is followed to write or to remove ([`below`]).

mod below;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use self::below::Below;
use super::env::nonce;

const STORE: &str = "folder";

/// Where files lie until they are whole.
const STAGING: &str = ".staging";

/// What is older than this in `.staging` belongs to nobody that is alive.
const STALE: Duration = Duration::from_secs(24 * 3_600);

/// How many directories are remembered as synced before starting over.
const REMEMBERED: usize = 16 * 1_024;

/// What can go wrong in a folder alone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// link(2) is refused by the file system.
    #[error(
        "the file system of {} has no hard links, which a durable store needs; \
         use another file system (ext4, xfs, btrfs, zfs) or an s3:// store", .0.display()
    )]
    NoHardLinks(PathBuf),
    /// A symbolic link where a folder of the store should be.
    #[error(
        "{} is a symbolic link: below a store none is followed, so that nothing is written or removed \
         elsewhere; put a folder in its place", .0.display()
    )]
    Link(PathBuf),
    /// A call of the system failed.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl From<FolderError> for Error {
    fn from(error: FolderError) -> Self {
        Error::Generic { store: STORE, source: Box::new(error) }
    }
}

fn io_error(what: &'static str, path: &FilePath) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { what, path, source }
}

/// An object store in a folder of a local disk.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    /// Reads and lists; knows nothing of durability.
    reads: LocalFileSystem,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// Directories whose own entry, and all above up to the root's, are known to be on disk.
    synced: Mutex<BTreeSet<PathBuf>>,
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder {}", self.shared.root.display())
    }
}

impl Folder {
    /// Opens a folder that exists. Nothing is written.
    pub(crate) fn open(root: &FilePath) -> Result<Folder> {
        let reads = LocalFileSystem::new_with_prefix(root)?;
        let root = fs::canonicalize(root).map_err(io_error("find", root))?;
        Ok(Folder { reads, shared: Arc::new(Shared { root, synced: Mutex::default() }) })
    }

    /// Opens a folder for writing: makes it and the folders above it if they are not
    /// there, durably, and removes what a crash left behind more than a day ago.
    pub(crate) fn create(root: &FilePath) -> Result<Folder> {
        make_durable(root)?;
        let folder = Folder::open(root)?;
        // Files are dated by this machine's clock, too.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now();
        folder.shared.remove_stale(now)?;
        Ok(folder)
    }

    fn file_of(&self, location: &Path) -> Result<PathBuf> {
        self.reads.path_to_filesystem(location)
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if options.mode != PutMode::Create || !options.attributes.is_empty() {
            return Err(refused("put other than create"));
        }
        let file = self.file_of(location)?;
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.create(&file, &payload)).await??;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(refused("put in parts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<Bytes>> {
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let folder = self.clone();
        locations
            .and_then(move |location| {
                let folder = folder.clone();
                async move {
                    let file = folder.file_of(&location)?;
                    let shared = Arc::clone(&folder.shared);
                    tokio::task::spawn_blocking(move || shared.delete(&file)).await??;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reads.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.reads.list_with_delimiter(prefix).await?;
        listed.common_prefixes.retain(|folder| folder.as_ref() != STAGING);
        Ok(listed)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(refused("copy"))
    }
}

fn refused(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: STORE.to_owned() }
}

impl Shared {
    fn create(&self, file: &FilePath, payload: &PutPayload) -> Result<()> {
        let root = Below::root(&self.root)?;
        root.make(OsStr::new(STAGING))?;
        // The ending keeps the name out of listings (see `LocalFileSystem`).
        let staged = Staged {
            folder: root.step(OsStr::new(STAGING))?,
            name: format!("{}#1", nonce()).into(),
        };
        staged.write_synced(payload)?;
        let (parent, name) = self.parent_of(file)?;
        let parent = self.make_synced(root, parent)?;
        match staged.folder.link(&staged.name, &parent, name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Who reads it takes it for lasting, so it has to be.
                parent.sync()?;
                let (path, source) = (file.display().to_string(), Box::new(error));
                return Err(Error::AlreadyExists { path, source });
            }
            Err(error) if has_no_hard_links(&error) => {
                return Err(FolderError::NoHardLinks(self.root.clone()).into());
            }
            Err(error) => return Err(io_error("create", file)(error).into()),
        }
        parent.sync()?;
        Ok(())
    }

    /// The names of the folders below the root that a file lies in, and its own.
    fn parent_of<'a>(
        &self,
        file: &'a FilePath,
    ) -> Result<(impl Iterator<Item = &'a OsStr> + use<'a>, &'a OsStr), FolderError> {
        let below = file.strip_prefix(&self.root).ok();
        below.and_then(|below| Some((below.parent()?.iter(), below.file_name()?))).ok_or_else(
            || io_error("find", file)(io::Error::other("it does not lie below the store's folder")),
        )
    }

    /// Makes directories, each in the one before, and sees to it that they last. One that another
    /// process made is synced too: that process may have died before it did so.
    fn make_synced<'a>(
        &self,
        root: Below,
        names: impl Iterator<Item = &'a OsStr>,
    ) -> Result<Below, FolderError> {
        let mut at = root;
        for name in names {
            let path = at.path().join(name);
            let known =
                |path| self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
            if !known(&path) {
                at.make(name)?;
                at.sync()?;
            }
            let next = at.step(name)?;
            let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
            if synced.len() >= REMEMBERED {
                synced.clear();
            }
            synced.insert(path);
            at = next;
        }
        Ok(at)
    }

    fn delete(&self, file: &FilePath) -> Result<()> {
        let (mut parent, name) = self.parent_of(file)?;
        let removed = parent.try_fold(Below::root(&self.root)?, |at, name| at.step(name)).and_then(
            |parent| {
                parent.remove(name).map_err(io_error("delete", file))?;
                parent.sync()
            },
        );
        match removed {
            Err(FolderError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let (path, source) = (file.display().to_string(), Box::new(source));
                Err(Error::NotFound { path, source })
            }
            outcome => Ok(outcome?),
        }
    }

    /// Removes what a crash left behind in `.staging`.
    fn remove_stale(&self, now: SystemTime) -> Result<(), FolderError> {
        match Below::root(&self.root)?.step(OsStr::new(STAGING)) {
            Ok(staging) => staging.remove_older(STALE, now),
            // It is not there yet, or not for us to clean up.
            Err(FolderError::Io { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A staged file; its name goes when this does.
struct Staged {
    folder: Below,
    name: OsString,
}

impl Staged {
    fn write_synced(&self, payload: &PutPayload) -> Result<(), FolderError> {
        let path = || self.folder.path().join(&self.name);
        let mut file = self.folder.file(&self.name)?;
        for part in payload {
            file.write_all(part).map_err(|error| io_error("write", &path())(error))?;
        }
        file.sync_all().map_err(|error| io_error("sync", &path())(error))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // One that stays is removed a day later.
        let _ = self.folder.remove(&self.name);
    }
}

/// Makes a directory and all above it, syncing the parent of each new one.
fn make_durable(directory: &FilePath) -> Result<(), FolderError> {
    let missing: Vec<&FilePath> = directory
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("make folder", path)(error));
            }
            _ => {}
        }
        sync(parent_of(path))?;
    }
    // One that is there may have been made a moment ago by a process that has not synced it.
    // Where the folder above may not be opened, it was not this user who made it just now.
    let _ = sync(parent_of(directory));
    Ok(())
}

fn parent_of(path: &FilePath) -> &FilePath {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(FilePath::new("."))
}

fn sync(directory: &FilePath) -> Result<(), FolderError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(io_error("sync", directory))
}

/// link(2): EPERM is how Linux says that a file system has none; FUSE and network file
/// systems say ENOSYS or EOPNOTSUPP. Missing rights are EACCES, which is another matter.
fn has_no_hard_links(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::ENOSYS | libc::EOPNOTSUPP | libc::EMLINK)
    )
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Nobody simulates tests.
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;

    async fn put(folder: &Folder, path: &str, bytes: &'static [u8]) -> Result<PutResult> {
        folder.put_opts(&Path::from(path), bytes.into(), PutMode::Create.into()).await
    }

    #[tokio::test]
    async fn what_is_created_is_there_and_stays_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("deep/store")).unwrap();
        put(&folder, "data/date=2026-11-21/a", b"one").await.unwrap();
        let again = put(&folder, "data/date=2026-11-21/a", b"two").await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        let got = folder.get(&Path::from("data/date=2026-11-21/a")).await.unwrap();
        assert_eq!(got.bytes().await.unwrap(), "one");
        let listed: Vec<_> = folder.list(None).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        let staged = fs::read_dir(place.path().join("deep/store/.staging")).unwrap();
        assert_eq!(staged.count(), 0);
    }

    #[tokio::test]
    async fn nothing_is_overwritten_copied_or_put_in_parts() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(place.path()).unwrap();
        put(&folder, "a", b"one").await.unwrap();
        let (a, b) = (Path::from("a"), Path::from("b"));
        assert!(folder.put(&a, "two".into()).await.is_err());
        assert!(folder.copy(&a, &b).await.is_err());
        assert!(folder.rename(&a, &b).await.is_err());
        assert!(folder.put_multipart(&b).await.is_err());
        folder.delete(&a).await.unwrap();
        assert!(matches!(folder.delete(&a).await, Err(Error::NotFound { .. })));
    }

    #[test]
    fn only_what_is_a_day_old_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let staging = place.path().join(STAGING);
        fs::create_dir(&staging).unwrap();
        fs::write(staging.join("x#1"), b"half").unwrap();
        let now = SystemTime::now();
        let folder = Folder::open(place.path()).unwrap();
        folder.shared.remove_stale(now + Duration::from_secs(3_600)).unwrap();
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 1);
        folder.shared.remove_stale(now + Duration::from_secs(25 * 3_600)).unwrap();
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    }

    /// What lies outside a store, and must stay as it is.
    fn outside(place: &FilePath) -> PathBuf {
        let outside = place.join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("letter"), "dear").unwrap();
        let old = fs::File::options().write(true).open(outside.join("letter")).unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        outside
    }

    fn assert_untouched(outside: &FilePath) {
        let names: Vec<_> =
            fs::read_dir(outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["letter"]);
        assert_eq!(fs::read_to_string(outside.join("letter")).unwrap(), "dear");
    }

    fn assert_refused<T>(outcome: Result<T>, link: &FilePath) {
        let Err(Error::Generic { source, .. }) = outcome else { panic!("a link was followed") };
        let error = source.downcast_ref().expect("an error of ours");
        assert!(matches!(error, FolderError::Link(path) if path == link), "{error:?}");
    }

    #[tokio::test]
    async fn a_link_in_place_of_the_staging_folder_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (root, outside) =
            (fs::canonicalize(place.path()).unwrap().join("s"), outside(place.path()));
        let folder = Folder::create(&root).unwrap();
        let link = root.join(STAGING);
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        // Neither to clean up, nor to write.
        assert_refused(Folder::create(&root), &link);
        assert_refused(put(&folder, "data/a", b"one").await, &link);
        assert_untouched(&outside);
        assert!(!root.join("data").exists());
    }

    #[tokio::test]
    async fn a_link_in_place_of_any_folder_is_followed_neither_to_write_nor_to_remove() {
        for depth in 1..=3 {
            let place = tempfile::tempdir().unwrap();
            let (root, outside) =
                (fs::canonicalize(place.path()).unwrap().join("s"), outside(place.path()));
            let folder = Folder::create(&root).unwrap();
            let parts = ["default", "data", "hour=01"];
            let link = root.join(parts[..depth].join("/"));
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&outside, &link).unwrap();
            let rest = parts[depth..].join("/");
            let at = |name: &str| {
                format!("{}/{rest}/{name}", parts[..depth].join("/")).replace("//", "/")
            };
            assert_refused(put(&folder, &at("new"), b"one").await, &link);
            assert_refused(folder.delete(&Path::from(at("letter"))).await, &link);
            assert_untouched(&outside);
        }
    }

    #[tokio::test]
    async fn a_link_in_place_of_an_object_is_a_name_that_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("s"), outside(place.path()));
        let folder = Folder::create(&root).unwrap();
        fs::create_dir(root.join("data")).unwrap();
        std::os::unix::fs::symlink(outside.join("letter"), root.join("data/a")).unwrap();
        std::os::unix::fs::symlink(outside.join("new"), root.join("data/b")).unwrap();
        for name in ["data/a", "data/b"] {
            let taken = put(&folder, name, b"one").await;
            assert!(matches!(taken, Err(Error::AlreadyExists { .. })));
        }
        // The link goes, not what it names.
        folder.delete(&Path::from("data/a")).await.unwrap();
        assert!(fs::symlink_metadata(root.join("data/a")).is_err());
        assert_untouched(&outside);
    }

    #[test]
    fn a_file_system_without_links_is_told_from_missing_rights() {
        let of = io::Error::from_raw_os_error;
        assert!(has_no_hard_links(&of(libc::EPERM)) && has_no_hard_links(&of(libc::EOPNOTSUPP)));
        assert!(!has_no_hard_links(&of(libc::EACCES)) && !has_no_hard_links(&of(libc::ENOSPC)));
    }
}
