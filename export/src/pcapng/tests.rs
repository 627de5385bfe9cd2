//! What is written is read back by this project's own reader, and by tshark and capinfos
//! where they are installed.

use std::path::PathBuf;
use std::process::Command;

use capstan_ingest::source::{Event, PacketSource, open, open_reader};
use capstan_model::{Address, Block, LinkType, Time};
use proptest::prelude::*;

use super::blocks::MAX_SECRETS;
use super::bytes::pad;
use super::*;

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    interface: u32,
    stamp: Stamp,
    length: u32,
    data: Vec<u8>,
    options: Vec<u8>,
}

impl Kept {
    fn packet(&self) -> Packet<'_> {
        let Kept { interface, stamp, length, .. } = *self;
        Packet { interface, stamp, length, data: &self.data, options: &self.options }
    }
}

#[derive(Debug, Default, PartialEq)]
struct File {
    interfaces: Vec<Interface>,
    packets: Vec<Kept>,
    blocks: Vec<Block>,
    lost: Vec<(Option<u32>, u64)>,
    damage: Option<String>,
}

fn read_from(mut source: impl PacketSource) -> File {
    let mut file = File::default();
    loop {
        match source.next_event() {
            Ok(Some(Event::Interface(interface))) => file.interfaces.push(interface),
            Ok(Some(Event::Packet(packet))) => file.packets.push(Kept {
                interface: packet.interface,
                stamp: packet.stamp,
                length: packet.length,
                data: packet.data.to_vec(),
                options: packet.options.to_vec(),
            }),
            Ok(Some(Event::Block(block))) => file.blocks.push(block),
            Ok(Some(Event::Lost(lost))) => file.lost.push((lost.interface, lost.packets)),
            Ok(Some(Event::Cut(cut))) => panic!("{cut:?}"),
            Ok(Some(Event::Opened { .. } | Event::Closed { .. } | Event::Idle(_))) => {
                panic!("a file is not live")
            }
            Ok(None) => return file,
            Err(error) => {
                file.damage = Some(error.to_string());
                return file;
            }
        }
    }
}

fn read(bytes: &[u8]) -> File {
    read_from(open_reader("it", std::io::Cursor::new(bytes.to_vec())).expect("a capture"))
}

fn ethernet(resolution: u8, offset_seconds: i64) -> Interface {
    Interface {
        link_type: LinkType::ETHERNET,
        snap_length: 0,
        name: None,
        resolution,
        offset_seconds,
        options: Vec::new(),
    }
}

/// Writes interfaces and packets with the numbers they have.
fn write(interfaces: &[Interface], packets: &[Kept]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = PcapngWriter::new(Section::default(), &mut out).with_longest(MAX_CAPTURED);
    for (number, interface) in interfaces.iter().enumerate() {
        assert_eq!(writer.interface(interface, &mut out), number as u32);
    }
    for packet in packets {
        writer.packet(&packet.packet(), &[], &mut out).expect("written");
    }
    assert_eq!(writer.cut(), 0);
    out
}

/// What a packet is apart from the number of its interface: with what the interface is,
/// apart from its clock, which writing may change.
fn told(file: &File) -> Vec<(Kept, Interface)> {
    file.packets
        .iter()
        .map(|packet| {
            let mut interface = file.interfaces[packet.interface as usize].clone();
            (interface.resolution, interface.offset_seconds) = (0, 0);
            if packet.stamp == Stamp::None {
                // Its captured length is said by the snap length.
                interface.snap_length = 0;
            }
            (Kept { interface: 0, ..packet.clone() }, interface)
        })
        .collect()
}

fn packet(stamp: Stamp, data: &[u8]) -> Kept {
    let length = data.len() as u32;
    Kept { interface: 0, stamp, length, data: data.to_vec(), options: Vec::new() }
}

#[test]
fn nanoseconds_are_written_whatever_the_source_had() {
    let time = Stamp::At(Time(1_700_000_000_123_456_000));
    let file = read(&write(&[ethernet(6, 0)], &[packet(time, b"abc")]));
    assert_eq!(file.interfaces, [ethernet(9, 0)]);
    assert_eq!(file.packets, [packet(time, b"abc")]);
}

