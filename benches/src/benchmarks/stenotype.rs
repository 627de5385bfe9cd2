//! Stenographer's recorder, which writes packets and an index of them.

use std::path::Path;
use std::process::Command;

use capstan_model::{Failure, FailureKind};

/// What it says once it hears everything.
pub(super) const SAYS: &str = "starting to process packets";

/// What it says of each index that it has written, before how many packets are in it. It goes on
/// waiting for reads and writes that there are none of then, so somebody else has to end it.
pub(super) const STORED: &str = "Stored ";

/// The command that records an interface into a folder, with a ring of so many MiB.
///
/// # Errors
/// The folder cannot be made.
pub(super) fn command(interface: &str, ring_mib: usize, into: &Path) -> Result<Command, Failure> {
    // Of its one thread, packets and index.
    for folder in ["PKT0", "IDX0"] {
        std::fs::create_dir_all(into.join(folder))
            .map_err(|error| Failure::io("cannot make a folder", error))?;
    }
    let mut command = Command::new("stenotype");
    // It steps down from root unless told not to, and could then not write to our folder. There
    // must be as many blocks, of a MiB each, as reads and writes at a time. A block that is not full
    // is written after a second, so that the last packets are there when it is asked to end.
    command.args(["-v", "-v", "--uid=root", "--gid=root", "--seccomp=none", "--no_watchdogs"]);
    command.args(["--threads=1", "--blockage_sec=1", &format!("--iface={interface}")]);
    command.args([format!("--blocks={ring_mib}"), format!("--aiops={ring_mib}")]);
    command.arg(format!("--dir={}", into.display()));
    Ok(command)
}

/// How many packets it has stored, by what it said.
///
/// # Errors
/// It did not say.
pub(super) fn stored(said: &str) -> Result<u64, Failure> {
    let lines = said.lines().filter_map(|line| line.split_once(STORED));
    let counts = lines.map(|(_, count)| count.split(' ').next()?.parse::<u64>().ok());
    let sum = counts.sum::<Option<u64>>().filter(|_| said.contains(STORED));
    sum.ok_or_else(|| Failure::new(FailureKind::Other, "stenotype does not tell the packets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_summed_over_its_indexes() {
        let said = "T:1 [index.cc:272] Stored 299356 with 14 IP4 6 IP6\nother\n\
                    T:1 [index.cc:272] Stored 44 with 1 IP4\n";
        assert_eq!(stored(said).unwrap(), 299_400);
        assert!(stored("T:1 Starting\n").is_err());
        assert!(stored("T:1 Stored some with\n").is_err());
    }

    #[test]
    fn output_folders_are_created_first() {
        let folder = tempfile::tempdir().unwrap();
        let command = command("far", 64, folder.path()).unwrap();
        assert!(folder.path().join("PKT0").is_dir() && folder.path().join("IDX0").is_dir());
        assert!(command.get_args().any(|argument| argument == "--blocks=64"));
    }
}
