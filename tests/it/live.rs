//! Records a network that only the test sees: every packet that was sent is stored, or counted as lost.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cable::{Cable, listening, numbers, record};
use crate::capstan::{answer, capstan, fails, numeric, over, said};
use crate::captures::packets;
use crate::sandbox::{self, Own, tool};
use crate::server::{PATIENCE, Server};

#[test]
fn sent_packets_are_stored_and_covered() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    sandbox::with(Own::Network, || {
        let mut cable = Cable::new();
        let recorder = listening(&mut record(&store, &["--commit-seconds", "1"]));
        cable.send(2_000);
        std::thread::sleep(Duration::from_millis(1_500));
        cable.send(3_000);
        // The last ones are in the ring, not committed: a stop takes them along.
        let output = recorder.stop();
        said("record", &output, 0, &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("recorded 5000 packets"), "{text}");
        assert_eq!(cable.arrived(), 5_000);
        assert_eq!(numbers(&store, scratch.path()), Vec::from_iter(0..5_000));
        // Who stops rolls up what it wrote: no log is open any more.
        let open = store.join("default/open");
        assert_eq!(std::fs::read_dir(&open).expect("it was there").count(), 0);
        assert!(store.join("default/catalog/lives").is_dir());
        answer(over(&store, "verify").arg("--deep"));

        let lost = "select count(*) from coverage where kind = 'lost'";
        assert_eq!(numeric(&store, lost), [0]);
        // Listened from before the first to after the last, without a gap.
        let outside = "select count(*) from packets p where not exists (select 1 from coverage c \
                       where c.kind = 'listened' and c.start_time <= p.time and p.time < c.end_time)";
        assert_eq!(numeric(&store, outside), [0]);
        let status = answer(over(&store, "status").args(["--format", "json"]));
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status["listened"].as_array().map(Vec::len), Some(1), "{status}");
        for nothing in ["unknown", "losses"] {
            assert_eq!(status[nothing], serde_json::json!([]), "{status}");
        }

        // A second generation goes on beside the first.
        let recorder = listening(&mut record(&store, &[]));
        cable.send(10);
        said("record", &recorder.stop(), 0, &[]);
        let generations = "select count(*), count(distinct recorder), max(generation) from packets";
        assert_eq!(numeric(&store, generations), [5_010, 1, 2]);
    });
}

#[test]
fn packets_dropped_by_a_full_ring_are_recorded_as_loss() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    sandbox::with(Own::Network, || {
        let mut cable = Cable::new();
        let recorder =
            listening(&mut record(&store, &["--commit-seconds", "1", "--ring-mib", "1"]));
        cable.send(100);
        std::thread::sleep(Duration::from_millis(1_500));
        // Nobody takes anything out of the ring, which has room for about a thousand.
        recorder.signal(libc::SIGSTOP);
        cable.send(20_000);
        recorder.signal(libc::SIGCONT);
        std::thread::sleep(Duration::from_millis(500));
        cable.send(100);
        let output = recorder.stop();
        said("record", &output, 0, &["dropped", "--ring-mib"]);
        assert_eq!(cable.arrived(), 20_200);

        let stored = numbers(&store, scratch.path());
        assert!(stored.is_sorted_by(|a, b| a < b), "in order and once");
        assert_eq!(stored[..100], Vec::from_iter(0..100), "nothing is lost before");
        assert_eq!(stored[stored.len() - 100..], Vec::from_iter(20_100..20_200), "or after");
        let losses = "select count(*), sum(packets), count(case when cause = 'kernel-drop' then 1 end) \
                      from coverage where kind = 'lost'";
        let [rows, lost, dropped] = numeric(&store, losses)[..] else { panic!("three") };
        assert_eq!(stored.len() as u64 + lost, 20_200);
        assert!(lost > 15_000 && rows == dropped, "{lost}");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(words.contains(&format!("dropped {lost} packets")), "{words}");
        // It happened within what the loss says.
        let within = "select count(*) from coverage l where l.kind = 'lost' and \
                      (select max(time) from packets where ordinal < 100) < l.end_time and \
                      (select min(time) from packets where ordinal >= \
                       (select count(*) - 100 from packets)) > l.start_time";
        assert_eq!(numeric(&store, within), [rows]);
        assert!(answer(&mut over(&store, "status")).contains("lost"), "status");
    });
}

