//! Which packets are stored as one flow, whose it is and how it ended.

use std::collections::BTreeMap;

use capstan_index::Field;
use capstan_model::{Address, FlowEnd, FlowId};
use capstan_storage_engine::segment::packets::ReadRow;

use super::frames::*;
use super::*;

/// A flow, merged from its parts.
#[derive(Debug, Clone, PartialEq)]
struct Merged {
    source: (Address, u16),
    destination: (Address, u16),
    fragment: Option<u32>,
    first: Time,
    end: FlowEnd,
    /// Ordinals of its packets, and which way each goes.
    packets: Vec<(u64, Direction)>,
    counted: [u64; 2],
    outer: Option<(Address, Address)>,
    parts: usize,
}

impl Merged {
    fn ordinals(&self) -> Vec<u64> {
        self.packets.iter().map(|(ordinal, _)| *ordinal).collect()
    }

    fn ports(&self) -> (u16, u16) {
        (self.source.1, self.destination.1)
    }
}

/// Flows in the order in which they were opened. All their parts must say the same ends.
fn flows(policy: SealPolicy, frames: &[(i64, Vec<u8>)]) -> Vec<Merged> {
    let packets: Vec<_> = frames
        .iter()
        .map(|(time, data)| (Stamp::At(Time(*time)), data.len() as u32, data.clone()))
        .collect();
    expect_round_trip(policy, LinkType::ETHERNET, &packets);
    let mut merged: BTreeMap<FlowId, Merged> = BTreeMap::new();
    let mut parts = Vec::new();
    for sealed in &pass(policy, LinkType::ETHERNET, &packets) {
        let index = sealed.layers.iter().find(|layer| layer.layer == Layer::Index).unwrap().bytes();
        let segment = Segment::open(&index).unwrap();
        let (all, fetch) = (segment.all_flows(), InMemory(sealed));
        futures::executor::block_on(async {
            let rows = segment.read_flows(&fetch, &all).await.unwrap();
            let packets = segment.read_packets(&fetch, &rows).await.unwrap();
            let payload = segment.read_payload(&fetch, &segment.plan_payload(&rows)).await.unwrap();
            let mut of_part = vec![Vec::new(); rows.len()];
            packets
                .assemble(&all, &rows, &payload, |ReadRow { row, .. }, _| {
                    of_part[row.flow as usize].push((row.ordinal, row.direction()));
                })
                .unwrap();
            parts.extend(rows.into_iter().map(|row| row.part).zip(of_part));
        });
    }
    parts.sort_by_key(|(part, _)| (part.first, part.last));
    for (part, packets) in parts {
        let key = part.key;
        let flow = merged.entry(part.id).or_insert_with(|| Merged {
            source: (key.source, key.source_port),
            destination: (key.destination, key.destination_port),
            fragment: key.fragment_id,
            first: part.first.unwrap(),
            end: part.end,
            packets: Vec::new(),
            counted: [0; 2],
            outer: None,
            parts: 0,
        });
        assert_eq!(flow.source, (key.source, key.source_port));
        assert_eq!(flow.destination, (key.destination, key.destination_port));
        flow.end = part.end;
        flow.packets.extend(packets);
        flow.packets.sort_by_key(|(ordinal, _)| *ordinal);
        flow.counted = [0, 1].map(|way| flow.counted[way] + part.packets[way]);
        flow.outer = flow.outer.or(part.outer);
        flow.parts += 1;
    }
    for flow in merged.values() {
        let way =
            |way| flow.packets.iter().filter(|(_, direction)| *direction == way).count() as u64;
        assert_eq!(flow.counted, [way(Direction::Forward), way(Direction::Backward)]);
    }
    merged.into_values().collect()
}

const CLIENT: End = (1, 41_000);
const SERVER: End = (2, 80);
const SECOND: i64 = 1_000_000_000;

fn v4(last: u8) -> Address {
    Address::v4([10, 0, 0, last])
}

