//! The disk cache: one file per extent in a local folder.
//!
//! A file is written under a temporary name and renamed, so it is complete or absent. Nothing is
//! synced: the checksum detects a file left empty or torn by a power cut. A disk error is counted
//! and costs one request to the store, no more.

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

/// Maximum bytes in the write queue. A disk slower than the store skips writes.
const MOST_WAITING: u32 = 16 << 20;

/// An extent larger than this fraction of the disk cache is not written.
const MOST_OF_ROOM: u64 = 8;

/// Pause after a failed write: a full disk stays full for a while.
const REST: Duration = Duration::from_secs(60);

/// Trailer of a file: CRC32C (little-endian) of all bytes before it.
const TRAILER: usize = 4;

/// Folder and size of a disk cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// A folder that only one process uses.
    pub folder: PathBuf,
    /// Maximum size of all files, bytes.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Disk {
    /// The folder with the 256 shard folders.
    folder: PathBuf,
    directory: Mutex<Directory>,
    /// Keys in the write queue.
    writing: Mutex<BTreeSet<Key>>,
    waiting: Arc<Semaphore>,
    corrupt: AtomicU64,
    failed: AtomicU64,
    /// No writes before this time, after a failed write.
    rests_until: Mutex<Option<Instant>>,
    /// Locks the folder against other processes while open.
    _lock: File,
}

/// Why a file is unusable.
enum Unread {
    /// Evicted, or removed from outside.
    Gone,
    Corrupt,
    Failed(io::Error),
}

impl Disk {
    /// Opens a folder with its existing content.
    ///
    /// # Errors
    /// It cannot be created or written, other users may read it, or another process uses it.
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

    /// Size of all files, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.directory().bytes()
    }

    /// Maximum size of all files, bytes.
    pub(super) fn room(&self) -> u64 {
        self.directory().room()
    }

    /// Files with a wrong checksum or length.
    pub(super) fn corrupt(&self) -> u64 {
        self.corrupt.load(Ordering::Relaxed)
    }

    /// Files that could not be read or written.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Reads the cached extents and checks each.
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
        // A failed task counts as a miss.
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
        // Compares the length before any allocation.
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

    /// Queues an extent for writing unless it exists. Skips it if the queue is full.
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
            // The waiting caller may open the folder next and must not find it locked.
            drop(disk);
            drop(permit);
        });
    }

    /// Waits for pending writes.
    pub(super) async fn flush(&self) {
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
                tracing::warn!(%error, "the disk cache cannot write to {folder}, and pauses for a \
                                        minute");
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
            // A partial file would take space that a full disk lacks.
            let _ = fs::remove_file(&staged);
        })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(folder::shard(key.shard())).join(key.file_name())
    }

    fn remove(&self, keys: &[Key]) {
        for key in keys {
            // A missing file counts as removed.
            let _ = fs::remove_file(self.path(key));
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data is valid between statements, so a poisoned lock may be used.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
