//! Helpers that need root: disks and networks that only the test sees, and commands without permissions.

use std::io;
use std::process::Command;

use crate::tools::skipped;

/// What a thread gets of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Own {
    /// A table of mounted file systems, which starts as a copy.
    Mounts,
    /// A network: nothing is heard but what the test sends.
    Network,
}

/// Runs `what` in a thread that has something of its own, as have all processes it starts. It is
/// gone when they have ended. False, and a line, where this process may not make one.
pub(crate) fn with(own: Own, what: impl FnOnce() + Send) -> bool {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            if let Err(error) = unshare(own) {
                skipped(&format!("needs root: {error}"));
                return false;
            }
            what();
            true
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[allow(unsafe_code)]
fn unshare(own: Own) -> io::Result<()> {
    let flag = match own {
        Own::Mounts => libc::CLONE_NEWNS,
        Own::Network => libc::CLONE_NEWNET,
    };
    // SAFETY: an integer only; it changes this thread alone.
    if unsafe { libc::unshare(flag) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if let Own::Mounts = own {
        // Else what is mounted here would appear everywhere.
        tool("mount --make-rprivate /");
    }
    Ok(())
}

/// Runs a program with its arguments, separated by spaces, which must end well; its output.
pub(crate) fn tool(line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    let output = command.args(words).output().unwrap_or_else(|error| panic!("{line}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether this process has root's rights; a line if not.
#[allow(unsafe_code)]
pub(crate) fn is_root() -> bool {
    // SAFETY: no arguments; it cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skipped("needs root");
    }
    root
}