/// One packet of a TCP connection.
type Step = (End, End, u8, u32, u32, &'static [u8]);

/// How a step lies in a frame.
type Wrap = fn(Step) -> Vec<u8>;

fn plain((from, to, flags, seq, ack, payload): Step) -> Vec<u8> {
    let segment = tcp(from.1, to.1, flags, seq, ack, payload);
    ethernet(0x0800, &ipv4(INNER, from.0, to.0, 6, &segment))
}

fn in_vlan(step: Step) -> Vec<u8> {
    let frame = plain(step);
    ethernet(0x8100, &tagged(7, 0x0800, &frame[14..]))
}

fn in_ipv6((from, to, flags, seq, ack, payload): Step) -> Vec<u8> {
    let segment = tcp(from.1, to.1, flags, seq, ack, payload);
    ethernet(0x86dd, &ipv6(from.0, to.0, 6, &segment))
}

fn in_vxlan(step: Step) -> Vec<u8> {
    let (from, to) = (step.0.0, step.1.0);
    let outer = udp(50_000 + u16::from(from), 4789, &vxlan(9, &plain(step)));
    ethernet(0x0800, &ipv4(OUTER, from, to, 17, &outer))
}

const WRAPS: [Wrap; 4] = [plain, in_vlan, in_ipv6, in_vxlan];

/// A connection from SYN to the last ACK.
fn connection(client: End, server: End, start: u32) -> [Step; 8] {
    let (syn, answer) = (start, start ^ 0x5555_5555);
    let (c, s) = (syn.wrapping_add(1), answer.wrapping_add(1));
    [
        (client, server, SYN, syn, 0, b""),
        (server, client, SYN | ACK, answer, c, b""),
        (client, server, ACK, c, s, b""),
        (client, server, ACK, c, s, b"GET"),
        (server, client, ACK, s, c.wrapping_add(3), b"200"),
        (client, server, FIN | ACK, c.wrapping_add(3), s.wrapping_add(3), b""),
        (server, client, FIN | ACK, s.wrapping_add(3), c.wrapping_add(4), b""),
        (client, server, ACK, c.wrapping_add(4), s.wrapping_add(4), b""),
    ]
}

/// The steps in this order, each at the time it was sent.
fn in_order(wrap: Wrap, steps: &[Step], order: &[usize]) -> Vec<(i64, Vec<u8>)> {
    order.iter().map(|step| (SECOND + *step as i64 * 1_000_000, wrap(steps[*step]))).collect()
}

#[test]
fn late_syn_belongs_to_its_connection() {
    let orders: [&[usize]; 7] = [
        &[1, 2, 3, 4, 5, 6, 7, 0],
        &[2, 3, 4, 5, 6, 7, 1, 0],
        &[1, 0, 2, 3, 4, 5, 6, 7],
        &[4, 6, 2, 3, 5, 7, 0, 1],
        &[0, 1, 2, 3, 4, 5, 0, 6, 7],
        &[0, 1, 2, 3, 4, 5, 6, 7, 0, 1],
        &[0, 0, 1, 1, 2, 3, 4, 5, 6, 7],
    ];
    for wrap in WRAPS {
        for start in [1_000, u32::MAX, u32::MAX - 1] {
            // Ports do not tell who is the server.
            for server in [SERVER, (2, 45_000)] {
                let steps = connection(CLIENT, server, start);
                for order in orders {
                    let found = flows(SealPolicy::import(), &in_order(wrap, &steps, order));
                    // Where the server's answer comes before all it answers, what the client
                    // began with is told by what it acknowledges, which is more.
                    if order[0] == 4 {
                        continue;
                    }
                    let [flow] = &found[..] else { panic!("{order:?}: {found:#?}") };
                    assert_eq!(flow.ports(), (CLIENT.1, server.1), "{order:?}");
                    assert_eq!(flow.first, Time(SECOND), "{order:?}");
                    assert_eq!(flow.end, FlowEnd::Fin, "{order:?}");
                    let all: Vec<u64> = (0..order.len() as u64).collect();
                    assert_eq!(flow.ordinals(), all);
                    let forward = order.iter().filter(|step| steps[**step].0 == CLIENT).count();
                    assert_eq!(flow.counted[0], forward as u64);
                }
            }
        }
    }
}

#[test]
fn server_is_detected_by_port_without_a_syn() {
    let steps = connection(CLIENT, SERVER, 1_000);
    for order in [&[2, 3, 4, 5, 6, 7][..], &[4, 2, 3, 5, 6, 7]] {
        let found = flows(SealPolicy::import(), &in_order(plain, &steps, order));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].ports(), found[0].end), ((41_000, 80), FlowEnd::Fin));
    }
}

