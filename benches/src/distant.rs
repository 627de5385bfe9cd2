//! An S3 server over a folder that answers like a distant bucket: the first byte of each answer comes after some
//! milliseconds, and each connection has a limited rate. It serves reads only, checks no signatures, and counts
//! requests.

mod answer;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use capstan_model::Failure;

use self::answer::{Answer, Request};

/// Time to the first byte of an answer.
pub(crate) const FIRST_BYTE: Duration = Duration::from_millis(20);

/// What a connection delivers, bytes a second.
pub(crate) const RATE: u64 = 80_000_000;

/// Bytes sent at a time.
const CHUNK: usize = 64 << 10;

/// The name of its only bucket.
const BUCKET: &str = "distant";

/// What was asked of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// Requests by the last part of the name that they are about, for data objects: the layer.
    pub(crate) layers: BTreeMap<String, u64>,
    /// Bytes of the answers about data objects.
    pub(crate) data_bytes: u64,
    /// All other requests: the catalog.
    pub(crate) others: u64,
    /// The most requests that were in flight at once.
    pub(crate) most_in_flight: u64,
}

impl Asked {
    /// Requests about data objects.
    pub(crate) fn data(&self) -> u64 {
        self.layers.values().sum()
    }
}

struct Shared {
    root: PathBuf,
    /// Length of each object, by key.
    objects: BTreeMap<String, u64>,
    asked: Mutex<Asked>,
    in_flight: AtomicU64,
    done: AtomicBool,
}

/// See the module. It ends when it is dropped.
pub(crate) struct Distant {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Distant {
    /// Serves what is in a folder now.
    pub(crate) fn start(root: &Path) -> Result<Distant, Failure> {
        let cannot = |error| Failure::io(format!("cannot serve {}", root.display()), error);
        let mut objects = BTreeMap::new();
        list(root, "", &mut objects).map_err(cannot)?;
        let listener = TcpListener::bind("127.0.0.1:0").map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            objects,
            asked: Mutex::default(),
            in_flight: AtomicU64::new(0),
            done: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.done.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&serving);
                // A client that goes away does not want an answer.
                spawn(move || shared.serve(client));
            }
        });
        Ok(Distant { address, shared })
    }

    /// Where its store is, for `--store`.
    pub(crate) fn store(&self) -> PathBuf {
        PathBuf::from(format!("s3://{BUCKET}"))
    }

    /// Gives a command what it needs to reach it.
    pub(crate) fn reached(&self, mut command: Command) -> Command {
        for variable in ["AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CA_BUNDLE"] {
            command.env_remove(variable);
        }
        command.env("CAPSTAN_S3_ENDPOINT", format!("http://{}", self.address));
        command.env("AWS_ACCESS_KEY_ID", "bench").env("AWS_SECRET_ACCESS_KEY", "bench");
        command
    }

    /// What was asked since the last call.
    pub(crate) fn asked(&self) -> Asked {
        std::mem::take(&mut self.shared.asked())
    }
}

impl Drop for Distant {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts connections. If nobody listens it has ended.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the requests of one connection, one after the other.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut received = Vec::new();
        while let Some(request) = read_request(&mut client, &mut received)? {
            let came = Instant::now();
            let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
            let answer = answer::to(&request, BUCKET, &self.root, &self.objects);
            self.count(&request, &answer, now);
            sleep(FIRST_BYTE.saturating_sub(came.elapsed()));
            let sent = send(&mut client, &answer);
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            sent?;
        }
        Ok(())
    }

    fn count(&self, request: &Request, answer: &Answer, in_flight: u64) {
        let mut asked = self.asked();
        asked.most_in_flight = asked.most_in_flight.max(in_flight);
        match request.path.split_once("/data/") {
            Some((_, name)) => {
                let layer = name.rsplit('/').next().unwrap_or_default();
                *asked.layers.entry(layer.to_owned()).or_default() += 1;
                asked.data_bytes += answer.body.len() as u64;
            }
            None => asked.others += 1,
        }
    }
}

/// Adds the files below a folder, by their paths from the first one.
fn list(folder: &Path, prefix: &str, objects: &mut BTreeMap<String, u64>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (name, known) = (entry.file_name(), entry.metadata()?);
        let Some(name) = name.to_str() else { continue };
        if known.is_dir() {
            list(&entry.path(), &format!("{prefix}{name}/"), objects)?;
        } else {
            objects.insert(format!("{prefix}{name}"), known.len());
        }
    }
    Ok(())
}

/// The next request; none if the client has closed the connection.
fn read_request(client: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = received.split_off(end + 4);
            let head = std::mem::replace(received, rest);
            return Ok(Some(Request::parse(&String::from_utf8_lossy(&head))));
        }
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            read => received.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Sends an answer at [`RATE`].
fn send(client: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let Answer { status, headers, length, body } = answer;
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n");
    client.write_all(head.as_bytes())?;
    let began = Instant::now();
    let mut sent = 0_u64;
    for chunk in body.chunks(CHUNK) {
        client.write_all(chunk)?;
        sent += chunk.len() as u64;
        sleep(Duration::from_nanos(sent * 1_000_000_000 / RATE).saturating_sub(began.elapsed()));
    }
    client.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(server: &Distant, request: &str) -> (String, Duration) {
        let mut client = TcpStream::connect(server.address).unwrap();
        let began = Instant::now();
        client.write_all(request.as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        (answer, began.elapsed())
    }

    #[test]
    fn answers_take_their_time_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let layers = folder.path().join("c/data/x");
        fs::create_dir_all(&layers).unwrap();
        fs::write(layers.join("index"), "0123456789").unwrap();
        fs::write(layers.join("body"), vec![b'x'; 1 << 20]).unwrap();
        let server = Distant::start(folder.path()).unwrap();
        let get = |name: &str, range: &str| {
            ask(&server, &format!("GET /distant/c/data/x/{name} HTTP/1.1\r\n{range}\r\n"))
        };
        let (answer, took) = get("index", "Range: bytes=2-4\r\n");
        assert!(answer.starts_with("HTTP/1.1 206") && answer.ends_with("\r\n\r\n234"), "{answer}");
        assert!(took >= FIRST_BYTE);
        let (answer, took) = get("body", "");
        assert!(answer.len() > 1 << 20);
        assert!(took >= FIRST_BYTE + Duration::from_millis(13), "{took:?}");
        let (answer, _) = get("none", "");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let (answer, _) = ask(&server, "GET /distant?list-type=2&prefix=c%2F HTTP/1.1\r\n\r\n");
        assert!(answer.contains("<Key>c/data/x/body</Key>"), "{answer}");
        let asked = server.asked();
        assert_eq!((asked.data(), asked.others), (3, 1));
        assert_eq!(asked.layers["index"], 1);
        assert!(asked.data_bytes > 1 << 20 && asked.most_in_flight == 1);
        assert_eq!(server.asked().data(), 0);
    }
}
