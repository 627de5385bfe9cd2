//! The programs that Capstan is measured against: whether they are installed, and their versions.

use std::process::{Command, Stdio};

use crate::sys;

/// Says how to get a program that is not there.
pub(crate) fn require(program: &str, package: &str) -> Result<(), String> {
    // Not all of them tell a version.
    match said(program, &["--version"]).or_else(|| said(program, &["--help"])) {
        Some(_) => Ok(()),
        None => Err(format!("{program} is not installed (apt-get install {package})")),
    }
}

/// The Python behind a name, past what chooses one, and the version of its duckdb module.
pub(crate) fn duckdb(python: &str) -> Result<(String, String), String> {
    let script = "import sys, duckdb; print(sys.executable); print(duckdb.__version__)";
    let output = said(python, &["-c", script]);
    output
        .as_deref()
        .and_then(|output| output.trim().split_once('\n'))
        .map(|(python, version)| (python.to_owned(), version.to_owned()))
        .ok_or_else(|| format!("{python} has no module duckdb (pip install duckdb, or --python)"))
}

/// A reader or writer of packets that is told to stay root where it would step down and could
/// then not write to our folder.
pub(crate) fn tcpdump() -> Command {
    let mut command = Command::new("tcpdump");
    if sys::is_root() {
        command.args(["-Z", "root"]);
    }
    command
}

/// The peers that are there, as they name themselves.
pub(crate) fn versions(python: &str) -> Vec<String> {
    let programs = ["lz4", "tcpdump", "dumpcap"];
    let mut versions: Vec<String> = programs
        .iter()
        .filter_map(|program| said(program, &["--version"]))
        .filter_map(|output| output.lines().next().map(tidy))
        .collect();
    versions.extend(duckdb(python).ok().map(|(_, version)| format!("DuckDB {version}")));
    versions
}

/// A line without the stars and commas that some programs put around their name.
fn tidy(line: &str) -> String {
    line.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != ')').to_owned()
}

/// What a program prints, if it is there.
pub(crate) fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    // Some print their version to standard error.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    output.status.success().then(|| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_tidied() {
        assert_eq!(tidy("*** lz4 v1.10.0 64-bit, by Yann ***"), "lz4 v1.10.0 64-bit, by Yann");
        assert_eq!(tidy("tcpdump version 4.99.5"), "tcpdump version 4.99.5");
        assert_eq!(
            tidy("Dumpcap (Wireshark) 4.4.7 (Git v4.4.7)."),
            "Dumpcap (Wireshark) 4.4.7 (Git v4.4.7)"
        );
    }

    #[test]
    fn missing_programs_are_reported() {
        let missing = require("no-such-program", "some-package").unwrap_err();
        assert!(missing.contains("apt-get install some-package"));
        assert!(duckdb("no-such-python").is_err());
    }
}
