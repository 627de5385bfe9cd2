//! Answers say what retention deleted.

use capstan_fixtures::{all_segments, at, retire, udp};
use capstan_index::filter::Term;
use capstan_model::{Address, Time};
use capstan_storage_engine::catalog::Segment;
use capstan_storage_engine::segment::Layer;
use capstan_view::MAY_BE_DELETED;
use capstan_view::access::{KEY_BYTES, Mask, Rights};
use datafusion::arrow::array::ArrayRef;

use super::*;
use crate::flight::NOTES;

/// A store of several segments in six seconds.
async fn many() -> (Store, Vec<Arc<Segment>>) {
    let store = capstan_fixtures::store().await;
    let recording = Recording { segment_bytes: 128 << 10, ..Recording::of(8) };
    record(&store, recording, traffic(6, 6_000, 0, 1_000_000)).await;
    let segments = all_segments(&store).await;
    assert!(segments.len() > 5, "{}", segments.len());
    (store, segments)
}

/// Rows and notes.
async fn ask(sessions: &Arc<StoreSessions>, sql: &str) -> (RecordBatch, Vec<String>) {
    ask_as(sessions, &Principal::everything(), sql).await
}

async fn ask_as(
    sessions: &Arc<StoreSessions>,
    who: &Arc<Principal>,
    sql: &str,
) -> (RecordBatch, Vec<String>) {
    let local = Local::new(Arc::clone(sessions) as _, Arc::clone(who));
    let answer = local.query(sql).await.expect(sql);
    let notes = answer.notes.clone();
    (all(answer).await.expect(sql), notes.lines())
}

async fn number(sessions: &Arc<StoreSessions>, sql: &str) -> i64 {
    ask(sessions, sql).await.0.column(0).as_primitive::<Int64Type>().value(0)
}

