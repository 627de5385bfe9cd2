//! Buckets: what servers answer, from a server that answers what it is told to; and, where
//! `CAPSTAN_TEST_S3` names a place (`s3://bucket/prefix`, reached as the environment says), a
//! real one.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::*;

/// Answers one request after the other and keeps their first lines.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn serve(answers: &[(u16, &str)]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut answers: VecDeque<(u16, String)> =
        answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
    let seen = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            // The last answer is the answer to all that comes after.
            let answer =
                if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            let (status, body) = answer.unwrap();
            let Ok(mut stream) = stream else { continue };
            let Some(line) = read_request(&mut stream) else { continue };
            // Noted before it is answered: who has the answer may look at once.
            seen.lock().unwrap().push(line);
            write_answer(&mut stream, status, &body);
        }
    });
    Server { address, asked }
}

/// The first line of a request, which is read to its end.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let text = String::from_utf8(request).ok()?.to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.trim().parse().ok())
        .unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).ok()?;
    text.lines().next().map(str::to_owned)
}

fn write_answer(stream: &mut TcpStream, status: u16, body: &str) {
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\
         etag: \"e\"\r\nlast-modified: Sat, 21 Nov 2026 12:00:00 GMT\r\n\r\n{body}",
        body.len()
    );
    // Who has gone away does not want it.
    let _ = stream.write_all(answer.as_bytes());
}

fn options(endpoint: &str) -> Options {
    let keys = S3Keys { id: "id".to_owned(), secret: "secret".to_owned(), token: None };
    let endpoint = Some(endpoint.to_owned());
    Options { s3: S3Options { keys: Some(keys), endpoint, ..S3Options::default() } }
}

async fn open(answers: &[(u16, &str)]) -> (Result<Store, Failure>, Server) {
    let server = serve(answers);
    let location = "s3://packets/a".parse().unwrap();
    (Store::open(&location, "prod", &options(&server.address)).await, server)
}

const FORMAT: &str = r#"{"store":"capstan","format":1,"cluster":"prod","created_by":"x","created_at":0,"nonce":"n"}"#;

#[tokio::test]
async fn a_bucket_is_addressed_by_path_and_opened_with_one_get() {
    let (store, server) = open(&[(200, FORMAT)]).await;
    assert_eq!(store.unwrap().format().created_by, "x");
    assert_eq!(*server.asked.lock().unwrap(), ["get /packets/a/prod/format http/1.1"]);
}

#[tokio::test]
async fn what_a_server_refuses_has_its_own_kind_and_words() {
    let no_bucket = "<Error><Code>NoSuchBucket</Code></Error>";
    for (answers, kind, words) in [
        (vec![(404, no_bucket)], FailureKind::NotFound, "no bucket"),
        (
            vec![(403, "<Error><Code>AccessDenied</Code></Error>")],
            FailureKind::Permission,
            "read format",
        ),
        (
            vec![(301, "<Error><Code>PermanentRedirect</Code></Error>")],
            FailureKind::Usage,
            "read format",
        ),
        (vec![(200, r#"{"store":"capstan","format":7}"#)], FailureKind::TooNew, "store format 7"),
        (vec![(200, "<html>")], FailureKind::Damaged, "is this a Capstan store"),
    ] {
        let (store, _) = open(&answers).await;
        let failure = store.expect_err(words);
        assert_eq!(failure.kind(), kind, "{failure}: {:?}", failure.source());
        assert!(failure.to_string().contains(words), "{failure}");
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_an_absent_one_is_given_up() {
    let (store, server) = open(&[(503, "SlowDown"), (500, ""), (200, FORMAT)]).await;
    store.unwrap();
    assert_eq!(server.asked.lock().unwrap().len(), 3);

    // A port that nobody listens on any more.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let location = "s3://packets".parse().unwrap();
    let started = std::time::Instant::now();
    let absent = Store::open(&location, "prod", &options(&format!("http://{free}"))).await;
    assert_eq!(absent.expect_err("nobody").kind(), FailureKind::Unavailable);
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn both_ways_to_say_taken_are_settled_by_reading() {
    for status in [409, 412] {
        let (store, _) = open(&[(200, FORMAT), (status, ""), (200, "mine")]).await;
        let outcome = store.unwrap().create(&Path::from("log/0"), "mine".into()).await;
        assert_eq!(outcome.unwrap(), Created::Created, "{status}");
        let (store, _) = open(&[(200, FORMAT), (status, ""), (200, "theirs")]).await;
        let outcome = store.unwrap().create(&Path::from("log/0"), "mine".into()).await;
        assert_eq!(outcome.unwrap(), Created::Lost, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_bucket_keeps_the_promises() {
    let Ok(place) = std::env::var("CAPSTAN_TEST_S3") else {
        println!("skipped: CAPSTAN_TEST_S3 names no bucket");
        return;
    };
    // A prefix of its own each time: nothing is cleaned away.
    let location: Location = format!("{place}/{}", nonce()).parse().unwrap();
    let options = Options::from_env().unwrap();
    let absent = Store::open(&location, "prod", &options).await.expect_err("not yet");
    assert_eq!(absent.kind(), FailureKind::NotFound);
    assert!(absent.to_string().contains("not a Capstan store"), "{absent}");
    let made = Store::open_or_create(&location, "prod", &options).await.unwrap();
    let store = Store::open(&location, "prod", &options).await.unwrap();
    assert_eq!(made.format(), store.format());
    let other = Store::open(&location, "test", &options).await.expect_err("no such cluster");
    assert!(other.to_string().contains("it has: prod"), "{other}");

    let body = Bytes::from(vec![7; 8 << 20]);
    let path = names::layer(capstan_model::Hour(490_000), "s", "body");
    store.put_new(&path, vec![body.clone()]).await.unwrap();
    store.put_new(&path, vec![body.clone()]).await.unwrap();
    let changed = store.put_new(&path, vec!["x".into()]).await.expect_err("taken");
    assert_eq!(changed.kind(), FailureKind::AlreadyThere);
    assert_eq!(
        store.get_ranges(&path, &[0..10, (8 << 20) - 5..8 << 20]).await.unwrap()[1].len(),
        5
    );
    assert_eq!(store.head(&path).await.unwrap().unwrap().bytes, 8 << 20);
    let listed: Vec<Listed> = store.list(&Path::from("data")).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);

    for round in 0..10 {
        let path = Path::from(format!("race/{round}"));
        let tries = (0..8).map(|_| async { store.create(&path, nonce().into()).await.unwrap() });
        let outcomes = futures::future::join_all(tries).await;
        let won = outcomes.iter().filter(|outcome| **outcome == Created::Created).count();
        assert_eq!(won, 1, "round {round}");
    }
}
