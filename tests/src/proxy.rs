//! A proxy between a client and an S3 server that makes the faults of networks and servers.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// What is done to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mishap {
    /// Nothing: it goes through.
    None,
    /// It arrives, and the connection is closed instead of an answer.
    AnswerLost,
    /// It arrives, and the connection is closed after half of the answer.
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
    /// Both ways are long, and have room for so many KiB a second.
    Slow(u32),
    /// The server goes away for so long, and this is the first request that finds it gone.
    Gone(Absence, Duration),
}

/// How a server is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Absence {
    /// Connections are closed, and new ones refused.
    Refuses,
    /// Connections are made, and nothing comes of them ever.
    Silent,
    /// Every answer is 403 with this code.
    Forbids(&'static str),
}

/// A request.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    bytes: Vec<u8>,
}

impl Request {
    /// Whether it changes what the server has.
    pub fn writes(&self) -> bool {
        matches!(self.method.as_str(), "PUT" | "POST" | "DELETE")
    }
}

/// Decides what is done to requests.
pub trait Rule: Send + Sync {
    /// A request has come, and has not been passed on.
    fn meets(&self, request: &Request) -> Mishap;

    /// The server has done it and answered, and the client does not know yet.
    fn answered(&self, _request: &Request) {}
}

impl<F: Fn(&Request) -> Mishap + Send + Sync> Rule for F {
    fn meets(&self, request: &Request) -> Mishap {
        self(request)
    }
}

impl<R: Rule + ?Sized> Rule for Arc<R> {
    fn meets(&self, request: &Request) -> Mishap {
        (**self).meets(request)
    }

    fn answered(&self, request: &Request) {
        (**self).answered(request);
    }
}

/// Mishaps in turn, over and over.
pub struct InTurn {
    mishaps: Vec<Mishap>,
    concerns: fn(&Request) -> bool,
    met: Mutex<Vec<Mishap>>,
}

impl InTurn {
    /// For the requests that this says.
    pub fn new(mishaps: &[Mishap], concerns: fn(&Request) -> bool) -> Arc<InTurn> {
        Arc::new(InTurn { mishaps: mishaps.to_vec(), concerns, met: Mutex::default() })
    }

    /// How often each happened.
    pub fn met(&self) -> BTreeMap<Mishap, usize> {
        let mut counts = BTreeMap::new();
        for mishap in &*lock(&self.met) {
            *counts.entry(*mishap).or_default() += 1;
        }
        counts
    }
}

impl Rule for InTurn {
    fn meets(&self, request: &Request) -> Mishap {
        if self.mishaps.is_empty() || !(self.concerns)(request) {
            return Mishap::None;
        }
        let mut met = lock(&self.met);
        let mishap = self.mishaps[met.len() % self.mishaps.len()];
        met.push(mishap);
        mishap
    }
}

/// A mishap that happens once: to the first request that this says.
pub fn once(
    mishap: Mishap,
    concerns: impl Fn(&Request) -> bool + Send + Sync,
) -> impl Fn(&Request) -> Mishap + Send + Sync {
    let happened = AtomicBool::new(false);
    move |request| match concerns(request) && !happened.swap(true, Ordering::Relaxed) {
        true => mishap,
        false => Mishap::None,
    }
}

/// The way to a server, from the network of the thread that made it: a proxy in another network
/// may take it.
#[derive(Debug, Clone)]
pub struct Way(mpsc::Sender<mpsc::Sender<io::Result<TcpStream>>>);

impl Way {
    /// To `host:port`.
    pub fn to(address: &str) -> Way {
        let (ask, asked) = mpsc::channel::<mpsc::Sender<_>>();
        let address = address.to_owned();
        spawn(move || {
            for answer in asked {
                // Who asked may have gone.
                let _ = answer.send(TcpStream::connect(&address));
            }
        });
        Way(ask)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let (answer, answered) = mpsc::channel();
        self.0.send(answer).map_err(io::Error::other)?;
        answered.recv().map_err(io::Error::other)?
    }
}

