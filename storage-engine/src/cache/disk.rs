//! Extents in files of a local folder, a file each.
//!
//! A file is written under another name and renamed, so it is whole or not there; none is synced,
//! as one that a power cut leaves behind empty or torn is found out when it is read. Whatever goes
//! wrong with the disk is counted and costs a request to the store, no more.

mod directory;
mod folder;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::directory::Directory;
use super::extent::{Extent, Key};

/// Bytes that wait to be written, at most: a disk that is slower than the store gets less.
const MOST_WAITING: u32 = 16 << 20;

/// An extent that takes more than this part of the room is not written.
const MOST_OF_ROOM: u64 = 8;

/// How long nothing is written after a write failed: a full disk stays full for a while.
const REST: Duration = Duration::from_secs(60);

/// CRC32C (little-endian) of what is before it, at a file's end.
const TRAILER: usize = 4;

/// Where a disk keeps extents, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// A folder for one process alone.
    pub folder: PathBuf,
    /// What all files in it may take, bytes.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Disk {
    /// The folder with the files' folders.
    folder: PathBuf,
    directory: Mutex<Directory>,
    /// What waits to be written.
    writing: Mutex<BTreeSet<Key>>,
    waiting: Arc<Semaphore>,
    corrupt: AtomicU64,
    failed: AtomicU64,
    /// Nothing is written before then, as the last write failed.
    rests_until: Mutex<Option<Instant>>,
    /// Says to other processes that the folder is taken, as long as it is open.
    _lock: File,
}

/// Why a file gives nothing.
enum Unread {
    /// It made room for others, or somebody removed it.
    Gone,
    Corrupt,
    Failed(io::Error),
}

impl Disk {
    /// Takes a folder, with what is in it from before.
    ///
    /// # Errors
    /// It cannot be made or written, others may read it, or another process has it.
    pub(super) async fn open(settings: DiskSettings) -> Result<Disk, Failure> {
        let taken = tokio::task::spawn_blocking(move || {
            let folder::Taken { folder, lock, files } = folder::take(&settings.folder)?;
            let mut directory = Directory::new(settings.bytes);
            let surplus: Vec<Key> = files.into_iter().flat_map(|key| directory.add(key)).collect();
            Ok(Disk::of(folder, lock, directory, &surplus))
        });
        taken.await.map_err(|error| {
            Failure::caused_by(FailureKind::Other, "the cache's folder cannot be read", error)
        })?
    }

    fn of(folder: PathBuf, lock: File, directory: Directory, surplus: &[Key]) -> Disk {
        let disk = Disk {
            folder,
            directory: Mutex::new(directory),
            writing: Mutex::default(),
            waiting: Arc::new(Semaphore::new(MOST_WAITING as usize)),
            corrupt: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rests_until: Mutex::default(),
            _lock: lock,
        };
        disk.remove(surplus);
        disk
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        locked(&self.directory)
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.directory().contains(key)
    }

    /// What files take, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.directory().bytes()
    }

    /// What files may take, bytes.
    pub(super) fn room(&self) -> u64 {
        self.directory().room()
    }

    /// Files that did not hold what was written.
    pub(super) fn corrupt(&self) -> u64 {
        self.corrupt.load(Ordering::Relaxed)
    }

    /// Files that could not be read or written.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Reads those extents that are there, each checked.
    pub(super) async fn read(self: &Arc<Self>, wanted: Vec<(Key, Extent)>) -> Vec<(Key, Bytes)> {
        let there: Vec<_> = {
            let mut directory = self.directory();
            wanted.into_iter().filter(|(key, _)| directory.touch(key)).collect()
        };
        if there.is_empty() {
            return Vec::new();
        }
        let disk = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let read = |(key, extent): &(Key, Extent)| Some((*key, disk.read_one(key, extent)?));
            there.iter().filter_map(read).collect()
        });
        // Without an answer it was as if nothing were there.
        read.await.unwrap_or_default()
    }

    fn read_one(&self, key: &Key, extent: &Extent) -> Option<Bytes> {
        let unread = match self.load(key, extent) {
            Ok(bytes) => return Some(bytes),
            Err(unread) => unread,
        };
        self.directory().forget(key);
        match unread {
            Unread::Gone => return None,
            Unread::Failed(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "a file of the cache cannot be read");
            }
            Unread::Corrupt => {
                self.corrupt.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(file = key.file_name(), "a file of the cache is damaged");
            }
        }
        self.remove(std::slice::from_ref(key));
        None
    }

    fn load(&self, key: &Key, extent: &Extent) -> Result<Bytes, Unread> {
        let path = self.path(key);
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let mut file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unread::Gone,
            _ => Unread::Failed(error),
        })?;
        // Its length is compared before anything is allocated for it.
        let length = file.metadata().map_err(Unread::Failed)?.len();
        let expected = key.len().saturating_add(TRAILER as u64);
        let room = usize::try_from(length).map_err(|_| Unread::Corrupt)?;
        if length != expected {
            return Err(Unread::Corrupt);
        }
        let mut bytes = vec![0; room];
        file.read_exact(&mut bytes).map_err(Unread::Failed)?;
        let mut bytes = Bytes::from(bytes);
        let trailer = bytes.split_off(room - TRAILER);
        let whole = crc32c::crc32c(&bytes).to_le_bytes() == *trailer;
        if whole && extent.holds(&bytes) { Ok(bytes) } else { Err(Unread::Corrupt) }
    }

    /// Writes an extent, some time soon, unless it is there; not if too much waits already.
    pub(super) fn write(self: &Arc<Self>, key: Key, bytes: &Bytes) {
        let Ok(length) = u32::try_from(bytes.len()) else { return };
        if u64::from(length) > self.room() / MOST_OF_ROOM || self.contains(&key) {
            return;
        }
        let rests = locked(&self.rests_until).is_some_and(|until| Instant::now() < until);
        if rests || !locked(&self.writing).insert(key) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.waiting).try_acquire_many_owned(length) else {
            locked(&self.writing).remove(&key);
            return;
        };
        let (disk, bytes) = (Arc::clone(self), bytes.clone());
        tokio::task::spawn_blocking(move || {
            disk.write_one(key, &bytes);
            locked(&disk.writing).remove(&key);
            // Who waits for this may open the folder next, and must not find it locked.
            drop(disk);
            drop(permit);
        });
    }

    /// Waits for what is being written.
    pub(super) async fn settle(&self) {
        // An error means that there is nothing to wait for.
        let _ = self.waiting.acquire_many(MOST_WAITING).await;
    }

    fn write_one(&self, key: Key, bytes: &[u8]) {
        match self.save(&key, bytes) {
            Ok(()) => {
                let surplus = self.directory().add(key);
                self.remove(&surplus);
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                *locked(&self.rests_until) = Some(Instant::now() + REST);
                let folder = self.folder.display();
                tracing::warn!(%error, "the cache cannot write in {folder}, and rests for a minute");
            }
        }
    }

    fn save(&self, key: &Key, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let staged = path.with_extension(folder::STAGED);
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&staged)?;
            file.write_all(bytes)?;
            file.write_all(&crc32c::crc32c(bytes).to_le_bytes())?;
            fs::rename(&staged, &path)
        };
        write().inspect_err(|_| {
            // What is left of it would take room that a full disk does not have.
            let _ = fs::remove_file(&staged);
        })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(folder::shard(key.shard())).join(key.file_name())
    }

    fn remove(&self, keys: &[Key]) {
        for key in keys {
            // One that is gone already is as good as removed.
            let _ = fs::remove_file(self.path(key));
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data is valid between statements, so a poisoned lock may be used.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
