//! Coverage and losses of imports: what is not known reads as unknown, and no time is made up.

use std::path::Path;

use crate::capstan::{answer, capstan, in_csv, numeric, over, run};
use crate::traffic::{MIDNIGHT, Pcap};

const SECOND: u64 = 1_000_000_000;
const YEAR: u64 = 365 * 24 * 3_600 * SECOND;

/// A pcap file of packets at these times, and a store of it.
fn imported(scratch: &Path, times: &[u64]) -> std::path::PathBuf {
    let (file, store) = (scratch.join("times.pcap"), scratch.join("store"));
    let mut pcap = Pcap::create(&file);
    times.iter().for_each(|time| pcap.packet(*time, 60, &[7; 60]));
    pcap.finish();
    answer(over(&store, "import").arg(&file));
    store
}

fn status(store: &Path) -> serde_json::Value {
    let said = answer(over(store, "status").args(["--format", "json"]));
    serde_json::from_str(&said).expect("JSON")
}

/// All that is said of a store, by every command that says something of time.
fn all_said(store: &Path) -> String {
    let target = store.with_extension("pcapng");
    let mut commands = [
        over(store, "status"),
        over(store, "status"),
        over(store, "verify"),
        over(store, "export"),
        over(store, "export"),
        in_csv(store, "select * from coverage"),
        over(store, "sql"),
    ];
    commands[1].args(["--format", "json"]);
    commands[3].arg("-o").arg(&target);
    commands[4].args(["--to", "2001-01-01", "-o"]).arg(&target);
    commands[6].arg("select * from coverage");
    let mut all = String::new();
    for command in &mut commands {
        let output = run(command);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        all += &String::from_utf8_lossy(&output.stdout);
        all += &String::from_utf8_lossy(&output.stderr);
    }
    let file = std::fs::read(&target).expect("the last export");
    all + &String::from_utf8_lossy(&file)
}

/// Checks that no time is printed that stands for something else.
fn says_no_made_up_time(store: &Path) -> String {
    let said = all_said(store);
    for year in ["1677", "2262", "1970"] {
        assert!(!said.contains(year), "{year} is said: {said}");
    }
    said
}

#[test]
fn gap_in_a_capture_is_unknown_coverage() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let minute = 60 * SECOND;
    let times = [0, 4 * minute, 8 * minute, 14 * minute, YEAR, YEAR + minute];
    let store = imported(scratch.path(), &times.map(|time| MIDNIGHT + time));
    let status = status(&store);
    let spans = |name: &str| status[name].as_array().expect("a list").len();
    assert_eq!((spans("listened"), spans("unknown")), (3, 2), "{status}");
    let sql = "select count(*) from coverage where kind = 'listened' and start_time <= \
               timestamp '2024-03-01' and end_time > timestamp '2024-03-01'";
    assert_eq!(numeric(&store, sql), [0]);
    let hole = ["--from", "2024-01-01", "--to", "2024-02-01"];
    let said = answer(over(&store, "status").args(hole));
    assert!(said.contains("no coverage in this time window"), "{said}");
    let said = answer(&mut over(&store, "status"));
    assert_eq!(said.matches("\nunknown  ").count(), 2, "{said}");
    assert!(!said.contains("not listened"), "{said}");
    let target = scratch.path().join("out.pcapng");
    let output = run(over(&store, "export").arg("-o").arg(&target));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let file = String::from_utf8_lossy(&std::fs::read(&target).expect("the export")).into_owned();
    for text in [&said, &file] {
        assert!(text.contains("unknown coverage from 20"), "{text}");
        assert!(!text.contains("nobody") && !text.contains("known to be missing"), "{text}");
    }
    assert!(file.contains("end of the file; nothing was left out: 6 packets; unknown"));
    says_no_made_up_time(&store);
}

#[test]
fn packet_of_1970_does_not_extend_coverage() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = imported(scratch.path(), &[MIDNIGHT, 0, MIDNIGHT + SECOND]);
    let sql = "select count(*), count(*) filter (where start_time > timestamp '2023-01-01') \
               from coverage";
    assert_eq!(numeric(&store, sql), [1, 1]);
    // It is given back with the time it had.
    assert_eq!(numeric(&store, "select count(*) from packets where time = to_timestamp(0)"), [1]);
}