#[test]
fn times_finer_than_nanoseconds_keep_raw_ticks() {
    let pico = [
        packet(Stamp::Raw { ticks: 1_999, time: Some(Time(1)) }, b"raw"),
        packet(Stamp::At(Time(7)), b"whole"),
    ];
    let file = read(&write(&[ethernet(12, 0)], &pico));
    assert_eq!(file.interfaces, [ethernet(12, 0)]);
    assert_eq!(file.packets, pico);

    // Late, early and usual times of one interface: as many descriptions as it takes.
    let mixed = [
        packet(Stamp::At(Time(1_000)), b"usual"),
        packet(Stamp::Raw { ticks: u64::MAX, time: None }, b"late"),
        packet(Stamp::At(Time(2_000)), b"usual"),
    ];
    let file = read(&write(&[ethernet(6, 0)], &mixed));
    assert_eq!(file.interfaces, [ethernet(9, 0), ethernet(6, 0)]);
    assert_eq!(told(&file).len(), 3);
    assert_eq!(file.packets[1], Kept { interface: 1, ..mixed[1].clone() });
    assert_eq!(file.packets[2], mixed[2]);

    let early = [packet(Stamp::At(Time(-5_000)), b"own"), packet(Stamp::At(Time::MIN), b"first")];
    let file = read(&write(&[ethernet(6, -10)], &early));
    assert_eq!(file.interfaces[0], ethernet(6, -10), "a clock that begins at another moment");
    assert_eq!(file.interfaces.len(), 2);
    let stamps: Vec<_> = file.packets.iter().map(|packet| packet.stamp).collect();
    assert_eq!(stamps, [early[0].stamp, early[1].stamp]);
}

#[test]
fn untimed_packets_stay_untimed() {
    let mut short = packet(Stamp::None, &[1; 60]);
    short.length = 100;
    let other = |packet: Kept| Kept { interface: 1, ..packet };
    let packets = [
        packet(Stamp::None, b"first interface"),
        other(packet(Stamp::At(Time(5)), b"second")),
        other(packet(Stamp::None, b"second interface")),
        other(short.clone()),
        other(packet(Stamp::At(Time(6)), b"after")),
        packet(Stamp::At(Time(7)), b"first again"),
        short,
    ];
    let named = |name: &str, snap_length| Interface {
        name: Some(name.to_owned()),
        snap_length,
        ..ethernet(9, 0)
    };
    let interfaces = [named("eth0", 0), named("eth1", 80)];
    let file = read(&write(&interfaces, &packets));
    let want =
        File { interfaces: interfaces.to_vec(), packets: packets.to_vec(), ..File::default() };
    assert_eq!(told(&file), told(&want));
    assert_eq!(file.damage, None);
}

#[test]
fn untimed_packet_that_is_no_simple_packet_has_a_comment() {
    let mut nothing = packet(Stamp::None, b"");
    nothing.length = 9;
    let file = read(&write(&[ethernet(9, 0)], &[nothing]));
    assert_eq!(file.packets[0].stamp, Stamp::At(Time(0)));
    assert!(String::from_utf8_lossy(&file.packets[0].options).contains(NO_TIME));
}

#[test]
fn options_and_comments_are_in_the_packet_block() {
    let mut out = Vec::new();
    let mut writer = PcapngWriter::new(Section::default(), &mut out);
    writer.interface(&ethernet(9, 0), &mut out);
    let mut kept = packet(Stamp::At(Time(1)), b"abc");
    kept.options = vec![2, 0, 4, 0, 1, 0, 0, 0];
    writer.packet(&kept.packet(), &["pod: a/b", "x"], &mut out).expect("written");
    let before = out.clone();
    for damaged in [&[1, 0, 9, 0][..], &[0, 0, 0, 0], &[1], &[1, 0, 1, 0, 5]] {
        kept.options = damaged.to_vec();
        assert_eq!(writer.packet(&kept.packet(), &[], &mut out), Err(WriteError::Options));
    }
    kept.options = Vec::new();
    kept.interface = 3;
    assert_eq!(writer.packet(&kept.packet(), &[], &mut out), Err(WriteError::Interface(3)));
    assert_eq!(out, before);
    let options = &read(&out).packets[0].options;
    let want = b"\x02\0\x04\0\x01\0\0\0\x01\0\x08\0pod: a/b\x01\0\x01\0x\0\0\0";
    assert_eq!(options, want);
}

#[test]
fn packet_too_long_for_wireshark_is_truncated_with_a_comment() {
    let mut out = Vec::new();
    let mut writer = PcapngWriter::new(Section::default(), &mut out);
    writer.interface(&ethernet(9, 0), &mut out);
    let long = packet(Stamp::At(Time(1)), &vec![7; WIRESHARK_LONGEST + 1]);
    writer.packet(&long.packet(), &[], &mut out).expect("written");
    assert_eq!(writer.cut(), 1);
    let kept = &read(&out).packets[0];
    assert_eq!((kept.data.len(), kept.length), (WIRESHARK_LONGEST, 262_145));
    assert!(String::from_utf8_lossy(&kept.options).contains("truncated to 262144 of 262145"));
}

