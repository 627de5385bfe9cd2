use capstan_model::headers::Fragment;
use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::testing::*;
use crate::walk::tests::likely_packet;

fn decode_all(link: LinkType, data: &[u8]) -> Headers {
    decode(link, data, data.len() as u32)
}

fn fields(headers: &Headers) -> Vec<(FieldKind, u16)> {
    headers.fields().iter().map(|field| (field.kind, field.offset)).collect()
}

#[test]
fn a_tcp_packet_has_all_its_fields() {
    let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let frame = ethernet(0x8100, &tag(5, 0x0800, &ipv4(6, &tcp(&options, b"hello"))));
    let padded = join(&[&frame, &[0; 3]]);
    let headers = decode_all(LinkType::ETHERNET, &padded);
    assert_eq!(headers.prefix, 70);
    assert_eq!((headers.ethertype, headers.vlan), (0x0800, Some(5)));
    assert_eq!(headers.network, Network::V4);
    assert_eq!((headers.source, headers.destination), (Address::v4(A), Address::v4(B)));
    assert_eq!((headers.ip_protocol, headers.source_port, headers.destination_port), (6, 4096, 80));
    assert_eq!(headers.transport_payload, 5, "the trailer is not payload of TCP");
    assert_eq!(headers.tcp.unwrap().flags, 0x18);
    assert_eq!((headers.outer, headers.vni, headers.fragment), (None, None, None));
    assert!(!headers.truncated && !headers.malformed);
    use FieldKind::*;
    let expected = [
        (Ipv4Length, 20),
        (IpId, 22),
        (Ipv4Checksum, 28),
        (TcpSeq, 42),
        (TcpAck, 46),
        (TcpFlags, 51),
        (TcpWindow, 52),
        (Checksum, 54),
        (TcpTimestamp, 62),
        (TcpEcho, 66),
    ];
    assert_eq!(fields(&headers), expected);
}

#[test]
fn in_a_tunnel_the_inner_flow_counts_and_the_outer_is_kept() {
    let inner = ethernet(0x86dd, &ipv6(58, &[128, 0, 1, 2, 0x77, 0x88, 0, 1]));
    let outer = ipv4(17, &udp(50_000, 4789, &vxlan(42, &inner)));
    let headers = decode_all(LinkType::ETHERNET, &ethernet(0x0800, &outer));
    assert_eq!(headers.network, Network::V6);
    assert_eq!((headers.source, headers.destination), (Address::v6(A6), Address::v6(B6)));
    assert_eq!((headers.source_port, headers.destination_port), (0x7788, 0x7788));
    assert_eq!(headers.vni, Some(42));
    assert_eq!(headers.transport_payload, 4);
    let expected = Outer {
        source: Address::v4(A),
        destination: Address::v4(B),
        source_port: 50_000,
        destination_port: 4789,
        tunnel: Tunnel::Vxlan,
    };
    assert_eq!(headers.outer, Some(expected));
    use FieldKind::*;
    let expected = [
        (Ipv4Length, 16),
        (OuterIpId, 18),
        (Ipv4Checksum, 24),
        (UdpLength, 38),
        (OuterChecksum, 40),
        (Ipv6Length, 68),
        (Checksum, 106),
    ];
    assert_eq!(fields(&headers), expected);
    assert_eq!(headers.prefix, 108);
}

#[test]
fn of_three_nested_headers_the_middle_one_stays_literal() {
    let innermost = ipv4(17, &udp(1, 2, b"x"));
    let middle = ipv4(17, &udp(3, 4789, &vxlan(7, &ethernet(0x0800, &innermost))));
    let outer = ipv4(17, &udp(5, 4789, &vxlan(6, &ethernet(0x0800, &middle))));
    let headers = decode_all(LinkType::IPV4, &outer);
    assert_eq!((headers.source_port, headers.vni), (1, Some(7)));
    assert_eq!(headers.outer.unwrap().source_port, 5);
    use FieldKind::*;
    let valued: Vec<_> = fields(&headers).into_iter().filter(|(kind, _)| *kind >= IpId).collect();
    assert_eq!(valued, [(OuterIpId, 4), (OuterChecksum, 26), (IpId, 104), (Checksum, 126)]);
    let lengths = fields(&headers).iter().filter(|(kind, _)| *kind == UdpLength).count();
    assert_eq!(lengths, 3);
}

#[test]
fn the_innermost_tunnel_names_kind_and_network() {
    // GRE with a key, in it IP in IP, which has no identifier.
    let gre = join(&[&[0x20, 0, 8, 0, 0, 0, 0, 9], &ipv4(4, &ipv4(132, &[0; 12]))]);
    let headers = decode_all(LinkType::IPV4, &ipv4(47, &gre));
    assert_eq!(headers.outer.unwrap().tunnel, Tunnel::IpInIp);
    assert_eq!((headers.vni, headers.ip_protocol), (None, 132));
}