#[test]
fn another_number_is_another_connection() {
    let (one, other) = (connection(CLIENT, SERVER, 1_000), connection(CLIENT, SERVER, 77_000));
    for wrap in WRAPS {
        // Closed, not closed, and cut off in the middle; the new SYN, or its answer, or both.
        for before in [&[0, 1, 2, 3, 4, 5, 6, 7][..], &[0, 1, 2, 3], &[3, 4], &[1]] {
            for after in [&[0, 1, 2, 3][..], &[1, 0, 2, 3], &[1, 2, 3]] {
                let mut frames = in_order(wrap, &one, before);
                frames.extend(in_order(wrap, &other, after));
                let found = flows(SealPolicy::import(), &frames);
                let [first, second] = &found[..] else { panic!("{before:?} {after:?} {found:#?}") };
                assert_eq!(first.ordinals().len(), before.len(), "{before:?} {after:?}");
                assert_eq!(second.ports(), (CLIENT.1, SERVER.1));
                let closed = before.len() == 8;
                assert_eq!(first.end, if closed { FlowEnd::Fin } else { FlowEnd::Replaced });
                assert_eq!(second.end, FlowEnd::Open);
            }
        }
    }
}

#[test]
fn refused_connections_are_distinguished_by_sequence_number() {
    let refused = |seq: u32| {
        let syn = (CLIENT, SERVER, SYN, seq, 0, &b""[..]);
        [syn, (SERVER, CLIENT, RST | ACK, 0, seq + 1, &b""[..])]
    };
    let steps = [refused(5), refused(5), refused(9)].concat();
    let order: Vec<usize> = (0..steps.len()).collect();
    let found = flows(SealPolicy::import(), &in_order(plain, &steps, &order));
    assert_eq!(
        found.iter().map(Merged::ordinals).collect::<Vec<_>>(),
        [vec![0, 1, 2, 3], vec![4, 5]]
    );
    assert!(found.iter().all(|flow| flow.end == FlowEnd::Reset));
    let late = flows(SealPolicy::import(), &in_order(plain, &refused(5), &[1, 0]));
    assert_eq!((late.len(), late[0].counted, late[0].end), (1, [1, 1], FlowEnd::Reset));
}

#[test]
fn parts_in_several_segments_have_the_same_ends() {
    let steps = connection(CLIENT, (2, 45_000), 1_000);
    // The SYN is in the hour before, and comes last.
    let mut frames = in_order(plain, &steps, &[1, 2, 3, 4, 5, 6, 7, 0]);
    frames.iter_mut().for_each(|(time, _)| *time += HOUR);
    frames.last_mut().unwrap().0 = HOUR - 1;
    let apart = SealPolicy { span: None, ..SealPolicy::import() };
    let found = flows(apart, &frames);
    assert_eq!((found.len(), found[0].parts, found[0].end), (1, 2, FlowEnd::Fin));
    assert_eq!((found[0].first, found[0].ports()), (Time(HOUR - 1), (41_000, 45_000)));
    // Without the answer the first packet's sender was taken for the source: that is put right
    // while all parts are open, and stays where one is stored.
    let order = [4, 2, 3, 5, 6, 7, 1];
    let mut frames = in_order(plain, &steps, &order);
    let whole = flows(SealPolicy::import(), &frames);
    assert_eq!((whole.len(), whole[0].ports()), (1, (41_000, 45_000)));
    assert_eq!(whole[0].counted, [4, 3]);
    for (place, (time, _)) in frames.iter_mut().enumerate() {
        *time += if place < 3 { HOUR - 10 * SECOND } else { HOUR };
    }
    let open = flows(SealPolicy { hours: 8, ..apart }, &frames);
    assert_eq!((open[0].parts, open[0].ports()), (2, (41_000, 45_000)));
    let stored = flows(SealPolicy { hours: 1, ..apart }, &frames);
    assert_eq!((stored[0].parts, stored[0].ports()), (2, (45_000, 41_000)));
}

