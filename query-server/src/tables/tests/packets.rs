//! `packets`: every column of every packet.

use capstan_dissect::decode;
use capstan_fixtures::{Given, Owned, Recording, all_segments, packets, traffic};
use capstan_model::{LinkType, Time};
use capstan_view::StoreView;
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType};

use super::fixture::{ask, capture, lines, number, refused, tables};
use crate::testing::view_of;

fn small_segments() -> Recording {
    Recording { segment_bytes: 64 << 10, ..Recording::of(7) }
}

/// Asks for all columns and holds them against what went in, decoded afresh.
async fn expect_all(recording: Recording, given: Vec<Given>) {
    let sent = packets(&given);
    let links: Vec<LinkType> = given
        .iter()
        .filter_map(|given| match given {
            Given::Interface(interface) => Some(interface.link_type),
            _ => None,
        })
        .collect();
    let tables = tables(&view_of(recording, given).await);
    let all = ask(&tables, "SELECT * FROM packets ORDER BY ordinal").await;
    assert_eq!(all.num_rows(), sent.len());
    let text = |name: &str, row: usize| {
        let column = all.column_by_name(name).expect(name).as_string_view();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let int = |name: &str, row: usize| {
        let column = all.column_by_name(name).expect(name).as_primitive::<Int32Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let long = |name: &str, row: usize| {
        let column = all.column_by_name(name).expect(name).as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let bytes = |name: &str, row: usize| {
        all.column_by_name(name).expect(name).as_binary::<i32>().value(row).to_vec()
    };
    for (row, Owned { interface, stamp, length, data, .. }) in sent.iter().enumerate() {
        let link = links[*interface as usize];
        let headers = decode(link, data, *length);
        let time = all.column_by_name("time").expect("time");
        let time = time.as_primitive::<TimestampNanosecondType>();
        assert_eq!(time.is_valid(row).then(|| Time(time.value(row))), stamp.time());
        assert_eq!(long("ordinal", row), Some(row as i64));
        assert_eq!(long("length", row), Some(i64::from(*length)));
        assert_eq!(long("captured_length", row), Some(data.len() as i64));
        assert_eq!(int("link_type", row), Some(i32::from(link.0)));
        assert_eq!(bytes("data", row), *data, "packet {row}");
        let (header, payload) = data.split_at(usize::from(headers.prefix).min(data.len()));
        assert_eq!(bytes("header", row), header, "packet {row}");
        assert_eq!(bytes("payload", row), payload, "packet {row}");
        if headers.network != capstan_model::headers::Network::None {
            assert_eq!(text("source_ip", row), Some(headers.source.to_string()), "packet {row}");
            let destination = Some(headers.destination.to_string());
            assert_eq!(text("destination_ip", row), destination, "packet {row}");
        } else {
            assert_eq!((text("source_ip", row), text("destination_ip", row)), (None, None));
        }
        if headers.source_port != 0 && headers.fragment.is_none() {
            assert_eq!(int("source_port", row), Some(i32::from(headers.source_port)));
            assert_eq!(int("destination_port", row), Some(i32::from(headers.destination_port)));
        }
        assert_eq!(int("vlan", row), headers.vlan.map(i32::from));
        assert_eq!(long("vni", row), headers.vni.map(i64::from), "packet {row}: {headers:?}");
        let outer =
            headers.outer.map(|outer| (outer.source.to_string(), outer.destination.to_string()));
        assert_eq!(
            text("outer_source_ip", row),
            outer.clone().map(|outer| outer.0),
            "packet {row}"
        );
        assert_eq!(text("outer_destination_ip", row), outer.map(|outer| outer.1));
        let tcp = headers.tcp;
        assert_eq!(int("tcp_flags", row), tcp.map(|tcp| i32::from(tcp.flags)), "packet {row}");
        assert_eq!(long("tcp_seq", row), tcp.map(|tcp| i64::from(tcp.seq)), "packet {row}");
        assert_eq!(long("tcp_ack", row), tcp.map(|tcp| i64::from(tcp.ack)), "packet {row}");
        assert_eq!(int("tcp_window", row), tcp.map(|tcp| i32::from(tcp.window)));
        assert_eq!(text("identity", row).as_deref(), Some("unknown"));
        assert_eq!(text("source_pod", row), None);
    }
    // Each column asked for alone says the same as among all others.
    for column in all.schema().fields() {
        let name = column.name();
        let alone = ask(&tables, &format!("SELECT {name} FROM packets")).await;
        assert_eq!(alone.num_rows(), sent.len(), "{name}");
        let sql = format!("SELECT {name} FROM packets ORDER BY ordinal");
        let ordered = ask(&tables, &sql).await;
        assert_eq!(ordered.column(0), all.column_by_name(name).expect("asked"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_column_of_plain_traffic_is_what_was_sent() {
    expect_all(small_segments(), traffic(1, 3_000, 1_700_000_000_000_000_000, 1_000_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_column_of_real_captures_is_what_was_captured() {
    for name in [
        "wireshark/http2-data-reassembly.pcap",
        "ndpi/vxlan.pcap",
        "ndpi/http_ipv6.pcap",
        "ndpi/dns_fragmented.pcap",
        "tcpdump/gso-ipv6-geneve-ipv6.pcap",
        "tcpdump/802_15_4_beacon.pcap",
        "arkime/twovlan.pcap",
        "pcapplusplus/Packet++Test__PacketExamples__ArpRequestWithVlan.pcap",
        "pcapplusplus/Pcap++Test__PcapExamples__GrePackets.cap",
        "zeek/tunnels__geneve-truncated.pcapng",
        "zeek/erspanI.pcap",
    ] {
        if let Some(given) = capture(name) {
            expect_all(small_segments(), given).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_can_be_measured_and_compared() {
    let given = traffic(6, 500, 0, 10);
    let bytes: usize = packets(&given).iter().map(|packet| packet.data.len()).sum();
    let tables = tables(&view_of(small_segments(), given).await);
    let sql = "SELECT sum(octet_length(data)), sum(octet_length(header) + octet_length(payload)), \
               max(octet_length(flow_id)), octet_length('ä'), octet_length(X'00ff80'), octet_length(NULL) \
               FROM packets";
    assert_eq!(lines(&tables, sql).await, [format!("{bytes} {bytes} 32 2 3 -")]);
    assert_eq!(number(&tables, "SELECT count(*) FROM packets WHERE payload < X'80'").await, {
        number(&tables, "SELECT count(*) FROM packets WHERE NOT payload >= X'80'").await
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_cuts_packets_at_both_ends() {
    let given = traffic(2, 2_000, 1_000, 10);
    let times: Vec<i64> = packets(&given)
        .iter()
        .filter_map(|packet| packet.stamp.time())
        .map(|time| time.0)
        .collect();
    let tables = tables(&view_of(small_segments(), given).await);
    let stamp = |nanos: i64| format!("arrow_cast({nanos}, 'Timestamp(Nanosecond, Some(\"UTC\"))')");
    for (from, to) in [(5_000, 9_000), (0, 1_000), (1_000, 1_010), (20_990, 40_000), (9, 3)] {
        let inside = times.iter().filter(|time| from <= **time && **time < to).count() as i64;
        let (from, to) = (stamp(from), stamp(to));
        for columns in ["count(*)", "count(data)", "count(tcp_seq) + count(*) - count(tcp_seq)"] {
            let sql = format!("SELECT {columns} FROM packets WHERE time >= {from} AND time < {to}");
            assert_eq!(number(&tables, &sql).await, inside, "{sql}");
        }
        let between = format!(
            "SELECT count(*) FROM packets WHERE time BETWEEN {from} AND {to} AND time <> {to}"
        );
        assert_eq!(number(&tables, &between).await, inside, "{between}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn untimed_packets_are_returned_unless_time_is_constrained() {
    let mut given = traffic(3, 10, 1_000, 10);
    let mut timeless = packets(&given)[0].clone();
    timeless.stamp = capstan_model::packet::Stamp::None;
    given.push(Given::Packet(timeless));
    let tables = tables(&view_of(small_segments(), given).await);
    assert_eq!(number(&tables, "SELECT count(*) FROM packets").await, 11);
    assert_eq!(number(&tables, "SELECT count(*) FROM packets WHERE time IS NULL").await, 1);
    for condition in ["time >= '1970-01-01'", "time < '2200-01-01T00:00:00Z'"] {
        let sql = format!("SELECT count(*) FROM packets WHERE {condition}");
        assert_eq!(number(&tables, &sql).await, 10, "{condition}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_returns_that_many_distinct_rows() {
    let tables = tables(&view_of(small_segments(), traffic(4, 4_000, 0, 10)).await);
    for limit in [0, 1, 7, 3_999, 4_000, 5_000] {
        for columns in ["ordinal", "ordinal, data"] {
            let sql = format!(
                "SELECT count(DISTINCT ordinal), count(*) FROM (SELECT {columns} FROM packets LIMIT {limit})"
            );
            let expected = limit.min(4_000);
            assert_eq!(lines(&tables, &sql).await, [format!("{expected} {expected}")], "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_segment_is_an_error_that_names_it() {
    use capstan_model::FailureKind;
    use capstan_storage_engine::segment::Layer;
    let given = traffic(5, 2_000, 0, 10);
    // The layers whose bytes have checksums of their own.
    for (layer, sql) in [
        (Layer::Index, "SELECT sum(length) FROM packets"),
        (Layer::Index, "SELECT * FROM flows WHERE port(53)"),
        (Layer::Head, "SELECT count(data) FROM packets"),
    ] {
        let view = view_of(small_segments(), given.clone()).await;
        capstan_fixtures::damage(view.store(), 1, layer).await;
        let damaged = &all_segments(view.store()).await[1];
        let (kind, words) = refused(&tables(&view), sql).await;
        assert_eq!(kind, FailureKind::Damaged, "{sql}: {words}");
        assert!(words.contains(&damaged.entry.name), "{sql}: {words}");
    }
    for (layer, sql) in [
        (Layer::Index, "SELECT sum(length) FROM packets"),
        (Layer::Packets, "SELECT sum(length) FROM packets"),
        (Layer::Flows, "SELECT * FROM flows"),
        (Layer::Head, "SELECT count(data) FROM packets"),
    ] {
        let view = view_of(small_segments(), given.clone()).await;
        capstan_fixtures::delete(view.store(), 1, layer).await;
        let (kind, words) = refused(&tables(&view), sql).await;
        assert_eq!(kind, FailureKind::NotFound, "{sql}: {words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_packets_answers_with_none() {
    let store = capstan_fixtures::store().await;
    let view = StoreView::load(store).await.expect("an empty store");
    let tables = tables(&view);
    for table in [
        "packets",
        "flows",
        "flow_parts",
        "segments",
        "files",
        "protocols",
        "coverage",
        "writers",
        "problems",
    ] {
        assert_eq!(number(&tables, &format!("SELECT count(*) FROM {table}")).await, 0);
        assert_eq!(ask(&tables, &format!("SELECT * FROM {table}")).await.num_rows(), 0);
    }
    assert_eq!(lines(&tables, "SELECT sum(length) FROM packets").await, ["-"]);
}
