//! Captures made after public bug reports, through the real binary. The shared folder has the expected result of
//! each, and the reason.

use std::path::{Path, PathBuf};

use crate::capstan::{answer, in_csv, numeric, over, run, said};
use crate::captures::{Seen, packets, shared};
use crate::traffic::Pcap;

/// The folder of a case, if it is there.
fn case(name: &str) -> Option<PathBuf> {
    let folder = shared()?.join("cases").join(name);
    folder.is_dir().then_some(folder)
}

/// A store with a capture in it; what the import said.
fn imported(scratch: &Path, capture: &Path) -> (PathBuf, String) {
    let store = scratch.join("store");
    let text = answer(over(&store, "import").arg(capture));
    (store, text)
}

/// What an export with these arguments gives.
fn exported(store: &Path, arguments: &[&str], scratch: &Path) -> Vec<Seen> {
    let back = scratch.join("back.pcapng");
    answer(over(store, "export").args(arguments).arg("-o").arg(&back));
    packets(&back)
}

/// The lines of an answer in CSV, without the header.
fn lines(store: &Path, question: &str) -> Vec<String> {
    let text = answer(&mut in_csv(store, question));
    text.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn old_blocks_and_sections_of_either_byte_order() {
    let Some(case) = case("04-old-blocks-and-sections") else { return };
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, said) = imported(scratch.path(), &case.join("input.pcapng"));
    assert!(said.contains("dropped during capture: 7 packets"), "{said}");
    let sums = "select count(*), sum(length), sum(captured_length) from packets";
    assert_eq!(numeric(&store, sums), [6, 394, 358]);
    assert_eq!(numeric(&store, "select count(*) from flows"), [6]);
    let expected = [
        ",eth-le,1,100,64,1",
        ",eth-le,1,60,60,2",
        "1700000001000000000,eth-le,1,73,73,3",
        "1700000002000000000,eth-le,1,82,82,4",
        "1700000003000000005,tun-be,101,39,39,5",
        "1700000004000000006,tun-be,101,40,40,6",
    ];
    let rows = "select cast(time as bigint), interface_name, link_type, length, captured_length, \
                source_port from packets order by ordinal";
    assert_eq!(lines(&store, rows), expected);
    let timed = "select count(*) from packets where time >= '1970-01-01T00:00:00'";
    assert_eq!(numeric(&store, timed), [4], "no time is no time");
    let losses = "select interface, packets from coverage where kind = 'lost'";
    assert_eq!(lines(&store, losses), ["0,7"], "65535 is not known");
    let source = packets(&case.join("input.pcapng"));
    for order in ["recorded", "time"] {
        let back = exported(&store, &["--order", order], scratch.path());
        assert_eq!(back, source, "{order}");
        let bytes = std::fs::read(scratch.path().join("back.pcapng")).expect("the export");
        for text in ["first writer", "second writer", "old style", "eth-le", "tun-be"] {
            let there = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(there, "{order}: {text}");
        }
    }
}

#[test]
fn a_late_syn_belongs_to_its_flow() {
    let Some(case) = case("10-late-syn-and-synack-first") else { return };
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, _) = imported(scratch.path(), &case.join("input.pcap"));
    let flows = "select source_ip, source_port, destination_port, packets, \
                 payload_forward + payload_backward, cast(first_time as bigint), ended from flows \
                 order by source_ip";
    let expected = [
        "192.0.2.10,41000,80,8,85,1700000000001000000,fin",
        "192.0.2.11,41001,80,8,85,",
        "192.0.2.12,41002,80,7,86,",
    ];
    let found = lines(&store, flows);
    assert_eq!(found.len(), 3, "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected) && found.ends_with(",fin"), "{found}");
    }
    let source = packets(&case.join("input.pcap"));
    assert_eq!(exported(&store, &["--order", "recorded"], scratch.path()), source);
    assert_eq!(exported(&store, &["--order", "time"], scratch.path())[0], source[7]);
}

