//! Requests over a socket, answers byte for byte.

use std::time::Duration;

use capstan_export::Order;
use capstan_fixtures::*;
use capstan_ingest::source::open_reader;
use capstan_storage_engine::cache::Cache;
use capstan_storage_engine::segment::Layer;
use capstan_view::StoreView;
use capstan_view::access::Principal;
use capstan_view::select::Selection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::questions::Limits;
use crate::sessions::Options;
use crate::testing::view_of;

/// The status line and headers, and the body as it came.
async fn ask(view: &StoreView, target: &str) -> (String, Vec<u8>) {
    let (store, cache) = (view.store().clone(), Cache::in_memory(1 << 20));
    let options = Options { freshness: Duration::ZERO, cache, ..Options::default() };
    ask_from(Arc::new(StoreSessions::open(store, options).await.unwrap()), target).await
}

/// As [`ask`], of sessions.
async fn ask_from(sessions: Arc<StoreSessions>, target: &str) -> (String, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server =
        tokio::spawn(serve(listener, sessions, Principal::everything(), std::future::pending()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is broken off may end with an error.
    let _ = stream.read_to_end(&mut answer).await;
    server.abort();
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..split].to_vec()).unwrap();
    (head, answer[split + 4..].to_vec())
}

/// Takes chunked transfer coding (RFC 9112, section 7.1) apart; none if the last chunk is missing.
fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|w| w == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?, 16).ok()?;
        body = &body[end + 2..];
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..length)?);
        body = body.get(length + 2..)?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn export_over_http_has_a_file_name() {
    let given = traffic(1, 3_000, 0, 1_000_000);
    let view = view_of(Recording::of(1), given).await;
    let target = "/api/v1/export.pcapng?from=1970-01-01T00:00:01Z&to=1970-01-01T00:00:02Z";
    let (head, body) = ask(&view, target).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("application/x-pcapng"));
    assert!(head.contains("filename=\"capstan-19700101T000001Z-19700101T000002Z.pcapng\""));
    let file = unchunk(&body).expect("whole");
    let packets = packets(&read_all(open_reader("x", std::io::Cursor::new(file)).unwrap()));
    assert_eq!(packets.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_export_aborts_the_response() {
    let view = view_of(Recording::of(1), traffic(1, 9_000, 0, 1_000_000)).await;
    let last = all_segments(view.store()).await.len() - 1;
    damage(view.store(), last, Layer::Head).await;
    let (head, body) = ask(&view, "/api/v1/export.pcapng").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(body.len() > 1_000_000);
    assert!(unchunk(&body).is_none(), "the last chunk must be missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn request_errors_are_json() {
    let view = view_of(Recording::of(1), traffic(1, 10, 0, 1_000)).await;
    for (target, status, word) in [
        ("/api/v1/export.pcapng?ip=10.0.0", "400", "10.0.0"),
        ("/api/v1/export.pcapng?from=now&to=-1h", "400", "upside down"),
        ("/api/v1/export.pcapng?ip=", "400", "'ip' has no value"),
        ("/api/v1/export.pcapng?color=red", "400", "known are from, to, ip"),
        ("/api/v1/status?from=x", "400", "'x'"),
        ("/api/v1/status?from=", "400", "'from' has no value"),
        ("/api/v1/status?ip=10.0.0.1", "400", "known are from, to"),
        ("/api/v1/nothing", "404", "not found: no such path"),
    ] {
        let (head, body) = ask(&view, target).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(answer["error"].as_str().unwrap().contains(word), "{answer}");
        assert!(!answer["hint"].as_str().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_reports_the_state() {
    let view = view_of(Recording::of(1), traffic(1, 500, 5_000_000_000, 1_000)).await;
    let (head, body) = ask(&view, "/api/v1/status").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status["packets"], 500);
    assert_eq!(status["segments"], all_segments(view.store()).await.len());
    assert!(status["layers"]["body"]["objects"].as_u64().unwrap() > 0);
    assert_eq!(status["writers"][0]["kind"], "import");
    assert!(status["first"].as_str().unwrap().starts_with("1970-01-01T00:00:0"));
    let (_, body) = ask(&view, "/api/v1/status?to=1970-01-01T00:00:04Z").await;
    let before: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&before["packets"], &before["first"]), (&0.into(), &serde_json::Value::Null));
    let (head, body) = ask(&view, "/metrics").await;
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let metrics = String::from_utf8(body).unwrap();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {metrics}")).trim().parse().unwrap()
    };
    let requests = view.store().requests();
    assert_eq!(value("capstan_store_requests_total{kind=\"put\"}"), requests.puts as f64);
    assert_eq!(value("capstan_store_bytes_total{direction=\"read\"}"), requests.bytes_read as f64);
    assert!(value("capstan_store_cost_usd_total") > 0.0);
    for name in
        ["pieces_total{from=\"memory\"}", "faults_total{what=\"corrupt\"}", "bytes{in=\"disk\"}"]
    {
        assert_eq!(value(&format!("capstan_cache_{name}")), 0.0);
    }
    let (head, body) = ask(&view, "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200 "));
    assert_eq!(body, b"ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_share_one_budget_and_an_excess_export_gets_503() {
    let view = view_of(Recording::of(1), traffic(1, 3_000, 0, 1_000_000)).await;
    let limits =
        Limits { memory: 64 << 20, patience: Duration::from_millis(100), ..Limits::default() };
    let options = Options { freshness: Duration::ZERO, limits, ..Options::default() };
    let sessions = StoreSessions::open(view.store().clone(), options).await.unwrap();
    let sessions = Arc::new(sessions);
    let mut held = Vec::new();
    let refused = loop {
        match sessions.file(&Principal::everything(), Selection::default(), Order::Time).await {
            Ok(file) => held.push(file),
            Err(failure) => break failure,
        }
        assert!(held.len() <= 8, "nothing is refused");
    };
    assert!(held.len() > 1);
    assert_eq!(refused.kind(), FailureKind::Unavailable, "{refused}");
    let target = "/api/v1/export.pcapng";
    let (head, body) = ask_from(Arc::clone(&sessions), target).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.to_lowercase().contains("retry-after: "), "{head}");
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert!(answer["error"].as_str().unwrap().contains("--memory"), "{answer}");
    held.pop();
    let (head, body) = ask_from(sessions, target).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && unchunk(&body).is_some(), "{head}");
}
