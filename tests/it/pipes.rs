//! Standard output to other programs: they get all of it, and may close it early.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::capstan::{answer, capstan, over};
use crate::captures::packets;
use crate::server::{PATIENCE, Server};
use crate::tools::have;
use crate::traffic::Noise;

const FILE: Noise = Noise { hours: 1, packets_an_hour: 5_000 };

fn prepared(scratch: &Path) -> std::path::PathBuf {
    let (store, file) = (scratch.join("store"), scratch.join("noise.pcap"));
    FILE.write(&file);
    answer(over(&store, "import").arg(&file));
    store
}

#[test]
fn tshark_reads_an_export_from_a_pipe() {
    if !have(&["tshark"]) {
        return;
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = prepared(scratch.path());
    let mut export = over(&store, "export")
        .args(["--port", "1007", "-o", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("capstan starts");
    let read = Command::new("tshark")
        .args(["-n", "-r", "-", "-T", "fields", "-e", "udp.srcport", "-e", "frame.len"])
        .stdin(export.stdout.take().expect("it is piped"))
        .output()
        .expect("tshark starts");
    let export = export.wait_with_output().expect("it is ours");
    assert_eq!(export.status.code(), Some(0));
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let text = String::from_utf8_lossy(&read.stdout);
    assert_eq!(text.lines().count(), 100);
    assert!(text.lines().all(|line| line == "1007\t1042"), "{text}");
}

#[test]
fn closed_output_pipe_is_no_failure() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = prepared(scratch.path());
    let server = Server::start(&store);
    let asked = format!("http://{}", server.flight);
    let rows = "select ordinal, header, payload from packets";
    let mut commands = Vec::new();
    for place in [["--store", store.to_str().expect("text")], ["--server", &asked]] {
        commands.push((capstan(), [&["export", "-o", "-"], &place[..]].concat()));
        for format in ["csv", "json", "arrow", "table"] {
            commands.push((capstan(), [&["sql", rows, "--format", format], &place[..]].concat()));
        }
    }
    for (mut command, arguments) in commands {
        let mut child = command
            .args(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("capstan starts");
        let mut first = [0; 100];
        let mut stdout = child.stdout.take().expect("it is piped");
        stdout.read_exact(&mut first).expect("it has more than this to say");
        drop(stdout);
        let left = Instant::now();
        while child.try_wait().expect("it is ours").is_none() {
            assert!(left.elapsed() < PATIENCE, "{arguments:?} does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().expect("it is ours");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{arguments:?}");
    }
    // The server is well, and has answers for others.
    let to = scratch.path().join("all.pcapng");
    answer(capstan().args(["export", "--server", &asked, "-o"]).arg(&to));
    assert_eq!(packets(&to).len() as u64, FILE.packets());
}

#[test]
fn work_goes_on_when_the_reader_of_its_report_has_gone() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    let files: Vec<_> = (100..103)
        .map(|packets_an_hour| {
            let file = scratch.path().join(format!("{packets_an_hour}.pcap"));
            Noise { hours: 1, packets_an_hour }.write(&file);
            file
        })
        .collect();
    assert_eq!(unread(over(&store, "import").args(&files)), Some(0));
    let count = "select count(*) from packets";
    let counted = answer(over(&store, "sql").args(["--format", "csv", count]));
    assert_eq!(counted, "count(*)\n303\n");

    let data = store.join("default/data");
    let lost = find(&data, "index").expect("a segment has an index");
    std::fs::remove_file(lost).expect("it is ours");
    assert_eq!(unread(&mut over(&store, "verify")), Some(6));
    assert_eq!(unread(over(&store, "repair").arg("--dry-run")), Some(6));
}

/// Runs a command whose standard output nobody reads; its exit code.
fn unread(command: &mut Command) -> Option<i32> {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("capstan starts");
    drop(child.stdout.take());
    child.wait().expect("it is ours").code()
}

/// A file of this name below a folder.
fn find(folder: &Path, name: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).expect("a folder").flatten().find_map(|entry| match entry.path() {
        path if path.is_dir() => find(&path, name),
        path => (path.file_name()? == name).then_some(path),
    })
}
