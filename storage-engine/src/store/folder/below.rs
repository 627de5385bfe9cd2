//! Access to names below a folder, step by step, without following symbolic links.
//!
//! Otherwise an attacker who can plant a link in a store could make a recorder, which may be root, write or remove
//! files elsewhere. Each step opens one name in an open directory, so there is no race between check and use.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{FolderError, io_error};

/// An open directory, and its name.
#[derive(Debug)]
pub(super) struct Below {
    fd: OwnedFd,
    path: PathBuf,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Below {
    /// Opens the folder that the user named: this one may be a link.
    pub(super) fn root(path: &Path) -> Result<Below, FolderError> {
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty());
        let fd = fd.map_err(|error| io_error("open", path)(error.into()))?;
        Ok(Below { fd, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a subdirectory.
    pub(super) fn step(&self, name: &OsStr) -> Result<Below, FolderError> {
        let path = self.path.join(name);
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Below { fd, path }),
            Err(Errno::LOOP | Errno::NOTDIR) if self.is_link(name) => Err(FolderError::Link(path)),
            Err(error) => Err(io_error("open", &path)(error.into())),
        }
    }

    fn is_link(&self, name: &OsStr) -> bool {
        let about = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        about.is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::Symlink)
    }

    /// Makes a subdirectory, if it does not exist.
    pub(super) fn make(&self, name: &OsStr) -> Result<(), FolderError> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(io_error("make folder", &self.path.join(name))(error.into())),
        }
    }

    /// Makes a file, which must not exist.
    pub(super) fn file(&self, name: &OsStr) -> Result<std::fs::File, FolderError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o666));
        file.map(Into::into).map_err(|error| io_error("write", &self.path.join(name))(error.into()))
    }

    /// Hard-links a file of this directory into another directory.
    pub(super) fn link(&self, name: &OsStr, to: &Below, as_name: &OsStr) -> io::Result<()> {
        let linked = rustix::fs::linkat(&self.fd, name, &to.fd, as_name, AtFlags::empty());
        linked.map_err(io::Error::from)
    }

    /// Removes a name; of a link, the link itself.
    pub(super) fn remove(&self, name: &OsStr) -> io::Result<()> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()).map_err(io::Error::from)
    }

    /// Makes the names in it durable (fsync).
    pub(super) fn sync(&self) -> Result<(), FolderError> {
        rustix::fs::fsync(&self.fd).map_err(|error| io_error("sync", &self.path)(error.into()))
    }

    /// Removes files that are older than this; ignores files that cannot be removed.
    pub(super) fn remove_older(&self, age: Duration, now: SystemTime) {
        let Ok(entries) = Dir::read_from(self.fd.as_fd()) else { return };
        for entry in entries.flatten() {
            let Ok(about) =
                rustix::fs::statat(&self.fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            else {
                continue;
            };
            let modified = u64::try_from(about.st_mtime).ok().map(Duration::from_secs);
            let modified = modified.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
            let is_old = modified
                .and_then(|modified| now.duration_since(modified).ok())
                .is_some_and(|old| old > age);
            if is_old && FileType::from_raw_mode(about.st_mode) != FileType::Directory {
                let _ = rustix::fs::unlinkat(&self.fd, entry.file_name(), AtFlags::empty());
            }
        }
    }
}
