use capstan_model::LinkType;
use proptest::prelude::*;

use super::*;
use crate::testing::*;

fn kinds(link: LinkType, data: &[u8]) -> (Vec<HeaderKind>, Stop) {
    let mut walk = Walk::new(link, data, data.len() as u32);
    let kinds = walk.by_ref().map(|header| header.kind).collect();
    (kinds, walk.state().expect_err("a walk that gave all its headers has stopped"))
}

const UDP_DNS: HeaderKind = HeaderKind::Udp { source_port: 5000, destination_port: 53 };

fn number(address: [u8; 4]) -> u32 {
    u32::from_be_bytes(address)
}

fn v4(protocol: u8) -> HeaderKind {
    HeaderKind::Ipv4 { source: number(A), destination: number(B), protocol, fragment: None }
}

fn v6(protocol: u8) -> HeaderKind {
    HeaderKind::Ipv6 { source: A6, destination: B6, protocol }
}

fn dns() -> Vec<u8> {
    ipv4(17, &udp(5000, 53, b"question"))
}

#[test]
fn vlan_tags_stack() {
    let frame = ethernet(0x88a8, &tag(0xe064, 0x9100, &tag(7, 0x8100, &tag(5, 0x0800, &dns()))));
    let (kinds, stop) = kinds(LinkType::ETHERNET, &frame);
    let tags =
        [HeaderKind::Vlan { id: 100 }, HeaderKind::Vlan { id: 7 }, HeaderKind::Vlan { id: 5 }];
    assert_eq!(kinds, [&[HeaderKind::Link], &tags[..], &[v4(17), UDP_DNS]].concat());
    assert_eq!(stop, Stop::Payload);
}

#[test]
fn snap_carries_an_ethertype_and_other_llc_is_payload() {
    let snap = join(&[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &dns()]);
    let mut frame = ethernet(u16::try_from(snap.len()).unwrap(), &snap);
    frame.extend([0; 9]);
    let (found, _) = kinds(LinkType::ETHERNET, &frame);
    assert_eq!(found, [HeaderKind::Link, HeaderKind::Snap, v4(17), UDP_DNS]);
    let spanning_tree = ethernet(38, &[0x42; 38]);
    assert_eq!(kinds(LinkType::ETHERNET, &spanning_tree), (vec![HeaderKind::Link], Stop::Payload));
}

#[test]
fn ports_are_decoded_from_a_truncated_or_wrong_header() {
    let ports = HeaderKind::Ports { source_port: 5000, destination_port: 80 };
    let whole = [0x13, 0x88, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0xa0, 2, 0, 0, 0, 0, 0, 0];
    // A first fragment that ends in the header, and one whose options are missing.
    for (protocol, length) in [(6, 16), (6, 20), (17, 4), (132, 11)] {
        let frame = ethernet(0x0800, &ipv4(protocol, &whole[..length]));
        let (found, stop) = kinds(LinkType::ETHERNET, &frame);
        assert_eq!(found, [HeaderKind::Link, v4(protocol), ports], "{protocol}");
        assert_ne!(stop, Stop::Payload);
        let headers = crate::decode(LinkType::ETHERNET, &frame, frame.len() as u32);
        assert_eq!((headers.source_port, headers.destination_port), (5000, 80));
        assert_eq!((headers.prefix, headers.tcp), (34, None));
    }
    // Lengths that cannot be.
    let mut wrong = whole;
    wrong[12] = 0x20;
    wrong[5] = 3;
    for protocol in [6, 17] {
        let (found, stop) = kinds(LinkType::ETHERNET, &ethernet(0x0800, &ipv4(protocol, &wrong)));
        assert_eq!((found.last(), stop), (Some(&ports), Stop::Malformed));
    }
    let cut = ethernet(0x0800, &ipv4(6, &whole[..3]));
    assert_eq!(kinds(LinkType::ETHERNET, &cut), (vec![HeaderKind::Link, v4(6)], Stop::Truncated));
}

