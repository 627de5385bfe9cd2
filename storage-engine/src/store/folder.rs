//! A folder as an object store that survives power loss.
//!
//! An object is created in five steps. Its bytes go to a file in `.staging` under the root, which is synced (fsync).
//! The object's directories are made and synced. The staged file is hard-linked to its name, which fails if the name
//! exists and so decides every race. The directory is synced. The staged name is removed. After a crash at any point,
//! a visible name has all its bytes, and an acknowledged create is durable. Files that a crash leaves in `.staging`
//! are harmless and are removed a day later.
//!
//! Objects are never overwritten, copied or renamed: those calls are refused. Writes and removals follow no symbolic
//! link below the root ([`below`]).

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

/// Directory of incomplete files.
const STAGING: &str = ".staging";

/// A file in `.staging` that is older than this belongs to no live process.
const STALE: Duration = Duration::from_secs(24 * 3_600);

/// Maximum number of directories remembered as synced; then the set is cleared.
const REMEMBERED: usize = 16 * 1_024;

/// Errors specific to a folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// The file system refuses link(2).
    #[error(
        "the file system of {} has no hard links, which a durable store needs; \
         use another file system (ext4, xfs, btrfs, zfs) or an s3:// store", .0.display()
    )]
    NoHardLinks(PathBuf),
    /// A symbolic link where a folder of the store should be.
    #[error(
        "{} is a symbolic link: Capstan follows none below a store, so that nothing is written or \
         removed elsewhere; replace it by a folder", .0.display()
    )]
    Link(PathBuf),
    /// The folder of the store is not there.
    #[error("the folder {} of the store is gone: is its disk mounted?", .0.display())]
    Gone(PathBuf),
    /// A system call failed.
    #[error("{what} {}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
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
    /// Reads and lists, without durability.
    reads: LocalFileSystem,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// Directories whose entries, and those of all parents up to the root, are known to be durable.
    synced: Mutex<BTreeSet<PathBuf>>,
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder {}", self.shared.root.display())
    }
}

impl Folder {
    /// Opens an existing folder. Writes nothing.
    pub(crate) fn open(root: &FilePath) -> Result<Folder> {
        let reads = LocalFileSystem::new_with_prefix(root)?;
        let root = fs::canonicalize(root).map_err(io_error("find", root))?;
        Ok(Folder { reads, shared: Arc::new(Shared { root, synced: Mutex::default() }) })
    }

    /// Opens a folder for writing. Makes it and its parents durably if they do not exist, and removes staged files
    /// that are more than a day old.
    pub(crate) fn create(root: &FilePath) -> Result<Folder> {
        make_durable(root)?;
        let folder = Folder::open(root)?;
        // File times come from this machine's clock, too.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now();
        folder.shared.remove_stale(now)?;
        Ok(folder)
    }

    /// An object is missing only if the store is there.
    async fn unless_gone<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(Error::NotFound { .. }) = &outcome {
            self.shared.check_root().await?;
        }
        outcome
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
        let outcome = self.reads.get_opts(location, options).await;
        self.unless_gone(outcome).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let outcome = self.reads.get_ranges(location, ranges).await;
        self.unless_gone(outcome).await
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
        // Below a folder that is gone a listing would be empty.
        let (folder, names) = (self.clone(), self.reads.list(prefix));
        let checked = async move { folder.shared.check_root().await.map(|()| names) };
        futures::stream::once(checked).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.shared.check_root().await?;
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
    /// Fails if the root is not there.
    async fn check_root(self: &Arc<Self>) -> Result<()> {
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || shared.root().map(drop)).await??;
        Ok(())
    }

    /// The open root.
    fn root(&self) -> Result<Below, FolderError> {
        Below::root(&self.root).map_err(|error| match error {
            FolderError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                FolderError::Gone(self.root.clone())
            }
            other => other,
        })
    }

    fn create(&self, file: &FilePath, payload: &PutPayload) -> Result<()> {
        let root = self.root()?;
        root.make(OsStr::new(STAGING))?;
        // The suffix hides the name from listings (see `LocalFileSystem`).
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
                // Readers rely on the object's durability, so sync it.
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

    /// The names of the folders between the root and a file, and the file's own name.
    fn parent_of<'a>(
        &self,
        file: &'a FilePath,
    ) -> Result<(impl Iterator<Item = &'a OsStr> + use<'a>, &'a OsStr), FolderError> {
        let below = file.strip_prefix(&self.root).ok();
        below.and_then(|below| Some((below.parent()?.iter(), below.file_name()?))).ok_or_else(
            || io_error("find", file)(io::Error::other("it does not lie below the store's folder")),
        )
    }

    /// Makes nested directories durably. A directory that another process made is synced too: that process may have
    /// crashed before its sync.
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
        let removed = parent.try_fold(self.root()?, |at, name| at.step(name)).and_then(|parent| {
            parent.remove(name).map_err(io_error("delete", file))?;
            parent.sync()
        });
        match removed {
            Err(FolderError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let (path, source) = (file.display().to_string(), Box::new(source));
                Err(Error::NotFound { path, source })
            }
            outcome => Ok(outcome?),
        }
    }

    /// Removes stale files in `.staging`.
    fn remove_stale(&self, now: SystemTime) -> Result<(), FolderError> {
        match Below::root(&self.root)?.step(OsStr::new(STAGING)) {
            Ok(staging) => staging.remove_older(STALE, now),
            // It does not exist yet, or this user may not clean it up.
            Err(FolderError::Io { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A staged file; dropping it removes its name.
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
        // A remaining file is removed a day later.
        let _ = self.folder.remove(&self.name);
    }
}

/// Makes a directory and all its parents, and syncs the parent of each new one.
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
    // A process may have made the existing directory just now without a sync. If the parent may not be opened, this
    // user did not make the directory just now.
    let _ = sync(parent_of(directory));
    Ok(())
}

fn parent_of(path: &FilePath) -> &FilePath {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(FilePath::new("."))
}

fn sync(directory: &FilePath) -> Result<(), FolderError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(io_error("sync", directory))
}

/// link(2): Linux reports EPERM if a file system has no hard links; FUSE and network file systems report ENOSYS or
/// EOPNOTSUPP. EACCES means missing permission instead.
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
    async fn created_object_is_readable_and_immutable() {
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
    async fn overwrites_copies_and_multipart_uploads_are_refused() {
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
    fn only_day_old_staging_files_are_removed() {
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
    async fn symlink_as_staging_folder_is_not_followed() {
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
    async fn symlink_as_folder_is_not_followed_by_writes_and_removals() {
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
    async fn symlink_as_object_is_an_existing_name() {
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
    fn file_system_without_hard_links_is_distinguished_from_missing_permission() {
        let of = io::Error::from_raw_os_error;
        assert!(has_no_hard_links(&of(libc::EPERM)) && has_no_hard_links(&of(libc::EOPNOTSUPP)));
        assert!(!has_no_hard_links(&of(libc::EACCES)) && !has_no_hard_links(&of(libc::ENOSPC)));
    }
}
