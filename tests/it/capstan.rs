//! Runs the real binary, and knows where the shared captures are.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

/// The `capstan` binary of the profile the tests were built with.
pub(crate) fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let binary = profile.join("capstan");
    assert!(
        binary.is_file(),
        "{} is not there: build it first with `cargo build --workspace`",
        binary.display()
    );
    binary
}

/// A command that has nothing of the caller's own settings in it.
pub(crate) fn capstan() -> Command {
    let mut command = Command::new(binary());
    command.env_remove("CAPSTAN_STORE").env_remove("CAPSTAN_CONFIG").env_remove("CAPSTAN_CLUSTER");
    command.current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

/// Runs and gives what it printed.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().expect("capstan starts")
}

/// How a process ended and the most memory it had, MiB.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) peak_mib: u64,
}

/// Runs without output and measures peak resident memory.
#[allow(unsafe_code, clippy::zombie_processes)] // wait4 waits, and tells one child's peak.
pub(crate) fn measure(command: &mut Command, log: &Path) -> Ended {
    let log = std::fs::File::create(log).expect("a log file");
    let errors = log.try_clone().expect("a log file");
    let child = command.stdout(log).stderr(errors).spawn().expect("capstan starts");
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: both pointers are to live values of the right types; the child is ours
    // and nobody else waits for it.
    let waited = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    assert_eq!(waited, pid, "wait4");
    Ended { status: ExitStatus::from_raw(status), peak_mib: usage.ru_maxrss as u64 / 1024 }
}

/// The folder of real captures with expected results, if it is there.
pub(crate) fn shared() -> Option<PathBuf> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository");
    let shared =
        std::env::var_os("CAPSTAN_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    if shared.join("captures/index.json").is_file() {
        return Some(shared);
    }
    skipped(&format!("no captures in {} (set CAPSTAN_SHARED)", shared.display()));
    None
}

/// The captures, by their name in the collection.
pub(crate) fn captures(shared: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(shared.join("captures/index.json")).expect("the index");
    let index: serde_json::Value = serde_json::from_str(&text).expect("the index is JSON");
    let files = index.as_array().expect("the index is a list");
    files.iter().map(|file| file["file"].as_str().expect("a name").to_owned()).collect()
}

/// Says why a test has nothing to look at.
#[allow(clippy::print_stdout)] // The runner shows it beside the test.
fn skipped(why: &str) {
    println!("skipped: {why}");
}
