//! An S3 server in memory. A test decides what happens to each request. Signatures are not checked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// What becomes of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is done and answered.
    Fair,
    /// It is done, and the connection is closed instead of an answer.
    AnswerLost,
    /// It is not done, and nothing ever comes.
    Silence,
    /// Of the answer come the head and half of the body, then nothing.
    Stalls,
    /// Of the answer come the head and half of the body, then the connection is closed.
    Short,
    /// It is done, and answered with this status and body.
    DoneBut(u16, String),
    /// It is not done, and answered with this status and body.
    Instead(u16, String),
    /// It is done without a look at its condition.
    Unconditional,
}

impl Fate {
    /// Not done, and answered with an error of S3.
    pub fn error(status: u16, code: &str) -> Fate {
        Fate::Instead(status, error(code))
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// What it is about, decoded once: `/bucket/key`.
    pub path: String,
    /// The path and query as they were sent.
    pub target: String,
    /// Names are in small letters.
    pub headers: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    /// Whether it asks for an object.
    pub fn reads(&self) -> bool {
        self.method == "GET" && !self.query.contains_key("list-type")
    }

    /// Whether it creates an object.
    pub fn creates(&self) -> bool {
        self.method == "PUT"
    }
}

type Rule = Box<dyn FnMut(&Request) -> Fate + Send>;

struct Shared {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    rule: Mutex<Rule>,
    asked: Mutex<Vec<Request>>,
    page: usize,
}

/// A server.
pub struct Memory {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Memory {
    /// Starts one.
    ///
    /// # Panics
    /// If there are no ports left.
    pub fn start() -> Memory {
        Memory::with_pages(1_000)
    }

    /// Starts one whose listings have so many keys a page.
    ///
    /// # Panics
    /// If there are no ports left.
    pub fn with_pages(page: usize) -> Memory {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared {
            objects: Mutex::default(),
            rule: Mutex::new(Box::new(|_| Fate::Fair)),
            asked: Mutex::default(),
            page,
        });
        let serving = Arc::clone(&shared);
        spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // A client that goes away does not want an answer.
                spawn(move || shared.serve(client));
            }
        });
        Memory { address, shared }
    }

    /// For clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is done to requests from now on.
    pub fn rule(&self, rule: impl FnMut(&Request) -> Fate + Send + 'static) {
        *lock(&self.shared.rule) = Box::new(rule);
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.shared.asked))
    }

    /// The objects by `/bucket/key`.
    pub fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        lock(&self.shared.objects)
    }
}

/// An answer that is not sent yet.
struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: String::new(), body: body.into() }
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let request = read_request(&mut client)?;
        lock(&self.asked).push(request.clone());
        let fate = (lock(&self.rule))(&request);
        let half = match &fate {
            Fate::Silence => {
                sleep(Duration::from_secs(3_600));
                return Ok(());
            }
            Fate::Instead(status, body) => {
                return send(&mut client, &request, &Answer::new(*status, body.as_str()), None);
            }
            Fate::Stalls | Fate::Short => true,
            _ => false,
        };
        let answer = self.answer(&request, fate == Fate::Unconditional);
        match &fate {
            Fate::AnswerLost => Ok(()),
            Fate::DoneBut(status, body) => {
                send(&mut client, &request, &Answer::new(*status, body.as_str()), None)
            }
            _ => {
                let most = half.then_some(answer.body.len() / 2);
                send(&mut client, &request, &answer, most)?;
                if fate == Fate::Stalls {
                    sleep(Duration::from_secs(3_600));
                }
                Ok(())
            }
        }
    }

    fn answer(&self, request: &Request, unconditional: bool) -> Answer {
        let mut objects = lock(&self.objects);
        match request.method.as_str() {
            "PUT" => {
                let conditional = request.headers.contains_key("if-none-match");
                if conditional && !unconditional && objects.contains_key(&request.path) {
                    return Answer::new(412, error("PreconditionFailed"));
                }
                let tag = tag(&request.body);
                objects.insert(request.path.clone(), request.body.clone());
                Answer { headers: format!("etag: {tag}\r\n"), ..Answer::new(200, "") }
            }
            "POST" if request.query.contains_key("delete") => {
                let text = String::from_utf8_lossy(&request.body).into_owned();
                let mut deleted = String::new();
                for key in text.split("<Key>").skip(1) {
                    let key = key.split("</Key>").next().unwrap_or_default();
                    objects.remove(&format!("{}/{}", request.path, unescaped(key)));
                    deleted += &format!("<Deleted><Key>{key}</Key></Deleted>");
                }
                Answer::new(200, format!("<DeleteResult>{deleted}</DeleteResult>"))
            }
            "GET" if request.query.contains_key("list-type") => {
                Answer::new(200, self.listing(request, &objects))
            }
            "GET" | "HEAD" => read(request, objects.get(&request.path)),
            _ => Answer::new(501, error("NotImplemented")),
        }
    }

    fn listing(&self, request: &Request, objects: &BTreeMap<String, Vec<u8>>) -> String {
        let of = |name: &str| request.query.get(name).map(String::as_str);
        let bucket = format!("{}/", request.path.trim_end_matches('/'));
        let prefix = of("prefix").unwrap_or_default();
        let after = of("continuation-token").or(of("start-after")).unwrap_or_default();
        let from = Bound::Excluded(format!("{bucket}{after}"));
        let keys = objects.range((from, Bound::Unbounded)).filter_map(|(path, body)| {
            Some((path.strip_prefix(&bucket)?, body)).filter(|(key, _)| key.starts_with(prefix))
        });
        let (mut text, mut last, mut names) = (String::new(), String::new(), 0);
        let mut more = false;
        for (key, body) in keys {
            let folder = of("delimiter").and_then(|delimiter| {
                let end = key[prefix.len()..].find(delimiter)? + delimiter.len();
                Some(&key[..prefix.len() + end])
            });
            let name = folder.unwrap_or(key);
            // One that a page ended with is not on the next.
            if name == last || (folder.is_some() && after >= name) {
                continue;
            }
            if names == self.page {
                more = true;
                break;
            }
            names += 1;
            name.clone_into(&mut last);
            let name = escaped(name);
            let added = match folder {
                Some(_) => write!(text, "<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"),
                None => write!(
                    text,
                    "<Contents><Key>{name}</Key><LastModified>2026-11-21T12:00:00.000Z</LastModified>\
                     <ETag>{}</ETag><Size>{}</Size></Contents>",
                    escaped(&tag(body)),
                    body.len()
                ),
            };
            added.expect("a string takes all");
        }
        let token = match more {
            // After a folder, all that is in it is passed over.
            true if last.ends_with('/') => format!("{last}\u{10ffff}"),
            _ => last,
        };
        let token = escaped(&token);
        let next = if more {
            format!("<NextContinuationToken>{token}</NextContinuationToken>")
        } else {
            String::new()
        };
        format!(
            "<ListBucketResult>{text}<IsTruncated>{more}</IsTruncated>{next}</ListBucketResult>"
        )
    }
}

