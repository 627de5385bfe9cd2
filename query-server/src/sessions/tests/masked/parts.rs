//! Flows in several segments, and coverage in several commits, under a mask.

use capstan_fixtures::{Given, at, ethernet, udp};
use capstan_model::coverage::Listened;
use capstan_model::packet::Stamp;
use capstan_model::{Time, TimeRange};
use capstan_storage_engine::catalog::{CommitDraft, Recorder, WriterInfo, WriterKind};

use super::super::*;
use super::stores::*;

/// Visible flows of 10.0.0.1 whose packets lie in many segments, with hidden packets between them or without.
async fn long_flows(with_hidden: bool) -> Arc<StoreSessions> {
    let mut given = vec![ethernet("eth0")];
    for number in 0..300_i64 {
        let (port, payload) = (40_000 + (number % 4) as u16, [7; 900]);
        given.push(at(10 * number, udp((SEEN, 101), (port, 53), &payload)));
        if with_hidden {
            given.push(at(10 * number + 1, udp((HIDDEN, 102), (port, 53), &payload)));
            given.push(at(10 * number + 2, udp((HIDDEN, 103), (port, 443), &payload)));
        }
    }
    let store = capstan_fixtures::store().await;
    record(&store, Recording { segment_bytes: 16 << 10, ..Recording::of(1) }, given).await;
    over(&store).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flow_in_several_segments_is_visible_as_a_whole() {
    let (with, without) = (long_flows(true).await, long_flows(false).await);
    let parts = ask(&with, &team(), "SELECT count(*) FROM flow_parts").await.expect("a number");
    assert!(parts[0].parse::<u32>().expect("a number") > 40, "{parts:?}");
    for sql in [
        "SELECT * FROM flows",
        "SELECT flow_id, time, source_port, length, protocol, data FROM packets",
        "SELECT count(*), sum(packets), count(DISTINCT flow_id) FROM flow_parts",
        "SELECT protocol, sum(packets) FROM flows GROUP BY protocol",
    ] {
        let got = sorted(ask(&with, &team(), sql).await).expect("rows");
        // How many parts there are follows from all traffic.
        let cells = |rows: Vec<String>| match sql.contains("flow_parts") {
            true => {
                rows.iter().map(|row| row.split_once(' ').expect("cells").1.to_owned()).collect()
            }
            false => rows,
        };
        let expected = sorted(ask(&without, &team(), sql).await).expect("rows");
        assert_eq!(cells(got), cells(expected), "{sql}");
    }
}

/// A TCP packet without a time.
fn timeless(hosts: (u8, u8), port: u16, flags: u8) -> Given {
    let mut frame = udp(hosts, (port, 9_000), &[0; 512]);
    // The header of UDP and what follows it become one of TCP.
    frame[23] = 6;
    let sum = u16::from_be_bytes([frame[24], frame[25]]);
    // The protocol number is a part of the sum of the header: 6 in place of 17.
    let (sum, carry) = sum.overflowing_add(17 - 6);
    frame[24..26].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    frame[38..54].fill(0);
    (frame[46], frame[47]) = (0x50, flags);
    let Given::Packet(mut packet) = at(0, frame) else { unreachable!("a packet") };
    packet.stamp = Stamp::None;
    Given::Packet(packet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_of_parts_without_a_time_is_the_same_under_a_mask() {
    const ACK: u8 = 0x10;
    const RESET: u8 = 0x04;
    let mut given = vec![ethernet("eth0")];
    for round in 0..20 {
        for port in 1..=20 {
            let flags = if round == port { RESET } else { ACK };
            given.push(timeless((SEEN, 101), port, flags));
            given.push(timeless((HIDDEN, 101), port, ACK));
        }
    }
    let store = capstan_fixtures::store().await;
    record(&store, Recording { segment_bytes: 24 << 10, ..Recording::of(1) }, given).await;
    let sessions = over(&store).await;
    let parts = "SELECT count(*), count(DISTINCT ended), count(first_time) FROM flow_parts";
    let parts = ask(&sessions, &team(), parts).await.expect("numbers");
    assert!(parts[0].ends_with(" 0"), "no part has a time: {parts:?}");
    assert!(!parts[0].ends_with(" 1 0"), "not all parts end alike: {parts:?}");
    let sql = "SELECT source_ip, source_port, packets, opened, ended, tcp_flags_forward FROM flows \
               WHERE source_ip = '10.0.0.1' OR destination_ip = '10.0.0.1'";
    for _ in 0..3 {
        let got = sorted(ask(&sessions, &team(), sql).await).expect("rows");
        assert!(got.len() >= 20, "{got:?}");
        assert_eq!(got, sorted(ask(&sessions, &Principal::everything(), sql).await).expect("rows"));
    }
    // The column that decides is not shown.
    for table in ["flows", "flow_parts"] {
        let sql = format!("SELECT part_order FROM {table}");
        assert_eq!(ask(&sessions, &team(), &sql).await.expect_err(table).0, FailureKind::Usage);
    }
}

/// A live recorder that captured from 0 to 1,000 and from 2,000 to 3,000, with commits at these times.
async fn covered(commits: &[i64]) -> Arc<StoreSessions> {
    let store = capstan_fixtures::store().await;
    let info = WriterInfo {
        kind: WriterKind::Live,
        description: String::new(),
        host: String::new(),
        source: None,
        resumes: None,
        started_at: Time(0),
    };
    let id = capstan_model::RecorderId(1);
    let mut recorder = Recorder::start(&store, id, info).await.expect("a recorder");
    let mut start = 0;
    for end in commits {
        let range = TimeRange { start: Time(start), end: Time(*end) };
        let listened = Listened { range, interfaces: vec![0] };
        let draft = CommitDraft::recorded([], [listened], []);
        recorder.commit(draft).await.expect("a commit");
        start = if *end == 1_000 { 2_000 } else { *end };
    }
    over(&store).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coverage_does_not_show_commits() {
    let (few, many) =
        (covered(&[1_000, 3_000]).await, covered(&[100, 350, 700, 1_000, 2_500, 3_000]).await);
    let time = |at: i64| format!("arrow_cast({at}, 'Timestamp(Nanosecond, Some(\"UTC\"))')");
    let mut differs = 0;
    for at in
        [0, 50, 99, 100, 101, 349, 350, 351, 600, 999, 1_000, 1_500, 2_000, 2_499, 2_500, 2_999]
    {
        let t = time(at);
        for sql in [
            format!(
                "SELECT start_time, end_time FROM coverage WHERE start_time <= {t} AND end_time >= {t}"
            ),
            format!("SELECT start_time, end_time FROM coverage WHERE start_time >= {t}"),
            format!("SELECT start_time, end_time FROM coverage WHERE end_time < {t}"),
            format!("SELECT count(*) FROM coverage WHERE start_time = {t}"),
        ] {
            let got = ask(&few, &team(), &sql).await.expect("rows");
            assert_eq!(got, ask(&many, &team(), &sql).await.expect("rows"), "{at}: {sql}");
            let everybody = Principal::everything();
            let (all, other) =
                (ask(&few, &everybody, &sql).await, ask(&many, &everybody, &sql).await);
            differs += usize::from(all != other);
            if at == 350 && sql.contains("end_time >=") {
                let whole = ["1970-01-01T00:00:00Z 1970-01-01T00:00:00.000001Z"];
                assert_eq!(got, whole);
            }
        }
    }
    assert!(differs > 10, "{differs} statements tell a principal without a mask something");
}
