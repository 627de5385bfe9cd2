//! `capstan verify` over damaged stores.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::capstan::{answer, fails, in_csv, over};
use crate::damage::{flip, length, objects, store, walk};

#[test]
fn intact_store_passes_and_every_byte_is_read() {
    let (_folder, store) = store();
    let text = answer(&mut over(&store, "verify"));
    assert!(text.contains("3 segments, 15 objects") && text.contains("--deep"), "{text}");
    let text = answer(over(&store, "verify").arg("--deep"));
    assert!(text.contains("every byte is as written"), "{text}");

    let text = answer(over(&store, "verify").args(["--deep", "--format", "json"]));
    let summary: Value = serde_json::from_str(text.trim()).expect("one line");
    let stored: u64 = objects(&store, "").iter().map(|file| length(file)).sum();
    assert_eq!(summary["bytes_read"], stored);
    assert_eq!(summary["findings"], serde_json::json!({}));
}

#[test]
fn damage_is_reported_with_the_remaining_data_and_the_rest_is_readable() {
    let (_folder, store) = store();
    let body = &objects(&store, "/body")[0];
    flip(body, 5_000);
    // The lengths are right: only who reads it all finds it.
    answer(&mut over(&store, "verify"));
    let output = crate::capstan::run(over(&store, "verify").args(["--deep", "--format", "json"]));
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8(output.stdout).expect("text");
    let [finding, summary] = &text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    let finding: Value = serde_json::from_str(finding).expect("a finding");
    assert_eq!(finding["severity"], "damaged");
    assert!(
        body.to_str()
            .is_some_and(|path| path.ends_with(finding["object"].as_str().expect("a name")))
    );
    assert!(finding["what"].as_str().is_some_and(|what| what.contains("block")), "{finding}");
    assert!(finding["still_readable"].as_str().is_some_and(|left| left.contains("payload")));
    let summary: Value = serde_json::from_str(summary).expect("a summary");
    assert_eq!(summary["findings"], serde_json::json!({"damaged": 1}));
    // Only that payload is gone, and asking for it says so.
    let count = "select count(*), count(distinct flow_id) from packets";
    assert_eq!(
        answer(&mut in_csv(&store, count)),
        "count(*),count(DISTINCT packets.flow_id)\n6000,50\n"
    );

    let head = &objects(&store, "/head")[1];
    std::fs::remove_file(head).expect("it is there");
    let said = fails(&mut over(&store, "verify"), 6, &["1 lost"]);
    assert!(!said.contains("damaged"), "{said}");
    let said = fails(over(&store, "verify").arg("--deep"), 6, &["1 lost, 1 damaged"]);
    assert!(said.contains("the check found problems"), "{said}");
}

#[test]
fn the_last_commit_and_the_format_are_checked_too() {
    let (_folder, store) = store();
    let log: Vec<PathBuf> = walk(&store.join("default/log"));
    let last = log.iter().max().expect("a commit");
    let text = std::fs::read_to_string(last).expect("a commit");
    let changed = text.replacen("\"next_ordinal\":6000", "\"next_ordinal\":7000", 1);
    assert_ne!(text, changed);
    std::fs::write(last, changed).expect("it is ours");
    fails(&mut over(&store, "verify"), 6, &["1 damaged"]);
    std::fs::write(last, &text).expect("it is ours");
    answer(&mut over(&store, "verify"));

    let format = store.join("default/format");
    let good = std::fs::read_to_string(&format).expect("the format");
    std::fs::write(&format, good.replacen("capstan 0", "capstan 9", 1)).expect("it is ours");
    fails(&mut over(&store, "verify"), 6, &["1 damaged"]);
}

#[test]
fn orphans_of_a_crash_are_listed_and_no_damage() {
    let (_folder, store) = store();
    let left = store.join("default/data/date=2023-11-15/hour=00/gone-00000001-00000000");
    std::fs::create_dir_all(&left).expect("it is ours");
    std::fs::write(left.join("body"), "half").expect("it is ours");
    let text = answer(&mut over(&store, "verify"));
    assert!(text.contains("note") && text.contains("orphan of 4 bytes"), "{text}");
    assert!(text.contains("1 object, 4 B"), "{text}");
    let early = ["--to", "2023-11-15T00:00:00Z", "--from", "2023-11-14"];
    assert!(answer(over(&store, "verify").args(early)).contains("0 segments, 0 objects"));
    fails(over(&store, "verify").args(["--from", "x"]), 2, &["'x' is not a time"]);
    fails(&mut over(Path::new("/nowhere"), "verify"), 3, &["no store at /nowhere"]);
}