fn read(request: &Request, object: Option<&Vec<u8>>) -> Answer {
    let Some(object) = object else { return Answer::new(404, error("NoSuchKey")) };
    let headers =
        format!("etag: {}\r\nlast-modified: Sat, 21 Nov 2026 12:00:00 GMT\r\n", tag(object));
    let range = request.headers.get("range").and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        let from: usize = from.parse().ok()?;
        let to = to.parse().map_or(object.len(), |to: usize| to + 1);
        Some(from..to.min(object.len()))
    });
    match range {
        Some(range) if range.start >= range.end => Answer::new(416, error("InvalidRange")),
        Some(range) => Answer {
            status: 206,
            headers: format!(
                "{headers}content-range: bytes {}-{}/{}\r\n",
                range.start,
                range.end - 1,
                object.len()
            ),
            body: object[range].to_vec(),
        },
        None => Answer { headers, ..Answer::new(200, object.clone()) },
    }
}

/// Sends an answer, or this much of its body.
fn send(
    client: &mut TcpStream,
    request: &Request,
    answer: &Answer,
    most: Option<usize>,
) -> io::Result<()> {
    let Answer { status, headers, body } = answer;
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        client.write_all(&body[..most.unwrap_or(body.len())])?;
    }
    client.flush()
}

fn error(code: &str) -> String {
    format!("<Error><Code>{code}</Code><Message>words</Message></Error>")
}

fn tag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:x}\"", hasher.finish())
}

const ENTITIES: [(char, &str); 5] =
    [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&apos;")];

fn escaped(text: &str) -> String {
    ENTITIES.iter().fold(text.to_owned(), |text, (plain, entity)| text.replace(*plain, entity))
}

fn unescaped(text: &str) -> String {
    let back = ENTITIES.iter().rev();
    back.fold(text.to_owned(), |text, (plain, entity)| text.replace(entity, &plain.to_string()))
}

/// Undoes percent encoding (RFC 3986, section 2.1). A `%` without two hex digits stays.
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read_request(client: &mut TcpStream) -> io::Result<Request> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    let mut more = |bytes: &mut Vec<u8>| match client.read(&mut buffer)? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        read => {
            bytes.extend_from_slice(&buffer[..read]);
            Ok(())
        }
    };
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        more(&mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let (method, target) = (word(), word());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < end + 4 + length {
        more(&mut bytes)?;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(&value.replace('+', " "))))
        .collect();
    let body = bytes.split_off(end + 4);
    Ok(Request { method, path: decoded(path), query, headers, body, target })
}

/// A test that failed elsewhere is told there.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
