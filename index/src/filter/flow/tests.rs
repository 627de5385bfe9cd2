//! Filters over flows: a naive evaluation, over each flow alone, and over the index of all of them.

use capstan_model::{FlowId, FlowKey, Generation, Network, Protocol, RecorderId};
use proptest::prelude::*;
use roaring::RoaringBitmap;

use super::*;
use crate::filter::{FlowFilter, Values};
use crate::{TermIndex, TermIndexBuilder};

/// A flow with few different values, so that filters find some.
#[derive(Debug, Clone)]
struct Made {
    part: FlowPart,
    tunnels: Vec<TunnelEnds>,
    vnis: Vec<u32>,
}

impl Made {
    fn terms(&self) -> FlowTerms<'_> {
        FlowTerms { part: &self.part, tunnels: &self.tunnels, vnis: &self.vnis }
    }
}

fn v4(net: u8, host: u8) -> Address {
    Address::v4([10, 0, net, host])
}

fn some_address() -> impl Strategy<Value = Address> {
    prop_oneof![
        6 => (0_u8..3, 0_u8..4).prop_map(|(net, host)| v4(net, host)),
        1 => Just("2001:db8::1".parse().expect("an address")),
        1 => Just(Address::NONE),
    ]
}

fn some_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["shop/web-0", "shop/web-1", "shop", "a.shop.example", "example"])
        .prop_map(str::to_owned)
}

fn some_knowledge() -> impl Strategy<Value = Knowledge> {
    prop_oneof![
        1 => Just(Knowledge::Unknown),
        1 => Just(Knowledge::Nothing),
        2 => some_name().prop_map(Knowledge::Value),
    ]
}

fn some_identity() -> impl Strategy<Value = Identity> {
    (some_knowledge(), some_knowledge(), some_knowledge())
        .prop_map(|(namespace, pod, node)| Identity { namespace, pod, node, ..Identity::default() })
}

fn some_flow() -> impl Strategy<Value = Made> {
    let key = (some_address(), some_address(), 0_u16..6, 0_u16..6, prop::option::of(1_u16..3));
    let tunnel = (some_address(), some_address(), 0_u16..6, 0_u16..6)
        .prop_map(|(a, b, c, d)| TunnelEnds { addresses: (a, b), ports: (c, d) });
    let identity = prop::option::of([some_identity(), some_identity()]);
    let labels = (prop::option::of(some_name()), 0_u8..4);
    (
        key,
        prop::collection::vec(tunnel, 0..2),
        prop::collection::vec(1_u32..3, 0..2),
        identity,
        labels,
    )
        .prop_map(|(key, tunnels, vnis, identity, (sni, protocol))| {
            let key = FlowKey {
                source: key.0,
                destination: key.1,
                source_port: key.2,
                destination_port: key.3,
                ip_protocol: 6,
                vlan: key.4,
                vni: None,
                ethertype: 0x0800,
                pseudo: None,
                fragment_id: None,
            };
            let mut part = FlowPart::new(FlowId([0; 16]), key);
            part.sni = sni;
            part.protocol = Protocol::from_number(protocol);
            part.identity = identity.map(Box::new);
            Made { part, tunnels, vnis }
        })
}

fn some_term() -> impl Strategy<Value = Term> {
    let name = || some_name().prop_map(String::into_bytes);
    let field = prop::sample::select(vec![Field::Namespace, Field::Pod, Field::Node, Field::Sni]);
    let piece = prop::sample::select(vec!["", "shop", "shop/", ".example", "web", "-1"]);
    let values = prop_oneof![
        name().prop_map(Values::One),
        prop::collection::vec(name(), 0..3).prop_map(Values::several),
        piece.clone().prop_map(|text| Values::Prefix(text.into())),
        piece.prop_map(|text| Values::Suffix(text.into())),
    ];
    prop_oneof![
        4 => (field, values).prop_map(|(field, values)| Term { field, values }),
        1 => (some_address(), 90_u8..=128)
            .prop_map(|(address, bits)| Term::ip_in(Network::of(address, bits))),
        1 => (some_address(), 90_u8..=128)
            .prop_map(|(address, bits)| Term::outer_ip_in(Network::of(address, bits))),
        1 => (0_u16..6, 0_u16..6).prop_map(|(low, high)| Term::ports(low..=high)),
        1 => (0_u8..5).prop_map(|number| Term::protocol(Protocol::from_number(number))),
        1 => (0_u16..4).prop_map(Term::vlan),
        1 => (0_u32..4).prop_map(Term::vni),
    ]
}

fn some_filter() -> impl Strategy<Value = FlowFilter> {
    some_term().prop_map(FlowFilter::from).prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(FlowFilter::And),
            prop::collection::vec(inner.clone(), 0..3).prop_map(FlowFilter::Or),
            inner.prop_map(|filter| !filter),
        ]
    })
}