/// The first fragment's word, and a later one's.
fn pieces(whole: &[u8], cut: usize) -> [(u16, Vec<u8>); 2] {
    let later = (cut / 8) as u16;
    [(MORE, whole[..cut].to_vec()), (later, whole[cut..].to_vec())]
}

/// Every kind of tunnel whose outer packet may come in fragments: protocol, content.
fn tunnels(inner: &[u8]) -> Vec<(&'static str, u8, Vec<u8>)> {
    let frame = ethernet(0x0800, inner);
    vec![
        ("vxlan", 17, udp(50_000, 4789, &vxlan(200, &frame))),
        ("geneve", 17, udp(50_000, 6081, &geneve(200, &frame))),
        ("gre", 47, gre(200, 0x0800, inner)),
        ("gre bridge", 47, gre(200, 0x6558, &frame)),
        ("erspan", 47, erspan(1, 2, &frame)),
        ("ip in ip", 4, inner.to_vec()),
        ("gre in vxlan", 17, {
            let carried = ipv4(V4 { net: [172, 16, 0], ..INNER }, 8, 9, 47, &gre(3, 0x0800, inner));
            udp(50_000, 4789, &vxlan(200, &ethernet(0x0800, &carried)))
        }),
    ]
}

#[test]
fn later_fragments_of_an_outer_datagram_follow_the_first() {
    // What looks like ports stands where the second fragment begins.
    let segment = tcp(6_000, 8_443, ACK, 1, 1, &[0, 80, 31, 144].repeat(100));
    let inner = ipv4(INNER, 3, 4, 6, &segment);
    for (name, protocol, content) in tunnels(&inner) {
        let cut = 200;
        let whole = flows(
            SealPolicy::import(),
            &[(0, ethernet(0x0800, &ipv4(OUTER, 8, 9, protocol, &content)))],
        );
        let four: Vec<Vec<u8>> = pieces(&content, cut)
            .into_iter()
            .map(|(fragment, bytes)| {
                ethernet(0x0800, &ipv4(V4 { fragment, id: 78, ..OUTER }, 8, 9, protocol, &bytes))
            })
            .collect();
        let (first, later) = content.split_at(cut);
        let six = [
            fragment6(protocol, 0, true, 78, first),
            fragment6(protocol, cut as u16, false, 78, later),
        ]
        .map(|piece| ethernet(0x86dd, &ipv6(8, 9, 44, &piece)));
        for frames in [four, six.to_vec()] {
            let at = |order: &[usize]| -> Vec<(i64, Vec<u8>)> {
                order.iter().map(|place| (*place as i64, frames[*place].clone())).collect()
            };
            let found = flows(SealPolicy::import(), &at(&[0, 1]));
            let [flow] = &found[..] else { panic!("{name}: {found:#?}") };
            assert_eq!((flow.source, flow.destination), ((v4(3), 6_000), (v4(4), 8_443)), "{name}");
            assert_eq!(flow.counted, [2, 0], "{name}");
            assert_eq!(whole[0].ports(), flow.ports());
            assert!(flow.outer.is_some(), "{name}");
            // The later one first, and long after: it has no ports.
            let apart = flows(SealPolicy::import(), &at(&[1, 0]));
            assert_eq!(apart.len(), 2, "{name}");
            assert_eq!((apart[0].ports(), apart[0].fragment), ((0, 0), Some(78)), "{name}");
            let mut late = at(&[0, 1]);
            late[1].0 = 31 * SECOND;
            let late = flows(SealPolicy::import(), &late);
            assert_eq!((late.len(), late[1].ports()), (2, (0, 0)), "{name}");
            // In the next segment, too, the fragment is found by the tunnel's ends.
            let mut hours = at(&[0, 1]);
            hours[0].0 = HOUR - 1;
            hours[1].0 = HOUR;
            let apart = SealPolicy { span: None, ..SealPolicy::import() };
            let found = flows(apart, &hours);
            assert_eq!((found.len(), found[0].parts), (1, 2), "{name}");
            let packets: Vec<_> = hours
                .iter()
                .map(|(time, data)| (Stamp::At(Time(*time)), data.len() as u32, data.clone()))
                .collect();
            let ends = if name == "gre in vxlan" { 6 } else { 4 };
            for sealed in pass(apart, LinkType::ETHERNET, &packets) {
                assert_eq!(sealed.addresses.len(), ends, "{name}: {:?}", sealed.addresses);
            }
        }
    }
}

