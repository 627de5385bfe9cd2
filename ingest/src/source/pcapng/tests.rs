//! What is refused here and what is read was compared with tshark 4.0.17 on the same bytes.

use capstan_model::block::block_type;
use capstan_model::link::LinkType;
use capstan_model::packet::Stamp;
use capstan_model::{Block, Time};

use super::super::tests::{harm, survives};
use super::super::{Cut, Event, Lost, PacketSource, open_reader};

/// Writes blocks of one byte order.
#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn u16(self, value: u16) -> Vec<u8> {
        if self.0 { value.to_be_bytes().to_vec() } else { value.to_le_bytes().to_vec() }
    }

    fn u32(self, value: u32) -> Vec<u8> {
        if self.0 { value.to_be_bytes().to_vec() } else { value.to_le_bytes().to_vec() }
    }

    fn u64(self, value: u64) -> Vec<u8> {
        if self.0 { value.to_be_bytes().to_vec() } else { value.to_le_bytes().to_vec() }
    }

    fn u32s(self, values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| self.u32(*value)).collect()
    }

    fn block(self, kind: u32, parts: &[&[u8]]) -> Vec<u8> {
        let mut body = parts.concat();
        body.resize(body.len().next_multiple_of(4), 0);
        let total = self.u32(body.len() as u32 + 12);
        [self.u32(kind), total.clone(), body, total].concat()
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = [self.u16(code), self.u16(value.len() as u16), value.to_vec()].concat();
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn section(self, minor: u16, options: &[u8]) -> Vec<u8> {
        let magic = self.u32(0x1a2b_3c4d);
        let length = self.u64(u64::MAX);
        self.block(
            block_type::SECTION_HEADER,
            &[&magic, &self.u16(1), &self.u16(minor), &length, options],
        )
    }

    fn interface(self, snap_length: u32, options: &[u8]) -> Vec<u8> {
        let fixed = [self.u16(1), self.u16(0), self.u32(snap_length)].concat();
        self.block(block_type::INTERFACE, &[&fixed, options])
    }

    fn packet(self, interface: u32, ticks: u64, data: &[u8], options: &[u8]) -> Vec<u8> {
        let length = data.len() as u32;
        let fixed = self.u32s(&[interface, (ticks >> 32) as u32, ticks as u32, length, length]);
        let mut padded = data.to_vec();
        padded.resize(padded.len().next_multiple_of(4), 0);
        self.block(block_type::ENHANCED_PACKET, &[&fixed, &padded, options])
    }
}

const ORDERS: [Order; 2] = [Order(false), Order(true)];

/// Events as one can compare them.
#[derive(Debug, PartialEq, Clone)]
enum Seen {
    Interface(capstan_model::link::Interface),
    Packet { interface: u32, stamp: Stamp, length: u32, data: Vec<u8>, options: Vec<u8> },
    Block(Block),
    Lost(Lost),
    Cut(Cut),
}

fn read(bytes: &[u8]) -> (Vec<Seen>, Option<String>) {
    let mut source = open_reader("it", std::io::Cursor::new(bytes.to_vec())).expect("a capture");
    let mut seen = Vec::new();
    loop {
        seen.push(match source.next_event() {
            Ok(Some(Event::Interface(interface))) => Seen::Interface(interface),
            Ok(Some(Event::Packet(packet))) => Seen::Packet {
                interface: packet.interface,
                stamp: packet.stamp,
                length: packet.length,
                data: packet.data.to_vec(),
                options: packet.options.to_vec(),
            },
            Ok(Some(Event::Block(block))) => Seen::Block(block),
            Ok(Some(Event::Lost(lost))) => Seen::Lost(lost),
            Ok(Some(Event::Cut(cut))) => Seen::Cut(cut),
            Ok(Some(Event::Opened { .. } | Event::Closed { .. } | Event::Idle(_))) => {
                panic!("a file is not live")
            }
            Ok(None) => return (seen, None),
            Err(error) => return (seen, Some(error.to_string())),
        });
    }
}

fn packets(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| matches!(seen, Seen::Packet { .. })).count()
}

