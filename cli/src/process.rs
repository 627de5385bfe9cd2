//! Parent-death signal and SIGTERM between a recorder and its server.

use std::io::{Error, Result};

/// Makes the kernel kill this process when the thread that started it ends, at the latest with its
/// process. Check [`std::os::unix::process::parent_id`] afterwards: the parent may already have
/// ended.
///
/// # Errors
/// The kernel refuses.
#[allow(unsafe_code)]
pub(crate) fn die_with_parent() -> Result<()> {
    let signal = libc::c_ulong::try_from(libc::SIGKILL).map_err(Error::other)?;
    // SAFETY: this call of prctl takes a number, and touches no memory.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Sends SIGTERM to a child process. The child must not have been waited for, because its process id
/// may belong to another process by then.
///
/// # Errors
/// It is no more, or not ours.
#[allow(unsafe_code)]
pub(crate) fn terminate(process: u32) -> Result<()> {
    let process = libc::pid_t::try_from(process).map_err(Error::other)?;
    // SAFETY: kill takes two numbers, and touches no memory.
    match unsafe { libc::kill(process, libc::SIGTERM) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn process_stops_on_request() {
        let mut sleeping = Command::new("sleep").arg("60").spawn().unwrap();
        super::terminate(sleeping.id()).unwrap();
        assert_eq!(sleeping.wait().unwrap().signal(), Some(libc::SIGTERM));
    }
}
