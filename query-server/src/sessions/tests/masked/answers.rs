//! Exports, status, metrics and errors of a masked principal; rights; Flight and HTTP.

use capstan_fixtures::all_segments;
use capstan_model::{HOUR_NANOS, Time, TimeRange};
use capstan_storage_engine::segment::Layer;
use capstan_view::StoreView;
use capstan_view::access::Rights;

use super::super::*;
use super::stores::*;

async fn export(
    sessions: &StoreSessions,
    who: &Arc<Principal>,
    selection: &Selection,
    order: Order,
) -> Result<Vec<u8>, Failure> {
    let pieces: Vec<Bytes> =
        sessions.file(who, selection.clone(), order).await?.try_collect().await?;
    Ok(pieces.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exported_file_does_not_depend_on_hidden_flows() {
    let [with, without] = &both().await;
    let hour = |hour: i64| Time(hour * HOUR_NANOS);
    let range = |from, to| Selection::of_range(TimeRange { start: hour(from), end: hour(to) });
    let host = |host: u8| Selection {
        hosts: vec![capstan_model::Address::v4([10, 0, 0, host]).into()],
        ..Selection::default()
    };
    let named = Selection { namespaces: vec!["shop".to_owned()], ..Selection::default() };
    let selections = [
        Selection::default(),
        range(0, 2),
        range(3, 4),
        range(10, 11),
        range(20, 21),
        host(SEEN),
        host(HIDDEN),
        host(102),
        named,
    ];
    for order in [Order::Time, Order::Recorded] {
        for (number, selection) in selections.iter().enumerate() {
            let got = export(with, &team(), selection, order).await.expect("a file");
            let expected = export(without, &team(), selection, order).await.expect("a file");
            assert!(got == expected, "{order:?} {selection:?}");
            let text = String::from_utf8_lossy(&got);
            assert_eq!(mentions_secrets(&text).filter(|_| number != 6), None, "{selection:?}");
        }
        let all = export(with, &Principal::everything(), &selections[0], order).await;
        let all = all.expect("a file");
        let text = String::from_utf8_lossy(&all);
        for secret in
            ["hidden-comment", "host 10.0.0.200", "hidden-name", "CLIENT_RANDOM", "veth-h"]
        {
            assert!(text.contains(secret), "the whole file has {secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_metrics_are_refused_under_a_mask() {
    let [with, without] = &both().await;
    let (team, everybody) = (team(), Principal::everything());
    let mut told = Vec::new();
    for sessions in [with, without] {
        let status = sessions.status(&team, TimeRange::ALL).await.expect_err("the status");
        let metrics = sessions.metrics(&team).expect_err("metrics");
        assert_eq!(
            (status.kind(), metrics.kind()),
            (FailureKind::Permission, FailureKind::Permission)
        );
        told.push((status.to_string(), metrics.to_string()));
        assert!(sessions.status(&everybody, TimeRange::ALL).await.is_ok());
        assert!(sessions.metrics(&everybody).is_ok());
    }
    assert_eq!(told[0], told[1]);
    assert!(told[0].0.contains("catalog:read") && told[0].1.contains("catalog:read"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn principal_without_a_right_is_told_which() {
    let [with, _] = &both().await;
    let viewer = Principal::new("dana", Rights::of([Right::FlowsRead]), None);
    for (sql, right) in [
        ("SELECT payload FROM packets", "payload:read"),
        ("SELECT * FROM packets", "payload:read"),
        ("SELECT count(*) FROM packets WHERE data = X'00'", "payload:read"),
        ("SELECT length FROM packets ORDER BY octet_length(payload)", "payload:read"),
        ("SELECT * FROM segments", "catalog:read"),
    ] {
        let (kind, words) = ask(with, &viewer, sql).await.expect_err(sql);
        assert_eq!(kind, FailureKind::Permission, "{sql}: {words}");
        assert!(words.contains(right) && words.contains("dana"), "{sql}: {words}");
    }
    for sql in [
        "SELECT length, header FROM packets",
        "SELECT * FROM flows",
        "SELECT * FROM coverage",
        "SELECT count(*) FROM packets",
    ] {
        assert!(ask(with, &viewer, sql).await.is_ok(), "{sql}");
    }
    let nobody = Principal::new("nobody", Rights::default(), None);
    for sql in ["SELECT length FROM packets", "SELECT * FROM flows", "SELECT * FROM coverage"] {
        let (kind, words) = ask(with, &nobody, sql).await.expect_err(sql);
        assert_eq!(kind, FailureKind::Permission);
        assert!(words.contains("flows:read"), "{words}");
    }
    for (rights, missing) in [
        (vec![Right::FlowsRead, Right::PayloadRead], "export"),
        (vec![Right::FlowsRead, Right::Export], "payload:read"),
    ] {
        let who = Principal::new("dana", Rights::of(rights), None);
        let refused = export(with, &who, &Selection::default(), Order::Time).await;
        let refused = refused.expect_err("an export");
        assert_eq!(refused.kind(), FailureKind::Permission);
        assert!(refused.to_string().contains(missing), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_no_object_under_a_mask() {
    let store = store(true).await;
    let view = StoreView::load(store.clone()).await.expect("a view");
    let segments = all_segments(view.store()).await;
    let of = |recorder: u64| {
        let place = segments.iter().position(|of| of.of.recorder.0 == recorder);
        place.expect("a segment")
    };
    let name = |number: usize| segments[number].entry.name.clone();
    // A segment that by its entry in the catalog has no visible flow is not opened.
    capstan_fixtures::damage(view.store(), of(3), Layer::Index).await;
    let (team, everybody) = (team(), Principal::everything());
    let sessions = over(&store).await;
    let sql = "SELECT payload FROM packets";
    assert!(ask(&sessions, &team, sql).await.is_ok());
    assert!(ask(&sessions, &everybody, sql).await.is_err());
    assert!(export(&sessions, &team, &Selection::default(), Order::Time).await.is_ok());
    // One that has visible flows is.
    for layer in [Layer::Head, Layer::Packets, Layer::Flows, Layer::Index] {
        capstan_fixtures::damage(view.store(), of(2), layer).await;
        let sessions = over(&store).await;
        let (kind, words) = ask(&sessions, &team, sql).await.expect_err("damage");
        assert_eq!(kind, FailureKind::Damaged);
        let file = export(&sessions, &team, &Selection::default(), Order::Time).await;
        let file = file.expect_err("damage").to_string();
        for words in [&words, &file] {
            assert!(words.contains("a part of the store cannot be read"), "{words}");
            assert!(
                !words.contains(&name(of(2))) && !words.contains("0000000000000002"),
                "{words}"
            );
            assert!(!words.bytes().any(|byte| byte.is_ascii_digit()), "{words}");
        }
        let (_, words) = ask(&sessions, &everybody, sql).await.expect_err("damage");
        assert!(words.contains(&name(of(2))), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_errors_name_no_operator_under_a_mask() {
    let store = capstan_fixtures::store().await;
    let limits = Limits { memory: 4 << 20, ..Limits::default() };
    let options = Options { limits, ..options_of(Duration::from_secs(60)) };
    let sessions = Arc::new(StoreSessions::open(store, options).await.expect("a store"));
    let sql = "SELECT array_agg(value) FROM generate_series(1, 2000000)";
    for who in [team(), Principal::everything()] {
        let (kind, words) = ask(&sessions, &who, sql).await.expect_err("too much memory");
        assert_eq!(kind, FailureKind::Full);
        assert_eq!(words.contains("Aggregate"), !who.is_masked(), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn principals_do_not_share_tables() {
    let [with, _] = &both().await;
    let sql = "SELECT count(*) FROM packets";
    let (team, everybody) = (team(), Principal::everything());
    let (few, all) = (ask(with, &team, sql).await, ask(with, &everybody, sql).await);
    assert_ne!(few, all);
    for _ in 0..2 {
        assert_eq!(ask(with, &team, sql).await, few);
        assert_eq!(ask(with, &everybody, sql).await, all);
    }
    let viewer = Principal::new("team", Rights::of([Right::FlowsRead]), Some(mask()));
    assert_eq!(ask(with, &viewer, sql).await, few);
    assert!(ask(with, &viewer, "SELECT payload FROM packets").await.is_err());
    assert!(ask(with, &team, "SELECT payload FROM packets").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flight_and_http_answer_for_their_principal() {
    let [with, _] = &both().await;
    let (flight, http) = (
        TcpListener::bind("127.0.0.1:0").await.expect("a free port"),
        TcpListener::bind("127.0.0.1:0").await.expect("a free port"),
    );
    let (flight_at, http_at) = (flight.local_addr().unwrap(), http.local_addr().unwrap());
    let never = std::future::pending;
    let served = Arc::clone(with) as Arc<dyn Sessions>;
    let servers = [
        tokio::spawn(crate::flight::serve(flight, served, team(), never())),
        tokio::spawn(crate::http::serve(http, Arc::clone(with), team(), never())),
    ];
    let client = Client::connect(&format!("http://{flight_at}")).await.expect("the server runs");
    let sql = "SELECT source_ip, length FROM packets ORDER BY time";
    let far = all(client.query(sql).await.expect(sql)).await.expect(sql);
    let near = Local::new(Arc::clone(with) as _, team());
    assert_eq!(far, all(near.query(sql).await.expect(sql)).await.expect(sql));
    let failed = match client.query("SELECT * FROM segments").await {
        Ok(answer) => all(answer).await.map(|_| ()),
        Err(failure) => Err(failure),
    };
    assert_eq!(failed.expect_err("the catalog").kind(), FailureKind::Permission);
    let file = export(with, &team(), &Selection::default(), Order::Time).await.expect("a file");
    let pieces = client.export(&ExportRequest::default()).await.expect("an export");
    let pieces: Vec<Bytes> = pieces.try_collect().await.expect("a whole file");
    assert!(pieces.concat() == file);
    let get = async |path: &str| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(http_at).await.expect("the server runs");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("read");
        answer
    };
    for path in ["/metrics", "/api/v1/status"] {
        let answer = String::from_utf8_lossy(&get(path).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("catalog:read"), "{answer}");
    }
    let answer = get("/api/v1/export.pcapng").await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    // The file is sent in one chunk.
    assert!(answer.windows(file.len()).any(|part| part == file));
    servers.iter().for_each(tokio::task::JoinHandle::abort);
}