/// The folder of a recorder's only log, once it has a commit.
fn log(store: &Path) -> PathBuf {
    let began = Instant::now();
    let only = |folder: &Path| std::fs::read_dir(folder).ok()?.next()?.ok().map(|of| of.path());
    loop {
        let log = only(&store.join("default/log")).and_then(|of| only(&of));
        if let Some(log) = log.filter(|log| only(log).is_some()) {
            return log;
        }
        assert!(began.elapsed() < PATIENCE, "no commits");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn failed_commit_is_reported_with_its_cause() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    sandbox::with(Own::Network, || {
        let _cable = Cable::new();
        let recorder = listening(&mut record(&store, &["--commit-seconds", "1"]));
        let log = log(&store);
        for number in 0..20 {
            // What is there stays what it is.
            let commit = log.join(format!("{number:020}"));
            let _ = std::fs::File::create_new(commit).and_then(|mut of| of.write_all(b"theirs"));
        }
        said("record", &recorder.wait(), 10, &["another process writes the log", "generation"]);
    });
}

#[test]
fn recording_with_a_removed_interface_is_not_complete() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    sandbox::with(Own::Network, || {
        let mut cable = Cable::new();
        let recorder = listening(&mut record(&store, &["--commit-seconds", "1"]));
        cable.send(100);
        std::thread::sleep(Duration::from_millis(1_500));
        tool("ip link del b0");
        said("record", &recorder.wait(), 3, &["the interface was removed"]);
        assert_eq!(numbers(&store, scratch.path()), Vec::from_iter(0..100));
        let sql = "select count(*) filter (where finished), count(*) filter (where complete) from writers";
        assert_eq!(numeric(&store, sql), [1, 0]);
    });
}

#[test]
fn up_records_and_serves() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    sandbox::with(Own::Network, || {
        let mut cable = Cable::new();
        let mut command = over(&store, "up");
        let mut server = Server::launch(command.args(["-i", "b0", "--commit-seconds", "1"]));
        let url = format!("http://{}", server.flight);
        let count = || {
            let sql = ["sql", "--format", "csv", "--server", &url, "select count(*) from packets"];
            let text = answer(capstan().args(sql));
            text.lines().nth(1).and_then(|line| line.parse::<u32>().ok()).expect("a number")
        };
        assert_eq!(count(), 0);
        assert_eq!(server.get("/healthz"), (200, b"ok\n".to_vec()));
        for _ in 0..2 {
            cable.send(1_000);
            let asked = Instant::now();
            while count() < cable.sent {
                assert!(asked.elapsed() < PATIENCE, "{} of {}", count(), cable.sent);
                std::thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(count(), cable.sent);
            let to = scratch.path().join("http.pcapng");
            let (status, body) = server.get("/api/v1/export.pcapng?port=6000&ip=10.9.0.1");
            std::fs::write(&to, body).expect("a scratch file");
            assert_eq!((status, packets(&to).len()), (200, cable.sent as usize));
        }
        let (status, body) = server.get("/api/v1/export.pcapng?port=70000");
        let words = String::from_utf8_lossy(&body);
        assert!(status == 400 && words.contains("70000"), "{status}: {words}");
        let (status, body) = server.get("/api/v1/status");
        let about: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((status, &about["packets"]), (200, &cable.sent.into()), "{about}");

        // A port that is taken is said before anything is recorded.
        let mut second = over(&store, "up");
        second.args(["-i", "b0", "--http", "127.0.0.1:0", "--flight", &server.flight]);
        fails(&mut second, 9, &[&server.flight, "--flight"]);

        cable.send(10);
        let output = server.stop();
        said("up", &output, 0, &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("recorded 2010 packets"), "{text}");
        assert_eq!(numbers(&store, scratch.path()), Vec::from_iter(0..2_010));
        fails(capstan().args(["sql", "--server", &url, "select 1"]), 8, &[&server.flight]);
    });
}