async fn plan(sessions: &Arc<StoreSessions>, who: &Arc<Principal>, sql: &str) -> String {
    let (rows, _) = ask_as(sessions, who, &format!("EXPLAIN {sql}")).await;
    rows.column(1).as_string::<i32>().iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_says_which_layers_retention_deleted_and_why() {
    let (store, segments) = many().await;
    let sessions = sessions(store.clone(), Duration::ZERO).await;
    for table in ["packets", "flows", "flow_parts"] {
        let (_, notes) = ask(&sessions, &format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(notes, [""; 0], "{table}");
    }
    let (old, at) = (&segments[..2], Time(5_000_000_000));
    retire(&store, old, &[Layer::Body, Layer::Head, Layer::Packets], at, "older than 7 d").await;
    retire(&store, &old[..1], &[Layer::Flows, Layer::Index], at, "older than 30 d").await;
    let times = |segments: &[Arc<Segment>]| {
        let first = segments.iter().filter_map(|of| of.entry.first).min().expect("a time");
        let last = segments.iter().filter_map(|of| of.entry.last).max().expect("a time");
        format!("with packets from {first} to {}", Time(last.0 + 1))
    };
    let of_packets = format!(
        "retention deleted the packets layer of 2 segments {}, at 1970-01-01T00:00:05Z: older \
         than 7 d",
        times(old)
    );
    let of_flows = format!(
        "retention deleted the flows layer of 1 segment {}, at 1970-01-01T00:00:05Z: older than \
         30 d",
        times(&old[..1])
    );
    let left: u64 = segments[2..].iter().map(|of| of.entry.packets).sum();
    assert_eq!(number(&sessions, "SELECT count(*) FROM packets").await, left as i64);
    assert_eq!(number(&sessions, "SELECT count(length) FROM packets").await, left as i64);
    let parts: u64 = segments[1..].iter().map(|of| of.entry.flow_parts).sum();
    assert_eq!(number(&sessions, "SELECT count(flow_id) FROM flow_parts").await, parts as i64);
    let both = [of_flows.clone(), of_packets.clone()];
    let everybody = Principal::everything();
    for (sql, expected) in [
        ("SELECT count(*) FROM packets", &both[1..]),
        ("SELECT max(length) FROM packets WHERE time >= '1970-01-01T00:00:00Z'", &both[1..]),
        // No row is asked for, or left.
        ("SELECT time FROM packets WHERE length < 0", &both[1..]),
        ("SELECT a.length FROM packets a, packets b WHERE a.time = b.time", &both[1..]),
        ("SELECT count(*) FROM flow_parts", &both[..1]),
        ("SELECT flow_id FROM flows", &both[..1]),
        ("SELECT count(*) FROM packets WHERE flow_id IN (SELECT flow_id FROM flows)", &both),
        // Deleted segments that have no matching rows are not missing.
        ("SELECT count(*) FROM packets WHERE time >= '1970-01-01T00:00:03Z'", &[]),
        ("SELECT count(*) FROM packets WHERE host('192.0.2.1')", &[]),
        ("SELECT count(*) FROM segments", &[]),
        ("SELECT 1", &[]),
    ] {
        assert_eq!(ask(&sessions, sql).await.1, expected, "{sql}");
        let plan = plan(&sessions, &everybody, sql).await;
        if plan.contains("PlaceholderRowExec") {
            // The catalog has the answer, so there is no scan.
            continue;
        }
        assert_eq!(plan.contains("deleted=["), !expected.is_empty(), "{sql}: {plan}");
        assert!(expected.iter().all(|note| plan.contains(note)), "{sql}: {plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flight_client_gets_the_notes_of_an_answer() {
    let (store, segments) = many().await;
    retire(&store, &segments[..3], &[Layer::Packets], Time(7), "older than 7 d").await;
    let sessions = sessions(store, Duration::from_secs(60)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let served = Arc::clone(&sessions) as Arc<dyn Sessions>;
    let server = tokio::spawn(crate::flight::serve(
        listener,
        served,
        Principal::everything(),
        std::future::pending(),
    ));
    let client = Client::connect(&format!("http://{address}")).await.expect("the server runs");
    for sql in ["SELECT length FROM packets", "SELECT length FROM packets WHERE length < 0"] {
        let mut answer = client.query(sql).await.expect("an answer");
        let notes = answer.notes.clone();
        assert_eq!(notes.lines(), [""; 0], "nothing was read yet");
        let first = answer.batches.try_next().await.expect("rows");
        assert_eq!(notes.lines(), ask(&sessions, sql).await.1);
        assert!(notes.lines()[0].contains("the packets layer of 3 segments"), "{notes:?}");
        if let Some(rows) = first {
            assert_eq!(rows.schema().metadata()[NOTES], notes.lines().join("\n"));
        }
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masked_principal_gets_one_sentence_whatever_was_deleted() {
    let host = Term::ip(Address::v4([10, 0, 0, 1])).into();
    let mask = Mask::new(host, [42; KEY_BYTES]).expect("a mask");
    let who = Principal::new("team", Rights::all(), Some(mask));
    let (store, segments) = many().await;
    let sessions = sessions(store.clone(), Duration::ZERO).await;
    for round in 0..3 {
        for sql in [
            "SELECT count(*) FROM packets",
            "SELECT data FROM packets WHERE host('10.0.0.5')",
            "SELECT flow_id FROM flows WHERE last_time >= '2020-01-01T00:00:00Z'",
            "SELECT count(*) FROM flow_parts, packets",
        ] {
            let (_, notes) = ask_as(&sessions, &who, sql).await;
            assert_eq!(notes, [MAY_BE_DELETED], "{sql}");
            let plan = plan(&sessions, &who, sql).await;
            assert!(plan.contains(&format!("deleted=[{MAY_BE_DELETED}]")), "{plan}");
        }
        let (_, notes) = ask_as(&sessions, &who, "SELECT count(*) FROM coverage").await;
        assert_eq!(notes, [""; 0]);
        let layers = [&[Layer::Packets][..], &[Layer::Flows, Layer::Index]];
        if let Some(layers) = layers.get(round) {
            retire(&store, &segments[..=round], layers, Time(7), "older than 7 d").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payload_that_retention_deleted_is_null() {
    let store = capstan_fixtures::store().await;
    record(&store, Recording { segment_bytes: 1 << 20, ..Recording::of(8) }, {
        // One flow part is longer than what `head` has of it.
        let large = (0..200).map(|n| at(n, udp((1, 2), (7, 53), &[n as u8; 1_000])));
        traffic(6, 6_000, 0, 1_000_000).into_iter().chain(large).collect()
    })
    .await;
    let segments = all_segments(&store).await;
    let sql = "SELECT count(*), count(payload), count(data), count(header), \
               count(CASE WHEN octet_length(header) = captured_length THEN 1 END), \
               count(CASE WHEN data = header || payload THEN 1 END), \
               sum(octet_length(header)) FROM packets";
    let counts = async |store: &Store| -> (Vec<i64>, Vec<String>) {
        let sessions = sessions(store.clone(), Duration::ZERO).await;
        let (rows, notes) = ask(&sessions, sql).await;
        let column = |of: &ArrayRef| of.as_primitive::<Int64Type>().value(0);
        (rows.columns().iter().map(column).collect(), notes)
    };
    let (all, notes) = counts(&store).await;
    let [packets, payload, data, header, empty, equal, bytes] = all[..] else { panic!("seven") };
    assert!([payload, data, header, equal].iter().all(|of| *of == packets) && empty < packets);
    assert_eq!(notes, [""; 0]);
    retire(&store, &segments, &[Layer::Body], Time(7), "older than 7 d").await;
    let (some, notes) = counts(&store).await;
    assert_eq!(some[..4], [packets, some[1], some[1], packets]);
    assert!(some[1] > empty && some[1] < packets, "{some:?}");
    assert_eq!((some[4], some[5], some[6]), (empty, some[1], bytes));
    assert!(notes.len() == 1 && notes[0].contains("the body layer of"), "{notes:?}");
    retire(&store, &segments, &[Layer::Head], Time(8), "older than 8 d").await;
    let (none, notes) = counts(&store).await;
    assert_eq!(none, [packets, empty, empty, packets, empty, empty, bytes]);
    assert_eq!(notes.len(), 2, "{notes:?}");
    let sessions = sessions(store.clone(), Duration::ZERO).await;
    // Who asks for no payload misses none.
    let (_, notes) = ask(&sessions, "SELECT count(header), max(length) FROM packets").await;
    assert_eq!(notes, [""; 0]);
    let sql = "SELECT count(*) FROM packets WHERE payload IS NULL";
    assert_eq!(number(&sessions, sql).await, packets - empty);
}