#[test]
fn tunnel_with_unknown_content_is_a_flow_between_its_ends() {
    let inner = ethernet(0x88cc, b"who knows");
    let headers = decode_all(LinkType::IPV4, &ipv4(17, &udp(5, 4789, &vxlan(6, &inner))));
    assert_eq!((headers.prefix, headers.ethertype), (20 + 8 + 8 + 14, 0x88cc));
    assert_eq!((headers.outer, headers.network), (None, Network::V4));
    assert_eq!((headers.source_port, headers.destination_port, headers.vni), (5, 4789, Some(6)));
    assert_eq!(headers.transport_payload as usize, 8 + inner.len());
    assert!(headers.fields().iter().any(|field| field.kind == FieldKind::IpId));
}

#[test]
fn arp_in_a_tunnel_has_an_outer_header() {
    let arp = join(&[&[0, 1, 8, 0, 6, 4, 0, 1], &[2; 6], &B, &[0; 6], &A]);
    let inner = vxlan(6, &ethernet(0x0806, &arp));
    let headers = decode_all(LinkType::IPV4, &ipv4(17, &udp(5, 4789, &inner)));
    assert_eq!((headers.network, headers.source), (Network::Arp, Address::v4(B)));
    assert_eq!((headers.ip_protocol, headers.destination_port), (0, 0));
    assert_eq!(headers.outer.unwrap().destination_port, 4789);
}

#[test]
fn fragments_are_detected() {
    let first = decode_all(LinkType::IPV4, &ipv4_with(17, 0x2000, &[], &udp(1, 2, b"12345678")));
    assert_eq!(first.fragment, Some(Fragment { id: 0x1234, offset: 0, more: true }));
    assert_eq!((first.source_port, first.transport_payload), (1, 8));
    let last = decode_all(LinkType::IPV4, &ipv4_with(17, 2, &[], b"12345678"));
    assert_eq!(last.fragment, Some(Fragment { id: 0x1234, offset: 16, more: false }));
    assert_eq!((last.prefix, last.source_port, last.transport_payload), (20, 0, 0));
}

#[test]
fn truncated_header_is_omitted_and_reported() {
    let frame = ethernet(0x0800, &ipv4(6, &tcp(&[1, 1, 1, 1], b"hello")));
    for (captured, prefix) in [(0, 0), (13, 0), (33, 14), (34, 34), (57, 34), (58, 58)] {
        let headers = decode(LinkType::ETHERNET, &frame[..captured], frame.len() as u32);
        assert_eq!(headers.prefix, prefix, "{captured} bytes");
        assert_eq!(headers.truncated, captured != 58, "{captured} bytes");
        assert!(!headers.malformed);
        let is_known = captured >= 58;
        assert_eq!(headers.tcp.is_some(), is_known);
    }
    let headers = decode(LinkType::ETHERNET, &frame[..58], frame.len() as u32);
    assert_eq!(headers.transport_payload, 5, "what was not captured was still sent");
}

#[test]
fn other_link_types_stay_raw() {
    assert_eq!(decode_all(LinkType(105), &[8; 100]), Headers::default());
}

/// What must hold for every packet (see the documentation of `Headers`).
fn check(headers: &Headers, data: &[u8]) -> Result<(), TestCaseError> {
    prop_assert!(usize::from(headers.prefix) <= data.len());
    let mut last = 0;
    let mut seen = Vec::new();
    for field in headers.fields() {
        let end = usize::from(field.offset) + field.kind.width();
        prop_assert!(field.offset >= last, "fields are in order and do not overlap");
        prop_assert!(end <= usize::from(headers.prefix));
        last = end as u16;
        if field.kind >= FieldKind::IpId {
            prop_assert!(!seen.contains(&field.kind), "{:?} twice", field.kind);
            seen.push(field.kind);
        }
    }
    prop_assert_eq!(headers.tcp.is_some(), seen.contains(&FieldKind::TcpSeq));
    let has_ip = matches!(headers.network, Network::V4 | Network::V6);
    prop_assert!(has_ip || headers.network == Network::Arp || headers.source == Address::NONE);
    prop_assert!(has_ip || headers.ip_protocol == 0);
    Ok(())
}

