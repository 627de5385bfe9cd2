use proptest::prelude::*;

use super::super::tests::{headers_of, padded_ack};
use super::super::{FieldValues, Template, split};
use super::*;

/// The ends of [`padded_ack`].
fn ends() -> Endpoints {
    Endpoints {
        source: Address::v4([10, 0, 0, 1]),
        destination: Address::v4([10, 0, 0, 2]),
        source_port: 80,
        destination_port: 51_201,
    }
}

/// The template without the ends, and the prefix that it stands for.
fn shared(
    template: &[u8],
    ends: &Endpoints,
    values: &FieldValues,
    length: u32,
) -> (Vec<u8>, Vec<u8>) {
    let (mut shared, mut back) = (Vec::new(), Vec::new());
    without_endpoints(template, ends, &mut shared);
    Template::parse(&shared).unwrap().fill(values, ends, length, &mut back).unwrap();
    (shared, back)
}

#[test]
fn flows_with_other_ends_share_a_template_and_round_trip() {
    let (headers, mut data) = padded_ack();
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let (values, _) = split(&headers, &data, 60, &mut one);
    let (first, back) = shared(&one, &ends(), &values, 60);
    assert_eq!(back, data[..54]);
    // Its ends are named where they stand, between the other fields.
    assert_eq!(Template::parse(&first).unwrap().ends, [(EndKind::V4, 26), (EndKind::Ports, 34)]);

    data[29] = 7;
    data[36..38].copy_from_slice(&443_u16.to_be_bytes());
    let others = Endpoints { source: Address::v4([10, 0, 0, 7]), destination_port: 443, ..ends() };
    let sum = super::super::ipv4_checksum(&data, 24).unwrap() as u16;
    data[24..26].copy_from_slice(&sum.to_be_bytes());
    let (values, _) = split(&headers, &data, 60, &mut two);
    let (second, back) = shared(&two, &others, &values, 60);
    assert_eq!(back, data[..54]);
    assert_ne!(one, two);
    assert_eq!(first, second);
}

#[test]
fn ends_that_differ_from_the_flow_stay_in_the_template() {
    let (headers, data) = padded_ack();
    let mut template = Vec::new();
    let (values, _) = split(&headers, &data, 60, &mut template);
    let left_out = |ends: &Endpoints| {
        let (shared, back) = shared(&template, ends, &values, 60);
        assert_eq!(back, data[..54]);
        Template::parse(&shared).unwrap().ends
    };
    // The other way round, a port that a fragment hid, an address that is no IPv4 one.
    assert_eq!(left_out(&ends().towards(Direction::Backward)), []);
    assert_eq!(left_out(&Endpoints { source_port: 0, ..ends() }), [(EndKind::V4, 26)]);
    let v6 = Endpoints { source: Address::v6([7; 16]), ..ends() };
    assert_eq!(left_out(&v6), [(EndKind::Ports, 34)]);
}

#[test]
fn address_of_the_wrong_family_is_damage() {
    let (headers, data) = padded_ack();
    let (mut template, mut stored) = (Vec::new(), Vec::new());
    let (values, _) = split(&headers, &data, 60, &mut template);
    without_endpoints(&template, &ends(), &mut stored);
    let v6 = Endpoints { source: Address::v6([7; 16]), ..ends() };
    let error = Template::parse(&stored).unwrap().fill(&values, &v6, 60, &mut Vec::new());
    assert_eq!(error.unwrap_err().what, "a field cannot be computed back");
    // Nobody's ends can stand anywhere.
    let mut back = Vec::new();
    let nobody = Endpoints::unspecified();
    Template::parse(&stored).unwrap().fill(&values, &nobody, 60, &mut back).unwrap();
    assert_eq!((&back[26..38], &back[38..]), (&[0; 12][..], &data[38..54]));
}

#[test]
fn template_of_a_tunnel_omits_the_inner_ends() {
    // IPv4, UDP, VXLAN's header and Ethernet (22 bytes of which nothing is told), IPv6, UDP.
    let mut data = vec![0_u8; 20 + 8 + 22 + 40 + 8];
    data[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    data[20..24].copy_from_slice(&[0, 80, 200, 1]);
    let (source, destination) = (Address::v6([3; 16]), Address::v6([4; 16]));
    data[58..74].copy_from_slice(&source.0);
    data[74..90].copy_from_slice(&destination.0);
    data[90..94].copy_from_slice(&[0, 53, 0, 54]);
    let fields = [
        (FieldKind::Ipv4Length, 2),
        (FieldKind::UdpLength, 24),
        (FieldKind::Ipv6Length, 54),
        (FieldKind::UdpLength, 94),
    ];
    let length = data.len() as u32;
    for (at, end) in [(2, length), (24, length - 20), (54, length - 90), (94, length - 90)] {
        data[at..at + 2].copy_from_slice(&(end as u16).to_be_bytes());
    }
    let headers = headers_of(&data, fields.map(|(kind, at)| (kind as u8, at)).to_vec());
    let mut template = Vec::new();
    let (values, _) = split(&headers, &data, length, &mut template);
    let inner = Endpoints { source, destination, source_port: 53, destination_port: 54 };
    let (stored, back) = shared(&template, &inner, &values, length);
    assert_eq!(back, data);
    assert_eq!(Template::parse(&stored).unwrap().ends, [(EndKind::V6, 58), (EndKind::Ports, 90)]);
    // Those of the tunnel are nobody's of the flow.
    let (stored, back) = shared(&template, &ends(), &values, length);
    assert_eq!((stored, back), (template, data));
}

proptest! {
    /// Whatever the bytes, wherever the fields are said to be, whoever is said to talk.
    #[test]
    fn every_prefix_of_a_header_round_trips(
        data in prop::collection::vec(0_u8..3, 0..120),
        fields in prop::collection::vec((0_u8..14, 0_usize..110), 0..30),
        at in 0_usize..100,
        ports in 0_usize..100,
        is_v4: bool,
        length: u32,
    ) {
        let slice = |at: usize| data.get(at..).unwrap_or_default();
        let address = |at: usize| match is_v4 {
            true => slice(at).first_chunk().map(|bytes| Address::v4(*bytes)),
            false => slice(at).first_chunk().map(|bytes| Address::v6(*bytes)),
        };
        let port = |at: usize| slice(at).first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        let ends = Endpoints {
            source: address(at).unwrap_or_default(),
            destination: address(at + if is_v4 { 4 } else { 16 }).unwrap_or_default(),
            source_port: port(ports).unwrap_or(1),
            destination_port: port(ports + 2).unwrap_or(2),
        };
        // The innermost header often has these ends.
        let length_field = match is_v4 {
            true => (FieldKind::Ipv4Length as u8, at.saturating_sub(10)),
            false => (FieldKind::Ipv6Length as u8, at.saturating_sub(4)),
        };
        let own = [length_field, (FieldKind::TcpSeq as u8, ports + 4)];
        let fields: Vec<_> = own.into_iter().chain(fields).collect();
        let fields = fields.into_iter().filter(|(kind, at)| {
            at + FieldKind::from_number(*kind).unwrap().width() <= data.len()
        });
        let headers = headers_of(&data, fields.collect());
        let mut template = Vec::new();
        let (values, _) = split(&headers, &data, length, &mut template);
        let (_, back) = shared(&template, &ends, &values, length);
        prop_assert_eq!(back, data);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(template: Vec<u8>, port: u16) {
        let ends = Endpoints { source_port: port, destination_port: port, ..Endpoints::default() };
        let mut into = vec![9];
        without_endpoints(&template, &ends, &mut into);
        prop_assert!(into.len() >= template.len());
    }
}