/// A file with about everything in it.
fn rich(order: Order) -> Vec<u8> {
    let name = [order.option(2, b"eth0"), order.option(9, &[9]), order.option(14, &order.u64(10))];
    let speed = [order.option(8, &order.u64(1_000_000)), order.option(0, b"")];
    let comments = [
        order.option(1, b"hello"),
        order.option(2, &order.u32(1)),
        order.option(4, &order.u64(3)),
        order.option(2988, &[order.u32(32_473), b"x".to_vec()].concat()),
        order.option(0, b""),
        order.option(1, b"after the end"),
    ];
    let names = [
        order.u16(1),
        order.u16(9),
        b"\x0a\0\0\x01host\0\0\0\0".to_vec(),
        order.u16(0),
        order.u16(0),
        order.option(2, b"dns"),
    ];
    let counts = [
        order.option(2, &order.u32s(&[1, 2])),
        order.option(5, &order.u64(4)),
        order.option(7, &order.u64(1)),
    ];
    [
        order.section(0, &[order.option(3, b"linux"), order.option(0, b"")].concat()),
        order.block(block_type::NAME_RESOLUTION, &[&names.concat()]),
        order.interface(0, &[name.concat(), speed.concat()].concat()),
        order.interface(80, b""),
        order.packet(0, 5, b"abcde", &comments.concat()),
        order.packet(1, 1_000_001, b"", b""),
        order.block(block_type::SIMPLE_PACKET, &[&order.u32(6), b"simple"]),
        order.block(
            block_type::PACKET,
            &[
                &order.u16(1),
                &order.u16(2),
                &order.u32s(&[0, 7, 3, 9]),
                b"old\0",
                &order.option(2, &order.u32(2)),
            ],
        ),
        order.block(
            block_type::DECRYPTION_SECRETS,
            &[&order.u32s(&[0x544c_534b, 3]), b"key\0", &order.option(1, b"mine")],
        ),
        order.block(block_type::INTERFACE_STATISTICS, &[&order.u32s(&[0, 0, 9]), &counts.concat()]),
    ]
    .concat()
}

#[test]
fn both_byte_orders_say_the_same() {
    let (little, error) = read(&rich(ORDERS[0]));
    assert_eq!(error, None);
    let (big, error) = read(&rich(ORDERS[1]));
    assert_eq!(error, None);
    assert_eq!(little, big);
}

#[test]
fn every_packet_of_a_file_is_returned() {
    let (seen, _) = read(&rich(ORDERS[1]));
    let order = ORDERS[0];
    let [
        Seen::Block(section),
        Seen::Block(names),
        Seen::Interface(eth0),
        Seen::Interface(other),
        Seen::Lost(lost_before),
        Seen::Packet { stamp, options, data, .. },
        Seen::Packet { stamp: micros, interface: 1, .. },
        Seen::Packet { stamp: none, interface: 0, data: simple, .. },
        Seen::Lost(lost_old),
        Seen::Packet { options: old_options, data: old, stamp: old_stamp, length: 9, .. },
        Seen::Block(secrets),
        Seen::Lost(lost_statistics),
        Seen::Block(statistics),
    ] = &seen[..]
    else {
        panic!("{seen:#?}");
    };
    assert_eq!(section.block_type, block_type::SECTION_HEADER);
    assert_eq!(section.body[..4], [0x4d, 0x3c, 0x2b, 0x1a]);
    assert_eq!((names.block_type, names.before, names.big_endian), (4, 0, false));
    assert_eq!((eth0.name.as_deref(), eth0.resolution, eth0.offset_seconds), (Some("eth0"), 9, 10));
    assert_eq!(eth0.options, order.option(8, &order.u64(1_000_000)));
    assert_eq!(
        (other.link_type, other.snap_length, other.resolution, &other.name),
        (LinkType::ETHERNET, 80, 6, &None)
    );
    let lost = |interface, packets, since: Option<i64>, noticed| Lost {
        interface: Some(interface),
        packets,
        live: false,
        since: since.map(Time),
        noticed: Some(Time(noticed)),
    };
    assert_eq!(lost_before, &lost(0, 3, None, 10_000_000_005));
    assert_eq!((*stamp, &data[..]), (Stamp::At(Time(10_000_000_005)), &b"abcde"[..]));
    let wanted = [
        order.option(1, b"hello"),
        order.option(2, &order.u32(1)),
        order.option(4, &order.u64(3)),
        order.option(2988, &[order.u32(32_473), b"x".to_vec()].concat()),
    ];
    assert_eq!(options, &wanted.concat());
    assert_eq!(*micros, Stamp::At(Time(1_000_001_000)));
    assert_eq!((*none, &simple[..]), (Stamp::None, &b"simple"[..]));
    assert_eq!(lost_old, &lost(1, 2, Some(1_000_001_000), 7_000));
    assert_eq!((*old_stamp, &old[..]), (Stamp::At(Time(7_000)), &b"old"[..]));
    let wanted = [order.option(2, &order.u32(2)), order.option(4, &order.u64(2))];
    assert_eq!(old_options, &wanted.concat());
    assert_eq!((secrets.block_type, secrets.before), (10, 4));
    // Five are counted, three of them were told of before.
    let start = 10_000_000_000 + (1 << 32 | 2);
    assert_eq!(lost_statistics, &lost(0, 2, Some(start), 10_000_000_009));
    assert_eq!((statistics.block_type, &statistics.body[..4]), (5, &[0, 0, 0, 0][..]));
}

