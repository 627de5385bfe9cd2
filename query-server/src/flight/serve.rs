//! The Flight server.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use capstan_model::{Failure, FailureKind};
use capstan_view::access::Principal;
use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinError};
use tokio::time::timeout;

use super::gate::Gate;
use super::{Sessions, handle, wire};
use crate::listen::{self, Listener, Speech};

/// Time for answers in progress to end after a stop is requested.
pub const GRACE: Duration = Duration::from_secs(10);

/// Largest accepted message, bytes: a statement and its parameters, with room for the protocol.
const MAX_TAKEN: usize = handle::MAX_SQL_BYTES + 2 * handle::MAX_PARAMETER_BYTES;

/// Most bytes of a message that is sent: the largest row, with room for its frame.
const MAX_SENT: usize = wire::MAX_ROW_BYTES + (16 << 20);

/// Serves Flight calls on `listener` from `sessions`, all of them for one principal, until `shutdown` is done. Then it accepts nothing more, and
/// answers in progress have [`GRACE`] to end. After that they are aborted with an error on the client's side; an
/// aborted answer never looks like a short one. Dropping the future stops at once.
///
/// Connections are served on the calling runtime; statements run on threads of their own ([`crate::questions`]).
///
/// # Errors
///
/// The listener cannot be used.
pub async fn serve(
    listener: impl Into<Listener>,
    sessions: Arc<dyn Sessions>,
    who: Arc<Principal>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Failure> {
    serve_with(GRACE, listener, sessions, who, shutdown).await
}

/// [`serve`] with another grace period.
pub(super) async fn serve_with(
    grace: Duration,
    listener: impl Into<Listener>,
    sessions: Arc<dyn Sessions>,
    who: Arc<Principal>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Failure> {
    let listener = listener.into();
    let (stop, stopped) = oneshot::channel();
    let mut serving = tokio::spawn(answer(listener, Arc::clone(&sessions), who, stopped));
    let _ending = Ending { sessions, serving: serving.abort_handle() };
    tokio::select! {
        ended = &mut serving => return outcome(ended),
        () = shutdown => drop(stop),
    }
    match timeout(grace, serving).await {
        Ok(ended) => outcome(ended),
        Err(_) => {
            tracing::warn!("answers that still ran {grace:?} after the stop were aborted");
            Ok(())
        }
    }
}

/// Ends the server, and the statements that still run.
struct Ending {
    sessions: Arc<dyn Sessions>,
    serving: AbortHandle,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.serving.abort();
        self.sessions.questions().stop_all();
    }
}

async fn answer(
    listener: Listener,
    sessions: Arc<dyn Sessions>,
    who: Arc<Principal>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let service = FlightServiceServer::new(Gate::new(sessions, who)?)
        .max_decoding_message_size(MAX_TAKEN)
        .max_encoding_message_size(MAX_SENT);
    // The sender's end is the stop.
    listen::serve(listener, Speech::Grpc, service, stopped.map(|_| ())).await;
    Ok(())
}

fn outcome(ended: Result<Result<(), Failure>, JoinError>) -> Result<(), Failure> {
    ended.unwrap_or_else(|error| {
        Err(Failure::caused_by(FailureKind::Other, "the Flight server crashed", error))
    })
}
