//! The cache folder on disk: private to its owner, locked by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use capstan_model::{Failure, FailureKind};

use crate::cache::extent::Key;
use crate::store::nonce;

/// The subfolder of this cache. Its number goes up when the file format changes.
const OURS: &str = "capstan-cache-1";

/// The name of the lock file.
const LOCK: &str = "lock";

/// Suffix of a file during the write.
pub(super) const STAGED: &str = "new";

/// A folder locked by this process.
pub(super) struct Taken {
    pub(super) folder: PathBuf,
    pub(super) lock: File,
    /// Existing files, the oldest first.
    pub(super) files: Vec<Key>,
}

/// The folder of one of 256 shards.
pub(super) fn shard(number: u8) -> String {
    format!("{number:02x}")
}

/// Creates missing folders and lists existing files.
///
/// # Errors
/// It cannot be created or written, other users may read it, or another process uses it.
pub(super) fn take(named: &Path) -> Result<Taken, Failure> {
    let failed = |error| {
        let shown = named.display();
        Failure::io(format!("the cache cannot use its folder {shown} ([cache] folder)"), error)
    };
    let folder = named.join(OURS);
    make(&folder).map_err(failed)?;
    check(&folder)?;
    let user = user_of(&folder).map_err(failed)?;
    if fs::symlink_metadata(&folder).map_err(failed)?.uid() != user {
        return refused(&folder, "it belongs to another user", "remove it, or name another folder");
    }
    let path = folder.join(LOCK);
    // Nothing is ever written to it.
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path);
    let lock = lock.map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(failed(error)),
        Err(TryLockError::WouldBlock) => {
            let shown = named.display();
            return Err(Failure::new(
                FailureKind::AlreadyThere,
                format!(
                    "another capstan process uses the cache folder {shown}: give each process its own"
                ),
            ));
        }
    }
    let mut files = Vec::new();
    for number in 0..=u8::MAX {
        let shard = folder.join(shard(number));
        make(&shard).map_err(failed)?;
        check(&shard)?;
        look(&shard, &mut files).map_err(failed)?;
    }
    files.sort_unstable();
    let files = files.into_iter().map(|(_, key)| key).collect();
    Ok(Taken { folder, lock, files })
}

/// Rejects a folder that other users can access: files in it are written and removed, and they hold payload.
fn check(folder: &Path) -> Result<(), Failure> {
    let about = fs::symlink_metadata(folder).map_err(|error| {
        Failure::io(format!("the cache cannot look at its folder {}", folder.display()), error)
    })?;
    if about.file_type().is_symlink() {
        return refused(
            folder,
            "it is a symbolic link, which the cache does not follow",
            "remove it",
        );
    }
    if about.mode() & 0o077 != 0 {
        return refused(folder, "other users can access it", "chmod 700 it, or remove it");
    }
    Ok(())
}

fn refused<T>(folder: &Path, why: &str, todo: &str) -> Result<T, Failure> {
    let what = format!("the cache cannot use its folder {}: {why}; {todo}", folder.display());
    Err(Failure::new(FailureKind::Permission, what))
}

/// The owner of files that this process creates.
fn user_of(folder: &Path) -> io::Result<u32> {
    let path = folder.join(nonce());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file.metadata()?.uid())
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Adds the files of a folder with their times. Removes partial files.
fn look(shard: &Path, files: &mut Vec<((i64, i64), Key)>) -> io::Result<()> {
    for entry in fs::read_dir(shard)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(key) = name.to_str().and_then(Key::parse) {
            let of = entry.metadata()?;
            files.push(((of.mtime(), of.mtime_nsec()), key));
        } else if Path::new(&name).extension().is_some_and(|ending| ending == STAGED) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