#[test]
fn fragments_inside_and_outside_of_tunnels() {
    let Some(case) = case("12-fragments-in-tunnels") else { return };
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, _) = imported(scratch.path(), &case.join("input.pcap"));
    let source = packets(&case.join("input.pcap"));
    assert_eq!(exported(&store, &["--order", "recorded"], scratch.path()), source);
    let asked = |arguments: &[&str]| -> Vec<usize> {
        let back =
            exported(&store, &[&["--order", "recorded"], arguments].concat(), scratch.path());
        let number = |packet: &Seen| source.iter().position(|other| other == packet).unwrap() + 1;
        back.iter().map(number).collect()
    };
    assert_eq!(asked(&["--port", "80"]), [0; 0]);
    assert_eq!(asked(&["--port", "8080"]), [0; 0]);
    assert_eq!(asked(&["--port", "5000"]), [1, 2]);
    assert_eq!(asked(&["--ip", "10.1.0.3", "--port", "8443"]), [3, 4]);
    assert_eq!(asked(&["--port", "4789"]), [1, 2, 3, 4]);
    assert_eq!(asked(&["--port", "5001"]).last(), Some(&6));
    let portless = "select count(*) from flows where fragment_id = 79 and ip_protocol = 6";
    assert_eq!(numeric(&store, portless), [1]);
    let vni = "select count(*) from packets where vni = 200";
    assert_eq!(numeric(&store, vni), [1], "the later fragment does not say it");
}

#[test]
fn loopback_headers_of_every_kind() {
    let Some(case) = case("16-loopback-families") else { return };
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, _) = imported(scratch.path(), &case.join("input.pcapng"));
    let ports = |address: &str| {
        lines(
            &store,
            &format!("select source_port from packets where source_ip = '{address}' order by 1"),
        )
    };
    assert_eq!(ports("127.0.0.1"), ["9000", "9001", "9008", "9010"]);
    let six: Vec<String> = (9002..=9013)
        .filter(|port| ![9008, 9010].contains(port))
        .map(|port| port.to_string())
        .collect();
    assert_eq!(ports("::1"), six);
    let source = packets(&case.join("input.pcapng"));
    assert_eq!(exported(&store, &["--order", "recorded"], scratch.path()), source);
}

#[test]
fn compressed_members_and_trailing_bytes() {
    let Some(case) = case("20-compressed-members") else { return };
    let losses = "select count(*) from coverage where kind = 'lost'";
    for (name, count, code) in [
        ("three-members.pcap.gz", 300, 0),
        ("three-frames.pcap.zst", 300, 0),
        ("three-frames.pcap.lz4", 300, 0),
        ("wrong-name.pcap", 300, 0),
        ("trailing-zeros.pcap.gz", 300, 0),
        ("truncated.pcap.gz", 144, 6),
    ] {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let store = scratch.path().join("store");
        let output = run(over(&store, "import").arg(case.join(name)));
        let words: &[&str] = if code == 6 { &["decompression failed"] } else { &[] };
        let said = said(name, &output, code, words);
        if code == 0 {
            assert_eq!(said, "", "{name}");
        }
        assert_eq!(numeric(&store, "select count(*) from packets"), [count], "{name}");
        assert_eq!(numeric(&store, losses), [u64::from(code == 6)], "{name}");
    }
    for (name, more) in [
        ("three-members.pcap.gz", &b"junk behind it"[..]),
        ("three-frames.pcap.zst", b"x"),
        ("three-frames.pcap.lz4", &[7; 40_000]),
    ] {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let (store, file) = (scratch.path().join("store"), scratch.path().join("file"));
        let bytes = std::fs::read(case.join(name)).expect("a case");
        std::fs::write(&file, [&bytes, more].concat()).expect("a scratch file");
        let output = run(over(&store, "import").arg(&file));
        let bytes =
            if more.len() == 1 { "1 byte".to_owned() } else { format!("{} bytes", more.len()) };
        said(name, &output, 0, &[&bytes, "after the end of the compressed data"]);
        assert_eq!(numeric(&store, "select count(*) from packets"), [300], "{name}");
        assert_eq!(numeric(&store, losses), [0], "{name}");
    }
}

#[test]
fn oversized_packets_are_truncated_and_reported() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("long.pcap");
    let mut capture = Pcap::create(&file);
    for length in [60_u32, 524_288, 700_000, 3_000_000, 60] {
        let time = 1_700_000_000_000_000_000 + u64::from(length);
        capture.packet(time, length, &vec![length as u8; length as usize]);
    }
    capture.finish();
    let (store, said) = imported(scratch.path(), &file);
    assert!(said.contains("were discarded"), "{said}");
    let rows = "select length, captured_length from packets order by ordinal";
    let expected = ["60,60", "524288,524288", "700000,524288", "3000000,524288", "60,60"];
    assert_eq!(lines(&store, rows), expected);
    let losses = "select cause, packets, bytes from coverage where kind = 'lost'";
    assert_eq!(lines(&store, losses), [format!("source-damaged,,{}", 175_712 + 2_475_712)]);
    let back = scratch.path().join("back.pcapng");
    let output = run(over(&store, "export").arg("-o").arg(&back));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("2651424 bytes"), "{text}");
    assert_eq!(packets(&back).len(), 5);
}
