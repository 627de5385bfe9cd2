//! Conditions: those that are pushed down give the same rows as a test of each row.

use std::sync::Arc;

use capstan_fixtures::{Given, Recording, all_segments, at, ethernet, udp};
use capstan_model::FailureKind;
use capstan_view::StoreView;

use super::fixture::{lines, number, refused, tables};
use crate::testing::view_of;

/// A packet as the conditions see it: hosts, ports, length.
type Seen = ((u8, u8), (u16, u16), usize);

/// Conversations of twelve clients with two servers, both ways, over several segments.
fn conversations() -> (Vec<Given>, Vec<Seen>) {
    let mut given = vec![ethernet("eth0")];
    let mut seen = Vec::new();
    for number in 0..3_000_u16 {
        let client = 1 + (number % 12) as u8;
        let server = 101 + (number / 7 % 2) as u8;
        let port = [53, 4_433, 9_000][usize::from(number / 3 % 3)];
        let ports = (40_000 + u16::from(client), port);
        let (hosts, ports) = match number % 3 {
            0 => ((server, client), (ports.1, ports.0)),
            _ => ((client, server), ports),
        };
        let payload = vec![number as u8; usize::from(number % 97)];
        given.push(at(i64::from(number) * 1_000_000, udp(hosts, ports, &payload)));
        seen.push((hosts, ports, payload.len()));
    }
    (given, seen)
}

