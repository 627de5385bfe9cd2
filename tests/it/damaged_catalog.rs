//! Answers over a store with a damaged catalog: they have everything that is readable, and name what is missing, from
//! every command, over Flight and over HTTP.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::capstan::{answer, capstan, fails, over, run};
use crate::damage::{flip, length, objects, store, walk};
use crate::server::Server;
use crate::tools;

/// The second hour of the store, and when it begins.
const SECOND: &str = "default/catalog/date=2023-11-15/hour=01";
const FROM: &str = "2023-11-15T01:00:00Z";

const COUNT: &str = "select count(*) as packets, count(distinct ordinal) as names from packets";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Expects an exit code and words on standard error; what was printed.
fn ends(output: &Output, code: i32, words: &[&str], what: &str) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {said}");
    for word in words {
        assert!(said.contains(word), "{what} does not say '{word}': {said}");
    }
    text(&output.stdout)
}

fn sql(store: &Path, sql: &str) -> Output {
    run(over(store, "sql").args(["--format", "csv", sql]))
}

fn export(store: &Path, options: &[&str]) -> (Output, String) {
    let file = store.with_extension("pcapng");
    let _ = fs::remove_file(&file);
    let output = run(over(store, "export").args(options).arg("-o").arg(&file));
    (output, text(&fs::read(&file).expect("a file is written")))
}

/// The newest manifest of the second hour.
fn manifest(store: &Path) -> PathBuf {
    let mut there = walk(&store.join(SECOND));
    there.retain(|file| {
        !file.file_name().is_some_and(|of| of.to_string_lossy().starts_with("part"))
    });
    there.sort();
    there.pop().expect("a manifest")
}

/// The name of an object below the cluster.
fn named(store: &Path, object: &Path) -> String {
    let below = object.strip_prefix(store.join("default")).expect("it is below");
    below.to_str().expect("text").to_owned()
}

/// As if nothing had been rolled up.
fn undo_rollup(store: &Path) {
    fs::remove_dir_all(store.join("default/catalog")).expect("it is ours");
    let open = store.join("default/open");
    fs::create_dir_all(&open).expect("it is ours");
    for writer in walk(&store.join("default/writers")) {
        let names: Vec<_> = writer.iter().rev().take(2).map(|of| of.to_string_lossy()).collect();
        fs::write(open.join(format!("{}-{}", names[1], names[0])), "").expect("it is ours");
    }
}

/// The commits of a store that name segments.
fn commits(store: &Path) -> Vec<PathBuf> {
    let mut log = walk(&store.join("default/log"));
    log.sort();
    log.retain(|commit| fs::read_to_string(commit).is_ok_and(|text| text.contains("\"name\":")));
    log
}

