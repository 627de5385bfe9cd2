//! Between a client and the server, to do what networks do.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// What is done to one PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mishap {
    /// Nothing: it goes through.
    None,
    /// It arrives, and the connection is closed instead of an answer.
    AnswerCut,
    /// It does not arrive, and the connection is closed.
    RequestLost,
    /// Half of it arrives, then both connections are closed.
    RequestCut,
    /// It does not arrive, and the answer is 503.
    Busy,
    /// It arrives, and the answer is 503 all the same.
    BusyAfterwards,
    /// It arrives late.
    Late,
}

/// Passes requests on, a connection for each. PUTs meet the mishaps in turn, over and over.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    absences: mpsc::UnboundedSender<Duration>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: String,
    mishaps: Vec<Mishap>,
    /// How often each happened.
    met: Mutex<BTreeMap<Mishap, usize>>,
    puts: Mutex<usize>,
}

impl Proxy {
    /// In front of the server at `upstream`, `host:port`.
    pub(crate) async fn start(upstream: &str, mishaps: &[Mishap]) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            mishaps: mishaps.to_vec(),
            met: Mutex::default(),
            puts: Mutex::default(),
        });
        let (absences, asked) = mpsc::unbounded_channel();
        let task = tokio::spawn(serve(listener, asked, Arc::clone(&shared)));
        Proxy { address, shared, absences, task }
    }

    /// For clients.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes every connection and refuses new ones for so long, from now on.
    pub(crate) fn go_away(&self, how_long: Duration) {
        self.absences.send(how_long).unwrap();
    }

    /// How often each mishap happened.
    pub(crate) fn met(&self) -> BTreeMap<Mishap, usize> {
        self.shared.met.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut listener: TcpListener,
    mut absences: mpsc::UnboundedReceiver<Duration>,
    shared: Arc<Shared>,
) {
    let address = listener.local_addr().unwrap();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                let shared = Arc::clone(&shared);
                // A connection that breaks is the client's to notice.
                connections.spawn(async move { let _ = pass_on(client, &shared).await; });
            }
            Some(how_long) = absences.recv() => {
                drop(listener);
                connections.shutdown().await;
                tokio::time::sleep(how_long).await;
                listener = TcpListener::bind(address).await.unwrap();
            }
        }
    }
}

async fn pass_on(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let request = read_request(&mut client).await?;
    let mishap = shared.next(request.starts_with(b"PUT "));
    let half = request.len() / 2;
    match mishap {
        Mishap::RequestLost => return Ok(()),
        Mishap::Busy => return client.write_all(BUSY).await,
        Mishap::RequestCut => {
            let mut server = TcpStream::connect(&shared.upstream).await?;
            return server.write_all(&request[..half]).await;
        }
        Mishap::Late => tokio::time::sleep(Duration::from_millis(500)).await,
        Mishap::None | Mishap::AnswerCut | Mishap::BusyAfterwards => {}
    }
    let mut server = TcpStream::connect(&shared.upstream).await?;
    server.write_all(&request).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    match mishap {
        Mishap::AnswerCut => Ok(()),
        Mishap::BusyAfterwards => client.write_all(BUSY).await,
        _ => client.write_all(&answer).await,
    }
}

impl Shared {
    fn next(&self, is_put: bool) -> Mishap {
        if !is_put || self.mishaps.is_empty() {
            return Mishap::None;
        }
        let mut puts = self.puts.lock().unwrap();
        let mishap = self.mishaps[*puts % self.mishaps.len()];
        *puts += 1;
        *self.met.lock().unwrap().entry(mishap).or_default() += 1;
        mishap
    }
}

const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A request, which asks for the connection to be closed after the answer: so the answer is all
/// that comes. The signature does not cover that header.
async fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let end = loop {
        if client.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.trim().parse().unwrap());
    while request.len() < end + 4 + length {
        if client.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    request.splice(end..end, *b"\r\nconnection: close");
    Ok(request)
}