async fn store(given: Vec<Given>) -> Arc<StoreView> {
    let recording = Recording { segment_bytes: 32 << 10, ..Recording::of(3) };
    let view = view_of(recording, given).await;
    assert!(all_segments(view.store()).await.len() > 3);
    view
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_choose_the_rows_they_are_true_of() {
    let (given, seen) = conversations();
    let tables = tables(&store(given).await);
    let has_host = |seen: &Seen, host: u8| seen.0.0 == host || seen.0.1 == host;
    let has_port = |seen: &Seen, port: u16| seen.1.0 == port || seen.1.1 == port;
    type Test<'a> = Box<dyn Fn(&Seen) -> bool + 'a>;
    let cases: Vec<(&str, Test<'_>)> = vec![
        ("host('10.0.0.5')", Box::new(|s| has_host(s, 5))),
        (
            "host('10.0.0.5') AND host('10.0.0.101')",
            Box::new(|s| has_host(s, 5) && has_host(s, 101)),
        ),
        ("host('10.0.0.5') OR port(53)", Box::new(|s| has_host(s, 5) || has_port(s, 53))),
        ("NOT host('10.0.0.5')", Box::new(|s| !has_host(s, 5))),
        (
            "NOT (host('10.0.0.5') OR port(53)) AND port(9000)",
            Box::new(|s| !has_host(s, 5) && has_port(s, 9_000)),
        ),
        ("host('10.0.0.99')", Box::new(|_| false)),
        ("port(53) AND length > 60", Box::new(|s| has_port(s, 53) && s.2 + 42 > 60)),
        ("port(0)", Box::new(|_| false)),
        ("host('10.0.0.5') = true", Box::new(|s| has_host(s, 5))),
        ("host('10.0.0.5') IS NOT TRUE", Box::new(|s| !has_host(s, 5))),
        ("source_ip = '10.0.0.5'", Box::new(|s| s.0.0 == 5)),
        ("source_ip <> '10.0.0.5'", Box::new(|s| s.0.0 != 5)),
        ("'10.0.0.5' = destination_ip", Box::new(|s| s.0.1 == 5)),
        (
            "source_ip IN ('10.0.0.5', '10.0.0.6', '10.0.0.7', '10.0.0.8', 'nonsense')",
            Box::new(|s| (5..=8).contains(&s.0.0)),
        ),
        (
            "source_ip NOT IN ('10.0.0.5', '10.0.0.101', '10.0.0.7', '10.0.0.8')",
            Box::new(|s| ![5, 101, 7, 8].contains(&s.0.0)),
        ),
        ("source_ip = 'nonsense'", Box::new(|_| false)),
        ("source_ip = '010.0.0.5'", Box::new(|_| false)),
        (
            "source_ip LIKE '10.0.0.1%'",
            Box::new(|s| s.0.0 == 1 || (10..=19).contains(&s.0.0) || s.0.0 >= 100),
        ),
        ("source_port = 53", Box::new(|s| s.1.0 == 53)),
        ("source_port = 53 OR destination_port = 53", Box::new(|s| has_port(s, 53))),
        ("destination_port IN (53, 9000)", Box::new(|s| [53, 9_000].contains(&s.1.1))),
        ("source_port > 40005", Box::new(|s| s.1.0 > 40_005)),
        ("source_port = 100000", Box::new(|_| false)),
        ("ip_protocol = 17 AND vlan IS NULL", Box::new(|_| true)),
        ("ip_protocol = 6 OR vni = 7 OR vlan = 3", Box::new(|_| false)),
        ("vlan <> 3 OR NOT vlan = 3", Box::new(|_| false)),
        ("length = 42", Box::new(|s| s.2 == 0)),
        (
            "host('10.0.0.5') AND source_ip = '10.0.0.5' AND source_port <> 53",
            Box::new(|s| s.0.0 == 5),
        ),
    ];
    for (condition, test) in cases {
        let expected = seen.iter().filter(|seen| test(seen)).count() as i64;
        let sql = format!("SELECT count(*) FROM packets WHERE {condition}");
        assert_eq!(number(&tables, &sql).await, expected, "{sql}");
        let sql = format!("SELECT sum(length) FROM packets WHERE {condition}");
        let bytes: usize = seen.iter().filter(|seen| test(seen)).map(|seen| seen.2 + 42).sum();
        let expected = if expected == 0 { "-".to_owned() } else { bytes.to_string() };
        assert_eq!(lines(&tables, &sql).await, [expected], "{sql}");
        let sql = format!("SELECT count(data) FROM packets WHERE {condition}");
        let expected = seen.iter().filter(|seen| test(seen)).count() as i64;
        assert_eq!(number(&tables, &sql).await, expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protocol_and_its_negation_cover_all_rows() {
    let (given, seen) = conversations();
    let tables = tables(&store(given).await);
    let by_protocol = lines(&tables, "SELECT protocol, count(*) FROM packets GROUP BY 1").await;
    assert!(!by_protocol.is_empty());
    for row in by_protocol {
        let (protocol, count) = row.split_once(' ').expect("two columns");
        let of = |condition: String| format!("SELECT count(*) FROM packets WHERE {condition}");
        let counted = number(&tables, &of(format!("protocol = '{protocol}'"))).await;
        assert_eq!(counted.to_string(), count);
        let others = number(&tables, &of(format!("protocol <> '{protocol}'"))).await;
        assert_eq!(counted + others, seen.len() as i64);
        let listed =
            number(&tables, &of(format!("protocol IN ('{protocol}', 'a', 'b', 'c')"))).await;
        assert_eq!(listed, counted);
    }
    assert_eq!(number(&tables, "SELECT count(*) FROM packets WHERE protocol = 'gopher'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flow_parts_and_flows_take_the_same_conditions() {
    let (given, _) = conversations();
    let tables = tables(&store(given).await);
    for condition in [
        "host('10.0.0.5')",
        "NOT host('10.0.0.5') AND port(53)",
        "port(53) OR port(9000)",
        "source_ip = '10.0.0.5'",
        "destination_port IN (53, 9000) AND ip_protocol = 17",
    ] {
        let flows = format!("SELECT sum(packets), count(*) FROM flows WHERE {condition}");
        let parts = format!(
            "SELECT sum(packets), count(DISTINCT flow_id) FROM flow_parts WHERE {condition}"
        );
        assert_eq!(lines(&tables, &flows).await, lines(&tables, &parts).await, "{condition}");
        if condition.contains("host") || condition.contains("port(") {
            let packets =
                format!("SELECT count(*), count(DISTINCT flow_id) FROM packets WHERE {condition}");
            assert_eq!(lines(&tables, &flows).await, lines(&tables, &packets).await, "{condition}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_predicates_are_refused() {
    let (given, _) = conversations();
    let tables = tables(&store(given).await);
    for (sql, words) in [
        ("SELECT * FROM packets WHERE host('example.org')", "not an IP address"),
        ("SELECT * FROM packets WHERE host('::')", "not the address of a host"),
        ("SELECT * FROM packets WHERE host(source_ip)", "takes one value"),
        ("SELECT * FROM packets WHERE host(NULL)", "as text"),
        ("SELECT * FROM packets WHERE port(65536)", "not a port"),
        ("SELECT * FROM flows WHERE port(-1)", "not a port"),
        ("SELECT host('10.0.0.5') FROM packets", "use it in WHERE"),
        ("SELECT * FROM packets WHERE host('10.0.0.5') OR length > 60", "use it in WHERE"),
        ("SELECT * FROM segments WHERE port(53)", "use it in WHERE"),
        ("SELECT count(*) FROM flows WHERE host('10.0.0.5') OR bytes > 60", "use it in WHERE"),
    ] {
        let (kind, found) = refused(&tables, sql).await;
        assert_eq!(kind, FailureKind::Usage, "{sql}: {found}");
        assert!(found.contains(words), "{sql}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unrecorded_identity_is_unknown_and_not_empty() {
    let (given, seen) = conversations();
    let tables = tables(&store(given).await);
    for table in ["packets", "flows", "flow_parts"] {
        let of = |condition: &str| format!("SELECT count(*) FROM {table} WHERE {condition}");
        assert_eq!(number(&tables, &of("source_pod = 'shop/cart'")).await, 0);
        assert_eq!(number(&tables, &of("source_namespace = 'shop'")).await, 0);
        // Neither is it another one: nobody knows.
        assert_eq!(number(&tables, &of("source_pod <> 'shop/cart'")).await, 0);
        assert_eq!(number(&tables, &of("NOT destination_namespace = 'shop'")).await, 0);
        let all = number(&tables, &of("true")).await;
        assert_eq!(number(&tables, &of("identity = 'unknown'")).await, all);
        assert_eq!(number(&tables, &of("identity = 'known'")).await, 0);
    }
    let sql =
        "SELECT count(*) FROM packets WHERE identity = 'unknown' OR source_namespace = 'shop'";
    assert_eq!(number(&tables, sql).await, seen.len() as i64);
}