#[test]
fn unreadable_manifest_is_reported_by_every_command_and_interface() {
    for harm in ["flipped", "cut", "gone"] {
        let (folder, store) = store();
        let manifest = manifest(&store);
        let object = named(&store, &manifest);
        let good = fs::read(&manifest).expect("a manifest");
        match harm {
            "flipped" => flip(&manifest, 20),
            "cut" => fs::write(&manifest, &good[..good.len() / 2]).expect("it is ours"),
            _ => fs::remove_file(&manifest).expect("it is ours"),
        }
        let words = [object.as_str(), FROM, "has everything else"];
        // From rows, and from what the catalog says of segments.
        let rows = ends(&sql(&store, COUNT), 6, &words, harm);
        assert_eq!(rows, "packets,names\n4000,4000\n", "{harm}");
        let rows = ends(&sql(&store, "select count(*) from packets"), 6, &words, harm);
        assert_eq!(rows, "count(*)\n4000\n", "{harm}");
        for table in ["flows", "flow_parts", "segments", "files", "protocols", "coverage"] {
            let sql = sql(&store, &format!("select count(*) as n from {table}"));
            ends(&sql, 6, &words, table);
        }
        let problems = "select kind, object, start_time from problems";
        let rows = ends(&sql(&store, problems), 0, &[], harm);
        assert!(rows.contains(&object) && rows.contains("2023-11-15T01:00:00"), "{rows}");
        // Who asks about another hour has all there is.
        let first = format!("select count(*) from packets where time < '{FROM}'");
        assert_eq!(ends(&sql(&store, &first), 0, &[], harm), "count(*)\n2000\n");

        let listed = ends(&run(&mut over(&store, "files")), 6, &words, harm);
        assert_eq!(listed.lines().count(), 10, "{harm}: {listed}");
        let json = ends(&run(over(&store, "files").args(["--format", "json"])), 6, &words, harm);
        assert!(json.contains("hour=00"), "{harm}: {json}");
        let status = ends(&run(&mut over(&store, "status")), 6, &words, harm);
        assert!(status.contains("4000 packets"), "{harm}: {status}");
        ends(&run(over(&store, "status").args(["--to", FROM])), 0, &[], harm);

        let (output, file) = export(&store, &[]);
        ends(&output, 6, &words, harm);
        assert!(
            file.contains("end of the file, which is not complete: it has 4000 packets"),
            "{harm}"
        );
        assert!(file.matches(&object).count() >= 2, "{harm}: at its beginning and its end");
        assert!(!file.contains("which is complete"), "{harm}");
        let (output, file) = export(&store, &["--to", FROM]);
        ends(&output, 0, &[], harm);
        assert!(file.contains("end of the file, which is complete: 2000 packets"), "{harm}");

        let server = Server::start(&store);
        let url = format!("http://{}", server.flight);
        let asked = |arguments: &[&str]| run(capstan().args(arguments).args(["--server", &url]));
        let rows = ends(&asked(&["sql", "--format", "csv", COUNT]), 6, &words, harm);
        assert_eq!(rows, "packets,names\n4000,4000\n", "{harm}");
        let status = ends(&asked(&["status"]), 6, &words, harm);
        assert!(status.contains("4000 packets"), "{harm}: {status}");
        let out = folder.path().join("served.pcapng");
        let output = asked(&["export", "-o", out.to_str().expect("text")]);
        ends(&output, 6, &words, harm);
        let file = text(&fs::read(&out).expect("all that can be read"));
        assert!(file.contains("end of the file, which is not complete"), "{harm}");
        let (status, file) = server.get("/api/v1/export.pcapng");
        assert!(status == 200 && text(&file).contains("end of the file, which is not complete"));
        let (status, json) = server.get("/api/v1/status");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(
            (status, &json["hidden"][0]["object"]),
            (200, &object.as_str().into()),
            "{json}"
        );
        assert_eq!(json["packets"], 4000);
        drop(server);

        // The log has it still: storing it once more would have it twice after a repair.
        let capture = folder.path().join("noise.pcap");
        fails(over(&store, "import").arg(&capture), 6, &["capstan repair", &object]);
        answer(&mut over(&store, "repair"));
        assert_eq!(ends(&sql(&store, COUNT), 0, &[], harm), "packets,names\n6000,6000\n");
        fails(over(&store, "import").arg(&capture), 9, &["6000 packets"]);
    }
}

/// Harms the commit that names the first segment.
fn harm_commit(store: &Path, harm: &str) -> String {
    let commit = commits(store).swap_remove(0);
    let good = fs::read_to_string(&commit).expect("a commit");
    let write = |text: &str| fs::write(&commit, text).expect("it is ours");
    match harm {
        "damaged" => flip(&commit, 0),
        "cut" => write(&good[..good.len() / 2]),
        "gone" => fs::remove_file(&commit).expect("it is ours"),
        "newer" => {
            let newer = good.replacen("\"format\":", "\"format\":99", 1);
            assert_ne!(newer, good, "a commit has a format");
            write(&newer);
        }
        // It can be parsed, and says something else.
        "changed" => write(&good.replacen("\"packets\":2000", "\"packets\":2001", 1)),
        other => panic!("{other}"),
    }
    named(store, &commit)
}

