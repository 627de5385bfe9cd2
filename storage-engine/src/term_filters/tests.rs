//! Filters against the terms that they are made of.

use capstan_index::filter::{FlowFilter, Term, Values};
use capstan_index::{End, TermIndex, TermIndexBuilder};
use capstan_model::{Address, Network};
use proptest::prelude::*;

use super::*;

/// The summary of a segment with a flow a term.
fn summary(terms: &[(Field, Vec<u8>)]) -> Summary {
    let mut builder = TermIndexBuilder::new();
    for (flow, (field, value)) in (0_u32..).zip(terms) {
        builder.add(*field, value, flow);
    }
    let bytes = builder.finish(terms.len() as u32).expect("few");
    Summary::of(&TermIndex::open(bytes).expect("ours")).expect("sound")
}

/// The summary of a segment in which everything is known of its flows.
fn known_summary(terms: &[(Field, Vec<u8>)]) -> Summary {
    let mut builder = TermIndexBuilder::new();
    for (flow, (field, value)) in (0_u32..).zip(terms) {
        builder.add(*field, value, flow);
        for field in Field::ALL.iter().filter(|field| field.is_identity()) {
            for end in End::BOTH {
                builder.add(Field::Known, &[field.number(), end as u8], flow);
            }
        }
    }
    let bytes = builder.finish(terms.len() as u32).expect("few");
    Summary::of(&TermIndex::open(bytes).expect("ours")).expect("sound")
}

fn may(summary: &Summary, filter: impl Into<FlowFilter>) -> bool {
    let addresses = summary.address_filter();
    KnownTerms { addresses: addresses.as_ref(), terms: &summary.filters }.may_match(&filter.into())
}

fn network(text: &str) -> FlowFilter {
    FlowFilter::network(text.parse().expect("a network"))
}

fn ip(text: &str) -> (Field, Vec<u8>) {
    (Field::Ip, text.parse::<Address>().expect("an address").0.to_vec())
}

#[test]
fn networks_are_decided_without_the_addresses() {
    let of = summary(&[ip("10.244.3.7"), ip("10.244.9.1"), ip("2001:db8:1::5")]);
    for there in [
        "10.244.3.7",
        "10.244.3.4/30",
        "10.244.3.0/24",
        "10.244.0.0/16",
        "10.244.0.0/14",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "::/0",
        "::/64",
        "2001:db8:1::/48",
        "2001:db8:1::/64",
        "2001:db8::/32",
    ] {
        assert!(may(&of, network(there)), "{there}");
    }
    for absent in [
        "10.244.3.8",
        "10.244.3.8/30",
        "10.244.4.0/24",
        "10.244.4.0/22",
        "10.245.0.0/16",
        "10.248.0.0/14",
        "192.168.0.0/16",
        "2001:db8:2::/48",
        "2001:db8:1:1::/64",
    ] {
        assert!(!may(&of, network(absent)), "{absent}");
    }
}

#[test]
fn names_are_decided_by_their_domains() {
    let sni = |name: &str| (Field::Sni, name.as_bytes().to_vec());
    let of = summary(&[sni("api.shop.svc.cluster.local"), sni("example.org")]);
    let suffix = |text: &str| Term::suffix(Field::Sni, text);
    for there in
        [".cluster.local", ".shop.svc.cluster.local", "op.svc.cluster.local", "org", "", ".org"]
    {
        assert!(may(&of, suffix(there)), "{there}");
    }
    for absent in [".bank.svc.cluster.local", ".example.org", "k.net", ".com"] {
        assert!(!may(&of, suffix(absent)), "{absent}");
    }
    assert!(may(&of, Term::new(Field::Sni, "example.org")));
    assert!(!may(&of, Term::new(Field::Sni, "example.com")));
    assert!(may(&of, Term::prefix(Field::Sni, "no")), "a prefix decides nothing");
    assert!(may(&of, Term::new(Field::Alpn, "h2")), "there is no filter of them");
    // A name that is cut in the index has no parents that are known.
    let long = summary(&[sni(&"a.".repeat(200))]);
    assert!(long.filters.get(Group::Name).is_none());
    assert!(!may(&summary(&[ip("10.0.0.1")]), suffix(".org")), "no flow has a name");
}

#[test]
fn identities_decide_only_where_all_are_known() {
    let terms = [(Field::Namespace, b"shop".to_vec()), (Field::Pod, b"shop/web-0".to_vec())];
    let known = known_summary(&terms);
    assert!(may(&known, Term::namespace("shop")) && !may(&known, Term::namespace("bank")));
    assert!(may(&known, Term::pod("shop/web-0")) && !may(&known, Term::pod("shop/web-1")));
    assert!(may(&known, Term::prefix(Field::Pod, "shop/")));
    assert!(!may(&known, Term::prefix(Field::Pod, "bank/w")), "there is no such namespace");
    assert!(may(&known, Term::prefix(Field::Pod, "ba")));
    assert!(!may(&known, Term::new(Field::Node, "node-1")), "no end is on a node");
    assert!(may(&known, !FlowFilter::from(Term::namespace("bank"))));
    let unknown = summary(&terms);
    assert!(may(&unknown, Term::namespace("bank")), "of both flows an end may be there");
    assert!(unknown.filters.get(Group::Namespace).is_none());
}

