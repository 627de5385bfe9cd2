//! Runs the real binary.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::SystemTime;

use crate::crash;

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
    for own in ["STORE", "CONFIG", "CLUSTER", "SERVER", "LOG"] {
        command.env_remove(format!("CAPSTAN_{own}"));
    }
    command.current_dir(std::env::temp_dir()).stdin(Stdio::null());
    crash::leave_cores();
    command
}

/// Runs and gives what it printed. A crash fails the test, and its backtrace is printed.
pub(crate) fn run(command: &mut Command) -> Output {
    let began = SystemTime::now();
    let output = command.output().expect("capstan starts");
    crash::check(began, output.status, &String::from_utf8_lossy(&output.stderr));
    output
}

/// A subcommand over a store.
pub(crate) fn over(store: &Path, subcommand: &str) -> Command {
    let mut command = capstan();
    command.arg(subcommand).arg("--store").arg(store);
    command
}

/// Runs and expects that all is well; what was printed on standard output.
pub(crate) fn answer(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{command:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs and expects this exit code and these words; all that was said.
pub(crate) fn fails(command: &mut Command, code: i32, words: &[&str]) -> String {
    let output = run(command);
    said(&format!("{command:?}"), &output, code, words)
}

/// Judges how a command ended, by its exit code and what it said on standard error.
pub(crate) fn said(command: &str, output: &Output, code: i32, words: &[&str]) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command}: {said}");
    for word in words {
        assert!(said.contains(word), "{command} does not say '{word}': {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// The values of the one row of an answer in CSV.
fn only_row(csv: &str) -> Vec<&str> {
    let [_, row] = csv.lines().collect::<Vec<_>>()[..] else { panic!("not one row: {csv}") };
    row.split(',').collect()
}

/// The values of the one row of an answer in CSV, all of them numbers.
pub(crate) fn only_numbers(csv: &str) -> Vec<u64> {
    only_row(csv).iter().map(|value| value.parse().expect("a number")).collect()
}

/// A question in SQL that is answered in CSV.
pub(crate) fn in_csv(store: &Path, question: &str) -> Command {
    let mut command = over(store, "sql");
    command.args(["--format", "csv", question]);
    command
}

/// The one row of an answer in SQL, its values as text.
pub(crate) fn row(store: &Path, question: &str) -> Vec<String> {
    only_row(&answer(&mut in_csv(store, question))).into_iter().map(str::to_owned).collect()
}

/// The one row of an answer in SQL, all of it numbers.
pub(crate) fn numeric(store: &Path, question: &str) -> Vec<u64> {
    only_numbers(&answer(&mut in_csv(store, question)))
}

/// Sends a signal, such as [`libc::SIGINT`], to a process of ours.
#[allow(unsafe_code)]
pub(crate) fn signal(child: &Child, number: i32) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: integers only. The child has not been waited for, so the number is still its own.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0, "kill");
}

/// Lets processes that are started from here on leave a core when they crash.
#[allow(unsafe_code)]
#[allow(clippy::print_stdout)] // The runner shows it beside the test.
pub(crate) fn allow_cores() {
    // SAFETY: `rlimit` is two numbers, for which zero is a value, and both calls get a live one.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_CORE, &mut limit) == 0 {
            limit.rlim_max = libc::RLIM_INFINITY;
            limit.rlim_cur = libc::RLIM_INFINITY;
            if libc::setrlimit(libc::RLIMIT_CORE, &limit) != 0 {
                println!("commands that crash leave no core: this process may not allow it");
            }
        }
    }
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
    let began = SystemTime::now();
    let child = command.stdout(log).stderr(errors).spawn().expect("capstan starts");
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: both pointers are to live values of the right types; the child is ours
    // and nobody else waits for it.
    let waited = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    assert_eq!(waited, pid, "wait4");
    crash::check(began, ExitStatus::from_raw(status), "see its log");
    Ended { status: ExitStatus::from_raw(status), peak_mib: usage.ru_maxrss as u64 / 1024 }
}
