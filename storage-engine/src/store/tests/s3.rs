//! Buckets: what servers answer, from a server that answers what it is told to. A real one is
//! asked in `tests/ceph`.

#![allow(clippy::disallowed_methods)] // Nobody simulates tests.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::*;

/// Answers one request after the other and keeps what it was asked, without bodies.
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
            let Some(head) = read_request(&mut stream) else { continue };
            // Noted before it is answered: who has the answer may look at once.
            seen.lock().unwrap().push(head);
            write_answer(&mut stream, status, &body);
        }
    });
    Server { address, asked }
}

impl Server {
    /// The requests' first lines.
    fn lines(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|head| head.lines().next().unwrap().to_owned()).collect()
    }
}

/// The head of a request in small letters; the request is read to its end.
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
    Some(text)
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
    let credentials = Some(S3Credentials::Keys(keys));
    let endpoint = Some(endpoint.to_owned());
    Options {
        s3: S3Options { credentials, endpoint, ..S3Options::default() },
        ..Options::default()
    }
}

async fn open(answers: &[(u16, &str)]) -> (Result<Store, Failure>, Server) {
    let server = serve(answers);
    let location = "s3://packets/a".parse().unwrap();
    (Store::open(&location, "prod", &options(&server.address)).await, server)
}

const FORMAT: &str = r#"{"store":"capstan","format":1,"cluster":"prod","created_by":"x","created_at":0,"nonce":"n"}"#;

#[tokio::test]
async fn bucket_is_addressed_by_path_and_opened_with_one_get() {
    let (store, server) = open(&[(200, FORMAT)]).await;
    assert_eq!(store.unwrap().format().created_by, "x");
    assert_eq!(server.lines(), ["get /packets/a/prod/format http/1.1"]);
}

/// How opening fails at a server that answers so.
async fn refusal_to(status: u16, body: &str) -> Failure {
    let (store, server) = open(&[(status, body)]).await;
    let failure = store.expect_err(body);
    // What happened, where, and the server's own words below it.
    let text = failure.to_string();
    assert!(text.contains("read format of store s3://packets/a (cluster prod)"), "{text}");
    assert!(failure.source().is_some_and(|source| !text.contains(&source.to_string())), "{text}");
    assert!(!server.lines().is_empty());
    failure
}

#[tokio::test]
async fn each_refusal_of_a_server_has_its_kind_and_message() {
    use FailureKind::{Full, NotFound, Permission, Usage};
    for (status, code, kind, words) in [
        (404, "NoSuchBucket", NotFound, "the bucket does not exist"),
        (403, "AccessDenied", Permission, "allow it in the policy"),
        (403, "InvalidAccessKeyId", Permission, "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", Permission, "AWS_SECRET_ACCESS_KEY"),
        (403, "RequestTimeTooSkewed", Permission, "clock"),
        (400, "ExpiredToken", Permission, "run out"),
        (400, "InvalidToken", Permission, "AWS_SESSION_TOKEN"),
        (403, "QuotaExceeded", Full, "quota"),
        (301, "PermanentRedirect", Usage, "AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", Usage, "AWS_REGION"),
        (400, "InvalidRequest", Usage, "CAPSTAN_S3_ENCRYPTION"),
    ] {
        // <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#RESTErrorResponses>
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\n  <Code>{code}</Code>\n  \
             <Message>words</Message>\n  <RequestId>4442587FB7D0A2F9</RequestId>\n</Error>"
        );
        let failure = refusal_to(status, &body).await;
        assert_eq!(failure.kind(), kind, "{failure}: {:?}", failure.source());
        assert!(failure.to_string().contains(words), "{failure}");
    }
    // Some answers have no body.
    assert_eq!(refusal_to(403, "").await.kind(), Permission);
}

