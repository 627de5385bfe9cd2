//! Reading all captures of the shared set, compared with what tshark said of them;
//! and files with bytes changed, cut and put in.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use capstan_model::block::block_type;
use capstan_model::packet::MAX_CAPTURED;

use super::{Event, PacketSource, SourceError, open, open_reader};

/// Where the shared captures are, if they are here.
fn captures() -> Option<PathBuf> {
    let shared = std::env::var_os("CAPSTAN_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    );
    let captures = shared.join("captures");
    if captures.join("index.json").is_file() {
        return Some(captures);
    }
    println!("skipped: no shared captures in {}", captures.display());
    None
}

/// What a file holds, in the terms of the expected results.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    packets: u64,
    bytes_wire: u64,
    bytes_captured: u64,
    truncated_packets: u64,
    first: Option<i64>,
    last: Option<i64>,
    time_order: bool,
    /// Interfaces that packets name.
    interfaces: u64,
    /// Read to the end without damage.
    sound: bool,
}

/// Reads a file; also how many custom blocks it has.
fn sum(path: &std::path::Path) -> (Sum, u64) {
    let mut sum = Sum { time_order: true, ..Sum::default() };
    let mut custom = 0;
    let mut named = BTreeSet::new();
    let mut read = || -> Result<(), SourceError> {
        let mut source = open(path)?;
        let mut described = 0;
        while let Some(event) = source.next_event()? {
            match event {
                Event::Packet(packet) => {
                    assert!(packet.interface < described, "{}", path.display());
                    named.insert(packet.interface);
                    let captured = packet.data.len() as u64;
                    sum.packets += 1;
                    sum.bytes_wire += u64::from(packet.length);
                    sum.bytes_captured += captured;
                    sum.truncated_packets += u64::from(captured < u64::from(packet.length));
                    if let Some(time) = packet.stamp.time() {
                        sum.time_order &= sum.last.is_none_or(|last| last <= time.0);
                        sum.first.get_or_insert(time.0);
                        sum.last = Some(time.0);
                    }
                }
                Event::Interface(_) => described += 1,
                Event::Block(block) => {
                    assert_eq!(block.before, sum.packets);
                    let kinds = [block_type::CUSTOM, block_type::CUSTOM_NO_COPY];
                    custom += u64::from(kinds.contains(&block.block_type));
                }
                Event::Lost(_) | Event::Cut(_) => {}
                Event::Opened { .. } | Event::Closed { .. } | Event::Idle(_) => {
                    panic!("a file is not live")
                }
            }
        }
        Ok(())
    };
    let sound = read().is_ok();
    (Sum { sound, interfaces: named.len() as u64, ..sum }, custom)
}

/// `seconds.nanoseconds` as tshark prints it.
fn nanos(value: &Value) -> Option<i64> {
    let (seconds, fraction) = value.as_str()?.split_once('.')?;
    let whole: i64 = seconds.parse().expect("seconds");
    let part: i64 = fraction.parse().expect("nanoseconds");
    let part = if seconds.starts_with('-') { -part } else { part };
    Some(whole * 1_000_000_000 + part)
}

fn expected(value: &Value) -> Sum {
    let count = |key: &str| value[key].as_u64().expect("a count");
    Sum {
        packets: count("packets"),
        bytes_wire: count("bytes_wire"),
        bytes_captured: count("bytes_captured"),
        truncated_packets: count("truncated_packets"),
        first: nanos(&value["first"]),
        last: nanos(&value["last"]),
        time_order: value["time_order"].as_bool().expect("a truth value"),
        interfaces: count("interfaces"),
        sound: count("tshark_exit") == 0,
    }
}

/// Files tshark 4.0.17 does not read because it does not know their link type, and how
/// many packets tcpdump 4.99 reads in them. The number of a link type is no damage here.
const LINK_TYPES_TSHARK_LACKS: [(&str, u64); 8] = [
    ("tcpdump/brcm-tag-prepend.pcap", 15),
    ("tcpdump/brcm-tag.pcap", 23),
    ("tcpdump/dsa-high-vid.pcap", 4),
    ("tcpdump/edsa.pcap", 10),
    ("tcpdump/frf16_magic_ie-oobr.pcap", 1),
    ("tcpdump/juniper_monitor_invalid_cookie_length.pcap", 1),
    ("tcpdump/vtp_asan-2.pcap", 1),
    ("tcpdump/vtp_asan.pcap", 5),
];

/// Files in which tshark counts three custom blocks as packets without interface and time.
/// Here they are blocks.
const CUSTOM_BLOCKS: [&str; 2] =
    ["gopacket/pcapgo__tests__be__test102.pcapng", "gopacket/pcapgo__tests__be__test202.pcapng"];

/// Files of the link type SunATM: tshark counts without its pseudo-header of four bytes,
/// which is a part of the captured bytes.
const SUNATM: [&str; 2] = ["tcpdump/atm-heapoverflow.pcap", "tcpdump/atm-oam-heapoverflow.pcap"];

/// A file whose one packet has a length of 4,093,509,168 bytes, which tshark prints as the
/// largest signed number, and a fraction of 4,293,562,680 microseconds, which it takes for
/// a signed number.
const SIGNED: &str = "ndpi/fuzz-2021-06-07-c6c72a0a56.pcap";