/// Passes requests on, a connection for each.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    way: Way,
    rule: Box<dyn Rule>,
    away: Mutex<Option<(Absence, Instant)>>,
    /// Connections that nothing comes of.
    silent: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl Proxy {
    /// In the network of this thread.
    ///
    /// # Panics
    /// If there are no ports left.
    pub fn start(way: &Way, rule: impl Rule + 'static) -> Proxy {
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared {
            way: way.clone(),
            rule: Box::new(rule),
            away: Mutex::default(),
            silent: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        spawn({
            let shared = Arc::clone(&shared);
            move || serve(listener, address, &shared)
        });
        Proxy { address, shared }
    }

    /// For clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Goes away, from now on.
    pub fn go_away(&self, absence: Absence, how_long: Duration) {
        self.shared.go_away(absence, how_long);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

/// Time between two looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(1);

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn serve(listener: TcpListener, address: SocketAddr, shared: &Arc<Shared>) {
    let mut listening = Some(listener);
    while !shared.stopped.load(Ordering::Relaxed) {
        if shared.away() == Some(Absence::Refuses) {
            listening = None;
        } else if listening.is_none() {
            listening = listen(address).ok();
        }
        match listening.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => {
                let shared = Arc::clone(shared);
                // A connection that breaks is the client's to notice.
                spawn(move || shared.pass_on(client));
            }
            _ => sleep(LOOK_EVERY),
        }
    }
}

impl Shared {
    fn go_away(&self, absence: Absence, how_long: Duration) {
        *lock(&self.away) = Some((absence, Instant::now() + how_long));
    }

    fn away(&self) -> Option<Absence> {
        lock(&self.away).filter(|(_, until)| Instant::now() < *until).map(|(absence, _)| absence)
    }

    fn pass_on(&self, mut client: TcpStream) -> io::Result<()> {
        let request = read_request(&mut client)?;
        let mishap = match self.away() {
            Some(_) => Mishap::None,
            None => self.rule.meets(&request),
        };
        if let Mishap::Gone(absence, how_long) = mishap {
            self.go_away(absence, how_long);
        }
        let answer = match self.away() {
            Some(_) => None,
            None => self.answer(mishap, &request)?,
        };
        match (self.away(), answer) {
            (Some(Absence::Silent), _) => lock(&self.silent).push(client),
            (Some(Absence::Forbids(code)), _) => client.write_all(forbidden(code).as_bytes())?,
            (Some(Absence::Refuses), _) | (None, None) => {}
            (None, Some(answer)) => send(&mut client, &answer, mishap)?,
        }
        Ok(())
    }

    /// What the client is to be told, if anything.
    fn answer(&self, mishap: Mishap, request: &Request) -> io::Result<Option<Vec<u8>>> {
        let bytes = &request.bytes;
        match mishap {
            Mishap::RequestLost => return Ok(None),
            Mishap::Busy => return Ok(Some(BUSY.to_vec())),
            Mishap::RequestCut => {
                self.way.connect()?.write_all(&bytes[..bytes.len() / 2])?;
                return Ok(None);
            }
            Mishap::Late => sleep(Duration::from_millis(500)),
            _ => {}
        }
        let mut server = self.way.connect()?;
        send(&mut server, bytes, mishap)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        self.rule.answered(request);
        Ok(Some(match mishap {
            Mishap::BusyAfterwards => BUSY.to_vec(),
            Mishap::AnswerLost => Vec::new(),
            Mishap::AnswerCut => answer[..answer.len() / 2].to_vec(),
            _ => answer,
        }))
    }
}

fn send(to: &mut TcpStream, bytes: &[u8], mishap: Mishap) -> io::Result<()> {
    const PIECE: usize = 8 << 10;
    let Mishap::Slow(kib_a_second) = mishap else { return to.write_all(bytes) };
    sleep(Duration::from_millis(50));
    for piece in bytes.chunks(PIECE) {
        to.write_all(piece)?;
        sleep(Duration::from_secs(1) * (PIECE as u32 >> 10) / kib_a_second);
    }
    Ok(())
}

const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn forbidden(code: &str) -> String {
    let body = format!("<Error><Code>{code}</Code></Error>");
    let length = body.len();
    format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// A request, which asks for the connection to be closed after the answer: so the answer is all
/// that comes. The signature does not cover that header.
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
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    while bytes.len() < end + 4 + length.unwrap_or(0) {
        more(&mut bytes)?;
    }
    bytes.splice(end..end, *b"\r\nconnection: close");
    let mut words = head.split(' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    Ok(Request { method: word(), path: word(), bytes })
}

/// A test that failed elsewhere is told there.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
