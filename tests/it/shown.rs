//! Output for people: it has no control characters, and no more rows than they can read.

use std::process::{Command, Stdio};

use crate::capstan::{answer, binary, capstan, fails, over, run};
use crate::traffic::Noise;

/// A store of so many packets.
fn store(scratch: &std::path::Path, packets: u64) -> std::path::PathBuf {
    let (store, file) = (scratch.join("store"), scratch.join("noise.pcap"));
    Noise { hours: 1, packets_an_hour: packets }.write(&file);
    answer(over(&store, "import").arg(&file));
    store
}

/// Text that a terminal obeys, turns round, or breaks into lines.
const HOSTILE: &str =
    "select chr(27) || '[31mred' || chr(10) || 'next' || chr(8238) || chr(155) as text";

#[test]
fn control_characters_are_escaped() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = store(scratch.path(), 10);
    let ask = |format: &str| answer(over(&store, "sql").args(["--format", format, HOSTILE]));
    for format in ["table", "vertical"] {
        let text = ask(format);
        assert!(text.contains(r"\x1b[31mred\nnext\u{202e}\x9b"), "{format}: {text}");
    }
    let hidden = ['\u{1b}', '\u{202e}', '\u{9b}'];
    let json = ask("json");
    assert!(!json.contains(hidden), "{json}");
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["text"], "\u{1b}[31mred\nnext\u{202e}\u{9b}");
    // A program gets the bytes.
    assert_eq!(ask("csv"), "text\n\"\u{1b}[31mred\nnext\u{202e}\u{9b}\"\n");
    // Errors, and names of files.
    let said =
        fails(over(&store, "sql").arg("select \"\u{1b}[31mred\" from packets"), 2, &["[31mred"]);
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let said = fails(
        over(&store, "import").arg("/nowhere/\u{1b}[31m\u{202e}"),
        3,
        &["\\x1b[31m\\u{202e}"],
    );
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let hostile = scratch.path().join("a\u{1b}[2Jb\nc.pcap");
    std::fs::copy(scratch.path().join("noise.pcap"), &hostile).expect("a scratch file");
    let printed = answer(over(&store, "import").arg("--again").arg(&hostile));
    assert!(printed.contains(r"a\x1b[2Jb\nc.pcap"), "{printed:?}");
}