#[test]
fn fragments_of_a_tunnel_inside_a_tunnel_follow_too() {
    let inner = ipv4(INNER, 3, 4, 17, &udp(6_000, 53, &[9; 400]));
    let carried = V4 { net: [172, 16, 0], id: 5, fragment: 0 };
    let frames: Vec<(i64, Vec<u8>)> = pieces(&gre(3, 0x0800, &inner), 104)
        .into_iter()
        .map(|(fragment, bytes)| {
            let middle = ipv4(V4 { fragment, ..carried }, 8, 9, 47, &bytes);
            let outer = udp(50_000, 4789, &vxlan(200, &ethernet(0x0800, &middle)));
            (0, ethernet(0x0800, &ipv4(OUTER, 8, 9, 17, &outer)))
        })
        .collect();
    let found = flows(SealPolicy::import(), &frames);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].ports(), found[0].counted), ((6_000, 53), [2, 0]));
    // In the next segment, too.
    let packets: Vec<_> = (0_i64..)
        .zip(&frames)
        .map(|(hour, (_, data))| {
            let time = Time(HOUR - 1 + hour);
            (Stamp::At(time), data.len() as u32, data.clone())
        })
        .collect();
    let sealed =
        pass(SealPolicy { span: None, ..SealPolicy::import() }, LinkType::ETHERNET, &packets);
    assert_eq!(sealed.len(), 2);
    for sealed in &sealed {
        assert_eq!(sealed.addresses.len(), 6, "{:?}", sealed.addresses);
    }
}

#[test]
fn flows_are_indexed_by_the_ends_of_all_tunnels() {
    let innermost = ipv4(INNER, 3, 4, 17, &udp(6_000, 53, b"?"));
    let middle = |net: u8, inner: &[u8]| {
        let carried = udp(50_001, 6081, &geneve(1, &ethernet(0x0800, inner)));
        ipv4(V4 { net: [172, 16, net], ..INNER }, 8, 9, 17, &carried)
    };
    let nested = gre(3, 0x0800, &middle(1, &middle(2, &innermost)));
    let frame = ethernet(0x0800, &ipv4(OUTER, 8, 9, 47, &nested));
    let packets = [(Stamp::At(Time(1)), frame.len() as u32, frame)];
    let sealed = pass(SealPolicy::import(), LinkType::ETHERNET, &packets);
    let index = sealed[0].layers.iter().find(|layer| layer.layer == Layer::Index).unwrap();
    let segment = Segment::open(&index.bytes()).unwrap();
    let has = |field, value: &[u8]| !segment.terms().postings(field, value).unwrap().is_empty();
    for net in [1, 2] {
        for host in [8, 9] {
            let address = Address::v4([172, 16, net, host]);
            assert!(has(Field::OuterIp, &address.0), "{address}");
            assert!(!has(Field::Ip, &address.0) && sealed[0].addresses.contains(&address));
        }
    }
    for port in [53, 6_000, 50_001, 6081_u16] {
        assert!(has(Field::Port, &port.to_be_bytes()), "{port}");
    }
    assert_eq!(sealed[0].addresses.len(), 8);
}

