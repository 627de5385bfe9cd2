//! The system calls that measuring needs and std does not have, each behind a safe function.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Set by the first signal that asks this process to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_signal(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on Ctrl-C, SIGTERM and SIGHUP are noted instead of ending this process, and end the
/// system call that is waiting.
pub(crate) fn watch_for_signals() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `sigaction` is integers and a pointer that may be null: zero is a value. The
        // handler only stores to an atomic, which is allowed in a signal handler.
        let set = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note_signal as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal, &action, std::ptr::null_mut())
        };
        done(set)?;
    }
    Ok(())
}

/// Whether such a signal has come.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    // SAFETY: takes nothing, gives an integer.
    unsafe { libc::geteuid() == 0 }
}

/// What a process used from its start to its end, the children it waited for included.
pub(crate) struct ResourceUsage {
    /// Time on processors, user and system.
    pub(crate) cpu: Duration,
    /// Most resident memory it had at a time, bytes.
    pub(crate) peak_bytes: u64,
}

/// wait4(2): waits for a child of ours to end. A signal ends it early, as
/// [`io::ErrorKind::Interrupted`].
pub(crate) fn wait(pid: u32) -> io::Result<(ExitStatus, ResourceUsage)> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to live values of the right types.
    done(unsafe { libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()) })?;
    // SAFETY: plain numbers, for which zero is a value; the kernel has filled them in.
    let usage = unsafe { usage.assume_init() };
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    let peak_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    Ok((ExitStatus::from_raw(status), ResourceUsage { cpu, peak_bytes }))
}

fn duration(time: libc::timeval) -> Duration {
    let micros = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_usec);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Sends SIGINT, as Ctrl-C does, to a child of ours that was not waited for.
pub(crate) fn interrupt(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: integers only.
    done(unsafe { libc::kill(pid, libc::SIGINT) })
}

/// The processor time that the calling thread has used.
pub(crate) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A packet socket that sends whole Ethernet frames out of one interface.
pub(crate) struct FrameSocket(OwnedFd);

impl FrameSocket {
    /// Bound to the interface of this number. Needs `CAP_NET_RAW`.
    pub(crate) fn open(interface: i32) -> io::Result<FrameSocket> {
        // Protocol 0: this socket receives nothing.
        // SAFETY: integers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        done(fd)?;
        // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
        let socket = FrameSocket(unsafe { OwnedFd::from_raw_fd(fd) });
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: interface,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the kernel reads one `sockaddr_ll`, which lives until the call returns.
        done(unsafe { libc::bind(socket.0.as_raw_fd(), (&raw const address).cast(), length) })?;
        // Past the queueing discipline: the sender should cost little beside what is measured.
        let bypass: libc::c_int = 1;
        // SAFETY: the kernel reads one `c_int`, which lives until the call returns.
        done(unsafe {
            libc::setsockopt(
                socket.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const bypass).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        })?;
        Ok(socket)
    }

    /// sendmmsg(2): sends frames. How many were sent, from the first on; fewer than all where the
    /// interface has no room, which is then asked for again.
    pub(crate) fn send(&self, frames: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut messages: [MaybeUninit<libc::mmsghdr>; MAX_BATCH] =
            [const { MaybeUninit::zeroed() }; MAX_BATCH];
        let count = frames.len().min(MAX_BATCH);
        for (message, frame) in messages.iter_mut().zip(frames) {
            // SAFETY: pointers that may be null and integers, for which zero is a value.
            let header = unsafe { message.assume_init_mut() };
            // IoSlice is an iovec (std promises its layout); the kernel only reads through it.
            header.msg_hdr.msg_iov = std::ptr::from_ref(frame).cast::<libc::iovec>().cast_mut();
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the kernel reads `count` messages that were filled in above, and through them
        // slices that `frames` borrows; it writes only each message's `msg_len`.
        let sent = unsafe {
            libc::sendmmsg(self.0.as_raw_fd(), messages.as_mut_ptr().cast(), count as u32, 0)
        };
        match done(sent) {
            Ok(()) => Ok(usize::try_from(sent).unwrap_or(0)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}

/// Most frames that one call sends.
pub(crate) const MAX_BATCH: usize = 64;

fn done(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
