//! What all benchmarks share: the binary under test, the capture, the store made from it, and a folder for temporary
//! files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use capstan_model::{Failure, FailureKind};
use serde_json::Value;
use tempfile::TempDir;

use crate::choose::Size;
use crate::measure::{self, Ended, Usage};
use crate::pcap::{self, cannot_read};
use crate::peers;
use crate::report::Row;

/// The cluster that a store has if none is named.
const CLUSTER: &str = "default";

/// What a benchmark came to.
pub(crate) enum Outcome {
    Measured(Measured),
    /// It cannot be done here, and why.
    Skipped(String),
}

/// Rows, and what must be known to read them.
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    pub(crate) notes: Vec<String>,
}

/// What is to be measured, and where.
pub(crate) struct Bench {
    /// The binary under test.
    pub(crate) capstan: PathBuf,
    /// How often each program runs.
    pub(crate) rounds: usize,
    /// A Python that may have the duckdb module.
    pub(crate) python: String,
    /// Which host and port to export: with about so much; with the most if none is given.
    pub(crate) pair: Option<Size>,
    given: Option<PathBuf>,
    capture: Option<Capture>,
    store: Option<PathBuf>,
    work: TempDir,
}

/// The capture that is worked on: a pcap file, read once and so in the page cache.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    pub(crate) path: PathBuf,
    /// Its length, bytes.
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

/// The `capstan` beside this program.
pub(crate) fn beside() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::io("cannot tell where this program lies", error))?;
    Ok(program.with_file_name("capstan"))
}

/// Capstan with none of the caller's or the machine's own settings.
pub(crate) fn without_settings(capstan: &Path) -> Command {
    let mut command = Command::new(capstan);
    for variable in ["CLUSTER", "SERVER", "LOG", "STORE"] {
        command.env_remove(format!("CAPSTAN_{variable}"));
    }
    // Else a capstan.toml here or in /etc would be read.
    command.env("CAPSTAN_CONFIG", "/dev/null");
    command
}

impl Bench {
    /// Makes a folder for what is made on the way, below `place`; it is removed in the end.
    pub(crate) fn new(
        capstan: PathBuf,
        capture: Option<PathBuf>,
        rounds: usize,
        place: &Path,
    ) -> Result<Bench, Failure> {
        let capstan = capstan.canonicalize().map_err(|error| {
            Failure::io(
                format!(
                    "cannot use {}: build it (`make release`), or name another with --capstan",
                    capstan.display()
                ),
                error,
            )
        })?;
        let cannot = |error| {
            Failure::io(format!("cannot make a folder in {} (--dir)", place.display()), error)
        };
        fs::create_dir_all(place).map_err(cannot)?;
        // Children run elsewhere: the name must hold there, too.
        let place = place.canonicalize().map_err(cannot)?;
        let work = tempfile::Builder::new().prefix("capstan-bench-").tempdir_in(&place);
        Ok(Bench {
            capstan,
            rounds,
            python: "python3".to_owned(),
            pair: None,
            given: capture,
            capture: None,
            store: None,
            work: work.map_err(cannot)?,
        })
    }

    /// Says what is being done.
    pub(crate) fn say(&self, text: &str) {
        eprintln!("  {text}");
    }

