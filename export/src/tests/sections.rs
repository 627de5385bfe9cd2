//! What sections and interfaces of a source say of themselves comes back.

use super::*;

fn header(before: u64, list: &[(u16, &[u8])]) -> Given {
    let mut body = vec![0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0];
    body.extend([0xff; 8]);
    body.extend(options(list));
    if !list.is_empty() {
        body.extend([0; 4]);
    }
    let block_type = block_type::SECTION_HEADER;
    Given::Block(Block { block_type, body, big_endian: false, before })
}

fn interface(name: &str, resolution: u8, offset_seconds: i64) -> Interface {
    let more: [(u16, &[u8]); 7] = [
        (1, b"a comment"),
        (3, b"a description"),
        (8, &1_000_000_u64.to_le_bytes()),
        (11, b"\0tcp port 80"),
        (12, b"an OS"),
        (15, b"a card"),
        (2988, b"\xd9\x7e\0\0custom"),
    ];
    Interface {
        link_type: LinkType::ETHERNET,
        snap_length: 0,
        name: Some(name.to_owned()),
        resolution,
        offset_seconds,
        options: options(&more),
    }
}

/// A section of a file: the codes and texts of its options, its interfaces, the times of its packets.
#[derive(Debug, Default)]
struct Section {
    options: Vec<(u16, String)>,
    interfaces: Vec<Interface>,
    times: Vec<Option<Time>>,
}

impl Section {
    fn has(&self, code: u16, text: &str) -> bool {
        self.options.contains(&(code, text.to_owned()))
    }
}

fn sections(file: &[u8]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for given in read_all(open_reader("export", std::io::Cursor::new(file.to_vec())).unwrap()) {
        match given {
            Given::Block(block) if block.block_type == block_type::SECTION_HEADER => {
                let mut section = Section::default();
                let mut rest = &block.body[16..];
                while let [a, b, c, d, behind @ ..] = rest {
                    let code = u16::from_le_bytes([*a, *b]);
                    let length = usize::from(u16::from_le_bytes([*c, *d]));
                    if code == 0 {
                        break;
                    }
                    let text = String::from_utf8_lossy(&behind[..length]).into_owned();
                    section.options.push((code, text));
                    rest = &behind[length.next_multiple_of(4)..];
                }
                sections.push(section);
            }
            Given::Interface(interface) => sections.last_mut().unwrap().interfaces.push(interface),
            Given::Packet(packet) => sections.last_mut().unwrap().times.push(packet.stamp.time()),
            Given::Block(_) => {}
        }
    }
    let ending = sections.pop().expect("a section");
    let says = |text: &str| ending.options.iter().any(|(_, said)| said.starts_with(text));
    assert!(ending.times.is_empty() && says("end of the file"), "{ending:?}");
    sections
}

const FIRST: &[(u16, &[u8])] =
    &[(1, b"mine"), (2, b"PDP-11"), (3, b"V7"), (4, b"first"), (2988, b"\xd9\x7e\0\0x")];
const SECOND: &[(u16, &[u8])] = &[(2, b"VAX"), (4, b"second")];

/// Two sections with an interface each, and so many packets a millisecond apart.
fn two_sections(packets: i64) -> Vec<Given> {
    let one = |time: i64, interface: u32| {
        let Given::Packet(packet) = at(time * 1_000_000, udp((1, 2), (3, 4), b"hello")) else {
            panic!("a packet");
        };
        Given::Packet(Owned { interface, ..packet })
    };
    let mut given = vec![header(0, FIRST), Given::Interface(interface("one", 6, 0))];
    given.extend((0..packets).map(|time| one(time, 0)));
    given.extend([header(packets as u64, SECOND), Given::Interface(interface("two", 6, -100))]);
    given.extend((packets..2 * packets).map(|time| one(time, 1)));
    given
}

