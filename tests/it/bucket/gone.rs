//! A server that is unavailable for a while, or forbids everything: an import waits, and a recording loses nothing.

use std::time::{Duration, Instant};

use capstan_tests::proxy::{Absence, Mishap, Request, once};

use super::{Bucket, behind, fair, is_second_commit};
use crate::cable::{Cable, listening, lost, numbers, record};
use crate::capstan::{answer, over, run, said};
use crate::sandbox::{self, Own};
use crate::traffic::Noise;

/// Longer than it takes until a single write is given up by the store, and a recorder or import
/// has to try it again.
const AWAY: Duration = Duration::from_secs(20);

/// Three segments and commits, each with an hour of its own.
const FILE: Noise = Noise { hours: 3, packets_an_hour: 1_100 };

/// Imports a file while the server goes away before it has this object; what was said.
fn imported(absence: Absence, before: fn(&Request) -> bool) -> Option<String> {
    let bucket = Bucket::new()?;
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("noise.pcap");
    FILE.write(&file);
    let proxy = bucket.proxy(once(Mishap::Gone(absence, AWAY), before));
    let output = run(behind(&proxy, over(bucket.store(), "import").arg(&file)));
    let words = said("import", &output, 0, &[]);
    bucket.holds(FILE.packets());
    Some(words)
}

#[test]
fn import_waits_for_a_temporarily_unavailable_store() {
    let is_layer = |request: &Request| request.path.ends_with("-00000001/index");
    let [refused, _] = at_once([&|| imported(Absence::Refuses, is_layer), &|| {
        imported(Absence::Silent, is_second_commit)
    }]);
    let Some(words) = refused else { return };
    for part in [
        "connection refused: is the S3 server running",
        "waiting for the store",
        "the store is available again after",
    ] {
        assert!(words.contains(part), "'{part}' is not in: {words}");
    }
    assert!(!words.contains("kernel"), "a file is not in the kernel's ring: {words}");
}

/// Records while the server goes away, which is told in these words.
fn recorded(absence: Absence, words: &[&str]) {
    let Some(bucket) = Bucket::new() else { return };
    let mut sent = 0;
    let is_recorded = sandbox::with(Own::Network, || {
        let mut cable = Cable::new();
        let proxy = bucket.proxy(fair);
        let mut command = record(bucket.store(), &["--commit-seconds", "1"]);
        let recorder = listening(behind(&proxy, &mut command));
        cable.send(500);
        std::thread::sleep(Duration::from_millis(1_500));
        proxy.go_away(absence, AWAY);
        let began = Instant::now();
        while began.elapsed() < AWAY + Duration::from_secs(2) {
            cable.send(20);
            std::thread::sleep(Duration::from_millis(100));
        }
        // What waits for the store is committed before it ends.
        said("record", &recorder.stop(), 0, words);
        sent = cable.sent;
        assert_eq!(cable.arrived(), u64::from(sent));
    });
    if !is_recorded {
        return;
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let stored = numbers(bucket.store(), scratch.path());
    assert!(stored.is_sorted_by(|a, b| a < b), "in order and once");
    let lost = lost(bucket.store());
    assert_eq!(stored.len() as u64 + lost, u64::from(sent), "{lost} are said to be lost");
    // It was listening all the time.
    let status = answer(over(bucket.store(), "status").args(["--format", "json"]));
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["listened"].as_array().map(Vec::len), Some(1), "{status}");
    answer(over(bucket.store(), "verify").arg("--deep"));
}

#[test]
fn recording_continues_while_its_store_is_unavailable() {
    at_once([
        &|| {
            recorded(
                Absence::Refuses,
                &["connection refused: is the S3 server running", "nothing is lost yet"],
            )
        },
        // It is back before the first try is given up.
        &|| recorded(Absence::Silent, &[]),
        &|| recorded(Absence::Forbids("ExpiredToken"), &["run out", "nothing is lost yet"]),
    ]);
}

/// All at the same time: most of it is waiting.
fn at_once<T: Send, const N: usize>(tests: [&(dyn Fn() -> T + Sync); N]) -> [T; N] {
    std::thread::scope(|scope| {
        tests
            .map(|test| scope.spawn(test))
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
