//! What a server has asked of its store, for Prometheus (text format 0.0.4).

use std::fmt::Write;

use capstan_storage_engine::store::Store;

/// The answer of `/metrics`.
pub(super) fn text(store: &Store) -> String {
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
        "capstan_store_requests_total",
        "Requests sent to the store since the start, those that failed too.",
        kinds.map(|(kind, many)| (format!("{{kind=\"{kind}\"}}"), many.to_string())),
    );
    let directions = [("read", requests.bytes_read), ("written", requests.bytes_written)];
    family(
        &mut text,
        "capstan_store_bytes_total",
        "Bytes of objects read from and written to the store since the start.",
        directions.map(|(way, bytes)| (format!("{{direction=\"{way}\"}}"), bytes.to_string())),
    );
    let usd = store.prices().of(&requests);
    family(
        &mut text,
        "capstan_store_cost_usd_total",
        "What these requests cost by the prices that are set, US dollars.",
        [(String::new(), usd.to_string())],
    );
    text
}

fn family(
    text: &mut String,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (String, String)>,
) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}