#[test]
fn blocks_decode_or_return_an_error() {
    let mut out = Vec::new();
    let mut writer = PcapngWriter::new(Section::default(), &mut out);
    writer.interface(&ethernet(9, 0), &mut out);
    // Microseconds in its source, nanoseconds here.
    let number = writer.interface(&ethernet(6, 0), &mut out);
    let block =
        |block_type, body: Vec<u8>| Block { block_type, body, big_endian: false, before: 0 };
    let mut counted = [&7u32.to_le_bytes()[..], &bytes::halves(5)].concat();
    counted.extend([2, 0, 8, 0]);
    counted.extend(bytes::halves(3));
    counted.extend([5, 0, 8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let number_of = |there| (there == 7).then_some(number);
    let mut fate = |block: &Block| writer.block(block, number_of, &mut out);

    let statistics = block(block_type::INTERFACE_STATISTICS, counted.clone());
    assert_eq!(fate(&statistics), Fate::Written);
    let nobody = block(block_type::INTERFACE_STATISTICS, vec![0; 12]);
    assert_eq!(fate(&nobody), Fate::NoInterface);
    assert_eq!(fate(&block(block_type::CUSTOM, vec![1, 0, 0, 0, 5])), Fate::Written);
    assert_eq!(fate(&block(block_type::CUSTOM_NO_COPY, vec![1, 0, 0, 0])), Fate::NotToBeCopied);
    assert_eq!(fate(&block(block_type::SECTION_HEADER, vec![0; 16])), Fate::OwnKind);
    let unknown = Block { big_endian: true, ..block(77, vec![1]) };
    assert_eq!(fate(&unknown), Fate::ByteOrder);

    let file = read(&out);
    assert_eq!(file.damage, None);
    let [_, statistics, custom] = &file.blocks[..] else { panic!("{:?}", file.blocks) };
    let mut want = [&1u32.to_le_bytes()[..], &bytes::halves(5_000)].concat();
    want.extend([2, 0, 8, 0]);
    want.extend(bytes::halves(3_000));
    want.extend(&counted[24..]);
    assert_eq!(statistics.body, want);
    assert_eq!(file.lost, [(Some(1), 9)]);
    assert_eq!(
        (custom.block_type, &custom.body[..]),
        (block_type::CUSTOM, &[1, 0, 0, 0, 5, 0, 0, 0][..])
    );
}

#[test]
fn long_texts_are_truncated_or_split_into_options_and_blocks() {
    let mut out = Vec::new();
    let mut writer = PcapngWriter::new(Section::default(), &mut out);
    writer.interface(&ethernet(9, 0), &mut out);
    let comment = "é".repeat(40_000);
    let kept = packet(Stamp::At(Time(1)), b"abc");
    writer.packet(&kept.packet(), &[&comment], &mut out).expect("written");
    let name = "n".repeat(70_000);
    let names: Vec<_> = (0..40).map(|last| (Address::v4([10, 0, 0, last]), &*name)).collect();
    writer.names(names, &mut out);
    let file = read(&out);
    assert_eq!(file.damage, None);
    let value = &file.packets[0].options[4..4 + 65_534];
    assert_eq!(std::str::from_utf8(value), Ok(&comment[..65_534]));
    let names: Vec<_> = file.blocks.iter().filter(|block| block.block_type == 4).collect();
    assert_eq!(names.len(), 3);
    // A record: its header, the address, the longest name and its zero byte, padding.
    let record = 4 + 4 + (65_535 - 17) + 1 + 1;
    let bytes: usize = names.iter().map(|block| block.body.len() - 4).sum();
    assert_eq!(bytes, 40 * record);
}

/// One of everything.
fn whole_file() -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let section = Section {
        hardware: Some("x86_64".to_owned()),
        os: Some("Linux".to_owned()),
        application: Some("capstan".to_owned()),
        comments: vec!["complete".to_owned()],
    };
    let mut writer = PcapngWriter::new(section, &mut out);
    let names = [
        ("10.0.0.1".parse().expect("an address"), "web.shop"),
        ("2001:db8::7".parse().expect("an address"), "db.shop"),
        (Address::NONE, ""),
    ];
    writer.names(names, &mut out);
    writer.secrets(SECRETS_TLS_KEY_LOG, b"CLIENT_RANDOM 00 00\n", &mut out).expect("short");
    let eth0 = Interface { name: Some("eth0".to_owned()), ..ethernet(6, 0) };
    writer.interface(&eth0, &mut out);
    writer.interface(&Interface { link_type: LinkType::RAW, ..ethernet(12, 0) }, &mut out);
    let packets = [
        packet(Stamp::At(Time(1_700_000_000_123_456_789)), &[0; 60]),
        Kept { interface: 1, ..packet(Stamp::At(Time(1_000_000_001)), &[0x45; 20]) },
        packet(Stamp::None, &[0; 64]),
        packet(Stamp::At(Time(-2_000_000_000)), &[0; 61]),
    ];
    for packet in &packets {
        writer.packet(&packet.packet(), &["a comment"], &mut out).expect("written");
    }
    let counted = Statistics {
        at: Time(1_700_000_001_000_000_000),
        start: Some(Time(1_700_000_000_000_000_000)),
        end: None,
        received: Some(10),
        dropped_by_interface: Some(2),
        dropped_by_system: Some(1),
        delivered: None,
    };
    writer.statistics(0, &counted, &mut out).expect("written");
    assert_eq!(writer.statistics(9, &counted, &mut out), Err(WriteError::Interface(9)));
    (out, packets.len())
}

#[test]
fn a_whole_file_is_read_back() {
    let (out, packets) = whole_file();
    let file = read(&out);
    assert_eq!((file.packets.len(), file.damage), (packets, None));
    let kinds: Vec<_> = file.blocks.iter().map(|block| block.block_type).collect();
    assert_eq!(kinds, [block_type::SECTION_HEADER, 4, 10, 5]);
    assert_eq!(file.lost, [(Some(0), 3)]);
    let long = vec![0; MAX_SECRETS + 1];
    let mut writer = PcapngWriter::new(Section::default(), &mut Vec::new());
    assert!(writer.secrets(1, &long, &mut Vec::new()).is_err());
}

/// What a program prints about a file, or nothing if it is not installed.
fn printed(program: &str, options: &[&str], bytes: &[u8]) -> Option<String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    let output = match Command::new(program).args(options).arg(file.path()).output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: {program}: {error}");
            return None;
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    assert!(!errors.contains("damaged") && !errors.contains("cut short"), "{errors}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn tshark_and_capinfos_read_it() {
    let (out, packets) = whole_file();
    let fields = ["frame.time_epoch", "frame.len", "frame.interface_name", "frame.comment"];
    let mut options = vec!["-n", "-T", "fields"];
    fields.iter().for_each(|field| options.extend(["-e", field]));
    options.push("-r");
    if let Some(text) = printed("tshark", &options, &out) {
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "1700000000.123456789\t60\teth0\ta comment",
                "1.000000001\t20\tunknown\ta comment",
                "\t64\teth0\t",
                "-2.000000000\t61\teth0\ta comment",
            ]
        );
    }
    if let Some(text) = printed("capinfos", &["-M"], &out) {
        assert!(text.contains(&format!("Number of packets:   {packets}")), "{text}");
        assert!(text.contains("Capture hardware:    x86_64"), "{text}");
        assert!(text.contains("Number of resolved IPv4 addresses in file: 1"), "{text}");
        assert!(text.contains("Number of resolved IPv6 addresses in file: 1"), "{text}");
        assert!(text.contains("Number of decryption secrets in file: 1"), "{text}");
    }
}

