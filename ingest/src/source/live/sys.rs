//! System calls for live capture that std lacks, each behind a safe function. This module does not
//! interpret the bytes.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A new socket, closed on exec.
pub(super) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes integers only.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bind(2) to an address given as the bytes of its `sockaddr_*` structure.
pub(super) fn bind(socket: impl AsFd, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel copies exactly `len` bytes from `address`, at any alignment.
    done(unsafe {
        libc::bind(socket.as_fd().as_raw_fd(), address.as_ptr().cast(), size(address.len()))
    })
}

/// setsockopt(2) with a value that is plain bytes (no pointers inside).
pub(super) fn set_option(
    socket: impl AsFd,
    level: i32,
    option: i32,
    value: &[u8],
) -> io::Result<()> {
    // SAFETY: the kernel only reads `len` bytes from `value`.
    done(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            size(value.len()),
        )
    })
}

/// getsockopt(2) of an option whose value has exactly `N` bytes.
pub(super) fn option<const N: usize>(
    socket: impl AsFd,
    level: i32,
    option: i32,
) -> io::Result<[u8; N]> {
    let mut value = [0u8; N];
    let mut length = size(N);
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `value`.
    done(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            value.as_mut_ptr().cast(),
            &mut length,
        )
    })?;
    if length == size(N) { Ok(value) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// getsockname(2): the bytes of the address the socket is bound to. What the
/// kernel has beyond `N` is cut, what it lacks is zero.
pub(super) fn bound_address<const N: usize>(socket: impl AsFd) -> io::Result<[u8; N]> {
    let mut address = [0u8; N];
    let mut length = size(N);
    // SAFETY: the kernel writes at most the `length` bytes that `address` has.
    done(unsafe {
        libc::getsockname(socket.as_fd().as_raw_fd(), address.as_mut_ptr().cast(), &mut length)
    })?;
    Ok(address)
}

/// Attaches a socket filter that rejects every packet from now on. A rejected
/// packet counts neither as seen nor as dropped in the socket's statistics.
pub(super) fn reject_everything(socket: impl AsFd) -> io::Result<()> {
    const RETURN_CONSTANT: u16 = 0x06;
    let mut program = [libc::sock_filter { code: RETURN_CONSTANT, jt: 0, jf: 0, k: 0 }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads one `sock_fprog` and the `len` instructions it
    // points to; both live until the call returns, and it keeps a copy.
    done(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size(size_of::<libc::sock_fprog>()),
        )
    })
}

/// poll(2). A signal ends it early, with no descriptor ready.
pub(super) fn poll(set: &mut [libc::pollfd], timeout: Duration) -> io::Result<()> {
    // Rounded up: a timeout of 0.3 ms that became 0 would spin.
    let millis = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    for entry in set.iter_mut() {
        entry.revents = 0;
    }
    // SAFETY: the kernel reads and writes `set.len()` entries of `set`.
    match done(unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, millis) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other,
    }
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A length for the kernel. Only ever called with sizes of small structures.
fn size(length: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(length).unwrap_or(libc::socklen_t::MAX)
}