#[test]
fn sections_are_numbered_through_and_may_change_their_order() {
    let [little, big] = ORDERS;
    let custom = |order: Order| order.block(block_type::CUSTOM, &[&order.u32(1), b"data"]);
    let statistics = |order: Order, interface| {
        let counts = order.option(5, &order.u64(1));
        order.block(5, &[&order.u32s(&[interface, 0, 0]), &counts])
    };
    let file = [
        little.section(0, b""),
        little.interface(0, b""),
        little.interface(0, b""),
        custom(little),
        big.section(2, b""),
        big.interface(0, &big.option(9, &[3])),
        big.packet(0, 1, b"x", b""),
        statistics(big, 0),
        statistics(big, 7),
        custom(big),
        little.section(0, b""),
        little.packet(0, 1, b"x", b""),
    ]
    .concat();
    let (seen, error) = read(&file);
    let interfaces: Vec<_> = seen
        .iter()
        .filter_map(|seen| match seen {
            Seen::Packet { interface, stamp, .. } => Some((*interface, *stamp)),
            Seen::Lost(lost) => lost.interface.map(|interface| (interface, Stamp::None)),
            _ => None,
        })
        .collect();
    assert_eq!(interfaces, [(2, Stamp::At(Time(1_000_000))), (2, Stamp::None)]);
    let blocks: Vec<_> = seen
        .iter()
        .filter_map(|seen| match seen {
            Seen::Block(block) => Some((block.block_type, block.big_endian, block.body[0])),
            _ => None,
        })
        .collect();
    assert_eq!(
        blocks,
        [
            (block_type::SECTION_HEADER, false, 0x4d),
            (block_type::CUSTOM, false, 1),
            (block_type::SECTION_HEADER, false, 0x4d),
            (block_type::INTERFACE_STATISTICS, false, 2),
            (block_type::INTERFACE_STATISTICS, false, 0xff),
            (block_type::CUSTOM, true, 0),
            (block_type::SECTION_HEADER, false, 0x4d),
        ]
    );
    assert!(error.expect("no interface").contains("a section with 0 interfaces"));
}

#[test]
fn a_simple_packet_is_as_long_as_the_snap_length() {
    for order in ORDERS {
        let file = |snap_length| {
            [
                order.section(0, b""),
                order.interface(snap_length, b""),
                order.block(block_type::SIMPLE_PACKET, &[&order.u32(100), &[1; 60]]),
            ]
            .concat()
        };
        let (seen, error) = read(&file(58));
        assert_eq!(error, None);
        let Some(Seen::Packet { length: 100, data, .. }) = seen.last() else { panic!("{seen:?}") };
        assert_eq!(data.len(), 58);
        let (_, error) = read(&file(0));
        assert!(error.expect("too short").contains("room for 60"));
    }
}