#[tokio::test]
async fn bucket_without_a_store_is_not_opened() {
    for (body, kind, words) in [
        (r#"{"store":"capstan","format":7}"#, FailureKind::TooNew, "store format 7"),
        ("<html>", FailureKind::Damaged, "is this a Capstan store"),
    ] {
        let failure = open(&[(200, body)]).await.0.expect_err(words);
        assert_eq!(failure.kind(), kind, "{failure}");
        assert!(failure.to_string().contains(words), "{failure}");
    }
}

#[tokio::test]
async fn busy_server_is_retried_and_an_absent_one_fails() {
    let (store, server) = open(&[(503, "SlowDown"), (500, ""), (200, FORMAT)]).await;
    store.unwrap();
    assert_eq!(server.lines().len(), 3);

    let started = std::time::Instant::now();
    let busy = refusal_to(503, "<Error><Code>SlowDown</Code></Error>");
    // A port that nobody listens on any more.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let location = "s3://packets".parse().unwrap();
    let options = options(&format!("http://{free}"));
    let absent = Store::open(&location, "prod", &options);
    let (busy, absent) = futures::join!(busy, absent);
    let absent = absent.expect_err("nobody");
    for (failure, words) in [(busy, "overloaded"), (absent, "connection refused")] {
        assert_eq!(failure.kind(), FailureKind::Unavailable, "{failure}");
        assert!(failure.to_string().contains(words), "{failure}");
    }
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn both_conflict_statuses_are_resolved_by_reading() {
    for status in [409, 412] {
        let (store, _) = open(&[(200, FORMAT), (status, ""), (200, "mine")]).await;
        let outcome = store.unwrap().create(&Path::from("log/0"), "mine".into()).await;
        assert_eq!(outcome.unwrap(), Created::Created, "{status}");
        let (store, _) = open(&[(200, FORMAT), (status, ""), (200, "theirs")]).await;
        let outcome = store.unwrap().create(&Path::from("log/0"), "mine".into()).await;
        assert_eq!(outcome.unwrap(), Created::Lost, "{status}");
    }
}

/// Opens a store with other options than keys.
async fn open_with(server: &Server, change: impl FnOnce(&mut S3Options)) -> Result<Store, Failure> {
    let mut options = options(&server.address);
    change(&mut options.s3);
    Store::open(&"s3://packets".parse().unwrap(), "prod", &options).await
}

/// Temporary keys, as the services of clouds hand them out.
const TEMPORARY: &str = r#"{"AccessKeyId":"temporary","SecretAccessKey":"secret","Token":"session","Expiration":"2100-01-01T00:00:00Z"}"#;

fn assert_signed_with_temporary_keys(request: &str) {
    assert!(request.contains("credential=temporary/"), "{request}");
    assert!(request.contains("x-amz-security-token: session"), "{request}");
}

#[tokio::test]
async fn pod_gets_credentials_from_its_node_agent() {
    let server = serve(&[(200, TEMPORARY), (200, FORMAT)]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "whoami").unwrap();
    let token_file = file.path().to_str().unwrap().to_owned();
    let url = format!("{}/v1/credentials", server.address);
    open_with(&server, |s3| s3.credentials = Some(S3Credentials::Pod { url, token_file }))
        .await
        .unwrap();
    let asked = server.asked.lock().unwrap();
    assert!(asked[0].starts_with("get /v1/credentials ") && asked[0].contains("whoami"));
    assert_signed_with_temporary_keys(&asked[1]);
}

#[tokio::test]
async fn machine_gets_credentials_from_the_metadata_service() {
    let server = serve(&[(200, "token"), (200, "role"), (200, TEMPORARY), (200, FORMAT)]);
    let endpoint = Some(server.address.clone());
    open_with(&server, |s3| s3.credentials = Some(S3Credentials::Metadata { endpoint }))
        .await
        .unwrap();
    assert_eq!(
        server.lines(),
        [
            "put /latest/api/token http/1.1",
            "get /latest/meta-data/iam/security-credentials/ http/1.1",
            "get /latest/meta-data/iam/security-credentials/role http/1.1",
            "get /packets/prod/format http/1.1",
        ]
    );
    assert_signed_with_temporary_keys(&server.asked.lock().unwrap()[3]);
}

#[tokio::test]
async fn unavailable_credentials_are_reported() {
    let no_role = serve(&[(200, "token"), (404, "")]);
    let no_role_at = Some(no_role.address.clone());
    let owned = str::to_owned;
    let web = S3Credentials::WebIdentity {
        token_file: owned("/nowhere/token"),
        role: owned("role"),
        session: None,
        endpoint: None,
    };
    let pod = S3Credentials::Pod { url: owned("http://x"), token_file: owned("/nowhere/token") };
    for (credentials, words) in [
        (S3Credentials::Metadata { endpoint: no_role_at }, "give the machine a role"),
        (web, "AWS_WEB_IDENTITY_TOKEN_FILE"),
        (pod, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    ] {
        let store = serve(&[(200, FORMAT)]);
        let opened = open_with(&store, |s3| s3.credentials = Some(credentials)).await;
        let failure = opened.expect_err(words);
        assert_eq!(failure.kind(), FailureKind::Permission, "{failure}: {:?}", failure.source());
        assert!(failure.to_string().contains(words), "{failure}: {:?}", failure.source());
        assert!(store.lines().is_empty(), "nothing is asked without credentials");
    }
}

#[tokio::test]
async fn each_write_requests_encryption() {
    let kms = S3Encryption::Kms { key: Some("my-key".to_owned()), dual: false };
    for (encryption, headers) in [
        (S3Encryption::Server, vec!["x-amz-server-side-encryption: aes256"]),
        (
            kms,
            vec![
                "x-amz-server-side-encryption: aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id: my-key",
            ],
        ),
        (
            S3Encryption::Kms { key: None, dual: true },
            vec!["x-amz-server-side-encryption: aws:kms:dsse"],
        ),
    ] {
        let server = serve(&[(200, FORMAT)]);
        let store = open_with(&server, |s3| s3.encryption = Some(encryption)).await.unwrap();
        store.put_new(&Path::from("data/x"), vec!["x".into()]).await.unwrap();
        let asked = server.asked.lock().unwrap();
        assert!(!asked[0].contains("server-side-encryption"), "{}", asked[0]);
        for header in headers {
            assert!(asked[1].contains(&format!("\r\n{header}\r\n")), "{}", asked[1]);
        }
        assert!(asked[1].contains("\r\nif-none-match: *\r\n"), "{}", asked[1]);
    }
}
