//! Over sockets: which requests are answered, which connections make room for others, and which are closed.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// Longer than anything here should take.
const LONG: Duration = Duration::from_secs(30);

const PATIENCE: Patience = Patience {
    first: Duration::from_millis(300),
    idle: Duration::from_millis(900),
    request: Duration::from_millis(300),
    stalled: Duration::from_millis(300),
    may_connect_early: false,
};

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(connections: usize, patience: Patience) -> Server {
        let endless = async || {
            let piece = Bytes::from(vec![b'x'; 1 << 20]);
            Body::from_stream(futures::stream::repeat(piece).map(Ok::<_, Infallible>))
        };
        let slow = async || {
            sleep(Duration::from_secs(2)).await;
            "done\n"
        };
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/short", get(async || "short\n"))
            .route("/endless", get(endless))
            .route("/slow", get(slow));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rules =
            Rules { connections: Some(connections), patience: Some(patience), ..Rules::default() };
        let listener = Listener::new(socket, rules);
        let address = listener.address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listener, Speech::Http, router, stopped));
        Server { address, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection that has sent this.
    async fn sent(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// The status that a request on a connection of its own is answered with.
    async fn status(&self, path: &str) -> u16 {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut stream = self.sent(&request).await;
        let mut answer = vec![0; 12];
        tokio::time::timeout(LONG, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap()
    }
}

/// Waits for the other side to close; what came until then.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset closes, too.
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it is closed");
    rest
}

const ASK: &str = "GET /short HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn client_without_a_request_is_disconnected() {
    let server = Server::start(100, PATIENCE).await;
    let began = Instant::now();
    let silent = server.connect().await;
    let half = server.sent("GET /short HTTP/1.1\r\nHost: loc").await;
    let preface = server.sent("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let mut idle = server.sent(ASK).await;
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    closed(silent).await;
    closed(half).await;
    closed(preface).await;
    assert!(began.elapsed() >= PATIENCE.first);
    closed(idle).await;
    assert!(began.elapsed() >= PATIENCE.idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connection_is_closed_for_a_new_one() {
    let patience = Patience { first: LONG, idle: LONG, ..PATIENCE };
    let server = Server::start(3, patience).await;
    let mut half = Vec::new();
    for _ in 0..20 {
        half.push(server.sent("GET /short HTTP/1.1\r\n").await);
        assert_eq!(server.status("/short").await, 200);
    }
    let first = half.swap_remove(0);
    closed(first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_while_all_connections_are_busy() {
    let patience = Patience { stalled: LONG, ..PATIENCE };
    let server = Server::start(2, patience).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let ask = "GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut stream = server.sent(ask).await;
        stream.read_exact(&mut [0; 12]).await.unwrap();
        busy.push(stream);
    }
    for _ in 0..3 * places::SPARE {
        assert_eq!(server.status("/healthz").await, 200);
        assert_eq!(server.status("/short").await, 503);
    }
    // Who is being answered stays.
    for stream in &mut busy {
        stream.read_exact(&mut vec![0; 4 << 20]).await.unwrap();
    }
    drop(busy);
    let again = async {
        while server.status("/short").await != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answer_is_aborted() {
    let server = Server::start(100, PATIENCE).await;
    let ask = "GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut taken = server.sent(ask).await;
    let left = server.sent(ask).await;
    let began = Instant::now();
    let until = PATIENCE.stalled + PATIENCE.idle + LAST_WORDS + Duration::from_secs(2);
    let mut buffer = vec![0; 1 << 20];
    while began.elapsed() < until {
        assert!(taken.read(&mut buffer).await.unwrap() > 0, "who takes its answer stays");
    }
    // No end was sent: the last chunk of a chunked body is empty.
    let came = closed(left).await;
    assert!(!came.ends_with(b"0\r\n\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answer_is_not_aborted() {
    let server = Server::start(100, PATIENCE).await;
    assert_eq!(server.status("/slow").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_requests_are_answered_after_a_stop() {
    let patience = Patience { first: LONG, idle: LONG, ..PATIENCE };
    let server = Server::start(100, patience).await;
    let idle = server.sent(ASK).await;
    let slow = server.sent("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    sleep(Duration::from_millis(300)).await;
    drop(server.stop);
    closed(idle).await;
    assert!(closed(slow).await.ends_with(b"done\n"));
    tokio::time::timeout(LONG, server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_other_hosts_are_refused() {
    let server = Server::start(100, PATIENCE).await;
    for (host, status) in [("localhost", "200"), ("127.0.0.1:1", "200"), ("evil.example", "421")] {
        let ask = format!("GET /short HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = closed(server.sent(&ask).await).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(answer.contains("not known as 'evil.example'"), status == "421", "{answer}");
    }
}

#[test]
fn non_loopback_addresses_need_insecure() {
    let reach = |text: &str, insecure| check_reach("http", &[text.parse().unwrap()], insecure);
    for own in ["127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(reach(own, false).is_ok(), "{own}");
    }
    for others in ["0.0.0.0:1", "[::]:1", "10.0.0.7:1", "[fe80::1]:1", "[::ffff:10.0.0.7]:1"] {
        let failure = reach(others, false).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Usage);
        assert!(failure.to_string().contains("--insecure"), "{failure}");
        assert!(reach(others, true).is_ok());
    }
}
