//! Rules of every listener, for any protocol: accepted host names, the number of connections, and their
//! time-outs.
//!
//! * `hosts`: refuses requests for host names of other machines. A web page whose name resolves to this machine
//!   (DNS rebinding) sends such requests
//! * `places`: the connection limit of a port, derived from the process's limit of open files. At the limit a
//!   new connection replaces the one that has been idle longest. If all are busy, a few more are accepted, to
//!   answer "busy" and health checks
//! * `connection`: closes idle connections, sooner if they never sent a request
//! * `connection::answer`: aborts an answer that its client does not read, and a request that stalls
//!
//! A listener that cannot accept (too many open files, say) closes idle connections and retries.

mod connection;
mod hosts;
mod places;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use capstan_model::{Failure, FailureKind};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};
use tower_service::Service;

use self::connection::answer::{Answer, Request as StallingRequest};
use self::connection::{Counted, Patience};
pub use self::hosts::Hosts;
use self::places::{Place, Places};

/// Most concurrent calls on one connection.
const MAX_CALLS: u32 = 64;

/// A connection that is silent for so long gets a keep-alive ping.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Longest head of a request, bytes. The target alone can have 64 KiB.
const MAX_HEAD: usize = 128 << 10;

/// Time-out for a connection to close after it was told to.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Shortest interval between log messages about a problem that persists.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// Delays between attempts to accept: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How a port is served.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    hosts: Hosts,
    connections: Option<usize>,
    /// Time-outs for clients; the defaults of the protocol if none.
    patience: Option<Patience>,
}

impl Rules {
    /// Accepts these host names and so many concurrent connections; if none, as many as the limit of open files
    /// allows.
    pub fn new(hosts: Hosts, connections: Option<usize>) -> Rules {
        Rules { hosts, connections, patience: None }
    }
}

/// A listening socket and its rules.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    rules: Rules,
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Listener { socket, rules: Rules::default() }
    }
}

impl Listener {
    /// Combines a socket and its rules.
    pub fn new(socket: TcpListener, rules: Rules) -> Listener {
        Listener { socket, rules }
    }

    /// The address of the socket.
    ///
    /// # Errors
    /// The system does not report it.
    pub fn address(&self) -> Result<SocketAddr, Failure> {
        self.socket.local_addr().map_err(|error| Failure::io("a listener fails", error))
    }

    /// The bare socket, to be passed to another process.
    ///
    /// # Errors
    /// The system refuses.
    pub fn into_std(self) -> Result<std::net::TcpListener, Failure> {
        self.socket.into_std().map_err(|error| Failure::io("a listener fails", error))
    }
}

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// HTTP/1.1, or HTTP/2 without TLS.
    Http,
    /// gRPC: HTTP/2 without TLS.
    Grpc,
}

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    words: String,
    hint: &'static str,
}

impl Speech {
    fn name(self) -> &'static str {
        match self {
            Speech::Http => "HTTP",
            Speech::Grpc => "Flight",
        }
    }

    fn patience(self) -> Patience {
        Patience {
            first: Duration::from_secs(10),
            idle: match self {
                Speech::Http => Duration::from_secs(120),
                // Clients keep a connection between requests, and reopen it if it was closed.
                Speech::Grpc => Duration::from_secs(300),
            },
            request: Duration::from_secs(60),
            stalled: Duration::from_secs(120),
            may_connect_early: self == Speech::Grpc,
        }
    }

    fn refuse(self, refusal: Refusal) -> Response<Body> {
        let Refusal { status, words, hint } = refusal;
        match self {
            Speech::Http => {
                let words = serde_json::json!({ "error": words, "hint": hint });
                (status, Json(words)).into_response()
            }
            Speech::Grpc => {
                let words = format!("{words}: {hint}");
                let said = match status {
                    StatusCode::MISDIRECTED_REQUEST => tonic::Status::permission_denied(words),
                    StatusCode::SERVICE_UNAVAILABLE => tonic::Status::unavailable(words),
                    _ => tonic::Status::invalid_argument(words),
                };
                let mut response = said.into_http::<Body>();
                *response.status_mut() = status;
                response
            }
        }
    }

    fn builder(self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        // Idle time-outs are decided here, for all HTTP versions alike.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .max_concurrent_streams(MAX_CALLS);
        match self {
            Speech::Http => builder,
            Speech::Grpc => builder.http2_only(),
        }
    }
}