#[test]
fn unreadable_commit_is_reported_and_a_new_import_restores_its_packets() {
    for (harm, code, left) in [
        ("damaged", 6, 4000),
        ("cut", 6, 4000),
        ("gone", 6, 4000),
        ("newer", 7, 4000),
        ("changed", 6, 4000),
    ] {
        let (folder, store) = store();
        undo_rollup(&store);
        let capture = folder.path().join("noise.pcap");
        let object = harm_commit(&store, harm);
        let words = [object.as_str(), "has everything else"];
        let rows = ends(&sql(&store, COUNT), code, &words, harm);
        assert_eq!(rows, format!("packets,names\n{left},{left}\n"), "{harm}");
        ends(&sql(&store, "select count(*) from packets"), code, &words, harm);
        ends(&run(&mut over(&store, "files")), code, &words, harm);
        ends(&run(&mut over(&store, "status")), code, &words, harm);
        let (output, file) = export(&store, &[]);
        ends(&output, code, &words, harm);
        assert!(file.contains("which is not complete") && file.contains(&object), "{harm}");
        // Which times it was about nobody knows: every question is concerned.
        let early = "select count(*) from packets where time < '2000-01-01'";
        ends(&sql(&store, early), code, &words, harm);

        if harm == "newer" {
            fails(over(&store, "import").arg(&capture), 7, &["newer version"]);
            continue;
        }
        let said = run(over(&store, "import").arg(&capture));
        let said = ends(&said, 0, &[], harm) + &text(&said.stderr);
        assert!(said.contains("2000 packets"), "{harm}: {said}");
        fails(over(&store, "import").arg(&capture), 9, &["6000 packets"]);
        // The commit is missed still, until a repair has looked.
        let before = sql(&store, COUNT);
        ends(&before, 6, &words, harm);
        assert_eq!(text(&before.stdout), "packets,names\n6000,6000\n", "{harm}");
        answer(over(&store, "repair").arg("--nobody-writes"));
        assert_eq!(ends(&sql(&store, COUNT), 0, &[], harm), "packets,names\n6000,6000\n");
        fails(over(&store, "import").arg(&capture), 9, &["6000 packets"]);
        ends(&run(&mut over(&store, "status")), 0, &[], harm);
    }
}

#[test]
fn repair_names_segments_of_a_lost_commit_and_a_new_import_is_refused() {
    for harm in ["damaged", "gone", "changed"] {
        let (folder, store) = store();
        undo_rollup(&store);
        harm_commit(&store, harm);
        answer(over(&store, "repair").arg("--nobody-writes"));
        assert_eq!(ends(&sql(&store, COUNT), 0, &[], harm), "packets,names\n6000,6000\n");
        let capture = folder.path().join("noise.pcap");
        fails(over(&store, "import").arg(&capture), 9, &["6000 packets"]);
        assert_eq!(answer(&mut over(&store, "repair")), "nothing needs repair\n");
    }
}

#[test]
fn import_with_lost_rolled_up_commits_is_not_stored_twice() {
    let (folder, store) = store();
    // What they said is in manifests.
    fs::remove_dir_all(store.join("default/log")).expect("it is ours");
    let capture = folder.path().join("noise.pcap");
    // How many there were the log alone said: the file is read once more, and nothing of it is missing.
    answer(over(&store, "import").arg(&capture));
    assert_eq!(ends(&sql(&store, COUNT), 0, &[], "rolled up"), "packets,names\n6000,6000\n");
    fails(over(&store, "import").arg(&capture), 9, &["6000 packets"]);
    assert_eq!(ends(&sql(&store, COUNT), 0, &[], "rolled up"), "packets,names\n6000,6000\n");
}

#[test]
fn export_lists_missing_packets_in_its_last_comment() {
    let (folder, store) = store();
    let (output, whole) = export(&store, &[]);
    ends(&output, 0, &[], "whole");
    assert!(whole.contains("end of the file, which is complete: 6000 packets"));
    assert!(!whole.contains("not complete"));
    let damaged = &objects(&store, "/packets.parquet")[1];
    for at in (16..length(damaged) as usize).step_by(32) {
        flip(damaged, at);
    }
    let segment = damaged.parent().and_then(Path::file_name).and_then(|of| of.to_str());
    let segment = segment.expect("a segment");
    let (output, file) = export(&store, &[]);
    ends(&output, 6, &[segment, "2000 packets"], "damaged");
    let ending = file.rfind("end of the file, which is not complete").expect("it says so");
    assert!(file[ending..].contains(segment) && file[ending..].contains("2000 packets of segment"));
    assert!(!file.contains("which is complete"));

    let file = folder.path().join("store.pcapng");
    if !tools::have(&["capinfos", "tshark"]) {
        return;
    }
    let shown = Command::new("capinfos").arg(&file).output().expect("capinfos runs");
    assert!(text(&shown.stdout).contains("end of the file, which is not complete"), "{shown:?}");
    let read = Command::new("tshark").arg("-r").arg(&file).output().expect("tshark runs");
    assert_eq!(text(&read.stdout).lines().count(), 4000, "{}", text(&read.stderr));
    // It can be imported again.
    let other = folder.path().join("other");
    answer(over(&other, "import").arg(&file));
    assert_eq!(ends(&sql(&other, COUNT), 0, &[], "again"), "packets,names\n4000,4000\n");
}
