//! `capstan repair` over damaged stores.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::capstan::{answer, fails, over, row};
use crate::damage::{flip, objects, store, walk};

/// All that an export gives of a store.
fn exported(store: &Path) -> Vec<u8> {
    let file = store.with_extension("pcapng");
    let mut export = over(store, "export");
    answer(export.args(["--order", "recorded", "-o"]).arg(&file));
    fs::read(&file).expect("an export")
}

#[test]
fn repair_rebuilds_the_rolled_up_catalog_and_leaves_an_intact_store() {
    let (_folder, store) = store();
    let before = exported(&store);
    assert_eq!(answer(&mut over(&store, "repair")), "nothing needs repair\n");
    for object in walk(&store.join("default/catalog")) {
        flip(&object, 20);
    }
    fails(&mut over(&store, "verify"), 6, &["damaged"]);
    let text = answer(over(&store, "repair").arg("--dry-run"));
    assert!(text.contains("nothing was changed"), "{text}");
    fails(&mut over(&store, "verify"), 6, &["damaged"]);

    let text = answer(&mut over(&store, "repair"));
    assert!(text.contains("of the catalog repaired"), "{text}");
    let text = answer(over(&store, "verify").arg("--deep"));
    assert!(text.contains("every byte is as written"), "{text}");
    assert_eq!(exported(&store), before);
}

#[test]
fn repair_restores_every_packet_from_segments_alone() {
    let (_folder, store) = store();
    let sql = "select count(*), count(distinct ordinal), count(distinct flow_id), sum(octet_length(data)) from packets";
    let before = row(&store, sql);
    for gone in ["catalog", "log", "writers", "open"] {
        fs::remove_dir_all(store.join("default").join(gone)).expect("it is ours");
    }
    fs::write(store.join("default/format"), "{").expect("it is ours");
    fails(&mut over(&store, "status"), 6, &["format object", "cannot be read"]);

    // Somebody might be about to commit them.
    let text = answer(&mut over(&store, "repair"));
    assert!(text.contains("format: written again") && text.contains("less than a day"), "{text}");
    let text = answer(over(&store, "repair").args(["--nobody-writes", "--format", "json"]));
    let summary: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&summary["segments_named"], &summary["packets_named"]), (&3.into(), &6000.into()));
    assert_eq!(row(&store, sql), before);
    // Nobody knows any more that somebody listened.
    assert_eq!(row(&store, "select count(*) from coverage"), ["0"]);
    let writers = "select kind, packets from writers";
    assert_eq!(row(&store, writers), ["repair", "6000"]);
    answer(over(&store, "verify").arg("--deep"));
}

#[test]
fn lost_commit_loses_no_packet_and_unrepairable_damage_is_reported() {
    let (_folder, store) = store();
    let before = row(&store, "select count(*), sum(octet_length(data)) from packets");
    let index = objects(&store, "/index");
    fs::remove_dir_all(store.join("default/catalog")).expect("it is ours");
    let mut log = walk(&store.join("default/log"));
    log.sort();
    flip(&log[0], 60);
    let text = answer(over(&store, "repair").arg("--nobody-writes"));
    assert!(text.contains("named again"), "{text}");
    assert_eq!(row(&store, "select count(*), sum(octet_length(data)) from packets"), before);

    flip(&index[2], 40);
    for gone in ["catalog", "log", "writers", "open"] {
        fs::remove_dir_all(store.join("default").join(gone)).expect("it is ours");
    }
    let said = ["1 object cannot be repaired", "capstan verify"];
    fails(over(&store, "repair").arg("--nobody-writes"), 6, &said);
    assert_eq!(row(&store, "select count(*) from packets"), ["4000"]);
}

#[test]
fn repair_does_not_create_a_store() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    fails(&mut over(folder.path(), "repair"), 3, &["is not a Capstan store"]);
    fs::create_dir_all(folder.path().join("default/photos")).expect("it is ours");
    fails(&mut over(folder.path(), "repair"), 3, &["is not a Capstan store"]);
    assert!(!folder.path().join("default/format").exists());
}
