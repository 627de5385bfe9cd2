//! Conditions as the query engine hands them over.

use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::scalar::ScalarValue;
use proptest::prelude::*;

use super::*;

fn moment(nanos: i64) -> Expr {
    lit(ScalarValue::TimestampNanosecond(Some(nanos), Some("UTC".into())))
}

fn flows_of(condition: &Expr) -> FlowFilter {
    push([condition], Table::Packets).expect("a condition").flows
}

fn exactness(condition: &Expr) -> TableProviderFilterPushDown {
    support(condition, Table::Packets).expect("a condition")
}

#[test]
fn bounds_on_time_become_a_window() {
    let time = || ident("time");
    for (condition, first, last) in [
        (time().gt_eq(moment(5)), 5, i64::MAX),
        (time().gt(moment(5)), 6, i64::MAX),
        (time().lt(moment(5)), i64::MIN, 4),
        (time().lt_eq(moment(5)), i64::MIN, 5),
        (time().eq(moment(5)), 5, 5),
        (moment(5).lt(time()), 6, i64::MAX),
        (time().between(moment(2), moment(5)), 2, 5),
        (time().gt_eq(moment(2)).and(time().lt(moment(5))), 2, 4),
    ] {
        assert_eq!(window(&condition, Table::Packets), Some(Window { first, last }), "{condition}");
        assert_eq!(exactness(&condition), TableProviderFilterPushDown::Exact);
    }
    for condition in [
        time().not_eq(moment(5)),
        time().gt_eq(moment(2)).or(time().lt(moment(5))),
        time().gt(ident("time")),
        ident("first_time").gt(moment(2)),
        time().gt(lit(ScalarValue::TimestampNanosecond(None, None))),
    ] {
        assert_eq!(window(&condition, Table::Packets), None, "{condition}");
        assert_eq!(exactness(&condition), TableProviderFilterPushDown::Unsupported);
    }
}

#[test]
fn nullable_conditions_are_not_negated() {
    let vlan = ident("vlan").eq(lit(5_i32));
    assert_eq!(exactness(&vlan), TableProviderFilterPushDown::Exact);
    let not = Expr::Not(Box::new(vlan));
    assert_eq!(exactness(&not), TableProviderFilterPushDown::Unsupported);
    assert!(flows_of(&not).is_all());
    let protocol = ident("protocol").not_eq(lit("dns"));
    assert_eq!(exactness(&protocol), TableProviderFilterPushDown::Exact);
}

#[test]
fn narrowing_filters_are_inexact() {
    let host = ident("source_ip").eq(lit("10.0.0.1"));
    assert_eq!(exactness(&host), TableProviderFilterPushDown::Inexact);
    let or = host.clone().or(ident("length").gt(lit(5_i64)));
    assert_eq!(exactness(&or), TableProviderFilterPushDown::Unsupported);
    let and = host.and(ident("length").gt(lit(5_i64)));
    assert_eq!(exactness(&and), TableProviderFilterPushDown::Inexact);
    assert!(flows_of(&ident("source_ip").eq(lit("::"))).is_all());
    assert!(flows_of(&ident("source_port").eq(lit(0_i32))).is_all());
}

#[test]
fn ranges_of_ports_are_put_together() {
    let port = || ident("source_port");
    let flows = |conditions: &[Expr]| {
        for condition in conditions {
            assert_eq!(exactness(condition), TableProviderFilterPushDown::Inexact, "{condition}");
        }
        push(conditions, Table::Packets).expect("conditions").flows.to_string()
    };
    let (low, high) = (port().gt_eq(lit(8_000_i32)), port().lt(lit(9_000_i32)));
    assert_eq!(flows(&[low.clone(), high.clone()]), "port=8000-8999");
    assert_eq!(flows(&[port().between(lit(8_000_i32), lit(8_999_i32))]), "port=8000-8999");
    assert_eq!(flows(&[lit(80_i32).lt_eq(port()), port().lt_eq(lit(80_i32))]), "port=80");
    assert_eq!(flows(std::slice::from_ref(&low)), "port=8000-65535");
    let either = low.clone().and(high.clone()).or(ident("protocol").eq(lit("dns")));
    assert!(flows(&[either]).contains("port=8000-8999"));
    // Flows without ports have 0, and no flow is in an empty range.
    assert_eq!(flows(&[high]), "all");
    assert_eq!(flows(&[low, port().lt(lit(7_000_i32))]), "none");
    assert_eq!(flows(&[port().gt(lit(65_535_i32))]), "none");
    let other = port().gt(lit(1_i32)).and(ident("destination_port").lt(lit(9_i32)));
    assert_eq!(
        push([&other], Table::Packets).expect("conditions").flows.to_string(),
        "port=2-65535"
    );
    assert!(flows_of(&Expr::Not(Box::new(port().gt(lit(5_i32))))).is_all());
}