#[test]
fn logs_have_colours_on_terminals_only() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = store(scratch.path(), 10);
    let output = run(over(&store, "sql").args(["-vv", "select count(*) from packets"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn terminal_gets_no_control_characters() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = store(scratch.path(), 10);
    // util-linux' script gives a command a terminal.
    let on_terminal = |arguments: &str| {
        let command = format!("'{}' {arguments} --store '{}'", binary().display(), store.display());
        let mut script = Command::new("script");
        script.args(["-q", "-e", "-c", &command, "/dev/null"]).stdin(Stdio::null());
        script.env("NO_COLOR", "1").env_remove("CAPSTAN_CONFIG");
        script.output().ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(csv) = on_terminal(&format!("sql --format csv \"{HOSTILE}\"")) else {
        println!("skipped: script (util-linux) is not there");
        return;
    };
    assert!(!csv.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{csv:?}");
    assert!(csv.contains(r"\x1b[31mred"), "{csv:?}");
    let export = on_terminal("export -o -").expect("it was there before");
    assert!(export.contains("cannot be written to a terminal"), "{export:?}");
}

#[test]
fn table_output_is_limited_and_mentions_more_rows() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = store(scratch.path(), 2_500);
    let lines = |arguments: &[&str]| -> Vec<String> {
        let mut command = over(&store, "sql");
        answer(command.args(arguments)).lines().map(str::to_owned).collect()
    };
    let sql = "select ordinal, length from packets order by ordinal";
    let table = lines(&[sql]);
    assert_eq!(table.len(), 1 + 1_000 + 1);
    assert!(table[1_001].starts_with("(the first 1000 rows; there are more: --rows 10000"));
    assert!(table[1_001].contains("--format csv"));
    let some = lines(&["--rows", "3", sql]);
    assert_eq!((some.len(), &*some[3]), (5, " 2        1042   "));
    assert_eq!(lines(&["--rows", "0", sql]).last().map(String::as_str), Some("(2500 rows)"));
    let exactly = lines(&["--rows", "2500", sql]);
    assert_eq!(exactly.last().map(String::as_str), Some("(2500 rows)"));
    let vertical = lines(&["--format", "vertical", "--rows", "2", "select * from packets"]);
    assert!(vertical[0].starts_with("-[ 1 ]---"), "{vertical:?}");
    assert!(
        vertical.iter().any(|line| line.starts_with("source_ip ") && line.contains("| 10.0.0."))
    );
    assert!(vertical.iter().any(|line| line.starts_with("-[ 2 ]---")));
    // Programs get all, unless they ask for less and are told so.
    assert_eq!(lines(&["--format", "csv", sql]).len(), 1 + 2_500);
    let mut few = capstan();
    few.args(["sql", "--format", "json", "--rows", "2", sql, "--store"]).arg(&store);
    let output = run(&mut few);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the first 2 rows: there are more"));
    // Payload is long.
    let wide = lines(&["--rows", "2", "select * from packets"]);
    assert!(wide.iter().all(|line| line.chars().count() < 2_000), "{wide:?}");
    assert!(wide.iter().any(|line| line.contains("long cells are truncated")), "{wide:?}");
}

#[test]
fn lists_structs_and_maps_are_printed_in_every_format() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = store(scratch.path(), 1);
    let ask = |format: &str, sql: &str| answer(over(&store, "sql").args(["--format", format, sql]));
    for (value, csv, json) in [
        ("[1, 2, null]", "[1,2,null]", serde_json::json!([1, 2, null])),
        ("['a', 'b,\"c']", r#"["a","b,\"c"]"#, serde_json::json!(["a", "b,\"c"])),
        ("[[1], []]", "[[1],[]]", serde_json::json!([[1], []])),
        (
            "named_struct('a', 1, 'b', 'x')",
            r#"{"a":1,"b":"x"}"#,
            serde_json::json!({"a": 1, "b": "x"}),
        ),
        ("map(['a'], [1])", r#"{"a":1}"#, serde_json::json!({"a": 1})),
        ("map([1, 2], ['x', null])", r#"{"1":"x","2":null}"#, serde_json::json!({"1": "x"})),
        ("[map([1], [2])]", r#"[{"1":2}]"#, serde_json::json!([{"1": 2}])),
        ("[X'0aff']", r#"["0aff"]"#, serde_json::json!(["0aff"])),
        (
            "[timestamp '2024-01-02T03:04:05']",
            r#"["2024-01-02T03:04:05"]"#,
            serde_json::json!(["2024-01-02T03:04:05"]),
        ),
    ] {
        let sql = format!("select {value} as v");
        let quoted = match csv.contains([',', '"']) {
            true => format!("\"{}\"", csv.replace('"', "\"\"")),
            false => csv.to_owned(),
        };
        assert_eq!(ask("csv", &sql), format!("v\n{quoted}\n"), "{value}");
        let row: serde_json::Value = serde_json::from_str(&ask("json", &sql)).expect("JSON");
        assert_eq!(row["v"], json, "{value}");
        for format in ["table", "vertical"] {
            assert!(ask(format, &sql).ends_with("(1 row)\n"), "{value} as {format}");
        }
    }
    assert_eq!(ask("csv", "select arrow_cast(null, 'List(Int64)') as v, 1 as w"), "v,w\n,1\n");
    assert_eq!(ask("csv", "select [1] as v where false"), "v\n");
    let protocols = "select array_agg(distinct protocol) as p, count(*) as n from packets";
    assert!(ask("csv", protocols).starts_with("p,n\n\"[\"\""), "{}", ask("csv", protocols));
}

#[test]
fn invalid_number_is_a_usage_error() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = store(scratch.path(), 20);
    let sql = |rows: &str| {
        let mut command = over(&store, "sql");
        command.args(["--format", "csv", "--rows", rows, "select ordinal from packets"]);
        command
    };
    for rows in ["-1", "abc", "1.5", "", "99999999999999999999"] {
        let said = fails(&mut sql(rows), 2, &["--rows <NUMBER>", "0 for all"]);
        assert!(!said.contains("-- -1"), "{said}");
    }
    assert_eq!(answer(&mut sql("0")).lines().count(), 21);
    assert_eq!(answer(&mut sql("3")).lines().count(), 4);
    for (command, option) in [
        ("sql", "--memory"),
        ("sql", "--query-seconds"),
        ("export", "--port"),
        ("export", "--memory"),
        ("import", "--dead-after"),
        ("import", "--memory"),
        ("record", "--memory"),
        ("record", "--duration"),
        ("serve", "--connections"),
        ("serve", "--cache-memory-mib"),
    ] {
        let said = fails(over(&store, command).args([option, "-1"]), 2, &["invalid value '-1'"]);
        assert!(said.contains(option) && !said.contains("-- -1"), "{said}");
    }
}
