//! Metrics of a store: requests, bytes, cost, retries.

use capstan_model::metrics::{MetricKind, MetricsText};

use super::Store;

impl Store {
    /// Adds the requests of this process to a text. Sends none.
    pub fn write_metrics(&self, text: &mut MetricsText) {
        let requests = self.requests();
        text.by_label(
            MetricKind::Counter,
            "capstan_store_requests_total",
            "Requests sent to the store since the start, including failed ones.",
            "kind",
            [
                ("get", requests.gets),
                ("put", requests.puts),
                ("list", requests.lists),
                ("head", requests.heads),
                ("delete", requests.deletes),
            ],
        );
        text.one(
            MetricKind::Counter,
            "capstan_store_retries_total",
            "Requests that were sent again because the store did not answer, or refused.",
            self.means.waits.retries.get(),
        );
        text.by_label(
            MetricKind::Counter,
            "capstan_store_bytes_total",
            "Bytes of objects read from and written to the store since the start.",
            "direction",
            [("read", requests.bytes_read), ("written", requests.bytes_written)],
        );
        text.one(
            MetricKind::Counter,
            "capstan_store_cost_usd_total",
            "Cost of these requests in US dollars, by the configured prices.",
            self.prices().of(&requests),
        );
    }
}
