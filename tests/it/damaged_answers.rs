//! Answers over a store with one changed byte: they have everything that is readable, and name what is missing.

use std::path::Path;

use crate::capstan::{answer, capstan, in_csv, over, run};
use crate::damage::{flip, length, objects, store};
use crate::server::Server;

const BY_HOUR: &str = "select date_trunc('hour', time) as hour, count(*) as packets, \
                       sum(octet_length(data)) as bytes from packets group by 1 order by 1";

/// The lines of an answer, and what is said to be missing in it.
fn asked(store: &Path, sql: &str, format: &str) -> (Option<i32>, String, String) {
    let output = run(over(store, "sql").args(["--format", format, sql]));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn damaged_segment_is_reported_and_the_others_are_answered() {
    for file in ["/packets.parquet", "/flows.parquet", "/index"] {
        let (_folder, store) = store();
        let whole = answer(&mut in_csv(&store, BY_HOUR));
        let damaged = &objects(&store, file)[1];
        // In every page, as a question reads only some.
        for at in (16..length(damaged) as usize).step_by(32) {
            flip(damaged, at);
        }
        let segment = damaged.parent().and_then(Path::file_name).expect("a segment");
        let segment = segment.to_str().expect("text");

        let (code, rows, said) = asked(&store, BY_HOUR, "csv");
        assert_eq!(code, Some(6), "{file}: {said}");
        let expected: Vec<&str> =
            whole.lines().enumerate().filter(|(line, _)| *line != 2).map(|(_, of)| of).collect();
        assert_eq!(rows.lines().collect::<Vec<_>>(), expected, "{file}: {said}");
        assert!(said.contains(segment) && said.contains("has everything else"), "{file}: {said}");
        assert!(said.contains("packets from 2023-11-1"), "{file}: {said}");
        // A table for people has the rows, too.
        let (code, rows, _) = asked(&store, BY_HOUR, "table");
        assert!(code == Some(6) && rows.contains("2000"), "{file}: {rows}");
        // Who asks for other hours hears nothing of it.
        let first =
            format!("select count(*) from packets where time < '{}'", "2023-11-14T23:00:00Z");
        let (code, _, said) = asked(&store, &first, "csv");
        assert_eq!(code, Some(0), "{file}: {said}");
    }
}

#[test]
fn damaged_block_loses_only_payload_of_its_flows() {
    let (_folder, store) = store();
    let sql = "select count(*), count(distinct flow_id) from packets where octet_length(data) > 0";
    let whole = answer(&mut in_csv(&store, sql));
    assert!(whole.ends_with("6000,50\n"), "{whole}");
    flip(&objects(&store, "/body")[0], 5_000);
    let (code, rows, said) = asked(&store, sql, "csv");
    assert_eq!(code, Some(6), "{said}");
    let packets: u64 = rows
        .lines()
        .nth(1)
        .and_then(|line| line.split(',').next())
        .and_then(|count| count.parse().ok())
        .expect("a count");
    assert!((4_000..6_000).contains(&packets), "{rows}");
    // What needs no payload is answered whole.
    let (code, rows, said) = asked(&store, "select count(*) from packets", "csv");
    assert_eq!((code, rows.as_str()), (Some(0), "count(*)\n6000\n"), "{said}");
}

#[test]
fn truncated_or_missing_layer_affects_only_its_segment() {
    for file in ["/head", "/body", "/flows.parquet", "/packets.parquet", "/index"] {
        for bytes in [Some(20), Some(0), None] {
            let (folder, store) = store();
            let cut = objects(&store, file).remove(1);
            let case = format!("{file} of {bytes:?} bytes");
            match bytes {
                Some(bytes) => {
                    let object = std::fs::File::options().write(true).open(&cut);
                    object.and_then(|object| object.set_len(bytes)).expect("it is ours");
                }
                None => std::fs::remove_file(&cut).expect("it is ours"),
            }
            let segment = cut.parent().and_then(Path::file_name).expect("a segment");
            let segment = segment.to_str().expect("text");
            let sql = "select count(*) as n, sum(octet_length(data)) as bytes from packets";
            let at_least_4000 = |rows: &str| {
                let packets = rows.lines().nth(1).and_then(|row| row.split(',').next());
                let packets: u64 = packets.and_then(|n| n.parse().ok()).expect("a count");
                assert!((4_000..6_000).contains(&packets), "{case}: {rows}");
            };
            let judge = |said: &str| {
                assert!(
                    said.contains(segment) && said.contains("has everything else"),
                    "{case}: {said}"
                );
                assert!(!said.contains("SpawnedTask"), "{case}: {said}");
                // Of nested errors each says something of its own.
                let parts: Vec<&str> = said.split([':', '(', ')', ';']).map(str::trim).collect();
                let twice = parts.windows(2).find(|two| two[0] == two[1] && !two[0].is_empty());
                assert!(twice.is_none(), "{case}: {twice:?} in {said}");
            };
            let (code, rows, said) = asked(&store, sql, "csv");
            assert_eq!(code, Some(6), "{case}: {said}");
            at_least_4000(&rows);
            judge(&said);

            let out = folder.path().join("out.pcapng");
            let output = run(over(&store, "export").arg("-o").arg(&out));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(6), "{case}: {said}");
            judge(&said);
            let told = said.matches("packets are left out of an export").count();
            assert_eq!(told, 1, "{case}: {said}");
            let is_ended = |file: &[u8]| {
                let text = String::from_utf8_lossy(file);
                let ending = text.rfind("end of the file, which is not complete: it has ");
                let packets = ending.and_then(|at| text[at..].split(' ').nth(10)?.parse().ok());
                let packets: u64 = packets.unwrap_or_else(|| panic!("{case}: no end"));
                assert!((4_000..6_000).contains(&packets), "{case}: {packets}");
            };
            is_ended(&std::fs::read(&out).expect("all that can be read"));

            let server = Server::start(&store);
            let url = format!("http://{}", server.flight);
            let output = run(capstan().args(["sql", "--format", "csv", "--server", &url, sql]));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(6), "{case}: {said}");
            at_least_4000(&String::from_utf8_lossy(&output.stdout));
            judge(&said);
            let output = run(capstan().args(["export", "--server", &url, "-o"]).arg(&out));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(6), "{case}: {said}");
            judge(&said);
            is_ended(&std::fs::read(&out).expect("all that can be read"));
            let (status, file) = server.get("/api/v1/export.pcapng");
            assert_eq!(status, 200, "{case}");
            is_ended(&file);
        }
    }
}
