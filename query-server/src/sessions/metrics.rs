//! The metrics of a server: requests to the store, and requests that the cache saved.

use capstan_model::metrics::{MetricKind, MetricsText};
use capstan_storage_engine::cache::{Cache, CacheCounts};
use capstan_storage_engine::store::Store;

/// The metrics of a server.
pub(super) fn of(store: &Store, cache: &Cache) -> MetricsText {
    let mut text = MetricsText::default();
    store.write_metrics(&mut text);
    write_cache(&mut text, &cache.counts());
    text
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