#[test]
fn reverse_arp_has_addresses_too() {
    let arp = join(&[&[0, 1, 8, 0, 6, 4, 0, 3], &[2; 6], &A, &[4; 6], &B]);
    let (found, _) = kinds(LinkType::ETHERNET, &ethernet(0x8035, &arp));
    assert_eq!(found, [HeaderKind::Link, HeaderKind::Arp { addresses: Some((A, B)) }]);
}

#[test]
fn every_decoded_link_type_leads_to_ip() {
    let six = ipv6(17, &udp(5000, 53, b""));
    let cases: Vec<(LinkType, Vec<u8>, bool)> = vec![
        (LinkType::RAW, dns(), false),
        (LinkType::RAW, six.clone(), true),
        (LinkType::RAW_BSD, dns(), false),
        (LinkType::RAW_OPENBSD, six.clone(), true),
        (LinkType::IPV4, dns(), false),
        (LinkType::IPV6, six.clone(), true),
        (LinkType::NULL, join(&[&[2, 0, 0, 0], &dns()]), false),
        (LinkType::NULL, join(&[&[0, 0, 0, 30], &six]), true),
        (LinkType::LOOP, join(&[&[0, 0, 0, 2], &dns()]), false),
        (LinkType::LOOP, join(&[&[24, 0, 0, 0], &six]), true),
        (LinkType::LINUX_SLL, join(&[&[0; 14], &[8, 0], &dns()]), false),
        (LinkType::LINUX_SLL2, join(&[&[0x86, 0xdd], &[0; 18], &six]), true),
        (LinkType::PPP, join(&[&[0xff, 3, 0, 0x21], &dns()]), false),
        (LinkType::PPP, join(&[&[0x21], &dns()]), false),
        (LinkType::PPP_HDLC, join(&[&[0xff, 3, 0, 0x57], &six]), true),
        (LinkType::PPP_HDLC, join(&[&[0x0f, 0, 8, 0], &dns()]), false),
    ];
    for (link, data, is_six) in cases {
        let (found, stop) = kinds(link, &data);
        assert_eq!(stop, Stop::Payload, "{link:?}");
        let expected = [if is_six { v6(17) } else { v4(17) }, UDP_DNS];
        assert!(found.ends_with(&expected), "{link:?}: {found:?}");
    }
    assert_eq!(kinds(LinkType(105), &dns()), (vec![], Stop::Payload));
}

#[test]
fn loopback_headers_of_every_system_and_byte_order() {
    let six = ipv6(17, &udp(5000, 53, b""));
    let cases: [(u32, &[u8], Option<HeaderKind>); 12] = [
        (2, &dns(), Some(v4(17))),
        (24, &six, Some(v6(17))),
        (28, &six, Some(v6(17))),
        (30, &six, Some(v6(17))),
        (23, &six, Some(v6(17))),
        (10, &six, Some(v6(17))),
        (0x0800, &dns(), Some(v4(17))),
        (0x86dd, &six, Some(v6(17))),
        // IPX and CCITT of BSD, a length in an ethertype's place, nothing that is known.
        (23, &dns(), None),
        (10, &dns(), None),
        (1, &dns(), None),
        (0x1_0800, &dns(), None),
    ];
    for (family, packet, network) in cases {
        for header in [family.to_be_bytes(), family.to_le_bytes()] {
            for link in [LinkType::NULL, LinkType::LOOP] {
                let (found, stop) = kinds(link, &join(&[&header, packet]));
                let expected: Vec<HeaderKind> = match network {
                    Some(network) => vec![HeaderKind::Link, network, UDP_DNS],
                    None => vec![HeaderKind::Link],
                };
                assert_eq!((found, stop), (expected, Stop::Payload), "{link:?} {header:x?}");
            }
        }
    }
    let tagged = join(&[&[0, 0, 0x81, 0], &tag(5, 0x0800, &dns())]);
    let (found, _) = kinds(LinkType::NULL, &tagged);
    assert_eq!(found, [HeaderKind::Link, HeaderKind::Vlan { id: 5 }, v4(17), UDP_DNS]);
    let headers = crate::decode(LinkType::NULL, &tagged, tagged.len() as u32);
    assert_eq!((headers.ethertype, headers.vlan), (0x0800, Some(5)));
    assert_eq!(kinds(LinkType::NULL, &[0, 0, 0]), (vec![], Stop::Truncated));
}

