//! Metrics over HTTP, for Prometheus: of a server, and of a process that serves nothing else.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use capstan_model::metrics::{METRICS_TYPE, MetricsText};

use super::Refusal;

/// Writes the metrics of a process.
pub type WriteMetrics = Arc<dyn Fn() -> MetricsText + Send + Sync>;

/// The answer to `GET /metrics`.
pub(super) fn answer(text: MetricsText) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], String::from(text)).into_response()
}

/// The routes of a process that serves nothing but its metrics.
pub(super) fn router(write: WriteMetrics) -> Router {
    Router::new()
        .route("/metrics", get(async |State(write): State<WriteMetrics>| answer(write())))
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "not found: no such path".to_owned(),
                "available: /metrics, /healthz",
            )
        })
        .with_state(write)
}
