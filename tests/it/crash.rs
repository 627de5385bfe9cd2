//! A command that crashes leaves a core file, and its test prints the backtrace.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Once;
use std::time::SystemTime;

use crate::capstan::{allow_cores, binary};

/// Signals that a program brings upon itself.
const CRASHES: [i32; 6] =
    [libc::SIGSEGV, libc::SIGABRT, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// Lets commands that are started from here on leave cores, as far as this process may allow it.
pub(crate) fn leave_cores() {
    static ONCE: Once = Once::new();
    ONCE.call_once(allow_cores);
}

/// Fails if a process that was started after `began` crashed, with its backtrace where there is one.
pub(crate) fn check(began: SystemTime, ended: ExitStatus, said: &str) {
    if let Some(signal) = ended.signal().filter(|signal| CRASHES.contains(signal)) {
        panic!("capstan ended with signal {signal}: {said}\n{}", backtrace(began));
    }
}

/// The backtrace of what crashed, or why there is none.
fn backtrace(began: SystemTime) -> String {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let pattern = pattern.trim();
    if pattern.starts_with('|') {
        return format!("no backtrace: cores go to a program ({pattern})");
    }
    let Some(core) = core(pattern, began) else {
        return format!("no backtrace: no core was left (pattern {pattern}, see ulimit -c)");
    };
    let gdb = Command::new("gdb")
        .args(["--batch", "-ex", "info registers", "-ex", "thread apply all backtrace 30"])
        .arg(binary())
        .arg(&core)
        .output();
    match gdb {
        Ok(output) => {
            // Cores are large; what they say is printed.
            let _ = std::fs::remove_file(&core);
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        Err(error) => format!("no backtrace: {error}; the core is {}", core.display()),
    }
}

/// The newest core since then; commands of tests run in the folder for temporary files.
fn core(pattern: &str, began: SystemTime) -> Option<PathBuf> {
    let folder = Path::new(pattern).parent().filter(|folder| folder.is_absolute());
    let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let cores = entries.filter_map(|entry| {
        let named = entry.file_name().to_string_lossy().contains("core");
        let written = entry.metadata().ok().filter(|about| about.is_file())?.modified().ok()?;
        (named && written >= began).then(|| (written, entry.path()))
    });
    cores.max().map(|(_, path)| path)
}

#[test]
fn crash_is_reported_with_its_backtrace() {
    leave_cores();
    let (began, folder) = (SystemTime::now(), std::env::temp_dir());
    let crashed = Command::new("sh").args(["-c", "kill -SEGV $$"]).current_dir(folder).status();
    let crashed = crashed.expect("a shell");
    let shown = std::panic::catch_unwind(|| check(began, crashed, "nothing")).expect_err("a crash");
    let shown = shown.downcast_ref::<String>().expect("words");
    println!("{shown}");
    assert!(shown.contains("signal 11"), "{shown}");
    assert!(shown.contains("no backtrace") || shown.contains("Thread"), "{shown}");
    check(began, Command::new("true").status().expect("it runs"), "nothing");
}