#[test]
fn pppoe_bounds_what_it_carries() {
    let ppp = join(&[&[0, 0x21], &dns()]);
    let length = u16::try_from(ppp.len()).unwrap().to_be_bytes();
    let session = join(&[&[0x11, 0, 0, 9], &length, &ppp, b"padding"]);
    let (found, _) = kinds(LinkType::ETHERNET, &ethernet(0x8864, &session));
    assert_eq!(found, [HeaderKind::Link, HeaderKind::Pppoe, HeaderKind::Link, v4(17), UDP_DNS]);
}

#[test]
fn mpls_guesses_what_follows_the_bottom() {
    let labels = [0x00, 0x06, 0x40, 64, 0x00, 0x0c, 0x81, 64];
    let stack =
        [HeaderKind::Link, HeaderKind::Mpls { label: 100 }, HeaderKind::Mpls { label: 200 }];
    let inner = ethernet(0x0800, &dns());
    let cases: [(Vec<u8>, Vec<HeaderKind>); 5] = [
        (dns(), vec![v4(17), UDP_DNS]),
        (ipv6(59, b""), vec![v6(59)]),
        (inner.clone(), vec![HeaderKind::Link, v4(17), UDP_DNS]),
        (
            join(&[&[0, 0, 0, 1], &inner]),
            vec![HeaderKind::ControlWord, HeaderKind::Link, v4(17), UDP_DNS],
        ),
        (vec![0x10, 0, 0, 7, 1, 2, 3], vec![]),
    ];
    for (payload, expected) in cases {
        let frame = ethernet(0x8847, &join(&[&labels, &payload]));
        let (found, _) = kinds(LinkType::ETHERNET, &frame);
        assert_eq!(found, [&stack[..], &expected].concat());
    }
}

#[test]
fn truncated_arp_is_not_decoded() {
    let arp = join(&[&[0, 1, 8, 0, 6, 4, 0, 1], &[2; 6], &A, &[0; 6], &B]);
    let frame = ethernet(0x0806, &join(&[&arp, &[0; 18]]));
    let mut walk = Walk::new(LinkType::ETHERNET, &frame, 60);
    let last = walk.by_ref().last().unwrap();
    assert_eq!(
        last,
        Header { start: 14, end: 42, kind: HeaderKind::Arp { addresses: Some((A, B)) } }
    );
    assert_eq!(kinds(LinkType::ETHERNET, &frame[..41]), (vec![HeaderKind::Link], Stop::Truncated));
    // Of another protocol: understood, but without addresses.
    let other = join(&[&[0, 1, 8, 0, 6, 3, 0, 1], &[0; 18]]);
    let (found, _) = kinds(LinkType::ETHERNET, &ethernet(0x0806, &other));
    assert_eq!(found, [HeaderKind::Link, HeaderKind::Arp { addresses: None }]);
}

