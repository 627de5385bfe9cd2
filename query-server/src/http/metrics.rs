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
        "Requests sent to the store since the start, those that failed too.",
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
        "What these requests cost by the prices that are set, US dollars.",
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
        "Pages, blocks and index layers that were wanted since the start, by where they were: in memory, on the \
         cache's disk, on their way for somebody else, in the store alone.",
        pieces.map(|(place, many)| (format!("{{from=\"{place}\"}}"), many.to_string())),
    );
    let faults = [("corrupt", counts.corrupt), ("failed", counts.failed)];
    family(
        text,
        "counter",
        "capstan_cache_faults_total",
        "Files of the cache that did not hold what was written, and that could not be read or written, since \
         the start.",
        faults.map(|(what, many)| (format!("{{what=\"{what}\"}}"), many.to_string())),
    );
    let bytes = [("memory", counts.memory_bytes), ("disk", counts.disk_bytes)];
    family(
        text,
        "gauge",
        "capstan_cache_bytes",
        "Bytes that the cache keeps.",
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