#[tokio::test(flavor = "multi_thread")]
async fn sections_of_one_source_are_sections_of_the_file() {
    // In one segment, and in several that each say of which section they are.
    for segment_bytes in [1 << 20, 2_000] {
        let recording = Recording { segment_bytes, ..Recording::of(1) };
        let view = view_of(recording, two_sections(100)).await;
        for order in [Order::Time, Order::Recorded] {
            let (file, _) = run(&view, &of(Selection::default(), order)).await;
            let found = sections(&file);
            let [first, second] = &found[..] else { panic!("{order:?} {found:#?}") };
            for (section, expected) in [(first, FIRST), (second, SECOND)] {
                for (code, value) in expected {
                    let text = String::from_utf8_lossy(value);
                    assert!(section.has(*code, &text), "{code} {text}: {:?}", section.options);
                }
                assert!(
                    section
                        .options
                        .iter()
                        .any(|(_, text)| text.starts_with("complete coverage of the window"))
                );
                // Which later sections there are is not known while the first segment is read: then
                // the first section describes their interfaces, too.
                let early = usize::from(segment_bytes == 2_000 && order == Order::Recorded);
                assert!((1..=1 + early).contains(&section.interfaces.len()));
                assert_eq!(section.times.len(), 100);
            }
            assert_eq!(first.options.iter().filter(|(code, _)| *code == 4).count(), 1);
            // Its clock is in nanoseconds, unless it begins at another moment than 1970.
            assert_eq!(first.interfaces[0], interface("one", 9, 0));
            assert_eq!(second.interfaces, [interface("two", 6, -100)]);
            assert_eq!(second.times[99], Some(Time(199_000_000)));
        }
        // A part from the middle of a section is of that section.
        for (start, expected) in [(50_000_000, FIRST), (150_000_000, SECOND)] {
            let range = TimeRange { start: Time(start), end: Time(start + 10_000_000) };
            let (file, _) = run(&view, &of(Selection::of_range(range), Order::Time)).await;
            let found = sections(&file);
            let section = found.last().unwrap();
            assert_eq!((section.times.len(), section.interfaces.len()), (10, 1));
            assert!(
                section
                    .has(2, &String::from_utf8_lossy(expected[usize::from(expected.len() > 2)].1))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interleaved_sources_share_a_section_that_describes_all() {
    let store = store().await;
    let mixed = |first: &[(u16, &[u8])], start| {
        let mut given = vec![header(0, first)];
        given.extend(traffic(1, 200, start, 1_000_000));
        given
    };
    record(&store, Recording::of(1), mixed(FIRST, 0)).await;
    record(&store, Recording::of(2), mixed(FIRST, 1_000)).await;
    let view = StoreView::load(store.clone()).await.unwrap();
    let all = of(Selection::default(), Order::Time);
    let found = sections(&run(&view, &all).await.0);
    assert_eq!((found.len(), found[0].times.len()), (1, 400));
    assert!(found[0].has(2, "PDP-11") && found[0].has(4, "first"), "{:?}", found[0].options);
    // Another machine, and a recording that says nothing of its own.
    record(&store, Recording::of(3), mixed(SECOND, 2_000)).await;
    record(&store, Recording::of(4), traffic(1, 200, 3_000, 1_000_000)).await;
    let view = StoreView::load(store.clone()).await.unwrap();
    let found = sections(&run(&view, &all).await.0);
    assert!(found.len() <= 2, "{found:#?}");
    let last = found.last().unwrap();
    for text in ["hardware: PDP-11", "hardware: VAX", "application: first", "application: second"] {
        assert!(last.has(1, text), "{text}: {:?}", last.options);
    }
    assert!(!last.options.iter().any(|(code, _)| *code == 2), "which machine is not one answer");
    assert_eq!(found.iter().map(|section| section.times.len()).sum::<usize>(), 800);
    // As recorded each is in a section of its own.
    let recorded = of(Selection::default(), Order::Recorded);
    let found = sections(&run(&view, &recorded).await.0);
    let machines: Vec<Option<&str>> = found
        .iter()
        .map(|section| section.options.iter().find(|(code, _)| *code == 2).map(|(_, text)| &**text))
        .collect();
    assert_eq!(machines, [Some("PDP-11"), Some("VAX"), None]);
    assert_eq!(found[2].times.len(), 200);
}
