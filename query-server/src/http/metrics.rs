//! Metrics for Prometheus (text format 0.0.4): requests to the store, and requests that the cache saved.

use std::fmt::Write;

use capstan_storage_engine::cache::{Cache, CacheCounts};
use capstan_storage_engine::store::Store;

/// The body of `/metrics`.
pub(super) fn text(store: &Store, cache: &Cache) -> String {
    let requests = store.requests();
    let mut text = String::new();
    let kinds = [
        ("get", requests.gets),
        ("put", requests.puts),
        ("list", requests.lists),
        ("head", requests.heads),
        ("delete", requests.deletes),
    ];
    family(
        &mut text,
        "counter",
        "capstan_store_requests_total",
        "Requests sent to the store since the start, including failed ones.",
        kinds.map(|(kind, many)| (format!("{{kind=\"{kind}\"}}"), many.to_string())),
    );
    let directions = [("read", requests.bytes_read), ("written", requests.bytes_written)];
    family(
        &mut text,
        "counter",
        "capstan_store_bytes_total",
        "Bytes of objects read from and written to the store since the start.",
        directions.map(|(way, bytes)| (format!("{{direction=\"{way}\"}}"), bytes.to_string())),
    );
    let usd = store.prices().of(&requests);
    family(
        &mut text,
        "counter",
        "capstan_store_cost_usd_total",
        "Cost of these requests in US dollars, by the configured prices.",
        [(String::new(), usd.to_string())],
    );
    cache_text(&mut text, &cache.counts());
    text
}

fn cache_text(text: &mut String, counts: &CacheCounts) {
    let pieces = [
        ("memory", counts.from_memory),
        ("disk", counts.from_disk),
        ("flight", counts.from_flight),
        ("store", counts.misses),
    ];
    family(
        text,
        "counter",
        "capstan_cache_pieces_total",
        "Requested pages, blocks and index layers since the start, by source: memory cache, disk \
         cache, in flight for another request, store (a miss).",
        pieces.map(|(place, many)| (format!("{{from=\"{place}\"}}"), many.to_string())),
    );
    let faults = [("corrupt", counts.corrupt), ("failed", counts.failed)];
    family(
        text,
        "counter",
        "capstan_cache_faults_total",
        "Cache files that were damaged, and cache files that could not be read or written, since \
         the start.",
        faults.map(|(what, many)| (format!("{{what=\"{what}\"}}"), many.to_string())),
    );
    let bytes = [("memory", counts.memory_bytes), ("disk", counts.disk_bytes)];
    family(
        text,
        "gauge",
        "capstan_cache_bytes",
        "Size of the cache in bytes.",
        bytes.map(|(place, bytes)| (format!("{{in=\"{place}\"}}"), bytes.to_string())),
    );
}

fn family(
    text: &mut String,
    kind: &str,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (String, String)>,
) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}
