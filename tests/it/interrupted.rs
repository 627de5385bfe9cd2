//! Imports that are stopped or killed: committed packets are readable, nothing else is visible, and the same command
//! continues to exactly the packets of the file.

use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use crate::capstan::{answer, fails, over, row, said, signal};
use crate::captures::read;
use crate::server::PATIENCE;
use crate::traffic::{Noise, readable};

/// Enough that an import commits many times before its end: an import has eight hours open.
const FILE: Noise = Noise { hours: 24, packets_an_hour: 3_000 };

/// A capture file and a store that is not there yet.
fn prepared(scratch: &Path) -> (PathBuf, PathBuf) {
    let file = scratch.join("noise.pcap");
    FILE.write(&file);
    (file, scratch.join("store"))
}

/// Starts an import, and stops it in its tracks once this many commits in all have segments.
pub(crate) fn halfway(store: &Path, file: &Path, commits: usize) -> Child {
    let mut command = over(store, "import");
    let mut child = command
        // Who was killed before is known to be dead.
        .args(["--dead-after", "0"])
        .arg(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("capstan starts");
    let started = Instant::now();
    while committed(store) < commits {
        let ended = child.try_wait().expect("it is ours");
        assert!(ended.is_none(), "it ended with {} commits", committed(store));
        assert!(started.elapsed() < PATIENCE, "no commits");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(&child, libc::SIGSTOP);
    child
}

/// Commits that have segments: of the files `log/<recorder>/<generation>/<number>`.
fn committed(store: &Path) -> usize {
    let mut folders = vec![store.join("default/log")];
    for _ in 0..2 {
        folders = folders.iter().flat_map(|folder| entries(folder)).collect();
    }
    let commits = folders.iter().flat_map(|folder| entries(folder));
    let has_segments = |commit: &PathBuf| {
        std::fs::read_to_string(commit).is_ok_and(|text| text.contains("\"segments\":[{"))
    };
    commits.filter(has_segments).count()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

pub(crate) fn ended(child: Child) -> Output {
    child.wait_with_output().expect("it is ours")
}

/// Runs the import to its end, and checks that the store has exactly what the file has.
fn resumed(store: &Path, file: &Path, scratch: &Path) {
    let said = answer(over(store, "import").args(["--dead-after", "0"]).arg(file));
    assert!(said.contains("committed by an earlier run"), "{said}");
    assert_eq!(readable(store), FILE.packets());
    // Flows went on, rather than being begun again.
    let sql = "select count(*), sum(packets), bool_and(opened) from flows";
    assert_eq!(row(store, sql), ["50", &FILE.packets().to_string(), "true"]);
    let back = scratch.join("back.pcapng");
    answer(over(store, "export").args(["--order", "recorded", "-o"]).arg(&back));
    assert!(read(&back).eq(read(file)), "the packets differ");
    fails(over(store, "import").arg(file), 9, &["already", "--again"]);
}

#[test]
fn ctrl_c_commits_read_packets_and_the_same_command_resumes() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, store) = prepared(scratch.path());
    let child = halfway(&store, &file, 1);
    signal(&child, libc::SIGINT);
    signal(&child, libc::SIGCONT);
    let output = ended(child);
    let words = said(
        "import",
        &output,
        130,
        &["stopped", "committed", "run the same command again to resume"],
    );
    let packets = readable(&store);
    assert!(0 < packets && packets < FILE.packets(), "{packets}");
    assert!(words.contains(&format!("stopped: {packets} packets of")), "{packets}: {words}");
    resumed(&store, &file, scratch.path());
}

#[test]
fn import_of_a_silent_stream_can_be_stopped() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, store) = (scratch.path().join("noise.pcap"), scratch.path().join("store"));
    Noise { hours: 1, packets_an_hour: 10 }.write(&file);
    // Whole packets, and then the beginning of one.
    let bytes = std::fs::read(&file).expect("the capture");
    for (sent, packets) in [(0, None), (bytes.len(), Some("10")), (bytes.len() - 1, Some("9"))] {
        let _ = std::fs::remove_dir_all(&store);
        let mut child = over(&store, "import")
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("capstan starts");
        let mut pipe = child.stdin.take().expect("it is piped");
        std::io::Write::write_all(&mut pipe, &bytes[..sent]).expect("it reads");
        std::thread::sleep(Duration::from_millis(500));
        signal(&child, libc::SIGINT);
        let output = ended(child);
        drop(pipe);
        let Some(packets) = packets else {
            said("import -", &output, 130, &["stopped before anything was imported"]);
            continue;
        };
        let words = format!("stopped: {packets} packets of standard input are committed");
        said("import -", &output, 130, &[&words]);
        assert_eq!(row(&store, "select count(*) from packets"), [packets]);
    }
}

#[test]
fn second_ctrl_c_ends_at_once_without_damage() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, store) = prepared(scratch.path());
    let child = halfway(&store, &file, 1);
    signal(&child, libc::SIGINT);
    signal(&child, libc::SIGCONT);
    // Eight open hours wait to be sealed now, which takes longer than this.
    std::thread::sleep(Duration::from_millis(30));
    signal(&child, libc::SIGINT);
    assert_eq!(ended(child).status.code(), Some(130));
    assert!(readable(&store) < FILE.packets());
    resumed(&store, &file, scratch.path());
}

#[test]
fn import_killed_repeatedly_stores_the_same_packets() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, store) = prepared(scratch.path());
    for commits in [1, 3, 6] {
        let mut child = halfway(&store, &file, commits);
        child.kill().expect("it is ours");
        assert_eq!(ended(child).status.code(), None, "it was killed");
        let packets = readable(&store);
        assert!(0 < packets && packets < FILE.packets(), "{packets}");
    }
    resumed(&store, &file, scratch.path());
}