/// `want`, changed where this reader is right to differ.
fn adjusted(file: &str, mut want: Sum, got: &Sum, custom: u64) -> Sum {
    if let Some((_, packets)) = LINK_TYPES_TSHARK_LACKS.iter().find(|(name, _)| *name == file) {
        assert_eq!((want.packets, want.sound), (0, false), "{file}: tshark reads it by now");
        let Sum { bytes_wire, bytes_captured, truncated_packets, first, last, .. } = *got;
        let time_order = got.time_order;
        return Sum {
            packets: *packets,
            bytes_wire,
            bytes_captured,
            truncated_packets,
            first,
            last,
            time_order,
            interfaces: 1,
            sound: true,
        };
    }
    if CUSTOM_BLOCKS.contains(&file) {
        assert_eq!(custom, 3, "{file}");
        want.packets -= custom;
        // What the three hold after their enterprise number.
        want.bytes_wire -= 116;
        want.bytes_captured -= 116;
        want.interfaces = got.interfaces;
    }
    if SUNATM.contains(&file) {
        want.bytes_wire += 4 * want.packets;
        want.bytes_captured += 4 * want.packets;
    }
    if file == SIGNED {
        want.bytes_wire = 4_093_509_168;
        want.first = Some(1_953_635_450_562_680_000);
        want.last = want.first;
    }
    want
}

#[test]
fn every_shared_capture_holds_what_tshark_says() {
    let Some(captures) = captures() else { return };
    let read = |path: PathBuf| -> Value {
        serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")
    };
    let index = read(captures.join("index.json"));
    let mut differ = Vec::new();
    let mut count = 0;
    for row in index.as_array().expect("a list") {
        let file = row["file"].as_str().expect("a name");
        let want = expected(&read(captures.join(format!("expected/{file}.json"))));
        let (got, custom) = sum(&captures.join(file));
        let want = adjusted(file, want, &got, custom);
        if got != want {
            differ.push(format!("{file}\n  read     {got:?}\n  expected {want:?}"));
        }
        count += 1;
    }
    assert!(differ.is_empty(), "{} of {count} differ:\n{}", differ.len(), differ.join("\n"));
    assert!(count >= 1_646, "{count} captures");
}

/// Reads hostile bytes to their end and checks that nothing grew beyond its bounds.
pub(super) fn survives(bytes: Vec<u8>) {
    let length = bytes.len();
    let Ok(mut source) = open_reader("it", std::io::Cursor::new(bytes)) else { return };
    let mut events = 0;
    while let Ok(Some(event)) = source.next_event() {
        events += 1;
        if let Event::Packet(packet) = event {
            assert!(packet.data.len() <= MAX_CAPTURED);
            assert!(packet.options.len() <= 16 << 20);
        }
        // A block of twelve bytes is the smallest that gives an event, or two with a loss.
        assert!(events <= length / 6 + 2, "{events} events from {length} bytes");
    }
    assert!(source.buffer_size() <= 16 << 20);
    assert!(matches!(source.next_event(), Ok(None)));
}

/// Changes to a file: bytes set, a cut, a piece said twice.
#[derive(Debug, Clone)]
pub(super) struct Harm {
    set: Vec<(Index, u8)>,
    cut: Option<Index>,
    twice: Option<(Index, Index)>,
}

/// Any harm.
pub(super) fn harm() -> impl Strategy<Value = Harm> {
    let byte = prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(4), Just(0x7f)];
    let set = proptest::collection::vec((any::<Index>(), byte), 0..10);
    let twice = proptest::option::weighted(0.2, any::<(Index, Index)>());
    (set, proptest::option::weighted(0.3, any::<Index>()), twice)
        .prop_map(|(set, cut, twice)| Harm { set, cut, twice })
}

impl Harm {
    /// The harmed file.
    pub(super) fn done_to(&self, file: &[u8]) -> Vec<u8> {
        let mut bytes = file.to_vec();
        for (at, value) in &self.set {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Some((one, other)) = self.twice {
            let (one, other) = (one.index(bytes.len()), other.index(bytes.len()));
            let piece = bytes[one.min(other)..one.max(other)].to_vec();
            let at = one.min(other);
            bytes.splice(at..at, piece);
        }
        if let Some(cut) = self.cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    }
}

/// Small captures of the shared set, of every format and wrapping.
fn seeds() -> Vec<Vec<u8>> {
    let Some(captures) = captures() else { return Vec::new() };
    let index: Value =
        serde_json::from_slice(&fs::read(captures.join("index.json")).expect("readable"))
            .expect("JSON");
    let rows = index.as_array().expect("a list").iter();
    rows.filter(|row| row["bytes"].as_u64().is_some_and(|bytes| bytes < 3_000))
        .map(|row| fs::read(captures.join(row["file"].as_str().expect("a name"))))
        .map(|file| file.expect("readable"))
        .collect()
}

#[test]
fn damaged_captures_do_not_panic() {
    let seeds = seeds();
    if seeds.is_empty() {
        return;
    }
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3_000) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&(any::<Index>(), harm()), |(seed, harm)| {
        survives(harm.done_to(&seeds[seed.index(seeds.len())]));
        Ok(())
    });
    assert!(result.is_ok(), "{result:?}");
}
