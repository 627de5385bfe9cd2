//! Bad input: a command reports it with a message and an exit code, and nothing else is affected.

use std::path::Path;

use crate::capstan::{capstan, fails, over, row, run};

/// A capture of one small packet.
fn capture(path: &Path) {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for word in [1_700_000_000_u32, 5, 60, 60] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&[7; 60]);
    std::fs::write(path, bytes).expect("a scratch file");
}

#[test]
fn location_without_a_store_is_reported() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let missing = scratch.path().join("missing");
    fails(capstan().arg("status").arg("--store").arg(&missing), 3, &["missing"]);
    fails(capstan().arg("status").arg("--store").arg(scratch.path()), 3, &[]);
    fails(capstan().arg("status"), 2, &["--store", "CAPSTAN_STORE"]);
    fails(capstan().args(["status", "--store", "gopher://x"]), 2, &["gopher"]);
    assert!(!missing.exists(), "reading makes nothing");
}

#[test]
fn times_upside_down_and_nonsense_are_refused() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    let file = scratch.path().join("one.pcap");
    capture(&file);
    assert!(run(capstan().arg("import").arg("--store").arg(&store).arg(&file)).status.success());
    let mut command = capstan();
    command.args(["status", "--from", "-1h", "--to", "-2h", "--store"]).arg(&store);
    fails(&mut command, 2, &["upside down"]);
    let mut command = capstan();
    command.args(["status", "--from", "yesterday", "--store"]).arg(&store);
    fails(&mut command, 2, &["yesterday", "RFC 3339"]);
    let mut command = capstan();
    command.args(["sql", "select nonsense from packets", "--store"]).arg(&store);
    fails(&mut command, 2, &["nonsense"]);
    let mut command = capstan();
    command.args(["sql", "drop table packets", "--store"]).arg(&store);
    fails(&mut command, 2, &["refused"]);
    let mut command = capstan();
    command.args(["sql", "select 1", "--server", "http://127.0.0.1:1"]);
    fails(&mut command, 8, &["127.0.0.1:1"]);
}

#[test]
fn a_source_is_imported_once_and_damage_is_located() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    let file = scratch.path().join("one.pcap");
    capture(&file);
    let import = || {
        let mut command = capstan();
        command.arg("import").arg("--store").arg(&store);
        command
    };
    assert!(run(import().arg(&file)).status.success());
    fails(import().arg(&file), 9, &["--again"]);
    assert!(run(import().arg("--again").arg(&file)).status.success());

    let damaged = scratch.path().join("damaged.pcap");
    let mut bytes = std::fs::read(&file).expect("the capture");
    bytes.extend_from_slice(&[0xff; 20]);
    std::fs::write(&damaged, bytes).expect("a scratch file");
    fails(import().arg(&damaged), 6, &["byte 100", "1 packet"]);

    let text = scratch.path().join("text.txt");
    std::fs::write(&text, "not a capture at all").expect("a scratch file");
    fails(import().arg(&text), 2, &["text.txt", "pcap"]);
    fails(import().arg(scratch.path().join("nothing.pcap")), 3, &["nothing.pcap"]);

    let count = run(capstan()
        .args(["sql", "--format", "csv", "select count(*) from packets", "--store"])
        .arg(&store));
    let said = String::from_utf8_lossy(&count.stdout).into_owned();
    // The damaged file begins with what is stored already: nothing of it is stored once more.
    assert_eq!(said.lines().nth(1), Some("2"), "{said}");
}

#[test]
fn a_store_of_a_newer_format_is_refused() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    let file = scratch.path().join("one.pcap");
    capture(&file);
    assert!(run(capstan().arg("import").arg("--store").arg(&store).arg(&file)).status.success());
    let format = store.join("default/format");
    let text = std::fs::read_to_string(&format).expect("the format object");
    assert!(text.contains("\"format\":3"), "{text}");
    std::fs::write(&format, text.replace("\"format\":3", "\"format\":99")).expect("write");
    fails(capstan().arg("status").arg("--store").arg(&store), 7, &["99"]);
}

#[test]
fn full_disk_leaves_no_partial_data_visible() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    let file = scratch.path().join("one.pcap");
    capture(&file);
    assert!(run(capstan().arg("import").arg("--store").arg(&store).arg(&file)).status.success());
    fails(capstan().args(["export", "-o", "/dev/full", "--store"]).arg(&store), 5, &["/dev/full"]);
}

#[test]
fn import_of_a_damaged_source_is_incomplete_and_trailing_bytes_are_no_damage() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let plain = scratch.path().join("one.pcap");
    capture(&plain);
    let bytes = std::fs::read(&plain).expect("the capture");
    let packed = std::process::Command::new("gzip").arg("-c").arg(&plain).output();
    let packed = packed.expect("there is gzip").stdout;
    let cases: [(&str, Vec<u8>, i32, &str); 6] = [
        ("whole", bytes.clone(), 0, "true"),
        ("packed", packed.clone(), 0, "true"),
        ("without its checksum", packed[..packed.len() - 4].to_vec(), 6, "false"),
        ("cut in a record's header", [&bytes[..], &[1; 9]].concat(), 6, "false"),
        ("with a stray byte", [&packed[..], &[0x1f]].concat(), 0, "true"),
        ("with stray bytes", [&packed[..], &[0x1f, 0x8b]].concat(), 0, "true"),
    ];
    for (case, bytes, code, complete) in cases {
        let (file, store) =
            (scratch.path().join(case), scratch.path().join(format!("{case} store")));
        std::fs::write(&file, bytes).expect("a scratch file");
        let import = || {
            let mut command = over(&store, "import");
            command.arg(&file);
            command
        };
        let output = run(&mut import());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{case}: {said}");
        assert_eq!(said.contains("after the end"), case.contains("stray"), "{case}: {said}");
        let writers = "select finished, complete, packets from writers";
        assert_eq!(row(&store, writers), ["true", complete, "1"], "{case}");
        let lost = if complete == "true" { "0" } else { "1" };
        assert_eq!(
            row(&store, "select count(*) from coverage where kind = 'lost'"),
            [lost],
            "{case}"
        );
        // All that can be had of it is there.
        fails(&mut import(), 9, &["--again"]);
    }
}
