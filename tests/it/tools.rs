//! Other programs that the tests need.

use std::process::{Command, Stdio};

pub(crate) use capstan_tests::skipped;

/// A number that a variable may say, for runs that are longer than a test should be.
pub(crate) fn number_of(variable: &str) -> Option<u64> {
    let given = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(given.parse().unwrap_or_else(|_| panic!("{variable} is no number: {given}")))
}

/// Whether these programs are there; says which is not.
pub(crate) fn have(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        // tcpdump knows no --version on some systems; that it starts is what counts.
        let started = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if started.is_err() {
            skipped(&format!("no {program} on this machine"));
        }
        started.is_ok()
    })
}

/// Whether strace is there and may look at what a process does; says why not.
pub(crate) fn can_trace() -> bool {
    if !have(&["strace"]) {
        return false;
    }
    let allowed = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    let allowed = allowed.is_ok_and(|status| status.success());
    if !allowed {
        skipped("strace may trace nothing here");
    }
    allowed
}

/// Exit code by which a script of `tests/python` says that a module is missing.
const MISSING: i32 = 77;

/// A script of `tests/python` with the `python3` of the path.
pub(crate) fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/python/");
    command.arg(format!("{folder}{script}")).stdin(Stdio::null());
    command
}

/// Runs a script of `tests/python`, and fails with what it printed if it fails. Without Python or
/// a module of it there is nothing to look at.
pub(crate) fn run_python(command: &mut Command) {
    if !have(&["python3"]) {
        return;
    }
    let output = command.output().expect("python3 starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(MISSING) => skipped(printed.trim().trim_start_matches("skipped: ")),
        Some(0) => {}
        _ => panic!("{printed}\n{}", String::from_utf8_lossy(&output.stderr)),
    }
}
