//! `capstan verify`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::segment::Layers;
use capstan_storage_engine::verify::{self, Finding, Options, Report, Severity, Watch};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::window::Window;
use crate::interrupt;
use crate::output::{self, bytes, count};
use crate::settings::Settings;
use crate::stopped::{or_stopped, or_stopped_if};

/// Check the integrity of a store
///
/// Every object that the catalog names must exist with its committed length. Every log entry must
/// follow from the one before. Every index layer must be the committed one. Orphans (objects that
/// no commit names) are listed. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan verify --store ./store
  capstan verify --store s3://bucket/prefix --deep --from -1d
  capstan verify --store ./store --deep --format json

Exit codes: 0 no damage (orphans are harmless), 6 something is damaged or lost,
7 something was written by a newer version, 130 stopped by Ctrl-C.")]
pub(crate) struct Arguments {
    /// Read every byte: payload and tables too
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    window: Window,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object per line; the last one is a summary
    Json,
}

#[derive(Serialize)]
struct Line<'a> {
    severity: &'static str,
    object: &'a str,
    what: String,
    still_readable: Option<&'static str>,
}

#[derive(Serialize)]
struct Summary {
    logs: u64,
    commits: u64,
    commits_truncated: u64,
    catalog_objects: u64,
    segments: u64,
    objects: u64,
    bytes_read: u64,
    findings: std::collections::BTreeMap<&'static str, u64>,
    orphans: u64,
    orphan_bytes: u64,
    stopped_in: Option<String>,
}

/// Shows findings as they come.
struct Shown {
    format: Format,
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    /// Why something could not be shown.
    failed: Mutex<Option<Failure>>,
}

impl Watch for Shown {
    fn begin(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }

    fn read(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn found(&self, finding: &Finding) {
        let line = match self.format {
            Format::Text => Ok(text(finding)),
            Format::Json => json(finding),
        };
        let shown = self.bar.suspend(|| line.and_then(|line| output::report(&line)));
        if let Err(failure) = shown {
            self.stop.store(true, Ordering::Relaxed);
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

const NOTHING: &str = "stopped before anything was checked";
const AWAY: &str = "stopped because the store is unavailable: start again";

pub(crate) fn run(
    arguments: &Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let options =
        Options { range: arguments.window.range()?, deep: arguments.deep, layers: Layers::KNOWN };
    let stop = interrupt::watch(runtime, "the rest of the store was not checked", || {
        output::tell("capstan: stopping")
    })?;
    let (bar, failed) = (output::byte_bar(Some(0)), Mutex::default());
    let shown = Shown { format: arguments.format, bar, stop, failed };
    let report = runtime.block_on(async {
        let store = or_stopped(&shown.stop, NOTHING, settings.open()).await?;
        // Between two objects it says itself how far it came.
        let (away, checking) = (|| store.is_in_trouble(), verify::verify(&store, &options, &shown));
        or_stopped_if(&shown.stop, away, AWAY, checking).await
    });
    shown.bar.finish_and_clear();
    if let Some(failure) = shown.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure);
    }
    let report = report?;
    match arguments.format {
        Format::Text => output::report(&summary(&report, arguments.deep))?,
        Format::Json => output::report(&output::json_line(&Summary::of(&report))?)?,
    }
    judge(&report)
}

fn text(finding: &Finding) -> String {
    let words = finding.to_string();
    let mut text = format!("{:<8} {}\n", finding.severity().name(), output::name(&words));
    if let Some(readable) = finding.readable() {
        text += &format!("         still readable of this segment: {readable}\n");
    }
    text
}

fn json(finding: &Finding) -> Result<String, Failure> {
    output::json_line(&Line {
        severity: finding.severity().name(),
        object: &finding.object,
        what: finding.to_string(),
        still_readable: finding.readable(),
    })
}

impl Summary {
    fn of(report: &Report) -> Summary {
        let findings = report.findings.iter().map(|(severity, count)| (severity.name(), *count));
        Summary {
            logs: report.logs,
            commits: report.commits,
            commits_truncated: report.truncated,
            catalog_objects: report.rolled_up,
            segments: report.segments,
            objects: report.objects,
            bytes_read: report.bytes,
            findings: findings.collect(),
            orphans: report.orphans.0,
            orphan_bytes: report.orphans.1,
            stopped_in: report.stopped_in.map(|hour| hour.path()),
        }
    }
}

fn summary(report: &Report, deep: bool) -> String {
    let mut out = format!(
        "checked {} of {}, {} of the rolled-up catalog, {}, {}; read {} of them\n",
        count(report.commits, "commit"),
        count(report.logs, "log"),
        count(report.rolled_up, "object"),
        count(report.segments, "segment"),
        count(report.objects, "object"),
        bytes(report.bytes)
    );
    if report.truncated > 0 {
        out += &format!(
            "{} of truncated logs were removed earlier: manifests have their facts\n",
            count(report.truncated, "commit")
        );
    }
    if !deep {
        out += "payload and tables were not read: --deep reads them\n";
    }
    let (orphans, orphan_bytes) = report.orphans;
    if orphans > 0 {
        out += &format!(
            "orphans (no commit names them): {}, {}\n",
            count(orphans, "object"),
            bytes(orphan_bytes)
        );
    }
    if report.stopped_in.is_none() && report.worst().is_none_or(|worst| worst == Severity::Note) {
        out +=
            if deep { "no damage found: every byte is as written\n" } else { "no damage found\n" };
    }
    out
}

/// How the check ends.
fn judge(report: &Report) -> Result<(), Failure> {
    let found = |severity| report.findings.get(&severity).copied().unwrap_or(0);
    if let Some(kind) = report.worst().and_then(Severity::failure) {
        let told = [Severity::Lost, Severity::Damaged, Severity::TooNew]
            .map(|severity| (found(severity), severity.name()))
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, name)| format!("{number} {name}"))
            .collect::<Vec<_>>()
            .join(", ");
        return Err(Failure::new(kind, format!("the check found problems: {told}")));
    }
    let Some(hour) = report.stopped_in else { return Ok(()) };
    let go_on = match hour.range() {
        Some(range) => format!("continue with --from {}", range.start),
        None => "start again".to_owned(),
    };
    Err(Failure::new(
        FailureKind::Interrupted,
        format!("stopped before the check was complete: {go_on}"),
    ))
}
