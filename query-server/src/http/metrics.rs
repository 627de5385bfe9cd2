//! Metrics for Prometheus: of a server, and of a process that serves nothing else.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use capstan_model::metrics::{METRICS_TYPE, MetricKind, MetricsText};
use capstan_storage_engine::cache::{Cache, CacheCounts};
use capstan_storage_engine::store::Store;

use super::Refusal;

/// Writes the metrics of a process.
pub type WriteMetrics = Arc<dyn Fn() -> MetricsText + Send + Sync>;

/// The answer to `GET /metrics`.
pub(super) fn answer(text: MetricsText) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], String::from(text)).into_response()
}

/// The metrics of a server.
pub(super) fn of_server(store: &Store, cache: &Cache) -> MetricsText {
    let mut text = MetricsText::default();
    store.write_metrics(&mut text);
    write_cache(&mut text, &cache.counts());
    text
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

fn write_cache(text: &mut MetricsText, counts: &CacheCounts) {
    text.by_label(
        MetricKind::Counter,
        "capstan_cache_pieces_total",
        "Requested pages, blocks and index layers since the start, by source: memory cache, disk \
         cache, in flight for another request, store (a miss).",
        "from",
        [
            ("memory", counts.from_memory),
            ("disk", counts.from_disk),
            ("flight", counts.from_flight),
            ("store", counts.misses),
        ],
    );
    text.by_label(
        MetricKind::Counter,
        "capstan_cache_faults_total",
        "Cache files that were damaged, and cache files that could not be read or written, since \
         the start.",
        "what",
        [("corrupt", counts.corrupt), ("failed", counts.failed)],
    );
    text.by_label(
        MetricKind::Gauge,
        "capstan_cache_bytes",
        "Size of the cache in bytes.",
        "in",
        [("memory", counts.memory_bytes), ("disk", counts.disk_bytes)],
    );
}