#[test]
fn every_shared_capture_round_trips() {
    let shared = std::env::var_os("CAPSTAN_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    );
    let captures = shared.join("captures");
    let mut todo = vec![captures.clone()];
    let mut count = 0;
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("listed");
            todo.extend(entries.map(|entry| entry.expect("an entry").path()));
            continue;
        }
        let Ok(source) = open(&path) else { continue };
        count += 1;
        let file = File { damage: None, ..read_from(source) };
        let again = read(&write(&file.interfaces, &file.packets));
        assert_eq!(again.damage, None, "{}", path.display());
        assert!(told(&again) == told(&file), "{}", path.display());
        if file.packets.iter().all(|packet| matches!(packet.stamp, Stamp::At(_))) {
            let numbers = |file: &File| -> Vec<u32> {
                file.packets.iter().map(|packet| packet.interface).collect()
            };
            assert_eq!(numbers(&again), numbers(&file), "{}", path.display());
        }
    }
    if count == 0 {
        println!("skipped: no shared captures in {}", captures.display());
    }
}

fn any_interface() -> impl Strategy<Value = Interface> {
    let resolution = prop_oneof![Just(6u8), Just(9), any::<u8>()];
    let offset = prop_oneof![Just(0i64), -1_000_000_000..1_000_000_000i64, any::<i64>()];
    let snap_length = prop_oneof![Just(0u32), 0..200u32, any::<u32>()];
    (any::<u16>(), snap_length, proptest::option::of("[a-z0-9]{1,9}"), resolution, offset).prop_map(
        |(link_type, snap_length, name, resolution, offset_seconds)| Interface {
            link_type: LinkType(link_type),
            snap_length,
            name,
            resolution,
            offset_seconds,
            options: vec![3, 0, 2, 0, b'a', b'b', 0, 0],
        },
    )
}

