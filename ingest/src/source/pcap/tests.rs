//! Every dialect is a synthetic file here: tshark 4.0.17 reads the same bytes to the
//! same packets.

use capstan_model::link::LinkType;
use capstan_model::packet::Stamp;
use capstan_model::{FailureKind, Time};

use super::super::tests::{harm, survives};
use super::super::{Cut, Event, PacketSource, SourceError, open_reader};

struct Write {
    big_endian: bool,
    bytes: Vec<u8>,
}

impl Write {
    fn file(big_endian: bool, magic: u32, version: (u16, u16), network: u32) -> Write {
        let mut write = Write { big_endian, bytes: Vec::new() };
        write.u32(magic).u16(version.0).u16(version.1).u32(0).u32(0).u32(65_535).u32(network);
        write
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        let bytes = if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        self.bytes.extend(bytes);
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        let bytes = if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        self.bytes.extend(bytes);
        self
    }

    /// A record whose header has `more` bytes than the usual one and whose packet is `0x11`s.
    fn record(&mut self, time: (u32, u32), first: u32, second: u32, more: usize) -> &mut Self {
        self.u32(time.0).u32(time.1).u32(first).u32(second);
        let data = first.min(second) as usize;
        self.bytes.resize(self.bytes.len() + more, 0);
        self.bytes.resize(self.bytes.len() + data, 0x11);
        self
    }
}

#[derive(Debug, PartialEq)]
struct Read {
    link_type: LinkType,
    resolution: u8,
    options: Vec<u8>,
    /// Nanoseconds, length on the wire, captured length.
    packets: Vec<(i64, u32, usize)>,
    /// Bytes of the packets that were cut which are not kept.
    cut: Vec<u64>,
    error: Option<String>,
}

