//! A folder as an object store that survives power loss.
//!
//! An object is created in five steps: its bytes go to a file in `.staging` under
//! the root, which is synced; the object's directories are made and synced; the staged
//! file is hard-linked to its name, which fails if the name exists and so decides every
//! race; the directory is synced; the staged name is removed. Whatever the machine does in
//! between, a name that can be seen has all its bytes, and a create that was answered is
//! there after a crash. What a crash leaves in `.staging` is harmless and removed a day later.
//!
//! Objects are never overwritten, copied or renamed: those calls are refused.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
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

use super::world::nonce;

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
        remove_stale(&folder.shared.root.join(STAGING), now);
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
                    tokio::task::spawn_blocking(move || delete(&file)).await??;
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
        let staging = self.root.join(STAGING);
        fs::create_dir_all(&staging).map_err(io_error("make folder", &staging))?;
        // The ending keeps the name out of listings (see `LocalFileSystem`).
        let staged = Staged(staging.join(format!("{}#1", nonce())));
        write_synced(&staged.0, payload)?;
        let parent = file.parent().unwrap_or(&self.root);
        self.make_synced(parent)?;
        match fs::hard_link(&staged.0, file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Who reads it takes it for lasting, so it has to be.
                sync(parent)?;
                let (path, source) = (file.display().to_string(), Box::new(error));
                return Err(Error::AlreadyExists { path, source });
            }
            Err(error) if has_no_hard_links(&error) => {
                return Err(FolderError::NoHardLinks(self.root.clone()).into());
            }
            Err(error) => return Err(io_error("create", file)(error).into()),
        }
        sync(parent)?;
        Ok(())
    }

    /// Makes a directory under the root, and sees to it that it lasts. One that another
    /// process made is synced too: that process may have died before it did so.
    fn make_synced(&self, directory: &FilePath) -> Result<(), FolderError> {
        let known = |path: &FilePath| {
            self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
        };
        let missing: Vec<&FilePath> =
            directory.ancestors().take_while(|path| *path != self.root && !known(path)).collect();
        for path in missing.into_iter().rev() {
            match fs::create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("make folder", path)(error));
                }
                _ => {}
            }
            sync(path.parent().unwrap_or(&self.root))?;
            let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
            if synced.len() >= REMEMBERED {
                synced.clear();
            }
            synced.insert(path.to_owned());
        }
        Ok(())
    }
}

/// A staged file; its name goes when this does.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        // One that stays is removed a day later.
        let _ = fs::remove_file(&self.0);
    }
}

fn write_synced(path: &FilePath, payload: &PutPayload) -> Result<(), FolderError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(io_error("write", path))?;
    for part in payload {
        file.write_all(part).map_err(io_error("write", path))?;
    }
    file.sync_all().map_err(io_error("sync", path))
}

fn delete(file: &FilePath) -> Result<()> {
    match fs::remove_file(file) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (path, source) = (file.display().to_string(), Box::new(error));
            return Err(Error::NotFound { path, source });
        }
        Err(error) => return Err(io_error("delete", file)(error).into()),
    }
    if let Some(parent) = file.parent() {
        sync(parent)?;
    }
    Ok(())
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

fn remove_stale(staging: &FilePath, now: SystemTime) {
    let Ok(entries) = fs::read_dir(staging) else { return };
    for entry in entries.flatten() {
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| now.duration_since(modified).ok());
        if age.is_some_and(|age| age > STALE) {
            let _ = fs::remove_file(entry.path());
        }
    }
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
        remove_stale(&staging, now + Duration::from_secs(3_600));
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 1);
        remove_stale(&staging, now + Duration::from_secs(25 * 3_600));
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    }

    #[test]
    fn a_file_system_without_links_is_told_from_missing_rights() {
        let of = io::Error::from_raw_os_error;
        assert!(has_no_hard_links(&of(libc::EPERM)) && has_no_hard_links(&of(libc::EOPNOTSUPP)));
        assert!(!has_no_hard_links(&of(libc::EACCES)) && !has_no_hard_links(&of(libc::ENOSPC)));
    }
}