#[derive(Debug, Clone)]
struct Plan {
    six: bool,
    vlans: Option<u16>,
    transport: u8,
    ports: (u16, u16),
    numbers: (u32, u32, u16),
    timestamp: bool,
    payload: Vec<u8>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let ports = (any::<u16>(), (0u16..4000));
    let numbers = (any::<u32>(), any::<u32>(), any::<u16>());
    let payload = prop::collection::vec(any::<u8>(), 0..60);
    (any::<bool>(), prop::option::of(0u16..4096), 0u8..3, ports, numbers, any::<bool>(), payload)
        .prop_map(|(six, vlans, transport, ports, numbers, timestamp, payload)| Plan {
            six,
            vlans,
            transport,
            ports,
            numbers,
            timestamp,
            payload,
        })
}

fn build(plan: &Plan) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let vlan = |id| etherparse::VlanId::try_new(id).unwrap();
    let network = match (plan.vlans, plan.six) {
        (None, false) => ethernet.ipv4(A, B, 64),
        (None, true) => ethernet.ipv6(A6, B6, 64),
        (Some(id), false) => ethernet.double_vlan(vlan(9), vlan(id)).ipv4(A, B, 64),
        (Some(id), true) => ethernet.single_vlan(vlan(id)).ipv6(A6, B6, 64),
    };
    let mut packet = Vec::new();
    let (seq, ack, window) = plan.numbers;
    let written = match plan.transport {
        0 => {
            let mut header = etherparse::TcpHeader::new(plan.ports.0, plan.ports.1, seq, window);
            header.acknowledgment_number = ack;
            header.ack = true;
            header.psh = true;
            if plan.timestamp {
                let stamp = etherparse::TcpOptionElement::Timestamp(seq, ack);
                let padding = etherparse::TcpOptionElement::Noop;
                header.set_options(&[padding.clone(), stamp, padding]).unwrap();
            }
            network.tcp_header(header).write(&mut packet, &plan.payload)
        }
        1 => network.udp(plan.ports.0, plan.ports.1).write(&mut packet, &plan.payload),
        _ if plan.six => {
            network.icmpv6_echo_request(plan.ports.0, 1).write(&mut packet, &plan.payload)
        }
        _ => network.icmpv4_echo_reply(plan.ports.0, 1).write(&mut packet, &plan.payload),
    };
    written.unwrap();
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_bytes_keep_the_invariants_of_the_decoder(
        link in prop::sample::select(vec![0u16, 1, 9, 12, 14, 50, 51, 101, 108, 113, 228, 229, 276, 999]),
        data in prop_oneof![likely_packet(), prop::collection::vec(any::<u8>(), 0..300)],
        wire in any::<u32>(),
    ) {
        let headers = decode(LinkType(link), &data, wire);
        check(&headers, &data)?;
        // Nothing of the packet before stays in a record that is used again.
        let mut again = decode_all(LinkType::ETHERNET, &ethernet(0x0800, &ipv4(6, &tcp(&[], b"x"))));
        decode_into(&mut again, LinkType(link), &data, wire);
        prop_assert_eq!(again, headers);
    }

    #[test]
    fn packets_built_by_etherparse_decode(plan in plan()) {
        let packet = build(&plan);
        let headers = decode_all(LinkType::ETHERNET, &packet);
        check(&headers, &packet)?;
        let ports = (headers.source_port, headers.destination_port);
        let expected = if plan.transport == 2 { (plan.ports.0, plan.ports.0) } else { plan.ports };
        prop_assert_eq!(ports, expected);
        prop_assert_eq!(headers.vlan, plan.vlans);
        prop_assert_eq!(headers.network == Network::V6, plan.six);
        let header_end = packet.len() - plan.payload.len();
        // Of ICMP echo, identifier and sequence are payload.
        let behind = if plan.transport == 2 { 4 } else { 0 };
        prop_assert_eq!(usize::from(headers.prefix), header_end - behind);
        prop_assert_eq!(headers.transport_payload as usize, plan.payload.len() + behind);
        if let Some(tcp) = headers.tcp {
            prop_assert_eq!((tcp.seq, tcp.ack, tcp.window), plan.numbers);
            let stamp = headers.fields().iter().find(|f| f.kind == FieldKind::TcpTimestamp);
            prop_assert_eq!(stamp.is_some(), plan.timestamp);
            if let Some(stamp) = stamp {
                let at = usize::from(stamp.offset);
                prop_assert_eq!(&packet[at..at + 4], &plan.numbers.0.to_be_bytes()[..]);
            }
        }
        prop_assert!(!headers.truncated && !headers.malformed);
        for cut in 0..packet.len() {
            let part = decode(LinkType::ETHERNET, &packet[..cut], packet.len() as u32);
            check(&part, &packet[..cut])?;
            prop_assert!(part.prefix <= headers.prefix);
            prop_assert_eq!(part.truncated, part.prefix < headers.prefix);
        }
    }
}
