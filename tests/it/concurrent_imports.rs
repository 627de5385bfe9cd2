//! Several imports of one file at the same time: exactly one stores it, and the others say so.

use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use capstan_tests::proxy::{Mishap, Request};

use crate::bucket::{Bucket, behind, is_second_commit};
use crate::capstan::{answer, fails, numeric, over, said, signal};
use crate::captures::read;
use crate::interrupted::{ended, halfway};
use crate::server::PATIENCE;
use crate::traffic::{Noise, readable};

/// Enough that imports which are started one after the other meet.
const FILE: Noise = Noise { hours: 12, packets_an_hour: 2_000 };

/// Starts an import.
fn started(store: &Path, file: &Path, options: &[&str]) -> Child {
    let mut command = over(store, "import");
    let command = command.args(options).arg(file).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("capstan starts")
}

/// The outputs of those that imported the file; the others must say why they did not.
fn winners(outputs: Vec<Output>) -> Vec<Output> {
    let (won, lost): (Vec<_>, Vec<_>) =
        outputs.into_iter().partition(|output| output.status.success());
    for output in lost {
        match output.status.code() {
            Some(9) => said("import", &output, 9, &["already"]),
            _ => said("import", &output, 10, &["another process", "This process imported nothing"]),
        };
    }
    won
}

/// Checks that the store has exactly the packets of the file.
fn has_it_once(store: &Path, file: &Path, scratch: &Path) {
    assert_eq!(readable(store), FILE.packets());
    answer(over(store, "verify").arg("--deep"));
    let back = scratch.join("back.pcapng");
    answer(over(store, "export").args(["--order", "recorded", "-o"]).arg(&back));
    assert!(read(&back).eq(read(file)), "the packets differ");
    fails(over(store, "import").arg(file), 9, &["already", "--again"]);
}

/// Imports one file several times at once.
fn at_once(store: &Path) {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("noise.pcap");
    FILE.write(&file);
    let imports: Vec<Child> = (0..4).map(|_| started(store, &file, &[])).collect();
    assert_eq!(winners(imports.into_iter().map(ended).collect()).len(), 1);
    has_it_once(store, &file, scratch.path());
    // Who lost has left nothing behind.
    let sql = "select count(*), count(*) filter (where complete) from writers";
    assert_eq!(numeric(store, sql), [1, 1]);
    // Once more, if that is wanted, and by one of them again. One that begins when another has ended does it as well.
    let again: Vec<Child> = (0..3).map(|_| started(store, &file, &["--again"])).collect();
    let won = winners(again.into_iter().map(ended).collect()).len() as u64;
    assert!((1..=3).contains(&won), "{won}");
    let sql = "select count(*), count(distinct time) from packets";
    assert_eq!(numeric(store, sql), [(1 + won) * FILE.packets(), FILE.packets()]);
    answer(&mut over(store, "verify"));
}

#[test]
fn in_a_folder() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    at_once(&scratch.path().join("store"));
}

#[test]
fn in_a_bucket() {
    if let Some(bucket) = Bucket::new() {
        at_once(bucket.store());
    }
}

#[test]
fn live_import_is_not_resumed_by_another() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, store) = (scratch.path().join("noise.pcap"), scratch.path().join("store"));
    FILE.write(&file);
    let first = halfway(&store, &file, 1);
    let mut second = started(&store, &file, &[]);
    // It is not told from a dead one at once, and not taken for one either.
    std::thread::sleep(Duration::from_secs(2));
    assert!(second.try_wait().expect("it is ours").is_none(), "it does not wait");
    signal(&first, libc::SIGCONT);
    let (first, second) = (ended(first), ended(second));
    let words =
        said("import", &second, second.status.code().unwrap_or(-1), &["for its next commit"]);
    assert!(words.contains("waiting up to"), "{words}");
    assert_eq!(winners(vec![first, second]).len(), 1);
    has_it_once(&store, &file, scratch.path());
}

/// An import is paused, another process goes on with it, and the first wakes up again.
fn is_paused(store: &Path, file: &Path, paused: Child, scratch: &Path) {
    let words = answer(over(store, "import").args(["--dead-after", "1"]).arg(file));
    assert!(words.contains("committed by an earlier run"), "{words}");
    assert_eq!(readable(store), FILE.packets());
    signal(&paused, libc::SIGCONT);
    said("import", &ended(paused), 10, &["ended by another process", "paused or cut off"]);
    has_it_once(store, file, scratch);
}

#[test]
fn paused_import_stores_nothing_after_another_has_resumed_it() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, store) = (scratch.path().join("noise.pcap"), scratch.path().join("store"));
    FILE.write(&file);
    let paused = halfway(&store, &file, 1);
    is_paused(&store, &file, paused, scratch.path());
}

#[test]
fn paused_import_stores_nothing_after_another_has_resumed_it_in_a_bucket() {
    let Some(bucket) = Bucket::new() else { return };
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("noise.pcap");
    FILE.write(&file);
    let (seen, commits) = std::sync::mpsc::channel();
    let proxy = bucket.proxy(move |request: &Request| {
        if is_second_commit(request) {
            let _ = seen.send(());
        }
        Mishap::None
    });
    let mut command = over(bucket.store(), "import");
    let command = command.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let paused = behind(&proxy, command).spawn().expect("capstan starts");
    commits.recv_timeout(PATIENCE).expect("it commits");
    signal(&paused, libc::SIGSTOP);
    is_paused(bucket.store(), &file, paused, scratch.path());
}

#[test]
fn killed_import_is_resumed_within_seconds() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, store) = (scratch.path().join("noise.pcap"), scratch.path().join("store"));
    FILE.write(&file);
    let mut killed = halfway(&store, &file, 1);
    killed.kill().expect("it is ours");
    ended(killed);
    let began = Instant::now();
    // Two that go on at the same time: one does.
    let imports: Vec<Child> = (0..2).map(|_| started(&store, &file, &[])).collect();
    let outputs: Vec<Output> = imports.into_iter().map(ended).collect();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let words = String::from_utf8_lossy(&outputs[0].stderr).into_owned();
    assert!(words.contains("waiting up to") && words.contains("for its next commit"), "{words}");
    assert_eq!(winners(outputs).len(), 1);
    has_it_once(&store, &file, scratch.path());
}