#[test]
fn captures_damaged_for_tshark_are_damaged() {
    let order = ORDERS[0];
    let good = [order.section(0, b""), order.interface(0, b""), order.packet(0, 1, b"x", b"")];
    let good = good.concat();
    let differing = {
        let mut block = order.packet(0, 1, b"x", b"");
        let last = block.len() - 4;
        block[last] = 40;
        block
    };
    let mut long = order.packet(0, 1, b"abcd", b"");
    long[20..24].copy_from_slice(&order.u32(5));
    let cases: [(&str, Vec<u8>, &str); 14] = [
        ("differing lengths", differing, "two different lengths"),
        ("option overrun", order.packet(0, 1, b"", &[1, 0, 9, 0, 1, 2, 3, 4]), "does not fit"),
        ("flags of 8 bytes", order.packet(0, 1, b"", &order.option(2, &[0; 8])), "not 4"),
        ("no such interface", order.packet(5, 1, b"", b""), "a section with 1 interfaces"),
        ("captured too long", long, "room for 4"),
        ("three bytes", vec![0; 3], "truncated"),
        ("zeros", vec![0; 12], "of 0 bytes"),
        ("huge", order.u32s(&[6, u32::MAX, 0]), "4294967295 bytes"),
        ("cut", order.packet(0, 1, &[0; 50], b"")[..40].to_vec(), "40 of 84 bytes"),
        ("names", order.block(4, &[&order.u16(1), &order.u16(200), &[0; 4]]), "does not fit"),
        ("secrets", order.block(10, &[&order.u32s(&[1, 2_000])]), "do not fit"),
        ("statistics", order.block(5, &[&order.u32(0)]), "fewer than 12"),
        ("custom", order.block(block_type::CUSTOM, &[]), "enterprise number"),
        ("version", order.section(1, b""), "1.1"),
    ];
    for (name, damage, what) in cases {
        let file = [&good[..], &damage[..], &order.packet(0, 1, b"x", b"")[..]];
        // What is too short is so only at the end.
        let parts = if matches!(name, "three bytes" | "cut" | "huge") { 2 } else { 3 };
        let (seen, error) = read(&file[..parts].concat());
        assert_eq!(packets(&seen), 1, "{name}");
        let error = error.unwrap_or_else(|| panic!("{name} was read"));
        assert!(error.contains(what), "{name}: {error}");
        assert!(error.contains(&format!("byte {}", good.len())), "{name}: {error}");
    }
}

#[test]
fn captures_accepted_by_tshark_are_read() {
    let order = ORDERS[0];
    let good = [order.section(0, b""), order.interface(0, b"")].concat();
    let mut unpadded = order.packet(0, 1, b"abc", b"");
    let last = unpadded.len() - 4;
    (unpadded[4], unpadded[last]) = (35, 35);
    let cases: [(&str, Vec<u8>); 4] = [
        ("padding not counted", unpadded),
        ("unknown block", [order.block(77, &[b"abcd"]), order.packet(0, 1, b"", b"")].concat()),
        (
            "statistics of nobody",
            [order.block(5, &[&order.u32s(&[7, 0, 0])]), order.packet(0, 1, b"", b"")].concat(),
        ),
        (
            "end mark with a length",
            order.packet(
                0,
                1,
                b"",
                &[order.option(1, b"abcd"), vec![0, 0, 4, 0, 1, 2, 3, 4]].concat(),
            ),
        ),
    ];
    for (name, more) in cases {
        let (seen, error) = read(&[&good[..], &more[..]].concat());
        assert_eq!((packets(&seen), error), (1, None), "{name}");
    }
}