#[test]
fn fragment_without_its_flow_has_no_ports() {
    // The flow was replaced by another connection between the two fragments.
    let fragment = |fragment, bytes: &[u8]| {
        ethernet(0x0800, &ipv4(V4 { fragment, id: 3, ..INNER }, CLIENT.0, SERVER.0, 6, bytes))
    };
    let first = tcp(CLIENT.1, SERVER.1, ACK, 5, 5, b"12345678");
    let steps = connection(CLIENT, SERVER, 99);
    let frames =
        [(0, fragment(MORE, &first[..24])), (1, plain(steps[0])), (2, fragment(3, &first[24..]))];
    let found = flows(SealPolicy::import(), &frames);
    assert_eq!(found.len(), 3);
    assert_eq!((found[2].ports(), found[2].fragment), ((0, 0), Some(3)));
    assert_eq!(found[2].source.0, v4(CLIENT.0));
}

/// A question and an answer, each in what `wrap` puts round it: 0 forward, 1 backward.
fn exchange(wrap: &dyn Fn(u8, &[u8]) -> Vec<u8>) -> [Vec<u8>; 2] {
    let datagram = |from: End, to: End| ipv4(INNER, from.0, to.0, 17, &udp(from.1, to.1, b"?"));
    let (client, server) = ((1, 50_000), (2, 53));
    [wrap(0, &datagram(client, server)), wrap(1, &datagram(server, client))]
}

/// Frames one nanosecond apart.
fn row(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<(i64, Vec<u8>)> {
    (0..).zip(frames).collect()
}

/// A tunnel between two hosts, that way or back.
fn between(ends: (u8, u8), way: u8, protocol: u8, content: &[u8]) -> Vec<u8> {
    let (from, to) = if way == 0 { ends } else { (ends.1, ends.0) };
    ethernet(0x0800, &ipv4(OUTER, from, to, protocol, content))
}

#[test]
fn the_same_ends_in_other_networks_are_other_flows() {
    type Around = Box<dyn Fn(u8, &[u8]) -> Vec<u8>>;
    let vxlan_of = |ends: (u8, u8), vni: u32| -> Around {
        Box::new(move |way, inner| {
            let frame = ethernet(0x0800, inner);
            // The source port is of the sender's choice.
            let carried = udp(50_000 + u16::from(way), 4789, &vxlan(vni, &frame));
            between(ends, way, 17, &carried)
        })
    };
    let gre_of = |key: u32| -> Around {
        Box::new(move |way, inner| between((8, 9), way, 47, &gre(key, 0x0800, inner)))
    };
    let erspan_of = |session: u16, vlan: u16| -> Around {
        Box::new(move |_, inner| {
            between((8, 9), 0, 47, &erspan(session, vlan, &ethernet(0x0800, inner)))
        })
    };
    let mpls_of = |labels: &'static [u32]| -> Around {
        Box::new(move |_, inner| ethernet(0x8847, &mpls(labels, inner)))
    };
    let qinq_of = |outer: u16, inner: u16| -> Around {
        Box::new(move |_, packet| {
            ethernet(0x88a8, &tagged(outer, 0x8100, &tagged(inner, 0x0800, packet)))
        })
    };
    let all: Vec<(&str, Around)> = vec![
        ("none", Box::new(|_, inner| ethernet(0x0800, inner))),
        ("vlan", Box::new(|_, inner| ethernet(0x8100, &tagged(7, 0x0800, inner)))),
        ("qinq", qinq_of(3, 7)),
        ("another outer vlan", qinq_of(4, 7)),
        ("the tags exchanged", qinq_of(7, 3)),
        ("vxlan", vxlan_of((8, 9), 100)),
        ("another vni", vxlan_of((8, 9), 200)),
        ("another tunnel", vxlan_of((8, 10), 100)),
        ("gre", gre_of(100)),
        ("another key", gre_of(200)),
        ("ip in ip", Box::new(|way, inner| between((8, 9), way, 4, inner))),
        ("ip in ip, another tunnel", Box::new(|way, inner| between((8, 10), way, 4, inner))),
        ("erspan", erspan_of(1, 10)),
        ("another session", erspan_of(2, 10)),
        ("another vlan of it", erspan_of(1, 20)),
        ("mpls", mpls_of(&[16, 17])),
        ("another label", mpls_of(&[16, 18])),
        ("the labels exchanged", mpls_of(&[17, 16])),
    ];
    let questions = all.iter().map(|(_, wrap)| exchange(wrap)[0].clone());
    let answers = all.iter().map(|(_, wrap)| exchange(wrap)[1].clone());
    let found = flows(SealPolicy::import(), &row(questions.chain(answers)));
    assert_eq!(found.len(), all.len());
    for (place, (flow, (name, _))) in found.iter().zip(&all).enumerate() {
        let place = place as u64;
        assert_eq!(flow.ordinals(), [place, place + all.len() as u64], "{name}");
        assert_eq!((flow.ports(), flow.counted), ((50_000, 53), [1, 1]), "{name}");
    }
    // One after the other, too, whoever is seen first.
    for (name, wrap) in &all {
        let [question, answer] = exchange(wrap);
        let found = flows(SealPolicy::import(), &row([answer, question.clone(), question]));
        assert_eq!((found.len(), found[0].counted), (1, [2, 1]), "{name}");
    }
}