#[test]
fn one_segment_without_a_group_does_not_end_it() {
    let with = |names: &[&str]| {
        let mut filters = TermFilters::default();
        filters.set(
            Group::Node,
            TermFilter::of(names.iter().map(|name| name.as_bytes())).expect("few"),
        );
        filters
    };
    let (a, b, none) = (with(&["a"]), with(&["b"]), TermFilters::default());
    let union = TermFilters::union(&[&a, &b]);
    assert!(union.includes(&a) && union.includes(&b) && !a.includes(&b));
    assert!(TermFilters::union(&[&a, &none]).is_empty());
    assert!(!a.includes(&none), "any value may be there");
    let many = |lacking: usize| {
        let all: Vec<_> = std::iter::repeat_n(&a, 80 - lacking)
            .chain(std::iter::repeat_n(&none, lacking))
            .collect();
        TermFilters::common(all)
    };
    assert_eq!(many(10), ["node"]);
    assert_eq!(many(11), Vec::<String>::new());
    assert!(a.has_all(&["node".to_owned()]) && !none.has_all(&["node".to_owned()]));
    // A group of a newer version is kept as it is.
    let json = r#"{"node":"8edfcd05","shoe-size":""}"#;
    let read: TermFilters = serde_json::from_str(json).expect("filters");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), json);
}

#[test]
fn what_networks_and_names_cost() {
    let pods: Vec<_> = (0_u8..30).map(|pod| Address::v4([10, 64, 7, pod])).collect();
    let others = (0_u32..100).map(|pod| Address::v4([10, 64, (pod * 37) as u8, pod as u8]));
    let outside = (0_u32..20).map(|n| Address::v4((0x2d00_0000 + n * 7_919_113).to_be_bytes()));
    let public: Vec<_> =
        (0_u32..20_000).map(|n| Address::v4((n * 214_013).to_be_bytes())).collect();
    let terms =
        |all: &[Address]| all.iter().map(|of| (Field::Ip, of.0.to_vec())).collect::<Vec<_>>();
    let cluster: Vec<_> = pods.iter().copied().chain(others).chain(outside).collect();
    for (what, addresses) in [("a node's", cluster), ("public", public)] {
        let of = summary(&terms(&addresses));
        let own = of.address_filter().expect("not too many").to_bytes().len();
        let size = |group| of.filters.get(group).map_or(0, |filter| filter.to_bytes().len());
        let (wide, narrow) = (size(Group::WideNetwork), size(Group::Network));
        println!(
            "{} {what} addresses: {own} bytes, {wide} wide, {narrow} narrow networks",
            addresses.len()
        );
        assert!(wide + narrow <= own.max(2 * 64 * 3), "{what}");
    }
}

fn some_name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{1,2}(\\.[ab]{1,2}){0,3}", "a{250,260}", "\\.{1,4}"]
}

fn some_address() -> impl Strategy<Value = Address> {
    let v4 = |[a, b, c]: [u8; 3]| Address::v4([10, a % 20, b % 20, c]);
    prop_oneof![
        any::<[u8; 3]>().prop_map(v4),
        any::<u128>().prop_map(|number| Address((number % (1 << 34)).to_be_bytes())),
        any::<[u8; 16]>().prop_map(Address),
    ]
}

fn some_values() -> impl Strategy<Value = (Field, Values)> {
    let name = || some_name().prop_map(String::into_bytes);
    let names = prop_oneof![
        name().prop_map(Values::One),
        prop::collection::vec(name(), 0..3).prop_map(Values::several),
        "[ab./]{0,4}".prop_map(|text| Values::Prefix(text.into())),
        "[ab./]{0,4}".prop_map(|text| Values::Suffix(text.into())),
    ];
    let addresses = prop_oneof![
        (some_address(), 0_u8..=128).prop_map(|(of, bits)| {
            let network = Network::of(of, bits);
            Values::Range(network.first().0.into(), network.last().0.into())
        }),
        (some_address(), some_address())
            .prop_map(|(low, high)| Values::Range(low.0.into(), high.0.into())),
        (some_address(), 0_u128..2_000).prop_map(|(low, more)| {
            let high = u128::from_be_bytes(low.0).saturating_add(more);
            Values::Range(low.0.into(), high.to_be_bytes().into())
        }),
    ];
    prop_oneof![
        (Just(Field::Sni), names),
        (prop::sample::select(vec![Field::Ip, Field::OuterIp]), addresses),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_there_is_never_ruled_out(
        names in prop::collection::vec(some_name(), 0..8),
        addresses in prop::collection::vec(some_address(), 0..8),
        (field, values) in some_values(),
    ) {
        let names = names.into_iter().map(|name| (Field::Sni, name.into_bytes()));
        let addresses = addresses.into_iter().map(|of| (Field::Ip, of.0.to_vec()));
        let terms: Vec<_> = names.chain(addresses).collect();
        // Outer addresses are in the same filters.
        let same = |of: Field| (of == Field::Sni) == (field == Field::Sni);
        let is_there = terms.iter().any(|(of, value)| same(*of) && values.contains(value));
        let may = may(&summary(&terms), Term { field, values });
        prop_assert!(!is_there || may);
    }
}
