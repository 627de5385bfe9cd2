//! The HTTP interface: PCAPNG files and status, for browsers, scripts and probes.
//!
//! | what | answer |
//! | --- | --- |
//! | `GET /api/v1/export.pcapng` | the packets of a window as a PCAPNG file |
//! | `GET /api/v1/status` | what is in the store, as JSON |
//! | `GET /metrics` | the metrics of this process, for Prometheus |
//! | `GET /healthz` | `ok` while this process answers; the store is not asked |
//!
//! The export takes `from` and `to` (as [`capstan_model::Time::parse`] reads them; without both all packets are selected),
//! `host` (an address or a network; `ip` is another name), `port` (a number or a range), `protocol`, `namespace`, `pod`,
//! `service`, `workload`, `node` and `name` (each repeatable, or with commas; all have to match, but of the protocols
//! one), and `order` (`time` or `recorded`). The status takes `from` and `to`.
//! A parameter that is unknown, is empty, or repeats a single value is refused.
//!
//! An error before the first byte of a file is a status and JSON, `{"error": "…", "hint": "…"}`. A later error
//! aborts the connection, so that the client can tell that its file is incomplete. Packets that cannot be read
//! abort it, too, after all others were sent.
//!
//! There is no authentication: all clients of a server are the one [`Principal`] it was started for. The [`Listener`]
//! limits host names and connections.

mod metrics;
mod parameters;
mod query;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::store::now;
use capstan_view::access::Principal;
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use self::metrics::WriteMetrics;
use self::parameters::Parameters;
use crate::flight::GRACE;
use crate::listen::{self, Listener, Speech};
use crate::sessions::{Status, StoreSessions};

/// `Retry-After` of the errors "server busy" and "store unavailable".
const RETRY_SECONDS: &str = "10";

/// Delay before a body fails. A connection whose body fails drops its unwritten data, and the pieces before the
/// failure should reach the client.
const BEFORE_FAILING: Duration = Duration::from_millis(250);

/// Who asks, and who answers.
#[derive(Clone)]
struct Asked {
    sessions: Arc<StoreSessions>,
    who: Arc<Principal>,
}

/// The routes over a store, for a principal.
pub fn router(sessions: Arc<StoreSessions>, who: Arc<Principal>) -> Router {
    Router::new()
        .route("/api/v1/export.pcapng", get(export))
        .route("/api/v1/status", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "not found: no such path".to_owned(),
                "available: /api/v1/export.pcapng, /api/v1/status, /metrics, /healthz",
            )
        })
        .with_state(Asked { sessions, who })
}

/// Serves `listener`, all requests for one principal, until `shutdown` is done. Then it accepts nothing more, and answers in progress have
/// [`GRACE`] to end. After that they are aborted.
///
/// # Errors
/// None that is known.
pub async fn serve(
    listener: impl Into<Listener>,
    sessions: Arc<StoreSessions>,
    who: Arc<Principal>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    serve_routes(listener.into(), router(sessions, who), shutdown).await
}

/// Serves `GET /metrics` and `GET /healthz` only: for a process without a server of its store. Ends like [`serve`].
///
/// # Errors
/// None that is known.
pub async fn serve_metrics(
    listener: impl Into<Listener>,
    write: WriteMetrics,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    serve_routes(listener.into(), metrics::router(write), shutdown).await
}

async fn serve_routes(
    listener: Listener,
    routes: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        // The sender's end is the stop.
        let _ = stopped.await;
    };
    let serving = listen::serve(listener, Speech::Http, routes, stopped);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => return Ok(()),
        () = shutdown => drop(stop),
    }
    if timeout(GRACE, serving).await.is_err() {
        tracing::warn!("answers that still ran {GRACE:?} after the stop are cut");
    }
    Ok(())
}

async fn export(
    State(Asked { sessions, who }): State<Asked>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let (selection, order) = query::parse(query.as_deref().unwrap_or_default(), now())?;
    let name = query::file_name(&selection);
    let mut pieces = sessions.file(&who, selection, order).await?;
    // A failure before the first piece can still be a status with words.
    let first = pieces.next().await.transpose()?;
    let rest = pieces.then(async |piece| {
        if let Err(failure) = &piece {
            tracing::warn!(%failure, "an export was aborted");
            tokio::time::sleep(BEFORE_FAILING).await;
        }
        piece
    });
    let body = Body::from_stream(stream::iter(first.map(Ok)).chain(rest));
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [
        (header::CONTENT_TYPE, "application/x-pcapng".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, body).into_response())
}

async fn status(
    State(Asked { sessions, who }): State<Asked>,
    RawQuery(query): RawQuery,
) -> Result<Json<Status>, Refusal> {
    let query = query.as_deref().unwrap_or_default();
    let range = Parameters::read(query, &parameters::WINDOW)?.range(now())?;
    Ok(Json(sessions.status(&who, range).await?))
}

async fn metrics(State(Asked { sessions, who }): State<Asked>) -> Result<Response, Refusal> {
    Ok(metrics::answer(sessions.metrics(&who)?))
}

/// An error response.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: String,
    hint: &'static str,
}

#[derive(Debug, Serialize)]
struct Words<'a> {
    error: &'a str,
    hint: &'a str,
}

impl Refusal {
    fn new(status: StatusCode, error: String, hint: &'static str) -> Self {
        Refusal { status, error, hint }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let (status, hint) = match failure.kind() {
            FailureKind::Usage => (StatusCode::BAD_REQUEST, "correct the request"),
            FailureKind::NotFound => {
                (StatusCode::NOT_FOUND, "check the store's location and cluster")
            }
            FailureKind::Permission => {
                (StatusCode::FORBIDDEN, "a right is missing: yours, or the server's on the store")
            }
            FailureKind::Full => (
                StatusCode::INSUFFICIENT_STORAGE,
                "free space on the server's disk, or select less",
            ),
            FailureKind::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the store is unavailable or the server busy; retry later",
            ),
            FailureKind::TooNew => {
                (StatusCode::NOT_IMPLEMENTED, "the store is of a newer version; upgrade the server")
            }
            FailureKind::Damaged => {
                (StatusCode::INTERNAL_SERVER_ERROR, "the store is damaged; see /api/v1/status")
            }
            FailureKind::Other
            | FailureKind::AlreadyThere
            | FailureKind::Busy
            | FailureKind::Interrupted => {
                (StatusCode::INTERNAL_SERVER_ERROR, "see the server's log")
            }
        };
        Refusal::new(status, with_causes(&failure), hint)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let words = Json(Words { error: &self.error, hint: self.hint });
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                (self.status, [(header::RETRY_AFTER, RETRY_SECONDS)], words).into_response()
            }
            _ => (self.status, words).into_response(),
        }
    }
}
