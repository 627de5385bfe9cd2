//! Stops a process at each system call that changes a folder, whichever of its threads makes it.
//!
//! A seccomp filter asks the test before such a call is made. strace cannot do this: it counts the calls of each
//! thread separately, and the writes are spread differently over the threads in every run.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use libc::{seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog};

/// Calls that make or remove a name, or write: number, what they are called here, and which argument is the
/// name.
const CHANGES: &[(i64, &str, usize)] = &[
    (libc::SYS_mkdirat, "make folder", 1),
    (libc::SYS_linkat, "link", 3),
    (libc::SYS_unlinkat, "remove", 1),
    (libc::SYS_renameat2, "rename", 3),
    (libc::SYS_openat, "create", 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "make folder", 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, "link", 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "remove", 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename", 1),
    (libc::SYS_write, "write", 0),
];

/// Where calls of a filtered process wait.
pub(super) struct Held(OwnedFd);

/// A call that waits.
pub(super) struct Call(seccomp_notif);

/// Holds what this thread will change, and all that it starts, for as long as it lives.
#[allow(unsafe_code)]
pub(super) fn hold() -> io::Result<Held> {
    let mut program = program();
    let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the program lives until after the call, which copies it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    Ok(Held(unsafe { OwnedFd::from_raw_fd(fd as c_int) }))
}

/// Asks for the calls of [`CHANGES`], of `openat` only if it may create.
fn program() -> Vec<sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const HAS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: code as u16, jt, jf, k };
    let always = CHANGES.iter().map(|(call, ..)| *call).filter(|call| *call != libc::SYS_openat);
    let always: Vec<_> = always.collect();
    // How far the last step, which asks, is from the one that has so many steps behind it.
    let mut program = vec![step(LOAD, 0, 0, 0)];
    for (place, call) in always.iter().enumerate() {
        program.push(step(IS, *call as u32, (always.len() - place + 3) as u8, 0));
    }
    program.push(step(IS, libc::SYS_openat as u32, 0, 2));
    // The low half of the third argument.
    program.push(step(LOAD, 16 + 2 * 8, 0, 0));
    program.push(step(HAS, libc::O_CREAT as u32, 1, 0));
    program.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    program.push(step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0));
    program
}

impl Held {
    /// The next call that waits; none if there is none for a moment.
    #[allow(unsafe_code)]
    pub(super) fn next(&self) -> Option<Call> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live structure.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 20) };
        if ready != 1 || poll.revents & libc::POLLIN == 0 {
            return None;
        }
        // SAFETY: plain numbers, for which zero is a value; the kernel wants zeros.
        let mut call: seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure that this request fills. It fails if the process has gone meanwhile.
        let got = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call)
        };
        (got == 0).then_some(Call(call))
    }

    /// Lets a call be made.
    #[allow(unsafe_code)]
    pub(super) fn allow(&self, call: &Call) {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let mut answer = seccomp_notif_resp { id: call.0.id, val: 0, error: 0, flags };
        // SAFETY: the structure that this request reads. It fails if the process has gone, which is as well.
        unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
        }
    }
}

impl Call {
    /// What it does, and to which file.
    pub(super) fn change(&self) -> io::Result<(&'static str, PathBuf)> {
        let data = &self.0.data;
        let known = CHANGES.iter().find(|(call, ..)| *call == i64::from(data.nr));
        let (call, what, place) = known.expect("the filter asks for these alone");
        let process = format!("/proc/{}", self.0.pid);
        let path = if *call == libc::SYS_write {
            std::fs::read_link(format!("{process}/fd/{}", data.args[0]))?
        } else {
            let mut name = [0; 1_024];
            let memory = File::open(format!("{process}/mem"))?;
            let read = memory.read_at(&mut name, data.args[*place])?;
            let length = name[..read].iter().position(|byte| *byte == 0).unwrap_or(read);
            let name = PathBuf::from(std::ffi::OsString::from_vec(name[..length].to_vec()));
            // One that does not begin at the root is of the directory that is open before it.
            match place.checked_sub(1).filter(|_| name.is_relative()) {
                None => name,
                Some(folder) => {
                    let folder = data.args[folder] as c_int;
                    std::fs::read_link(format!("{process}/fd/{folder}"))?.join(name)
                }
            }
        };
        Ok((what, path))
    }
}