#[test]
fn ipv6_extension_headers_chain() {
    let udp = udp(5000, 53, b"x");
    let chain = join(&[
        &[43, 0, 0, 0, 0, 0, 0, 0],
        &[60, 0, 0, 0, 0, 0, 0, 0],
        &[51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[44, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[17, 0, 0, 1, 0, 0, 0, 9],
        &udp,
    ]);
    let (found, _) = kinds(LinkType::RAW, &ipv6(0, &chain));
    let fragment = Some(Fragment { id: 9, offset: 0, more: true });
    let expected = [
        v6(0),
        HeaderKind::Extension { protocol: 43 },
        HeaderKind::Extension { protocol: 60 },
        HeaderKind::Extension { protocol: 51 },
        HeaderKind::Extension { protocol: 44 },
        HeaderKind::FragmentExtension { protocol: 17, fragment },
        UDP_DNS,
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_later_fragment_has_no_transport() {
    let later = ipv4_with(17, 0x2000 | 185, &[], &udp(1, 2, b"abc"));
    let (found, stop) = kinds(LinkType::RAW, &later);
    let fragment = Some(Fragment { id: 0x1234, offset: 1480, more: true });
    assert_eq!(
        found,
        [HeaderKind::Ipv4 { source: number(A), destination: number(B), protocol: 17, fragment }]
    );
    assert_eq!(stop, Stop::Payload);
    let alone = ipv6(44, &join(&[&[17, 0, 0, 0, 0, 0, 0, 9], &udp(5000, 53, b"")]));
    let (found, _) = kinds(LinkType::RAW, &alone);
    assert_eq!(
        found[1..],
        [HeaderKind::FragmentExtension { protocol: 17, fragment: None }, UDP_DNS]
    );
}

#[test]
fn impossible_lengths_are_malformed() {
    let mut short_header = dns();
    short_header[0] = 0x44;
    let mut short_total = dns();
    short_total[3] = 19;
    let mut version = dns();
    version[0] = 0x55;
    for data in [short_header, short_total, version] {
        assert_eq!(kinds(LinkType::IPV4, &data), (vec![], Stop::Malformed));
    }
    // Of a transport header that cannot be, the ports stand and no more.
    let ports = |data: &[u8]| HeaderKind::Ports {
        source_port: u16::from_be_bytes([data[20], data[21]]),
        destination_port: u16::from_be_bytes([data[22], data[23]]),
    };
    // The datagram ends inside its own UDP header; the frame goes on.
    let mut inside = dns();
    inside[3] = 24;
    assert_eq!(kinds(LinkType::IPV4, &inside), (vec![v4(17), ports(&inside)], Stop::Malformed));
    inside[3] = 23;
    assert_eq!(kinds(LinkType::IPV4, &inside), (vec![v4(17)], Stop::Malformed));
    let mut short_udp = dns();
    short_udp[25] = 7;
    let found = kinds(LinkType::IPV4, &short_udp);
    assert_eq!(found, (vec![v4(17), ports(&short_udp)], Stop::Malformed));
    let mut short_tcp = ipv4(6, &tcp(&[], b"hello"));
    short_tcp[32] = 0x40;
    let found = kinds(LinkType::IPV4, &short_tcp);
    assert_eq!(found, (vec![v4(6), ports(&short_tcp)], Stop::Malformed));
}

#[test]
fn length_0_means_to_the_end_of_the_frame() {
    let mut offloaded = ipv4(6, &tcp(&[], b"hello"));
    offloaded[2..4].copy_from_slice(&[0, 0]);
    let mut walk = Walk::new(LinkType::IPV4, &offloaded, 100_000);
    assert_eq!(walk.by_ref().count(), 2);
    assert_eq!((walk.offset(), walk.limit()), (40, 100_000));
}

#[test]
fn the_time_stamp_option_is_found_wherever_it_stands() {
    let usual = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let in_syn = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7];
    let cases: [(&[u8], Option<usize>); 7] = [
        (&usual, Some(44)),
        (&in_syn, Some(48)),
        (&[], None),
        (&[0, 0, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], None),
        (&[1, 1, 8, 10], None),
        (&[5, 0, 8, 10], None),
        (&[8, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], None),
    ];
    for (options, expected) in cases {
        let data = ipv4(6, &tcp(options, b"after the options"));
        let last = Walk::new(LinkType::IPV4, &data, 0).last().unwrap();
        assert_eq!(last.end, 40 + options.len());
        match last.kind {
            HeaderKind::Tcp { timestamp, source_port: 4096, destination_port: 80, tcp } => {
                assert_eq!(timestamp, expected, "{options:?}");
                assert_eq!((tcp.seq, tcp.ack, tcp.flags, tcp.window), (1, 2, 0x18, 512));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn icmp_echo_has_an_identifier_and_errors_have_none() {
    let echo = ipv4(1, &[8, 0, 0, 0, 0x77, 0x88, 0, 1]);
    let error = ipv4(1, &[3, 1, 0, 0, 0x77, 0x88, 0, 1]);
    let echo6 = ipv6(58, &[129, 0, 0, 0, 0x77, 0x88, 0, 1]);
    let stray6 = ipv4(58, &[129, 0, 0, 0, 0x77, 0x88, 0, 1]);
    let expected = HeaderKind::Icmp { echo: Some(0x7788) };
    assert_eq!(kinds(LinkType::RAW, &echo).0[1], expected);
    assert_eq!(kinds(LinkType::RAW, &error).0[1], HeaderKind::Icmp { echo: None });
    assert_eq!(kinds(LinkType::RAW, &echo6).0[1], expected);
    assert_eq!(kinds(LinkType::RAW, &stray6).0.len(), 1, "ICMPv6 belongs into IPv6");
}

#[test]
fn tunnels_are_decoded() {
    let inner = ethernet(0x0800, &dns());
    let geneve = join(&[&[0x02, 0, 0x65, 0x58, 0, 0, 9, 0], &[7; 8], &inner]);
    let gre_all = join(&[&[0xb0, 0, 8, 0], &[0; 4], &[0, 0, 0, 5], &[0; 4], &dns()]);
    let gre_bridge = join(&[&[0, 0, 0x65, 0x58], &inner]);
    let erspan1 = join(&[&[0, 0, 0x88, 0xbe], &inner]);
    let erspan2 =
        join(&[&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1], &[0x10, 9, 0x10, 10, 0, 0, 0, 0], &inner]);
    let erspan3 = join(&[&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1], &[0; 11], &[1], &[0; 8], &inner]);
    let pptp = join(&[&[0x30, 1, 0x88, 0x0b], &[0; 8], &[0xff, 3, 0, 0x21], &dns()]);
    let gre = |key| HeaderKind::Gre { key };
    let cases: [(u8, Vec<u8>, Vec<HeaderKind>); 10] = [
        (
            17,
            udp(1, 4789, &vxlan(42, &inner)),
            vec![HeaderKind::Vxlan { vni: 42 }, HeaderKind::Link],
        ),
        (
            17,
            udp(1, 8472, &vxlan(42, &inner)),
            vec![HeaderKind::Vxlan { vni: 42 }, HeaderKind::Link],
        ),
        (17, udp(1, 6081, &geneve), vec![HeaderKind::Geneve { vni: 9 }, HeaderKind::Link]),
        (47, gre_all, vec![gre(Some(5))]),
        (47, gre_bridge, vec![gre(None), HeaderKind::Link]),
        (47, erspan1, vec![gre(None), HeaderKind::Link]),
        (
            47,
            erspan2,
            vec![gre(None), HeaderKind::Erspan { session: 10, vlan: 9 }, HeaderKind::Link],
        ),
        (
            47,
            erspan3,
            vec![gre(None), HeaderKind::Erspan { session: 0, vlan: 0 }, HeaderKind::Link],
        ),
        (47, pptp, vec![gre(None), HeaderKind::Link]),
        (4, dns(), vec![]),
    ];
    for (protocol, payload, carrier) in cases {
        let (found, stop) = kinds(LinkType::RAW, &ipv6(protocol, &payload));
        let mut expected = vec![v6(protocol)];
        if let (17, [0, 1, high, low, ..]) = (protocol, &payload[..]) {
            let destination_port = u16::from_be_bytes([*high, *low]);
            expected.push(HeaderKind::Udp { source_port: 1, destination_port });
        }
        expected.extend(carrier);
        expected.extend([v4(17), UDP_DNS]);
        assert_eq!((found, stop), (expected, Stop::Payload));
    }
}

#[test]
fn datagram_to_a_tunnel_port_need_not_be_a_tunnel() {
    let no_vni = [0; 60];
    let other_version = [0xc0; 60];
    for (port, payload) in [
        (4789, &b"short"[..]),
        (8472, b"short"),
        (6081, b"short"),
        (4789, &no_vni),
        (8472, &no_vni),
        (6081, &other_version),
    ] {
        let (found, stop) = kinds(LinkType::RAW, &ipv4(17, &udp(1, port, payload)));
        assert_eq!((found.len(), stop), (2, Stop::Payload), "{port} {payload:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    let mut data = dns();
    for _ in 0..20 {
        data = ipv4(4, &data);
    }
    let (found, stop) = kinds(LinkType::RAW, &data);
    assert_eq!((found.len(), stop), (usize::from(MAX_IP_HEADERS), Stop::TooDeep));
    let tags = [0x81, 0x00, 0x00, 0x01].repeat(1000);
    let (found, stop) = kinds(LinkType::ETHERNET, &join(&[&[0; 12], &tags]));
    assert_eq!((found.len(), stop), (usize::from(MAX_HEADERS), Stop::TooDeep));
    // A walk that starts far inside may reach what 16 bits cannot say.
    let far = join(&[&[0; 65_500], &dns()]);
    let mut walk = Walk::at(Next::Ip, &far, 65_500, far.len());
    assert_eq!(walk.by_ref().count(), 2);
    assert_eq!((walk.offset(), walk.state()), (65_528, Err(Stop::Payload)));
    let far = join(&[&[0; 65_520], &dns()]);
    let mut walk = Walk::at(Next::Ip, &far, 65_520, far.len());
    assert_eq!((walk.next(), walk.state()), (None, Err(Stop::TooDeep)));
}

/// Bytes that make headers likely, so that random packets get past the first one.
pub(crate) fn likely_packet() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        3 => any::<[u8; 2]>(),
        4 => prop::sample::select(vec![
            [0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x88, 0x47], [0x88, 0x64], [0x65, 0x58],
            [0x45, 0x00], [0x46, 0x00], [0x60, 0x00], [0x40, 0x06], [0x40, 0x11], [0x40, 0x2f],
            [0x40, 0x04], [0x40, 0x84], [0x12, 0xb5], [0x17, 0xc1], [0x08, 0x06], [0x00, 0x01],
            [0x50, 0x18], [0x00, 0x28], [0x00, 0x00], [0x88, 0xbe], [0x22, 0xeb], [0xff, 0x03],
            [0x00, 0x21], [0x08, 0x00],
        ]),
    ];
    prop::collection::vec(word, 0..100).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Layers lie one after the other inside the data, whatever the bytes are.
    #[test]
    fn layers_are_in_order_and_inside(
        link in prop::sample::select(vec![0u16, 1, 9, 12, 14, 50, 51, 101, 108, 113, 228, 229, 276]),
        data in likely_packet(),
        wire in any::<u32>(),
    ) {
        let mut walk = Walk::new(LinkType(link), &data, wire);
        let mut end = 0;
        let mut count = 0;
        for header in walk.by_ref() {
            prop_assert_eq!(header.start, end);
            let may_be_empty = matches!(header.kind, HeaderKind::Link | HeaderKind::Ports { .. });
            prop_assert!(header.end > header.start || may_be_empty);
            end = header.end;
            count += 1;
        }
        prop_assert!(end <= data.len());
        prop_assert!(count <= usize::from(MAX_HEADERS));
        prop_assert!(walk.state().is_err());
        prop_assert_eq!(walk.next(), None);
    }

    /// Cutting a packet never changes the headers before the cut.
    #[test]
    fn truncated_packet_has_the_same_first_headers(data in likely_packet(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(data.len() + 1);
        let wire = data.len() as u32;
        let whole: Vec<_> = Walk::new(LinkType::ETHERNET, &data, wire).collect();
        let part: Vec<_> = Walk::new(LinkType::ETHERNET, &data[..cut], wire).collect();
        let guesses = whole.iter().any(|header| matches!(header.kind, HeaderKind::Mpls { .. }));
        for (header, of_whole) in part.iter().zip(&whole) {
            // What looks ahead (echo identifiers, MPLS payload) may see less.
            // Of a transport header only the ports may be left.
            let looks_ahead = guesses || matches!(header.kind, HeaderKind::Icmp { .. } | HeaderKind::Ports { .. });
            prop_assert!(header == of_whole || looks_ahead);
        }
        prop_assert!(part.len() <= whole.len() || guesses);
    }
}