    /// A place for a file or folder of this name.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, command: Command) -> Result<Ended, Failure> {
        measure::run(command, self.work.path())
    }

    /// Where what programs print is kept.
    pub(crate) fn logs(&self) -> &Path {
        self.work.path()
    }

    /// Capstan with none of the caller's or the machine's own settings, and this store.
    pub(crate) fn capstan(&self, subcommand: &str, store: &Path) -> Command {
        let mut command = without_settings(&self.capstan);
        command.arg(subcommand).arg("--store").arg(store);
        command
    }

    /// The capture. The first call reads it.
    pub(crate) fn capture(&mut self) -> Result<Capture, Failure> {
        if let Some(capture) = &self.capture {
            return Ok(capture.clone());
        }
        let Some(given) = &self.given else {
            return Err(Failure::new(
                FailureKind::Usage,
                "this works on a capture: give one with --capture FILE",
            ));
        };
        let path = given.canonicalize().map_err(|error| cannot_read(given, error))?;
        let mut first = [0; 4];
        File::open(&path)
            .and_then(|mut file| file.read_exact(&mut first))
            .map_err(|error| cannot_read(&path, error))?;
        let path = if pcap::is_pcap(first) { path } else { self.convert(&path)? };
        self.say(&format!("reading {} once", path.display()));
        let packets = pcap::count_packets(&path)?;
        let bytes = file_length(&path)?;
        self.say(&format!("{packets} packets, {} MiB", bytes >> 20));
        if packets == 0 {
            let what = format!("{} has no packets", path.display());
            return Err(Failure::new(FailureKind::Usage, what));
        }
        Ok(self.capture.insert(Capture { path, bytes, packets }).clone())
    }

    /// The capture, if any benchmark needed it.
    pub(crate) fn known_capture(&self) -> Option<&Capture> {
        self.capture.as_ref()
    }

    /// The capture as a plain pcap file, which all peers can read.
    fn convert(&self, path: &Path) -> Result<PathBuf, Failure> {
        peers::require("editcap", "wireshark-common").map_err(|missing| {
            let what = format!("{} is no plain pcap file, and {missing}", path.display());
            Failure::new(FailureKind::NotFound, what)
        })?;
        self.say(&format!("making a plain pcap file of {}", path.display()));
        let plain = self.place("capture.pcap");
        let mut editcap = Command::new("editcap");
        editcap.args(["-F", "pcap"]).arg(path).arg(&plain);
        self.run(editcap)?;
        Ok(plain)
    }

    /// The store that holds the capture. The first call imports it, unless the benchmark of
    /// importing has.
    pub(crate) fn store(&mut self) -> Result<PathBuf, Failure> {
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        self.import()?;
        self.store.clone().ok_or_else(|| Failure::new(FailureKind::Other, "import made no store"))
    }

    /// Imports the capture into a fresh store, which is the store from then on.
    pub(crate) fn import(&mut self) -> Result<Usage, Failure> {
        let capture = self.capture()?;
        self.store = None;
        let store = self.place("store");
        remove(&store)?;
        self.say("importing");
        let mut import = self.capstan("import", &store);
        import.arg(&capture.path);
        let usage = self.run(import)?.usage;
        let stored = self.status(&store)?["packets"].as_u64();
        if stored != Some(capture.packets) {
            return Err(Failure::new(
                FailureKind::Damaged,
                format!("of {} packets the store has {stored:?}", capture.packets),
            ));
        }
        self.store = Some(store);
        Ok(usage)
    }

    /// What `capstan status` says of a store.
    pub(crate) fn status(&self, store: &Path) -> Result<Value, Failure> {
        self.status_by(store, |status| status)
    }

    /// As [`Bench::status`], the command changed to reach the store.
    pub(crate) fn status_by(
        &self,
        store: &Path,
        reached: impl FnOnce(Command) -> Command,
    ) -> Result<Value, Failure> {
        let mut status = self.capstan("status", store);
        status.args(["--format", "json"]);
        parse(&self.run(reached(status))?.output)
    }

    /// The paths of a layer's files.
    pub(crate) fn files(&self, store: &Path, layer: &str) -> Result<Vec<PathBuf>, Failure> {
        let mut files = self.capstan("files", store);
        files.args(["--layer", layer]);
        let output = self.run(files)?.output;
        Ok(output.lines().map(|line| store.join(line)).collect())
    }

    /// The rows of an answer in SQL.
    pub(crate) fn sql(&self, store: &Path, query: &str) -> Result<Vec<Value>, Failure> {
        let mut sql = self.capstan("sql", store);
        sql.args(["--format", "json", query]);
        rows(&self.run(sql)?.output)
    }

    /// Bytes of all objects in a store, its catalog included.
    pub(crate) fn stored_bytes(&self, store: &Path) -> Result<u64, Failure> {
        let root = store.join(CLUSTER);
        folder_bytes(&root)
            .map_err(|error| Failure::io(format!("reading {}", root.display()), error))
    }
}

/// The rows of an answer: an object a line.
pub(crate) fn rows(output: &str) -> Result<Vec<Value>, Failure> {
    output.lines().map(parse).collect()
}

/// A column of text and one of whole numbers as a map.
pub(crate) fn totals(rows: &[Value], key: &str, value: &str) -> BTreeMap<String, u64> {
    rows.iter()
        .filter_map(|row| Some((row[key].as_str()?.to_owned(), row[value].as_u64()?)))
        .collect()
}

fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::caused_by(FailureKind::Other, "capstan printed what is no JSON", error)
    })
}

/// The length of a file, bytes.
pub(crate) fn file_length(path: &Path) -> Result<u64, Failure> {
    fs::metadata(path).map(|known| known.len()).map_err(|error| cannot_read(path, error))
}

fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let known = entry.metadata()?;
        sum += if known.is_dir() { folder_bytes(&entry.path())? } else { known.len() };
    }
    Ok(sum)
}

/// Removes a file or folder that may be there.
pub(crate) fn remove(path: &Path) -> Result<(), Failure> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io(format!("cannot remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Runs both in turn, ours first, so that what else the machine does meets both alike.
pub(crate) fn alternate(
    rounds: usize,
    bench: &mut Bench,
    mut ours: impl FnMut(&mut Bench) -> Result<Usage, Failure>,
    (peer, mut theirs): (&str, impl FnMut(&mut Bench) -> Result<Usage, Failure>),
) -> Result<(Vec<Usage>, Vec<Usage>), Failure> {
    let mut all = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let our = ours(bench)?;
        let their = theirs(bench)?;
        bench.say(&format!(
            "round {round} of {rounds}: CPU {:.3} s, {peer} {:.3} s; wall {:.3} s, {peer} {:.3} s",
            our.cpu.as_secs_f64(),
            their.cpu.as_secs_f64(),
            our.wall.as_secs_f64(),
            their.wall.as_secs_f64()
        ));
        all.0.push(our);
        all.1.push(their);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_by_name() {
        let rows = rows("{\"p\":\"dns\",\"n\":3}\n{\"p\":\"tls\",\"n\":4}\n").unwrap();
        let expected = BTreeMap::from([("dns".to_owned(), 3), ("tls".to_owned(), 4)]);
        assert_eq!(totals(&rows, "p", "n"), expected);
        assert!(super::rows("no json").is_err());
    }

    #[test]
    fn folders_are_summed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("b"), [0; 10]).unwrap();
        fs::write(folder.path().join("c"), [0; 5]).unwrap();
        assert_eq!(folder_bytes(folder.path()).unwrap(), 15);
        remove(&inner).unwrap();
        remove(&inner).unwrap();
        assert_eq!(folder_bytes(folder.path()).unwrap(), 5);
    }
}
