//! Reading commands give the same answers from a store and from a server over it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::capstan::{capstan, run};

/// A server that ends with the test.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(store: &Path) -> Server {
        let mut command = capstan();
        command.args(["serve", "--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store"]);
        let mut process =
            command.arg(store).stderr(Stdio::piped()).spawn().expect("capstan starts");
        let said = BufReader::new(process.stderr.take().expect("its standard error"));
        let url = said
            .lines()
            .map_while(Result::ok)
            .flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .find(|word| word.starts_with("http://") || word.starts_with("grpc://"));
        let url = url.expect("it says where it listens").trim_end_matches(',').to_owned();
        Server { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A capture of small packets, a second apart, from a second on.
fn capture(path: &Path, from: u32, packets: u32) {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for number in 0..packets {
        for word in [from + number, 5, 60, 60] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&[number as u8; 60]);
    }
    std::fs::write(path, bytes).expect("a scratch file");
}

#[test]
fn server_and_store_give_the_same_answers() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    for (name, from) in [("one.pcap", 1_700_000_000), ("two.pcap", 1_700_007_200)] {
        let file = scratch.path().join(name);
        capture(&file, from, 50);
        let imported = run(capstan().arg("import").arg("--store").arg(&store).arg(&file));
        assert!(imported.status.success());
    }
    let server = Server::start(&store);
    let window = ["--from", "2023-11-14T22:13:30Z", "--to", "2023-11-14T22:14:00Z"];
    for (command, packets) in [
        (vec!["status"], "100 packets in 2 segments"),
        (vec!["status", "--format", "json"], "\"packets\": 100"),
        (vec!["files"], "/index\n"),
        (vec!["files", "--layer", "flows", "--format", "json"], "\"packets\": 50"),
        (vec!["sql", "select count(*) as n from packets", "--format", "csv"], "n\n100\n"),
    ] {
        for window in [&window[..0], &window[..]] {
            if command[0] == "sql" && !window.is_empty() {
                continue;
            }
            let ask = |option: &str, whom: &std::ffi::OsStr| {
                let answer = run(capstan().args(&command).args(window).arg(option).arg(whom));
                let said = String::from_utf8_lossy(&answer.stderr).into_owned();
                assert!(answer.status.success(), "{command:?} {option}: {said}");
                String::from_utf8(answer.stdout).expect("text")
            };
            let near = ask("--store", store.as_os_str());
            let far = ask("--server", server.url.as_ref());
            assert_eq!(near, far, "{command:?} {window:?}");
            let expected = if window.is_empty() { packets } else { "" };
            assert!(near.contains(expected), "{command:?}: {near}");
        }
    }
    // A window has what touches it, and when it was listened to.
    let mut status = capstan();
    status.args(["status", "--format", "json", "--server", &server.url]).args(window);
    let status: serde_json::Value = serde_json::from_slice(&run(&mut status).stdout).expect("JSON");
    assert_eq!((&status["segments"], &status["packets"]), (&1.into(), &50.into()));
    assert_eq!(status["listened"][0]["from"], "2023-11-14T22:13:20.000005Z");
    assert_eq!(status["layers"].as_object().map(serde_json::Map::len), Some(5));
    let mut whole = capstan();
    whole.args(["status", "--format", "json", "--server", &server.url]);
    let whole: serde_json::Value = serde_json::from_slice(&run(&mut whole).stdout).expect("JSON");
    assert_eq!(whole["unknown"].as_array().map(Vec::len), Some(1));
    // Nobody there.
    let nobody = run(capstan().args(["status", "--server", "http://127.0.0.1:1"]));
    assert_eq!(nobody.status.code(), Some(8));
}

#[test]
fn damaged_catalog_is_reported_by_store_and_server() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    for (name, from) in [("one.pcap", 1_700_000_000), ("two.pcap", 1_700_007_200)] {
        let file = scratch.path().join(name);
        capture(&file, from, 5);
        assert!(
            run(capstan().arg("import").arg("--store").arg(&store).arg(&file)).status.success()
        );
    }
    let manifest = store.join("default/catalog/date=2023-11-14/hour=22/00000000000000000001");
    assert!(manifest.exists(), "the hour of the first capture");
    std::fs::write(&manifest, b"{}").expect("a manifest to damage");
    let server = Server::start(&store);
    for command in ["status", "files"] {
        let near = run(capstan().arg(command).arg("--store").arg(&store));
        let far = run(capstan().args([command, "--server", &server.url]));
        assert_eq!((near.status.code(), far.status.code()), (Some(6), Some(6)), "{command}");
        assert!(!near.stdout.is_empty());
        assert_eq!((near.stdout, near.stderr), (far.stdout, far.stderr), "{command}");
    }
}