/// Whether a term is true of a flow, told from the flow alone: none if that is unknown.
fn naive(term: &Term, made: &Made) -> Option<bool> {
    let (key, is) = (&made.part.key, |value: &[u8]| term.values.contains(value));
    let address = |of: &Address| *of != Address::NONE && is(&of.0);
    Some(match term.field {
        Field::Ip => address(&key.source) || address(&key.destination),
        Field::OuterIp => {
            made.tunnels.iter().any(|of| is(&of.addresses.0.0) || is(&of.addresses.1.0))
        }
        Field::Port => {
            let own = (key.source_port, key.destination_port);
            let pairs = made.tunnels.iter().map(|of| of.ports).chain([own]);
            pairs
                .filter(|ports| *ports != (0, 0))
                .any(|(from, to)| is(&from.to_be_bytes()) || is(&to.to_be_bytes()))
        }
        Field::Protocol => is(&[made.part.protocol as u8]),
        Field::Vlan => key.vlan.is_some_and(|vlan| is(&vlan.to_be_bytes())),
        Field::Vni => made.vnis.iter().any(|vni| is(&vni.to_be_bytes())),
        Field::Sni => made.part.sni.as_ref().is_some_and(|sni| is(sni.as_bytes())),
        field => {
            let ends = made.part.identity.as_deref()?;
            let of = |end: &Identity| match field {
                Field::Namespace => end.namespace.clone(),
                Field::Pod => end.pod.clone(),
                _ => end.node.clone(),
            };
            let ends = ends.each_ref().map(of);
            if ends.iter().any(|end| end.value().is_some_and(|value| is(value.as_bytes()))) {
                return Some(true);
            }
            return ends.iter().all(Knowledge::is_known).then_some(false);
        }
    })
}

/// Kleene's logic of three values.
fn truth(filter: &FlowFilter, made: &Made) -> Option<bool> {
    match filter {
        FlowFilter::Term(term) => naive(term, made),
        FlowFilter::And(all) => {
            let all: Vec<_> = all.iter().map(|filter| truth(filter, made)).collect();
            if all.contains(&Some(false)) {
                return Some(false);
            }
            (!all.contains(&None)).then_some(true)
        }
        FlowFilter::Or(any) => {
            let any: Vec<_> = any.iter().map(|filter| truth(filter, made)).collect();
            if any.contains(&Some(true)) {
                return Some(true);
            }
            (!any.contains(&None)).then_some(false)
        }
        FlowFilter::Not(filter) => truth(filter, made).map(|is| !is),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_flow_alone_and_the_index_of_all_say_what_is_true(
        flows in prop::collection::vec(some_flow(), 1..12),
        filter in some_filter(),
    ) {
        let mut builder = TermIndexBuilder::new();
        for (ordinal, made) in (0_u32..).zip(&flows) {
            made.terms().each(|field, value| builder.add(field, value, ordinal));
        }
        let index = TermIndex::open(builder.finish(flows.len() as u32).expect("few")).expect("ours");
        let matches = filter.evaluate(&index).expect("sound");
        let (mut sure, mut unknown) = (RoaringBitmap::new(), RoaringBitmap::new());
        for (ordinal, made) in (0_u32..).zip(&flows) {
            let truth = truth(&filter, made);
            let Ok(alone) = filter.bounds(&made.terms());
            prop_assert_eq!(alone.sure, truth == Some(true));
            prop_assert_eq!(alone.possible, truth != Some(false));
            match truth {
                Some(true) => { sure.insert(ordinal); }
                Some(false) => {}
                None => { unknown.insert(ordinal); }
            }
        }
        prop_assert_eq!(matches.flows, sure);
        prop_assert_eq!(matches.unknown, unknown);
    }
}

#[test]
fn a_flow_whose_one_end_is_known_may_match_by_the_other() {
    let key = FlowKey {
        source: v4(0, 1),
        destination: v4(0, 2),
        source_port: 1,
        destination_port: 2,
        ip_protocol: 6,
        vlan: None,
        vni: None,
        ethertype: 0x0800,
        pseudo: None,
        fragment_id: None,
    };
    let id = FlowId::new(RecorderId(1), Generation(1), 7);
    let mut part = FlowPart::new(id, key);
    let shop = Identity { namespace: Knowledge::Value("shop".into()), ..Identity::default() };
    part.identity = Some(Box::new([shop.clone(), Identity::default()]));
    let bounds = |part: &FlowPart, filter: &FlowFilter| {
        let Ok(bounds) = filter.bounds(&FlowTerms { part, tunnels: &[], vnis: &[] });
        (bounds.sure, bounds.possible)
    };
    let namespace = |name| FlowFilter::from(Term::namespace(name));
    assert_eq!(bounds(&part, &namespace("shop")), (true, true));
    assert_eq!(bounds(&part, &namespace("bank")), (false, true));
    assert_eq!(bounds(&part, &!namespace("bank")), (false, true));
    assert_eq!(bounds(&part, &!namespace("shop")), (false, false));
    assert_eq!(bounds(&part, &Term::pod("shop/web").into()), (false, true));
    let outside = Identity { namespace: Knowledge::Nothing, ..Identity::default() };
    part.identity = Some(Box::new([shop, outside]));
    assert_eq!(bounds(&part, &namespace("bank")), (false, false));
    assert_eq!(bounds(&part, &!namespace("bank")), (true, true));
    assert_eq!(bounds(&part, &Term::flow(id).into()), (true, true));
}