#[test]
fn oversized_frame_is_truncated_and_reading_continues() {
    for order in ORDERS {
        let start = [order.section(0, b""), order.interface(0, b"")].concat();
        let comment = order.option(1, b"long");
        let small = order.packet(0, 3, b"small", b"");
        let time = Some(capstan_model::Time(2_000));
        // The longest that is kept, one whose block is read whole, one whose block is not.
        for (length, cut) in [(524_288, 0), (524_289, 1), (15_000_000, 14_475_712)] {
            let long = order.packet(0, 2, &vec![7; length], &comment);
            let (seen, error) = read(&[&start[..], &long, &small].concat());
            assert_eq!((packets(&seen), error), (2, None), "{length}");
            let told = Cut { interface: Some(0), bytes: cut, time };
            assert_eq!(seen.contains(&Seen::Cut(told)), cut > 0, "{length}");
            let Seen::Packet { length: wire, data, options, .. } = &seen[seen.len() - 2] else {
                panic!("{length}: no packet");
            };
            assert_eq!((*wire as usize, data.len()), (length, length.min(524_288)));
            assert_eq!(options, &ORDERS[0].option(1, b"long"));
        }
        let huge = order.packet(0, 2, &vec![7; 20_000_001], &comment);
        let simple =
            order.block(block_type::SIMPLE_PACKET, &[&order.u32(20_000_000), &vec![8; 20_000_000]]);
        let other = order.block(77, &[&vec![9; 20_000_000]]);
        let file = [&start[..], &huge, &other, &simple, &small].concat();
        let (seen, error) = read(&file);
        assert_eq!(error, None);
        let told: Vec<&Seen> = seen.iter().filter(|seen| matches!(seen, Seen::Cut(_))).collect();
        let cut = |interface, bytes, time| Seen::Cut(Cut { interface, bytes, time });
        let expected = [
            cut(Some(0), 19_475_713, time),
            cut(None, 20_000_012, None),
            cut(Some(0), 19_475_712, None),
        ];
        assert_eq!(told, expected.iter().collect::<Vec<_>>());
        assert_eq!(packets(&seen), 3);
        let (seen, error) = read(&file[..15_000_000]);
        assert_eq!(packets(&seen), 1);
        assert!(error.expect("cut short").contains("truncated inside a block"));
    }
}

#[test]
fn interfaces_are_bounded() {
    let order = ORDERS[0];
    let one = order.interface(0, b"");
    let file = [order.section(0, b""), one.repeat(65_537)].concat();
    let (seen, error) = read(&file);
    assert_eq!(seen.len(), 1 + 65_536);
    assert!(error.expect("too many").contains("65536"));
}

#[test]
fn damaged_capture_file_does_not_panic() {
    let [little, big] = ORDERS.map(rich);
    let file = [little, big].concat();
    proptest::proptest!(|(harm in harm())| survives(harm.done_to(&file)));
}

#[test]
fn loss_spans_from_last_good_time_to_detection() {
    for order in ORDERS {
        let drops =
            |count: u64| [order.option(4, &order.u64(count)), order.option(0, b"")].concat();
        let statistics = |ticks: u32, dropped: u64| {
            let counts = order.option(5, &order.u64(dropped));
            order.block(block_type::INTERFACE_STATISTICS, &[&order.u32s(&[0, 0, ticks]), &counts])
        };
        let file = [
            order.section(0, b""),
            order.interface(0, b""),
            order.block(block_type::SIMPLE_PACKET, &[&order.u32(6), b"simple"]),
            // Nothing before it has a time.
            order.packet(0, 100, b"", &drops(1)),
            order.packet(0, 200, b"", &drops(2)),
            statistics(300, 3),
            // Four more since the statistics before.
            statistics(400, 7),
            order.packet(0, 500, b"", b""),
            // Counted without a time: they were good before.
            statistics(0, 8),
        ];
        let (seen, error) = read(&file.concat());
        assert_eq!(error, None);
        let lost: Vec<_> = seen
            .iter()
            .filter_map(|seen| match seen {
                Seen::Lost(lost) => {
                    let micros = |time: Option<Time>| time.map(|time| time.0 / 1_000);
                    Some((lost.packets, micros(lost.since), micros(lost.noticed)))
                }
                _ => None,
            })
            .collect();
        let expected = [
            (1, None, Some(100)),
            (2, Some(100), Some(200)),
            (4, Some(300), Some(400)),
            (1, Some(400), None),
        ];
        assert_eq!(lost, expected);
    }
}