#[test]
fn labels_that_differ_by_direction_do_not_split_a_conversation() {
    let labels = |way: u8| -> &'static [u32] { if way == 0 { &[100, 16] } else { &[200, 17] } };
    let mpls_both = |way: u8, inner: &[u8]| ethernet(0x8847, &mpls(labels(way), inner));
    let mpls_one = |way: u8, inner: &[u8]| match way {
        0 => ethernet(0x8847, &mpls(&[100], inner)),
        _ => ethernet(0x0800, inner),
    };
    let entropy =
        |way: u8, inner: &[u8]| ethernet(0x8847, &mpls(&[100, 7, 70_000 + u32::from(way)], inner));
    // Cilium's identifier is the sender's identity; routed VXLAN has the receiver's network.
    let vni = |way: u8, inner: &[u8]| {
        let carried = udp(50_000, 8472, &vxlan(100 + u32::from(way), &ethernet(0x0800, inner)));
        between((8, 9), way, 17, &carried)
    };
    let key =
        |way: u8, inner: &[u8]| between((8, 9), way, 47, &gre(100 + u32::from(way), 0x0800, inner));
    type Around<'a> = &'a dyn Fn(u8, &[u8]) -> Vec<u8>;
    let all: [(&str, Around<'_>); 5] = [
        ("mpls", &mpls_both),
        ("one way only", &mpls_one),
        ("entropy label", &entropy),
        ("vni", &vni),
        ("key", &key),
    ];
    for (name, wrap) in all {
        for order in [[0, 1, 0, 1], [1, 0, 0, 1]] {
            let packets = exchange(wrap);
            let found = flows(SealPolicy::import(), &row(order.map(|at| packets[at].clone())));
            assert_eq!((found.len(), found[0].counted), (1, [2, 2]), "{name}");
        }
        // TCP, whose numbers must fit.
        let steps = connection((1, 41_000), SERVER, 1_000);
        let wrapped = |step: &Step| {
            let way = u8::from(step.0 == SERVER);
            wrap(way, &plain(*step)[14..])
        };
        for order in [&[0, 1, 2, 3, 4, 5, 6, 7][..], &[1, 2, 3, 4, 5, 6, 7, 0], &[4, 3, 5]] {
            let frames = row(order.iter().map(|step| wrapped(&steps[*step])));
            let found = flows(SealPolicy::import(), &frames);
            assert_eq!(found.len(), 1, "{name} {order:?}");
        }
        let stranger = connection((1, 41_000), SERVER, 5_000_000);
        let found = flows(SealPolicy::import(), &row([wrapped(&steps[0]), wrapped(&stranger[1])]));
        let apart = !matches!(name, "entropy label");
        assert_eq!(found.len() == 2, apart, "{name}: it answers another connection");
    }
}

#[test]
fn ambiguous_answers_of_two_networks_open_separate_flows() {
    let of = |vni: u32| {
        move |way: u8, inner: &[u8]| {
            let carried = udp(50_000, 8472, &vxlan(vni, &ethernet(0x0800, inner)));
            between((8, 9), way, 17, &carried)
        }
    };
    let (one, two, three) = (exchange(&of(1)), exchange(&of(2)), exchange(&of(3)));
    let frames = row([one[0].clone(), two[0].clone(), three[1].clone(), one[1].clone()]);
    let found = flows(SealPolicy::import(), &frames);
    let ordinals: Vec<_> = found.iter().map(Merged::ordinals).collect();
    assert_eq!(ordinals, [vec![0, 3], vec![1], vec![2]]);
}

#[test]
fn timed_out_flow_has_the_end_state_without_a_later_packet() {
    let other = |port: u16| datagram((9, port), (8, 53), b"?");
    let ask = |seconds: i64, frame: Vec<u8>| (seconds * SECOND, frame);
    let frames = [
        ask(0, datagram((1, 5_000), (2, 53), b"?")),
        ask(1, plain(connection(CLIENT, SERVER, 5)[0])),
        ask(299, other(1)),
        ask(400, other(2)),
        ask(401, other(3)),
        ask(402, other(4)),
        ask(4_000, other(5)),
    ];
    let found = flows(SealPolicy::import(), &frames);
    let ends: Vec<FlowEnd> = found.iter().map(|flow| flow.end).collect();
    use FlowEnd::{Open, Timeout};
    assert_eq!(ends, [Timeout, Open, Open, Open, Open, Open, Open], "one packet moves no clock");
    let more = [&frames[..], &[ask(4_001, other(6)), ask(4_002, other(7))]].concat();
    let found = flows(SealPolicy::import(), &more);
    let ends: Vec<FlowEnd> = found.iter().map(|flow| flow.end).collect();
    assert_eq!(ends[..6], [Timeout; 6]);
    assert_eq!(ends[6..], [Open; 3]);
}

#[test]
fn end_state_of_a_flow_is_in_its_last_part_across_segments() {
    // Each hour has a segment; the next connection's SYN is in the next hour.
    let (one, other) = (connection(CLIENT, SERVER, 5), connection(CLIENT, SERVER, 5_000));
    let apart = SealPolicy { span: None, ..SealPolicy::import() };
    let frames = [(HOUR - 2, plain(one[0])), (HOUR - 1, plain(one[1])), (HOUR, plain(other[0]))];
    let found = flows(apart, &frames);
    assert_eq!(
        found.iter().map(|flow| flow.end).collect::<Vec<_>>(),
        [FlowEnd::Replaced, FlowEnd::Open]
    );
    let udp = datagram((1, 5_000), (2, 53), b"?");
    let found = flows(apart, &[(HOUR - 1, udp.clone()), (HOUR + 301 * SECOND, udp)]);
    assert_eq!(
        found.iter().map(|flow| flow.end).collect::<Vec<_>>(),
        [FlowEnd::Timeout, FlowEnd::Open]
    );
}