#[test]
fn time_without_coverage_is_unknown() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = imported(scratch.path(), &[0]);
    let target = scratch.path().join("out.pcapng");
    let output = run(over(&store, "export").arg("-o").arg(&target));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("unknown coverage at any time"), "{said}");
    let output = run(over(&store, "export").args(["--to", "2001-01-01", "-o"]).arg(&target));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("unknown coverage before 2001-01-01T00:00:00Z"), "{said}");
    let file = String::from_utf8_lossy(&std::fs::read(&target).expect("the export")).into_owned();
    assert!(file.contains("unknown coverage before 2001-01-01"), "{file}");
    assert!(!said.contains("1677") && !file.contains("1677"));
}

/// A pcapng block.
fn block(kind: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut body = parts.concat();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, &body, &length].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A section and an Ethernet interface with a clock of microseconds.
fn section() -> Vec<u8> {
    let header = [words(&[0x1a2b_3c4d, 1]), vec![0xff; 8]].concat();
    [block(0x0a0d_0d0a, &[&header]), block(1, &[&words(&[1, 65_535])])].concat()
}

fn simple(length: usize) -> Vec<u8> {
    block(3, &[&words(&[length as u32]), &vec![7; length]])
}

/// The obsolete packet block, of the first interface.
fn old_packet(micros: u64, drops: u16) -> Vec<u8> {
    let time = [(micros >> 32) as u32, micros as u32];
    block(2, &[&[0, 0], &drops.to_le_bytes(), &words(&[time[0], time[1], 60, 60]), &[9; 60]])
}

fn statistics(micros: u64, dropped: u64) -> Vec<u8> {
    let time = words(&[0, (micros >> 32) as u32, micros as u32]);
    block(5, &[&time, &[5, 0, 8, 0], &dropped.to_le_bytes(), &[0; 4]])
}

/// A store of a pcapng file.
fn of(scratch: &Path, file: &[u8]) -> std::path::PathBuf {
    let (path, store) = (scratch.join("losses.pcapng"), scratch.join("store"));
    std::fs::write(&path, file).expect("a scratch file");
    answer(capstan().args(["import", "--store"]).arg(&store).arg(&path));
    store
}

/// From when to when packets were lost, and how many.
fn losses(store: &Path) -> Vec<(String, String, u64)> {
    let status = status(store);
    let losses = status["losses"].as_array().expect("a list").iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("unknown").to_owned();
    losses
        .map(|loss| {
            (text(&loss["from"]), text(&loss["to"]), loss["packets"].as_u64().expect("a number"))
        })
        .collect()
}

#[test]
fn losses_of_a_source_have_their_time() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let micros = 1_700_000_001_000_000;
    let file = [
        section(),
        // Nothing before the first loss has a time.
        simple(100),
        simple(60),
        old_packet(micros, 7),
        old_packet(micros + 2_000_000, 2),
        // Not known.
        old_packet(micros + 3_000_000, 0xffff),
        statistics(micros + 4_000_000, 10),
    ];
    let store = of(scratch.path(), &file.concat());
    let at = |second: u64| format!("2023-11-14T22:13:{}Z", 20 + second);
    let just_after = |second: u64| format!("2023-11-14T22:13:{}.000000001Z", 20 + second);
    let expected =
        [(at(1), just_after(1), 7), (at(1), just_after(3), 2), (at(1), just_after(5), 1)];
    assert_eq!(losses(&store), expected);
    let said = says_no_made_up_time(&store);
    assert!(said.contains("start of the loss is unknown"), "{said}");
    assert_eq!(numeric(&store, "select count(*) from packets where time is null"), [2]);
}

#[test]
fn loss_at_an_unknown_time_is_reported() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = of(scratch.path(), &[section(), simple(60), statistics(0, 5)].concat());
    assert_eq!(losses(&store), [("unknown".to_owned(), "unknown".to_owned(), 5)]);
    let said = says_no_made_up_time(&store);
    assert!(said.contains("lost  5 packets at an unknown time: source-drop"), "{said}");
    assert!(said.contains("5 packets lost at an unknown time"), "{said}");
    let sql = "select count(*) from coverage where kind = 'lost' and start_time is null \
               and end_time is null";
    assert_eq!(numeric(&store, sql), [1]);
    // It is in no window, as the packets without a time are not.
    let said = answer(over(&store, "status").args(["--to", "2100-01-01"]));
    assert!(!said.contains("lost"), "{said}");
}
