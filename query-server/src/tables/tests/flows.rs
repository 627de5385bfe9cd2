//! `flows`, `flow_parts`, `segments`, `coverage`: what is merged, and over which window.

use capstan_fixtures::{
    Given, Recording, all_segments, at, ethernet, packets, record, traffic, udp,
};
use capstan_model::coverage::{Loss, LossCause};
use capstan_model::{Time, TimeRange};
use capstan_view::StoreView;

use super::fixture::{ask, capture, lines, number, tables};
use crate::testing::view_of;

const SECOND: i64 = 1_000_000_000;

/// One flow that sends a packet of 1 KiB every second for five minutes, over many segments,
/// and one that speaks at the beginning and at the end only.
fn long_flows() -> Vec<Given> {
    let mut given = vec![ethernet("eth0")];
    let speak = |second: i64, client: u8, length: usize| {
        at(second * SECOND, udp((client, 101), (40_000, 9_000), &vec![7; length]))
    };
    for second in 0..300 {
        given.push(speak(second, 1, 1_000));
        if !(3..=296).contains(&second) {
            given.push(speak(second, 2, 10));
        }
    }
    given
}

fn by_seconds() -> Recording {
    Recording { segment_bytes: 16 << 10, ..Recording::of(5) }
}

fn second(second: i64) -> String {
    format!("arrow_cast({}, 'Timestamp(Nanosecond, Some(\"UTC\"))')", second * SECOND)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_merged_as_their_columns_say() {
    let tables = tables(&view_of(by_seconds(), long_flows()).await);
    assert!(number(&tables, "SELECT count(*) FROM flow_parts").await > 10);
    let sql = "SELECT source_ip, packets, packets_forward, bytes, payload_forward, opened, ended, \
               protocol, tcp_flags_forward \
               FROM flows ORDER BY source_ip";
    assert_eq!(
        lines(&tables, sql).await,
        ["10.0.0.1 300 300 312600 300000 true open udp 0", "10.0.0.2 6 6 312 60 true open udp 0",]
    );
    // What packets add up to.
    let sql = "SELECT f.flow_id FROM flows f JOIN (SELECT flow_id, count(*) AS n, sum(length) AS b, \
               min(time) AS s, max(time) AS e FROM packets GROUP BY flow_id) p \
               ON f.flow_id = p.flow_id \
               WHERE n = f.packets AND b = f.bytes AND s = f.first_time AND e = f.last_time";
    assert_eq!(ask(&tables, sql).await.num_rows(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_merges_the_parts_that_touch_it() {
    let tables = tables(&view_of(by_seconds(), long_flows()).await);
    let (from, to) = (second(100), second(200));
    let window = format!("first_time < {to} AND last_time >= {from}");
    let parts = format!("SELECT sum(packets) FROM flow_parts WHERE {window}");
    let inside = number(&tables, &parts).await;
    assert!((100..300).contains(&inside), "{inside}");
    // The flow that is silent in between has no part there.
    let flows = format!("SELECT source_ip, packets, opened FROM flows WHERE {window}");
    assert_eq!(lines(&tables, &flows).await, [format!("10.0.0.1 {inside} false")]);
    // The order of the bounds, and how they are written, makes no difference.
    for other in [
        format!("last_time >= {from} AND {to} > first_time"),
        format!("last_time >= {from} AND last_time >= {} AND first_time < {to}", second(3)),
        format!(
            "first_time BETWEEN {} AND {to} - INTERVAL '1' SECOND AND last_time >= {from}",
            second(-5)
        ),
    ] {
        let flows = format!("SELECT packets FROM flows WHERE {other}");
        assert_eq!(lines(&tables, &flows).await, [inside.to_string()], "{other}");
    }
    // Flows that began in the window: only what is merged is known of them.
    let began = format!("SELECT count(*) FROM flows WHERE first_time >= {from} AND opened");
    assert_eq!(number(&tables, &began).await, 0);
    let early = format!("SELECT source_ip FROM flows WHERE first_time < {}", second(2));
    assert_eq!(ask(&tables, &early).await.num_rows(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_on_merged_values_see_all_parts() {
    let tables = tables(&view_of(by_seconds(), long_flows()).await);
    for (condition, flows) in [
        ("packets = 300", 1),
        ("bytes > 100 AND packets < 10", 1),
        ("opened", 2),
        ("protocol = 'udp'", 2),
        ("protocol = 'dns'", 0),
        ("source_ip = '10.0.0.2' AND packets = 6", 1),
        ("sni IS NULL AND vlan IS NULL", 2),
    ] {
        let sql = format!("SELECT count(*) FROM flows WHERE {condition}");
        assert_eq!(number(&tables, &sql).await, flows, "{condition}");
        let sql = format!("SELECT count(*) FROM (SELECT * FROM flows WHERE {condition})");
        assert_eq!(number(&tables, &sql).await, flows, "{condition}");
    }
    assert_eq!(ask(&tables, "SELECT * FROM flows LIMIT 1").await.num_rows(), 1);
    let one = lines(&tables, "SELECT flow_id FROM flows WHERE packets = 300").await;
    let sql = format!("SELECT packets FROM flows WHERE flow_id = '{}'", one[0]);
    assert_eq!(lines(&tables, &sql).await, ["300"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_of_real_captures_add_up() {
    for name in ["wireshark/http2-data-reassembly.pcap", "ndpi/http_ipv6.pcap", "ndpi/vxlan.pcap"] {
        let Some(given) = capture(name) else { return };
        let bytes: u64 = packets(&given).iter().map(|packet| u64::from(packet.length)).sum();
        let count = packets(&given).len();
        let recording = Recording { segment_bytes: 8 << 10, ..Recording::of(9) };
        let tables = tables(&view_of(recording, given).await);
        for table in ["flows", "flow_parts"] {
            let sql = format!("SELECT sum(packets), sum(bytes) FROM {table}");
            assert_eq!(lines(&tables, &sql).await, [format!("{count} {bytes}")], "{name}");
        }
        let sql = "SELECT count(*) FROM flows f FULL JOIN \
                   (SELECT flow_id, count(*) AS n, sum(length) AS b, bit_or(tcp_flags) AS t, \
                   count(DISTINCT protocol) AS labels FROM packets GROUP BY flow_id) p \
                   ON f.flow_id = p.flow_id WHERE n = packets AND b = bytes AND \
                   coalesce(t, 0) = tcp_flags_forward | tcp_flags_backward";
        let flows = number(&tables, "SELECT count(*) FROM flows").await;
        assert_eq!(number(&tables, sql).await, flows, "{name}");
        let distinct = "SELECT count(DISTINCT flow_id) FROM flow_parts";
        assert_eq!(number(&tables, distinct).await, flows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catalog_tables_can_be_queried() {
    let store = capstan_fixtures::store().await;
    let loss = Loss {
        range: TimeRange { start: Time(5 * SECOND), end: Time(6 * SECOND) },
        interface: Some(0),
        cause: LossCause::KernelDrop,
        packets: 12,
        bytes: 0,
        note: "ring full".to_owned(),
    };
    let recording = Recording { losses: vec![loss], ..by_seconds() };
    record(&store, recording, traffic(5, 1_000, 0, SECOND / 100)).await;
    let view = StoreView::load(store).await.expect("a store");
    let tables = tables(&view);
    let segments = all_segments(view.store()).await.len() as i64;
    assert_eq!(number(&tables, "SELECT count(*) FROM segments").await, segments);
    let sql = "SELECT sum(packets), sum(flow_parts) - (SELECT count(*) FROM flow_parts), \
               min(stored_bytes - index_bytes - flows_bytes - packets_bytes - head_bytes - body_bytes) \
               FROM segments";
    assert_eq!(lines(&tables, sql).await, ["1000 0 0"]);
    let sql = "SELECT count(*) FROM segments s JOIN \
               (SELECT segment, count(*) AS n, min(ordinal) AS f, max(ordinal) AS l FROM packets \
               GROUP BY segment) p ON s.segment = p.segment \
               WHERE n = packets AND f = first_ordinal AND l = last_ordinal";
    assert_eq!(number(&tables, sql).await, segments);
    let listened = "SELECT count(*) FROM coverage WHERE kind = 'listened' AND cause IS NULL";
    assert!(number(&tables, listened).await >= 1);
    let sql = "SELECT recorder, generation, interface, start_time, end_time, cause, packets, bytes, note \
               FROM coverage WHERE kind = 'lost'";
    assert_eq!(
        lines(&tables, sql).await,
        [
            "0000000000000005 1 0 1970-01-01T00:00:05Z 1970-01-01T00:00:06Z kernel-drop 12 - ring full"
        ]
    );
}
