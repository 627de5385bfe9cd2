//! Filters against the flows themselves.

use capstan_fixtures::*;
use capstan_index::Field;
use capstan_model::{Address, Time, TimeRange};
use capstan_storage_engine::segment::flows::FlowRow;
use proptest::prelude::*;

use super::*;
use crate::testing::*;

fn host(number: u8) -> Address {
    Address::v4([10, 0, 0, number])
}

/// Whether a flow row is what a filter means, told without the index.
fn is_true(filter: &FlowFilter, row: &FlowRow) -> bool {
    let key = &row.part.key;
    match filter {
        FlowFilter::And(filters) => filters.iter().all(|filter| is_true(filter, row)),
        FlowFilter::Or(filters) => filters.iter().any(|filter| is_true(filter, row)),
        FlowFilter::Not(filter) => !is_true(filter, row),
        FlowFilter::Term(Term { field, values }) => match field {
            Field::Ip => [key.source, key.destination].iter().any(|ip| values.contains(&ip.0)),
            Field::Port => [key.source_port, key.destination_port]
                .iter()
                .any(|port| values.contains(&port.to_be_bytes())),
            Field::Protocol => values.contains(&[row.part.protocol as u8]),
            Field::IpProtocol => values.contains(&[key.ip_protocol]),
            _ => false,
        },
    }
}

fn filters() -> impl Strategy<Value = FlowFilter> {
    let leaf = prop_oneof![
        (0_u8..20).prop_map(|number| FlowFilter::host(host(number))),
        prop_oneof![Just(53_u16), Just(4_433), 40_000_u16..40_010].prop_map(FlowFilter::port),
        prop_oneof![Just(Protocol::Udp), Just(Protocol::Dns), Just(Protocol::Redis)]
            .prop_map(|protocol| Term::protocol(protocol).into()),
        Just(FlowFilter::Term(Term::ip_protocol(17))),
        Just(FlowFilter::Term(Term::vlan(3))),
        (0_u8..20, 104_u8..=128)
            .prop_map(|(number, bits)| FlowFilter::network(Network::of(host(number), bits))),
        (40_000_u16..40_010, 0_u16..5).prop_map(|(low, more)| FlowFilter::ports(low..=low + more)),
        proptest::collection::vec(0_u8..20, 0..4).prop_map(|numbers| {
            Term::one_of(Field::Protocol, numbers.into_iter().map(|number| vec![number])).into()
        }),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(FlowFilter::And),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(FlowFilter::Or),
            inner.prop_map(|filter| !filter),
        ]
    })
}

#[test]
fn any_filter_selects_its_rows_and_prunes_none_of_them() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let view = runtime.block_on(view_of(Recording::of(1), traffic(1, 2_000, 0, 1_000)));
    let segments = runtime.block_on(segments(&view));
    let opened: Vec<_> = segments
        .iter()
        .map(|segment| {
            runtime.block_on(async {
                let open = whole(&view).open(segment).await.unwrap();
                let rows = open.read_flows(&*open, &open.all_flows()).await.unwrap();
                (open, rows)
            })
        })
        .collect();
    assert!(opened.len() > 1);
    proptest!(|(filter in filters())| {
        for (segment, (open, rows)) in segments.iter().zip(&opened) {
            let matches = open.matching(&filter).unwrap();
            prop_assert!(matches.unknown.is_empty());
            let expected: roaring::RoaringBitmap =
                (0_u32..).zip(rows).filter(|(_, row)| is_true(&filter, row)).map(|(n, _)| n).collect();
            prop_assert!(expected.is_empty() || segment.entry.may_match(&filter));
            prop_assert_eq!(matches.sure.into_ordinals(), expected);
        }
    });
}

#[tokio::test]
async fn all_addresses_and_ports_and_any_protocol_must_match() {
    let given = vec![
        ethernet("eth0"),
        at(1, udp((1, 2), (5_000, 53), b"x")),
        at(2, udp((1, 3), (5_000, 53), b"x")),
        at(3, udp((2, 3), (5_000, 54), b"x")),
    ];
    let view = view_of(Recording::of(1), given).await;
    let segment = &segments(&view).await[0];
    let open = whole(&view).open(segment).await.unwrap();
    let count = |selection: Selection| open.matching(&selection.filter()).unwrap().sure.len();
    let of = |ips: &[u8], ports: &[u16], protocols: &[Protocol]| Selection {
        hosts: ips.iter().map(|number| host(*number).into()).collect(),
        ports: ports.iter().map(|port| Ports::from(*port)).collect(),
        protocols: protocols.to_vec(),
        ..Selection::default()
    };
    assert_eq!(count(of(&[], &[], &[])), 3);
    assert_eq!(count(of(&[1], &[], &[])), 2);
    assert_eq!(count(of(&[1, 3], &[], &[])), 1);
    assert_eq!(count(of(&[3], &[54], &[])), 1);
    assert_eq!(count(of(&[1], &[54], &[])), 0);
    assert_eq!(count(of(&[], &[5_000, 53], &[])), 2);
    let every = of(&[], &[], Protocol::ALL);
    assert_eq!(count(every.clone()), 3);
    assert!(every.may_match(&segment.entry));
    assert_eq!(of(&[1], &[54], &[Protocol::Dns]).words(), "ip 10.0.0.1, port 54, protocol dns");
    assert!(!of(&[], &[], &[Protocol::Mysql]).may_match(&segment.entry));
}

