//! Recorders and imports stay within `--memory`.

use std::path::Path;

use crate::cable::{Cable, listening, lost, numbers, record};
use crate::capstan::{answer, fails, measure, numeric, over, said};
use crate::running::peak_mib;
use crate::sandbox::{self, Own};
use crate::server::Server;
use crate::traffic::{MIDNIGHT, Noise, Pcap, readable};

/// As little memory as a recorder works with, MiB.
const LITTLE: u64 = 192;

fn import_within(store: &Path, file: &Path, memory: u64) {
    let mut command = over(store, "import");
    let log = file.with_extension("log");
    let ended = measure(command.args(["--memory", &memory.to_string()]).arg(file), &log);
    let words = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(ended.status.success(), "{:?}: {words}", ended.status);
    assert!(ended.peak_mib <= memory, "{} of {memory} MiB", ended.peak_mib);
}

/// Writes datagrams of as many flows, which cost most memory.
fn write_flows(file: &Path, flows: u32) {
    let mut pcap = Pcap::create(file);
    for number in 0..flows {
        let mut frame = vec![
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0, 10,
        ];
        frame.extend(&number.to_be_bytes()[1..]);
        frame.extend([10, 200, 0, 1, 0x13, 0x88, 0x27, 0x10, 0, 40, 0, 0]);
        frame.extend([number as u8; 32]);
        pcap.packet(MIDNIGHT + u64::from(number) * 1_000, 74, &frame);
    }
    pcap.finish();
}

#[test]
fn import_stays_within_its_memory() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, file) = (scratch.path().join("store"), scratch.path().join("noise.pcap"));
    let noise = Noise { hours: 12, packets_an_hour: 10_000 };
    noise.write(&file);
    import_within(&store, &file, LITTLE);
    assert_eq!(readable(&store), noise.packets());
    let (store, file) = (scratch.path().join("flows"), scratch.path().join("flows.pcap"));
    write_flows(&file, 150_000);
    import_within(&store, &file, LITTLE);
    import_within(&scratch.path().join("more"), &file, 2 * LITTLE);
    for table in ["packets", "flows"] {
        assert_eq!(numeric(&store, &format!("select count(*) from {table}")), [150_000], "{table}");
    }
}

#[test]
fn recorder_stays_within_its_memory() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    sandbox::with(Own::Network, || {
        let mut cable = Cable::new();
        let memory = LITTLE.to_string();
        let recorder = listening(&mut record(&store, &["--memory", &memory]));
        for _ in 0..100 {
            cable.send(1_000);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let peak = peak_mib(recorder.pid());
        said("record", &recorder.stop(), 0, &[]);
        assert!(peak <= LITTLE, "{peak} MiB");
        assert_eq!(numbers(&store, scratch.path()).len() as u64 + lost(&store), 100_000);
    });
}

#[test]
fn caches_of_a_server_stay_within_their_share() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, file) = (scratch.path().join("store"), scratch.path().join("noise.pcap"));
    Noise { hours: 4, packets_an_hour: 10_000 }.write(&file);
    answer(over(&store, "import").arg(&file));
    let mut server = Server::launch(over(&store, "serve").args(["--memory", "64"]));
    let (status, all) = server.get("/api/v1/export.pcapng");
    assert!(status == 200 && all.len() > 40 << 20, "{status}: {} bytes", all.len());
    let (_, metrics) = server.get("/metrics");
    let metrics = String::from_utf8(metrics).expect("text");
    let cached =
        metrics.lines().find_map(|line| line.strip_prefix("capstan_cache_bytes{in=\"memory\"} "));
    let cached: u64 = cached.and_then(|bytes| bytes.parse().ok()).expect("a number");
    assert!(cached > 0 && cached <= 8 << 20, "{cached}");
    said("serve", &server.stop(), 0, &[]);
    let words = ["128 MiB", "the cache takes 120 MiB", "--memory", "--cache-memory-mib"];
    let mut serve = over(&store, "serve");
    fails(serve.args(["--memory", "128", "--cache-memory-mib", "120"]), 2, &words);
}

#[test]
fn too_little_memory_is_refused_before_a_store_is_created() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    let words = ["100 MiB", "at least 180 MiB", "--memory"];
    fails(over(&store, "record").args(["--memory", "100"]), 2, &words);
    fails(over(&store, "import").args(["--memory", "100", "x.pcap"]), 2, &words);
    let words = ["200 MiB", "at least 430 MiB", "256 MiB", "--ring-mib", "--record-memory"];
    fails(over(&store, "up").args(["--record-memory", "200", "--ring-mib", "256"]), 2, &words);
    assert!(!store.exists());
}