/// Serves a listener until `stopped` is done, then until all answers in progress are sent. Dropping the future
/// closes everything at once.
pub(crate) async fn serve<S, B>(
    listener: Listener,
    speech: Speech,
    service: S,
    stopped: impl Future<Output = ()>,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let Listener { socket, rules } = listener;
    let limit = rules.connections.unwrap_or_else(|| places::for_files(files())).max(1);
    let patience = rules.patience.unwrap_or_else(|| speech.patience());
    let port = Port { speech, hosts: Arc::new(rules.hosts), patience, service };
    let places = Places::new(limit);
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let (mut wait, mut said) = (RETRY.0, None);
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
            () = &mut stopped => break,
        };
        match accepted {
            Ok((stream, _)) => {
                wait = RETRY.0;
                let Some(place) = places.enter() else { continue };
                if place.connection.is_spare() && is_due(&mut said) {
                    tracing::warn!(
                        "all {} connections of {} are busy, and new ones are refused: \
                         --connections allows more",
                        places.limit(),
                        speech.name()
                    );
                }
                tasks.spawn(port.clone().tend(stream, place, stopping.clone()));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if is_due(&mut said) {
                    tracing::warn!(%error, "{} cannot accept connections now", speech.name());
                }
                places.make_room();
                tokio::select! { () = sleep(wait) => {} () = &mut stopped => break }
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
    drop(socket);
    stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
}

/// Whether a failed accept concerns only a connection that is gone already.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Whether a repeated log message is due again.
fn is_due(said: &mut Option<Instant>) -> bool {
    let due = said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
    if due {
        *said = Some(Instant::now());
    }
    due
}

/// The process's limit of open files; none if unlimited or unknown.
fn files() -> Option<u64> {
    places::open_files(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

/// State shared by all connections of a port.
#[derive(Debug, Clone)]
struct Port<S> {
    speech: Speech,
    hosts: Arc<Hosts>,
    patience: Patience,
    service: S,
}

impl<S, B> Port<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    /// Serves one connection until it ends, or has to.
    async fn tend(self, stream: TcpStream, place: Place, mut stopping: watch::Receiver<bool>) {
        // This affects only speed.
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().ok().map(|address| address.ip().to_canonical());
        let connection = Arc::clone(&place.connection);
        let counted = Counted { stream, connection: Arc::clone(&connection) };
        let (speech, patience) = (self.speech, self.patience);
        // The place is free again when the connection is gone.
        let asked = service_fn(move |request| self.answer(request, &place, local));
        let builder = speech.builder();
        let serving = builder.serve_connection(TokioIo::new(counted), asked);
        tokio::pin!(serving);
        let mut tick = interval(patience.tick());
        let mut told: Option<Instant> = None;
        loop {
            tokio::select! {
                // Errors of the client are ignored.
                _ = &mut serving => return,
                () = connection.ended() => return,
                // A dropped sender is a stop, too.
                _ = stopping.wait_for(|stop| *stop), if told.is_none() => {
                    told = Some(Instant::now());
                    serving.as_mut().graceful_shutdown();
                }
                _ = tick.tick() => {
                    connection.give_up_stalled(&patience);
                    match told {
                        Some(told) if told.elapsed() < LAST_WORDS => {}
                        Some(_) if connection.quiet_since().is_some() => return,
                        Some(_) => {}
                        None if connection.is_over(&patience) => {
                            told = Some(Instant::now());
                            serving.as_mut().graceful_shutdown();
                        }
                        None => {}
                    }
                }
            }
        }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        place: &Place,
        local: Option<std::net::IpAddr>,
    ) -> impl Future<Output = Result<Response<Answer>, Infallible>> + Send + use<S, B> {
        let connection = Arc::clone(&place.connection);
        let call = connection.begin();
        let refused = self.refusal(&request, connection.is_spare(), local);
        let (speech, patience, mut service) = (self.speech, self.patience, self.service.clone());
        async move {
            let mut response = match refused {
                Err(refusal) => speech.refuse(refusal),
                Ok(()) => {
                    let request =
                        request.map(|body| Body::new(StallingRequest::new(body, patience.request)));
                    // These services are always ready.
                    service.call(request).await?.map(Body::new)
                }
            };
            if connection.is_spare() && speech == Speech::Http {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, header::HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Answer::new(body, call, &connection)))
        }
    }

    fn refusal(
        &self,
        request: &Request<Incoming>,
        spare: bool,
        local: Option<std::net::IpAddr>,
    ) -> Result<(), Refusal> {
        self.hosts.check(request.version(), request.uri(), request.headers(), local)?;
        let about_health = self.speech == Speech::Http && request.uri().path() == "/healthz";
        match spare && !about_health {
            false => Ok(()),
            true => Err(Refusal {
                status: StatusCode::SERVICE_UNAVAILABLE,
                words: "all connections are busy".to_owned(),
                hint: "retry later, or start the server with more --connections",
            }),
        }
    }
}

/// Refuses to listen on addresses that other machines can reach, unless `insecure` is set.
///
/// # Errors
/// Of kind `Usage`.
pub fn check_reach(option: &str, addresses: &[SocketAddr], insecure: bool) -> Result<(), Failure> {
    match addresses.iter().find(|address| !is_own(address)) {
        Some(_) if insecure => Ok(()),
        None => Ok(()),
        Some(address) => Err(Failure::new(
            FailureKind::Usage,
            format!(
                "--{option} {address} can be reached by other machines, and there is no \
                 authentication yet: any client could read all packets. Listen on 127.0.0.1, or \
                 allow it with --insecure"
            ),
        )),
    }
}

/// Whether only this machine can reach an address.
pub fn is_own(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
