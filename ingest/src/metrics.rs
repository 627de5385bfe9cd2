//! Metrics of a recorder: captured, lost, stored, and how far the upload is behind.
//!
//! The capture thread and the upload thread change them without a lock and without an allocation. The capture thread
//! counts packets for itself and publishes its totals after 1,024 packets or 250 ms, whichever is first; while it waits for
//! the queue of the upload it publishes nothing.

use std::sync::Arc;

use capstan_model::Time;
use capstan_model::coverage::LossCause;
use capstan_model::metrics::{Counter, Gauge, MetricKind, MetricsText, TimeGauge};

/// All metrics of a recorder.
#[derive(Debug, Default)]
pub struct RecorderMetrics {
    /// Before the queue of the upload.
    pub capture: CaptureMetrics,
    /// After it.
    pub upload: Arc<UploadMetrics>,
}

/// Metrics of capture and of open segments.
#[derive(Debug, Default)]
pub struct CaptureMetrics {
    /// Packets taken from the source.
    pub packets: Counter,
    /// Their captured bytes.
    pub bytes: Counter,
    /// Packets that the kernel dropped because a ring was full.
    pub dropped: Counter,
    /// How often a ring became full.
    pub rings_full: Counter,
    /// Captured bytes in open segments.
    pub open_bytes: Gauge,
    /// Open segments.
    pub open_segments: Gauge,
}

/// Metrics of upload and commit.
#[derive(Debug, Default)]
pub struct UploadMetrics {
    /// Segments of which all layers are in the store.
    pub uploads: Counter,
    /// Commits.
    pub commits: Counter,
    /// Segments committed.
    pub segments: Counter,
    /// Packets committed.
    pub packets: Counter,
    /// Bytes of all layers of the committed segments.
    pub stored_bytes: Counter,
    /// How often the log was ended because nothing was committed for a day, and a new one was opened.
    pub logs_ended: Counter,
    /// Failures of the upload of a segment.
    pub upload: Tries,
    /// Failures of commits.
    pub commit: Tries,
    /// When the oldest segment or statement that is not committed was handed over to the upload.
    pub waiting_since: TimeGauge,
    /// When the newest commit was made.
    pub committed_at: TimeGauge,
    /// All packets before this time are committed or counted as lost.
    pub committed_until: TimeGauge,
}

/// How often an operation failed after the retries of the store itself.
#[derive(Debug, Default)]
pub struct Tries {
    /// Failures.
    pub failures: Counter,
    /// Failures after which the operation was tried again.
    pub retries: Counter,
}

impl RecorderMetrics {
    /// Adds all metrics to a text. `now` is the time by the system's clock.
    pub fn write(&self, now: Time, text: &mut MetricsText) {
        self.capture.write(text);
        self.upload.write(now, text);
    }
}

impl CaptureMetrics {
    fn write(&self, text: &mut MetricsText) {
        text.one(
            MetricKind::Counter,
            "capstan_capture_packets_total",
            "Packets captured since the start.",
            self.packets.get(),
        );
        text.one(
            MetricKind::Counter,
            "capstan_capture_bytes_total",
            "Captured bytes of these packets.",
            self.bytes.get(),
        );
        text.by_label(
            MetricKind::Counter,
            "capstan_capture_lost_packets_total",
            "Packets that were not captured, by cause.",
            "cause",
            [(LossCause::KernelDrop.name(), self.dropped.get())],
        );
        text.one(
            MetricKind::Counter,
            "capstan_capture_ring_full_total",
            "How often a capture ring became full.",
            self.rings_full.get(),
        );
        text.one(
            MetricKind::Gauge,
            "capstan_open_bytes",
            "Captured bytes in open segments.",
            self.open_bytes.get(),
        );
        text.one(
            MetricKind::Gauge,
            "capstan_open_segments",
            "Open segments.",
            self.open_segments.get(),
        );
    }
}

impl UploadMetrics {
    fn write(&self, now: Time, text: &mut MetricsText) {
        text.one(
            MetricKind::Counter,
            "capstan_uploads_total",
            "Segments uploaded since the start.",
            self.uploads.get(),
        );
        let tries = [("upload", &self.upload), ("commit", &self.commit)];
        text.by_label(
            MetricKind::Counter,
            "capstan_upload_failures_total",
            "Failed uploads of segments and failed commits.",
            "operation",
            tries.map(|(operation, tries)| (operation, tries.failures.get())),
        );
        text.by_label(
            MetricKind::Counter,
            "capstan_upload_retries_total",
            "Failed uploads and commits that were tried again.",
            "operation",
            tries.map(|(operation, tries)| (operation, tries.retries.get())),
        );
        text.one(
            MetricKind::Counter,
            "capstan_commits_total",
            "Commits since the start.",
            self.commits.get(),
        );
        text.one(
            MetricKind::Counter,
            "capstan_committed_segments_total",
            "Segments committed since the start.",
            self.segments.get(),
        );
        text.one(
            MetricKind::Counter,
            "capstan_committed_packets_total",
            "Packets committed since the start.",
            self.packets.get(),
        );
        text.one(
            MetricKind::Counter,
            "capstan_committed_bytes_total",
            "Bytes of all layers of the committed segments.",
            self.stored_bytes.get(),
        );
        let lag = self.waiting_since.get().map_or(0, |since| now.0.saturating_sub(since.0).max(0));
        text.duration(
            "capstan_upload_lag_seconds",
            "How long the oldest uncommitted segment or coverage waits for its upload and commit.",
            lag,
        );
        text.time(
            "capstan_last_commit_timestamp_seconds",
            "When the newest commit was made.",
            self.committed_at.get(),
        );
        text.time(
            "capstan_oldest_unsent_timestamp_seconds",
            "All packets before this time are committed or counted as lost.",
            self.committed_until.get(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_lag_is_the_age_of_the_oldest_waiting_segment() {
        let metrics = RecorderMetrics::default();
        let line = |now: i64, name: &str| {
            let mut text = MetricsText::default();
            metrics.write(Time(now * 1_000_000_000), &mut text);
            let text = String::from(text);
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.map(str::to_owned)
        };
        let lag = "capstan_upload_lag_seconds";
        assert_eq!(line(10, lag).as_deref(), Some("0.000"));
        assert_eq!(line(10, "capstan_oldest_unsent_timestamp_seconds"), None);
        metrics.upload.waiting_since.set(Time(7_000_000_000));
        assert_eq!(line(10, lag).as_deref(), Some("3.000"));
        // The clock was set back.
        assert_eq!(line(5, lag).as_deref(), Some("0.000"));
    }
}