/// A packet as a file holds it: interface, ticks (none for a simple packet), how many bytes
/// were not captured, captured bytes, whether it has a comment.
type InFile = (u32, Option<u64>, u32, Vec<u8>, bool);

fn any_packet(count: u32) -> impl Strategy<Value = InFile> {
    let ticks = prop_oneof![
        1 => Just(None),
        3 => (1_600_000_000_000_000_000..1_800_000_000_000_000_000u64).prop_map(Some),
        3 => any::<u64>().prop_map(Some),
        3 => (0..10_000_000_000u64).prop_map(Some),
    ];
    let data = proptest::collection::vec(any::<u8>(), 0..150);
    (0..count, ticks, 0..300u32, data, any::<bool>())
}

/// A file of the same things in the source's own ticks, written plainly.
fn source_file(interfaces: &[Interface], packets: &[InFile]) -> Vec<u8> {
    let mut out = Vec::new();
    let section = |out: &mut Vec<u8>| {
        let block = BlockStart::new(block_type::SECTION_HEADER, out);
        out.extend(0x1a2b_3c4d_u32.to_le_bytes());
        out.extend([1, 0, 0, 0]);
        out.extend(u64::MAX.to_le_bytes());
        block.end(out);
    };
    section(&mut out);
    for interface in interfaces {
        bytes::interface(interface, interface.snap_length, Clock::of(interface), &mut out);
    }
    for (interface, ticks, more, data, comment) in packets {
        let length = data.len() as u32 + more;
        let Some(ticks) = ticks else {
            // In the middle of a file of many interfaces only the first can have these.
            let snap_length = interfaces[0].snap_length;
            let fits = |byte: &&u8| **byte > 0;
            let data: Vec<u8> = data.iter().filter(fits).copied().collect();
            let most = if snap_length == 0 { usize::MAX } else { snap_length as usize };
            let captured = &data[..data.len().min(most)];
            let length = if captured.len() < data.len() { length } else { data.len() as u32 };
            let block = BlockStart::new(block_type::SIMPLE_PACKET, &mut out);
            out.extend(length.to_le_bytes());
            out.extend(captured);
            block.end(&mut out);
            continue;
        };
        let block = BlockStart::new(block_type::ENHANCED_PACKET, &mut out);
        out.extend(interface.to_le_bytes());
        out.extend(bytes::halves(*ticks));
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend(data);
        pad(data.len(), &mut out);
        let mut options = Options::new(&mut out);
        if *comment {
            options.comment("hello");
        }
        options.end();
        block.end(&mut out);
    }
    out
}

proptest! {
    #[test]
    fn pcapng_read_by_ingest_round_trips_through_export(
        (interfaces, packets) in proptest::collection::vec(any_interface(), 1..4).prop_flat_map(
            |interfaces| {
                let count = interfaces.len() as u32;
                (Just(interfaces), proptest::collection::vec(any_packet(count), 0..12))
            },
        ),
    ) {
        let file = read(&source_file(&interfaces, &packets));
        prop_assert_eq!(&file.damage, &None);
        prop_assert_eq!(file.packets.len(), packets.len());
        let again = read(&write(&file.interfaces, &file.packets));
        prop_assert_eq!(&again.damage, &None);
        prop_assert_eq!(told(&again), told(&file));
        // Ticks that are kept mean what they meant: the clock is the same.
        for (before, after) in file.packets.iter().zip(&again.packets) {
            if matches!(before.stamp, Stamp::Raw { .. }) {
                let clock = |file: &File, packet: &Kept| {
                    Clock::of(&file.interfaces[packet.interface as usize])
                };
                prop_assert_eq!(clock(&again, after), clock(&file, before));
            }
        }
    }
}
