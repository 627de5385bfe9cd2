//! The listener.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use capstan_model::{Failure, FailureKind};
use futures::FutureExt;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::gate::Gate;
use super::{Sessions, handle, statement, wire};

/// How long answers that run when the server is told to stop may go on.
pub const GRACE: Duration = Duration::from_secs(10);

/// Most bytes of a message that is taken: a statement and its parameters, with
/// room for the protocol.
const MAX_TAKEN: usize = handle::MAX_SQL_BYTES + 2 * handle::MAX_PARAMETER_BYTES;

/// Most bytes of a message that is sent: the largest row, with room for its frame.
const MAX_SENT: usize = wire::MAX_ROW_BYTES + (16 << 20);

/// Most calls at a time on one connection.
const MAX_CALLS: u32 = 64;

/// A connection that is silent for so long is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Answers Flight calls on `listener` from `sessions` until `shutdown` is done;
/// then takes no more, and gives the answers under way [`GRACE`] to end. One that
/// still runs then breaks off with an error on the client's side; it never looks
/// like a short answer. Dropping the future stops at once.
///
/// Queries run on threads of their own: they need more stack than others have, and
/// do not hold up what else the caller's runtime does.
///
/// # Errors
///
/// The listener cannot be used, or threads cannot be started.
pub async fn serve(
    listener: TcpListener,
    sessions: Arc<dyn Sessions>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Failure> {
    serve_with(GRACE, listener, sessions, shutdown).await
}

/// [`serve`] with another grace.
pub(super) async fn serve_with(
    grace: Duration,
    listener: TcpListener,
    sessions: Arc<dyn Sessions>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Failure> {
    let listener = listener.into_std().map_err(|e| Failure::io("the listener fails", e))?;
    let threads = Threads::start()?;
    let (stop, stopped) = oneshot::channel();
    let mut serving = threads.handle.spawn(answer(listener, sessions, stopped));
    tokio::select! {
        ended = &mut serving => return outcome(ended),
        () = shutdown => drop(stop),
    }
    match timeout(grace, serving).await {
        Ok(ended) => outcome(ended),
        Err(_) => {
            tracing::warn!("answers that still ran {grace:?} after the stop are cut");
            Ok(())
        }
    }
}

async fn answer(
    listener: std::net::TcpListener,
    sessions: Arc<dyn Sessions>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let listener =
        TcpListener::from_std(listener).map_err(|e| Failure::io("the listener fails", e))?;
    let service = FlightServiceServer::new(Gate::new(sessions)?)
        .max_decoding_message_size(MAX_TAKEN)
        .max_encoding_message_size(MAX_SENT);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .max_concurrent_streams(Some(MAX_CALLS))
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            // Told to stop by the sender's end.
            stopped.map(|_| ()),
        )
        .await
        .map_err(|error| {
            Failure::caused_by(FailureKind::Unavailable, "the Flight server failed", error)
        })
}

fn outcome(ended: Result<Result<(), Failure>, JoinError>) -> Result<(), Failure> {
    ended.unwrap_or_else(|error| {
        Err(Failure::caused_by(FailureKind::Other, "the Flight server crashed", error))
    })
}

/// The threads that queries run on. They are let go without waiting: where futures
/// run, a runtime may not be dropped in the ordinary way.
struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    fn start() -> Result<Self, Failure> {
        let runtime = Builder::new_multi_thread()
            .thread_name("capstan-query")
            .thread_stack_size(statement::STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|e| Failure::io("threads for queries cannot be started", e))?;
        Ok(Threads { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
