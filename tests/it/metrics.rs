//! Metrics of a recorder: they agree with the store, and show an upload that is behind.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cable::{Cable, listening, lost, numbers, record};
use crate::capstan::{fails, numeric, over, said};
use crate::running::Running;
use crate::sandbox::{self, Own, tool};
use crate::server::{PATIENCE, Server, get};

/// Ethernet frame of a datagram of a [`Cable`], bytes.
const FRAME: f64 = 1_042.0;

/// The values of all metrics, by name with labels.
struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn at(address: &str) -> Metrics {
        let (status, body) = get(address, "/metrics");
        let text = String::from_utf8(body).expect("text");
        assert_eq!(status, 200, "{text}");
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("a number"))
        };
        Metrics(text.lines().filter(|line| !line.starts_with('#')).map(value).collect())
    }

    fn of(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }
}

/// Starts a recorder that serves its metrics, and returns where.
fn recorder(store: &Path, arguments: &[&str]) -> (Running, String) {
    let mut command = record(store, arguments);
    let recorder = listening(command.args(["--commit-seconds", "1", "--metrics", "127.0.0.1:0"]));
    let line = recorder.line();
    let address = line.strip_prefix("metrics at http://").and_then(|rest| rest.split('/').next());
    let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
    (recorder, address)
}

/// The metrics, once they fit.
fn when(address: &str, fits: impl Fn(&Metrics) -> bool) -> Metrics {
    let began = Instant::now();
    loop {
        let metrics = Metrics::at(address);
        if fits(&metrics) {
            return metrics;
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", metrics.0);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64()
}

#[test]
fn recorder_metrics_agree_with_the_store() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    sandbox::with(Own::Network, || {
        let mut cable = Cable::new();
        let began = now();
        let (recorder, address) = recorder(&store, &["--ring-mib", "1"]);
        cable.send(800);
        let committed = "capstan_committed_packets_total";
        when(&address, |metrics| metrics.of(committed) == 800.0);
        // Nobody takes anything out of the ring, which has room for about a thousand.
        recorder.signal(libc::SIGSTOP);
        cable.send(20_000);
        recorder.signal(libc::SIGCONT);
        let dropped = "capstan_capture_lost_packets_total{cause=\"kernel-drop\"}";
        let captured = "capstan_capture_packets_total";
        let metrics = when(&address, |metrics| {
            metrics.of(committed) + metrics.of(dropped) == 20_800.0
                && metrics.of("capstan_oldest_unsent_timestamp_seconds") > began + 2.0
        });
        assert_eq!(metrics.of(captured), metrics.of(committed));
        assert_eq!(metrics.of("capstan_capture_bytes_total"), FRAME * metrics.of(captured));
        assert!(metrics.of("capstan_capture_ring_full_total") >= 1.0);
        assert_eq!(metrics.of("capstan_open_bytes"), 0.0);
        assert_eq!(metrics.of("capstan_open_segments"), 0.0);
        let segments = metrics.of("capstan_committed_segments_total");
        assert_eq!(metrics.of("capstan_uploads_total"), segments);
        for operation in ["upload", "commit"] {
            for name in ["failures", "retries"] {
                let name = format!("capstan_upload_{name}_total{{operation=\"{operation}\"}}");
                assert_eq!(metrics.of(&name), 0.0, "{name}");
            }
        }
        for time in ["oldest_unsent", "last_commit"] {
            let time = metrics.of(&format!("capstan_{time}_timestamp_seconds"));
            assert!(began < time && time <= now(), "{time}");
        }
        assert!(metrics.of("capstan_commits_total") >= 2.0);
        assert!(metrics.of("capstan_store_requests_total{kind=\"put\"}") > segments * 5.0);
        assert_eq!(metrics.of("capstan_store_retries_total"), 0.0);
        assert_eq!(get(&address, "/healthz"), (200, b"ok\n".to_vec()));
        assert_eq!(get(&address, "/api/v1/status").0, 404);

        // The port is taken.
        let mut second = record(&store, &["--metrics", &address]);
        fails(&mut second, 9, &[&address, "--metrics"]);

        said("record", &recorder.stop(), 0, &["dropped"]);
        let packets = numbers(&store, scratch.path()).len();
        assert_eq!(packets as f64, metrics.of(committed));
        assert_eq!(lost(&store) as f64, metrics.of(dropped));
        let sql = "select count(*), (select sum(bytes) from files) from segments";
        let stored = [segments as u64, metrics.of("capstan_committed_bytes_total") as u64];
        assert_eq!(numeric(&store, sql), stored);
    });
}

#[test]
fn metrics_show_an_upload_that_is_behind() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let place = scratch.path().join("disk");
    std::fs::create_dir(&place).expect("a scratch folder");
    let own = || {
        tool(&format!("mount -t tmpfs -o size=4m tmpfs {}", place.display()));
        let (store, filler) = (place.join("store"), place.join("filler"));
        let mut cable = Cable::new();
        let (recorder, address) = recorder(&store, &[]);
        cable.send(100);
        let committed = "capstan_committed_packets_total";
        when(&address, |metrics| metrics.of(committed) == 100.0);
        let mut file = std::fs::File::create(&filler).expect("a file");
        while file.write_all(&[1; 4_096]).is_ok() {}
        drop(file);
        let full = now();
        cable.send(200);
        let behind = when(&address, |metrics| {
            metrics.of("capstan_upload_lag_seconds") > 2.0
                && metrics.of("capstan_upload_retries_total{operation=\"upload\"}") >= 2.0
        });
        assert_eq!(behind.of("capstan_capture_packets_total"), 300.0);
        assert_eq!(behind.of(committed), 100.0);
        // The commit that was being made when the disk became full may have succeeded.
        assert!(behind.of("capstan_oldest_unsent_timestamp_seconds") < full + 1.0);
        assert!(behind.of("capstan_last_commit_timestamp_seconds") < full + 1.0);
        std::fs::remove_file(&filler).expect("it is ours");
        let after = when(&address, |metrics| metrics.of(committed) == 300.0);
        assert!(after.of("capstan_oldest_unsent_timestamp_seconds") > full);
        when(&address, |metrics| metrics.of("capstan_upload_lag_seconds") < 1.0);
        said("record", &recorder.stop(), 0, &["No space left"]);
        assert_eq!(numbers(&store, scratch.path()), Vec::from_iter(0..300));
    };
    sandbox::with(Own::Network, || {
        sandbox::with(Own::Mounts, own);
    });
}

#[test]
fn up_serves_metrics_of_recorder_and_server_on_two_ports() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    sandbox::with(Own::Network, || {
        let mut cable = Cable::new();
        let mut command: Command = over(&store, "up");
        let mut up = Server::launch(command.args(["-i", "b0", "--commit-seconds", "1"]));
        cable.send(70);
        let usual = "127.0.0.1:32090";
        when(usual, |metrics| metrics.of("capstan_committed_packets_total") == 70.0);
        let server = Metrics::at(&up.http);
        assert!(server.of("capstan_cache_bytes{in=\"memory\"}") >= 0.0);
        assert!(!server.0.contains_key("capstan_committed_packets_total"));
        said("up", &up.stop(), 0, &["metrics at http://127.0.0.1:32090/metrics"]);
    });
}