#[tokio::test]
async fn unknown_identity_differs_from_no_identity() {
    let view = view_of(Recording::of(1), traffic(1, 200, 0, 1_000)).await;
    let segment = &segments(&view).await[0];
    let open = whole(&view).open(segment).await.unwrap();
    let shop = || FlowFilter::from(Term::pod("shop/web-0"));
    let all = open.all_flows();
    let evaluate = |filter: FlowFilter| open.matching(&filter).unwrap();
    for filter in [shop(), !shop()] {
        let matches = evaluate(filter);
        assert!(matches.sure.is_empty());
        assert_eq!(matches.unknown, all);
    }
    // Where the other side decides, the answer is known.
    let nowhere = FlowFilter::host(host(250));
    let neither = evaluate(FlowFilter::And(vec![shop(), nowhere.clone()]));
    assert_eq!((neither.unknown.len(), neither.sure.len()), (0, 0));
    let either = evaluate(FlowFilter::Or(vec![shop(), !nowhere]));
    assert_eq!((either.unknown.len(), either.sure), (0, all));
    let selection = Selection { pods: vec!["shop/web-0".into()], ..Selection::default() };
    assert!(selection.may_match(&segment.entry));
}

#[tokio::test]
async fn the_range_prunes_too() {
    let view = view_of(Recording::of(1), traffic(1, 200, 10_000, 1_000)).await;
    let segment = &segments(&view).await[0];
    let within = |start, end| {
        Selection::of_range(TimeRange { start: Time(start), end: Time(end) })
            .may_match(&segment.entry)
    };
    assert!(within(20_000, 30_000));
    assert!(!within(0, 5_000));
}

#[test]
fn impossible_selections_are_refused_or_remarked() {
    let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let of = |namespaces: &[&str], pods: &[&str]| Selection {
        namespaces: text(namespaces),
        pods: text(pods),
        ..Selection::default()
    };
    let service = |name: &str| Selection { services: text(&[name]), ..Selection::default() };
    let workload = |name: &str| Selection { workloads: text(&[name]), ..Selection::default() };
    for (selection, word) in [
        (of(&["a", "b", "c"], &[]), "3 namespaces"),
        (of(&["a", "b"], &["c/x"]), "3 namespaces"),
        (of(&[], &["a/x", "a/y", "a/z"]), "3 pods"),
        (of(&[], &["web"]), "namespace/name"),
        (of(&[], &["/web"]), "namespace/name"),
        (of(&[], &["shop/"]), "namespace/name"),
        (of(&[], &["shop/web/0"]), "'shop/web/0' is not a pod"),
        (service("web"), "'web' is not a service: write namespace/name"),
        (service("*a/b/c"), "namespace/name"),
        (workload("shop/web"), "'shop/web' is not a workload: write namespace/kind/name"),
        (workload("shop//web"), "namespace/kind/name"),
        (of(&["*a*"], &[]), "one end only"),
        (of(&[], &["a*b/c"]), "one end only"),
    ] {
        let failure = selection.check().unwrap_err();
        assert_eq!(failure.kind(), capstan_model::FailureKind::Usage);
        assert!(failure.to_string().contains(word), "{failure}");
    }
    for selection in [
        of(&[], &[]),
        of(&["a", "b", "a"], &["a/x", "b/y", "a/x"]),
        of(&["a", "b", "*c"], &["a/x*", "*-0", "sh*"]),
        service("shop/web"),
        service("*web"),
        workload("shop/deployment/web"),
        workload("shop/*"),
        workload("*/web"),
        Selection { ports: [1, 2, 3].map(Ports::from).into(), ..Selection::default() },
    ] {
        assert!(selection.check().is_ok(), "{selection:?}");
    }
    let ips = |texts: &[&str]| Selection {
        hosts: texts.iter().map(|text| text.parse().unwrap()).collect(),
        ..Selection::default()
    };
    assert!(ips(&["10.0.0.1", "10.0.0.2", "10.0.0.1"]).remarks().is_empty());
    assert!(ips(&["10.0.0.1", "10.0.0.2", "::3"]).remarks()[0].starts_with("3 addresses"));
    assert!(of(&["shop"], &[]).remarks()[0].contains("unknown"));
}