#[test]
fn names_and_flows_are_found_by_their_terms() {
    let sni = || ident("sni");
    let id = "0123456789abcdeffedcba000000004d";
    for (condition, flows) in [
        (sni().eq(lit("a.example")), "sni=a.example"),
        (sni().like(lit("api.%")), "sni=api.*"),
        (sni().like(lit("a_b%c")), "sni=a*"),
        (sni().like(lit("%.example")), "sni=*.example"),
        (ident("source_pod").like(lit("shop/%")), "pod=shop/*"),
        (ident("flow_id").eq(lit(id)), &*format!("flow_id={id}")),
        (ident("flow_id").eq(lit("7")), "none"),
    ] {
        assert_eq!(flows_of(&condition).to_string(), flows, "{condition}");
        assert_eq!(exactness(&condition), TableProviderFilterPushDown::Inexact, "{condition}");
    }
    for condition in [
        sni().like(lit("%a%")),
        sni().like(lit("_a")),
        sni().like(lit("%")),
        sni().ilike(lit("api.%")),
        sni().not_like(lit("api.%")),
        sni().not_eq(lit("a.example")),
        ident("flow_id").not_eq(lit(id)),
        ident("flow_id").like(lit("01%")),
    ] {
        assert!(flows_of(&condition).is_all(), "{condition}");
    }
}

proptest! {
    /// Whatever is asked of a packet's time, the packet is inside the window.
    #[test]
    fn window_contains_every_time_that_meets_its_conditions(
        bounds in prop::collection::vec((0..5_u8, -20_i64..20), 1..6),
        time in -25_i64..25,
    ) {
        let mut meets = true;
        let conditions: Vec<Expr> = bounds
            .iter()
            .map(|(kind, value)| {
                let (column, moment) = (ident("time"), moment(*value));
                let (ok, condition) = match kind {
                    0 => (time >= *value, column.gt_eq(moment)),
                    1 => (time > *value, column.gt(moment)),
                    2 => (time <= *value, column.lt_eq(moment)),
                    3 => (time < *value, column.lt(moment)),
                    _ => (time == *value, column.eq(moment)),
                };
                meets &= ok;
                condition
            })
            .collect();
        let window = push(&conditions, Table::Packets).expect("conditions").window.expect("bounds");
        prop_assert_eq!(meets, window.first <= time && time <= window.last);
    }

    /// A flow part that meets all conditions touches the window.
    #[test]
    fn a_window_touches_every_part_that_meets_its_conditions(
        bounds in prop::collection::vec((proptest::bool::ANY, 0..4_u8, -20_i64..20), 1..6),
        first in -25_i64..25,
        length in 0_i64..30,
    ) {
        let last = first + length;
        let mut meets = true;
        let conditions: Vec<Expr> = bounds
            .iter()
            .map(|(of_first, kind, value)| {
                let (name, at) = if *of_first { ("first_time", first) } else { ("last_time", last) };
                let (column, moment) = (ident(name), moment(*value));
                let (ok, condition) = match kind {
                    0 => (at >= *value, column.gt_eq(moment)),
                    1 => (at > *value, column.gt(moment)),
                    2 => (at <= *value, column.lt_eq(moment)),
                    _ => (at < *value, column.lt(moment)),
                };
                meets &= ok;
                condition
            })
            .collect();
        let window = push(&conditions, Table::Flows).expect("conditions").window.expect("bounds");
        prop_assert!(!meets || window.touches(first, last));
    }
}