fn read(bytes: Vec<u8>) -> Read {
    let mut source = open_reader("it", std::io::Cursor::new(bytes)).expect("a capture");
    let Ok(Some(Event::Interface(interface))) = source.next_event() else {
        panic!("no interface");
    };
    let (mut packets, mut cut) = (Vec::new(), Vec::new());
    let error = loop {
        match source.next_event() {
            Ok(Some(Event::Packet(packet))) => {
                let Stamp::At(Time(nanos)) = packet.stamp else { panic!("no time") };
                assert!(packet.data.iter().all(|byte| *byte == 0x11), "{:?}", packet.data);
                packets.push((nanos, packet.length, packet.data.len()));
            }
            Ok(Some(Event::Cut(Cut { interface, bytes, time }))) => {
                assert_eq!((interface, packets.is_empty()), (Some(0), false));
                assert!(time.is_some());
                cut.push(bytes);
            }
            Ok(Some(other)) => panic!("{other:?}"),
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    assert!(matches!(source.next_event(), Ok(None)));
    Read {
        link_type: interface.link_type,
        resolution: interface.resolution,
        options: interface.options,
        packets,
        cut,
        error,
    }
}

const TIME: (u32, u32) = (1_700_000_000, 123_456);
const MICROS: i64 = 1_700_000_000_123_456_000;
const NANOS: i64 = 1_700_000_000_000_123_456;

#[test]
fn both_byte_orders_and_both_resolutions() {
    for big_endian in [false, true] {
        for (magic, resolution, nanos) in [(0xa1b2_c3d4, 6, MICROS), (0xa1b2_3c4d, 9, NANOS)] {
            let mut file = Write::file(big_endian, magic, (2, 4), 113);
            file.record(TIME, 60, 1500, 0).record(TIME, 61, 61, 0);
            let expected = Read {
                link_type: LinkType::LINUX_SLL,
                resolution,
                options: Vec::new(),
                packets: vec![(nanos, 1500, 60), (nanos, 61, 61)],
                cut: Vec::new(),
                error: None,
            };
            assert_eq!(read(file.bytes), expected);
        }
    }
}

#[test]
fn longer_record_headers_are_detected_from_the_records() {
    for (magic, more) in [(0xa1b2_c3d4, 4), (0xa1b2_c3d4, 8), (0xa1b2_cd34, 8), (0xa1b2_cd34, 12)] {
        let mut file = Write::file(true, magic, (2, 4), 1);
        for _ in 0..3 {
            file.record(TIME, 60, 60, more);
        }
        let read = read(file.bytes);
        assert_eq!(read.packets, [(MICROS, 60, 60); 3], "{magic:#x} {more}");
        assert_eq!(read.error, None);
    }
}

#[test]
fn unusual_records_do_not_change_the_detected_dialect() {
    // More captured than there was, and a fraction of more than a second.
    let mut file = Write::file(false, 0xa1b2_c3d4, (2, 4), 1);
    file.record(TIME, 60, 60, 0).u32(5).u32(1_500_000).u32(60).u32(50);
    file.bytes.resize(file.bytes.len() + 60, 0x11);
    file.record(TIME, 0, 9, 0);
    let read = read(file.bytes);
    assert_eq!(read.packets, [(MICROS, 60, 60), (6_500_000_000, 50, 60), (MICROS, 9, 0)]);
}

#[test]
fn ixia_and_aix_and_the_old_order_of_lengths() {
    for magic in [0x1c00_01ac, 0x1c00_01ab] {
        let mut ixia = Write::file(false, magic, (2, 4), 1);
        ixia.u32(76).record(TIME, 60, 60, 0);
        assert_eq!(read(ixia.bytes).packets, [(NANOS, 60, 60)]);
    }
    let mut aix = Write::file(true, 0xa1b2_c3d4, (2, 2), 6);
    aix.record(TIME, 100, 60, 0);
    let aix = read(aix.bytes);
    assert_eq!((aix.link_type, aix.packets), (LinkType::ETHERNET, vec![(NANOS, 100, 60)]));
    let mut old = Write::file(false, 0xa1b2_c3d4, (2, 2), 1);
    old.record(TIME, 100, 60, 0);
    assert_eq!(read(old.bytes).packets, [(MICROS, 100, 60)]);
    let mut either = Write::file(false, 0xa1b2_c3d4, (2, 3), 1);
    either.record(TIME, 100, 60, 0).record(TIME, 60, 100, 0);
    assert_eq!(read(either.bytes).packets, [(MICROS, 100, 60); 2]);
}

#[test]
fn the_frame_check_sequence_is_no_part_of_the_link_type() {
    let mut file = Write::file(false, 0xa1b2_c3d4, (2, 4), 0x2400_0001);
    file.record(TIME, 60, 60, 0);
    let read = read(file.bytes);
    assert_eq!(read.link_type, LinkType::ETHERNET);
    assert_eq!(read.options, [13, 0, 1, 0, 4, 0, 0, 0]);
}

#[test]
fn packets_before_the_damage_are_returned() {
    let mut file = Write::file(false, 0xa1b2_c3d4, (2, 4), 1);
    file.record(TIME, 60, 60, 0);
    let whole = file.bytes.clone();
    for cut in [1, 15, 16, 50] {
        let mut bytes = whole.clone();
        bytes.extend_from_slice(&whole[24..24 + cut]);
        let read = read(bytes);
        assert_eq!(read.packets.len(), 1);
        let error = read.error.expect("cut");
        assert!(error.contains("damaged at byte 100"), "{error}");
    }
    for length in [u32::MAX, (128 << 20) + 1] {
        let mut file = Write::file(false, 0xa1b2_c3d4, (2, 4), 1);
        file.record(TIME, 60, 60, 0).u32(1).u32(2).u32(length).u32(length);
        file.bytes.resize(700_000, 0x11);
        let read = read(file.bytes);
        assert_eq!(read.packets.len(), 1);
        assert!(read.error.expect("too long").contains(&format!("{length} captured bytes")));
    }
}

#[test]
fn oversized_frame_is_truncated_and_reading_continues() {
    for (big_endian, magic, more) in [(false, 0xa1b2_c3d4, 0), (true, 0xa1b2_cd34, 8)] {
        let mut file = Write::file(big_endian, magic, (2, 4), 1);
        file.record(TIME, 60, 60, more)
            .record(TIME, 524_288, 524_288, more)
            .record(TIME, 524_289, 600_000, more)
            .record(TIME, 20_000_000, 20_000_000, more)
            .record(TIME, 60, 60, more);
        let whole = read(file.bytes.clone());
        let expected = [
            (MICROS, 60, 60),
            (MICROS, 524_288, 524_288),
            (MICROS, 600_000, 524_288),
            (MICROS, 20_000_000, 524_288),
            (MICROS, 60, 60),
        ];
        assert_eq!(whole.packets, expected);
        assert_eq!((whole.cut, whole.error), (vec![1, 19_475_712], None));
        // The file ends in what is not kept of a frame.
        file.bytes.truncate(15_000_000);
        let cut = read(file.bytes);
        assert_eq!(cut.packets, expected[..4]);
        assert!(cut.error.expect("cut short").contains("truncated inside a packet"));
    }
}

#[test]
fn file_that_is_not_pcap_is_refused() {
    let open =
        |bytes: Vec<u8>| open_reader("it", std::io::Cursor::new(bytes)).expect_err("refused");
    let header = Write::file(false, 0xa1b2_c3d4, (2, 4), 1).bytes;
    assert!(matches!(open(header[..20].to_vec()), SourceError::Damaged { offset: 0, .. }));
    let old = Write::file(false, 0xa1b2_c3d4, (1, 9), 1).bytes;
    assert!(open(old).to_string().contains("version 1.9"));
    let netbsd = Write::file(false, 0xa1b2_c3d4, (2, 4), 0x0224_0002).bytes;
    assert!(open(netbsd).to_string().contains("0x2240002"));
    for bytes in [&b""[..], b"abc", b"GET / HTTP/1.1\r\n\r\n"] {
        let error = open(bytes.to_vec());
        assert!(matches!(error, SourceError::NotACapture { .. }), "{error}");
        assert_eq!(capstan_model::Failure::from(error).kind(), FailureKind::Usage);
    }
}

#[test]
fn damaged_capture_file_does_not_panic() {
    let mut file = Write::file(false, 0xa1b2_c3d4, (2, 4), 1);
    for length in [60, 0, 1_000, 61] {
        file.record(TIME, length, length, 0);
    }
    let file = file.bytes;
    proptest::proptest!(|(harm in harm())| survives(harm.done_to(&file)));
}
