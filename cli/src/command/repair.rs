//! `capstan repair`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::repair::{self, Action, Options, Report, Watch};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::host::host_name;
use crate::interrupt;
use crate::output::{self, bytes, count};
use crate::settings::Settings;
use crate::stopped::{or_stopped, or_stopped_if};

/// Make a damaged store readable again
///
/// Rebuilds the rolled-up catalog from the logs, and names segments of lost commits again from
/// their own index layers. Changes nothing that was recorded, and removes segments only with
/// --remove-waste. Coverage and losses of lost commits stay unknown.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan verify --store ./store
  capstan repair --store ./store --dry-run
  capstan repair --store s3://bucket/prefix
  capstan repair --store ./store --nobody-writes --remove-waste

It can run while others record, and again after an interruption.

Exit codes: 0 success, 6 something cannot be repaired, 7 a newer version wrote some of the
catalog, 130 stopped by Ctrl-C.")]
pub(crate) struct Arguments {
    /// Only report what would be done
    #[arg(long)]
    dry_run: bool,
    /// Declare that no process records or imports: also name orphan segments that are less than a
    /// day old
    #[arg(long)]
    nobody_writes: bool,
    /// Remove orphans of interrupted uploads and imports, and duplicates of stored packets
    #[arg(long)]
    remove_waste: bool,
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
struct Line {
    action: &'static str,
    what: String,
}

#[derive(Serialize)]
struct Summary {
    dry_run: bool,
    repaired: u64,
    segments_named: u64,
    packets_named: u64,
    segments_left: u64,
    bytes_left: u64,
    segments_removed: u64,
    bytes_removed: u64,
    cannot_be_repaired: u64,
    stopped: bool,
}

/// Shows what is done as it is done.
struct Shown {
    format: Format,
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    /// Why something could not be shown.
    failed: Mutex<Option<Failure>>,
}

impl Shown {
    fn line(&self, action: &'static str, what: String) {
        let line = match self.format {
            Format::Text => Ok(format!("{}\n", output::name(&what))),
            Format::Json => output::json_line(&Line { action, what }),
        };
        let shown = self.bar.suspend(|| line.and_then(|line| output::report(&line)));
        if let Err(failure) = shown {
            self.stop.store(true, Ordering::Relaxed);
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        }
    }
}

impl Watch for Shown {
    fn begin(&self, what: &'static str, steps: u64) {
        self.bar.set_message(what);
        self.bar.set_length(steps);
        self.bar.set_position(0);
    }

    fn step(&self) {
        self.bar.inc(1);
    }

    fn did(&self, action: &Action) {
        self.line(name(action), action.to_string());
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

const STOPPED: &str = "stopped before the repair was complete: run it again to continue";

pub(crate) fn run(
    arguments: &Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let options = Options {
        dry_run: arguments.dry_run,
        nobody_writes: arguments.nobody_writes,
        remove_waste: arguments.remove_waste,
        host: host_name(),
    };
    let stop = interrupt::watch(runtime, "what was repaired stays; run it again", || {
        output::tell("capstan: stopping")
    })?;
    let (bar, failed) = (output::step_bar(), Mutex::default());
    let shown = Shown { format: arguments.format, bar, stop, failed };
    let report: Result<Report, Failure> = runtime.block_on(async {
        let opening = settings.open_damaged(options.dry_run);
        let (store, format) = or_stopped(&shown.stop, STOPPED, opening).await?;
        if format {
            shown.line("format", "format: written again".to_owned());
        }
        // Between two steps it says itself how far it came.
        let (away, repairing) =
            (|| store.is_in_trouble(), repair::repair(&store, &options, &shown));
        let mut report = or_stopped_if(&shown.stop, away, STOPPED, repairing).await?;
        report.repaired += u64::from(format);
        Ok(report)
    });
    shown.bar.finish_and_clear();
    if let Some(failure) = shown.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure);
    }
    let report = report?;
    match arguments.format {
        Format::Text => output::report(&summary(&report, &options))?,
        Format::Json => output::report(&output::json_line(&Summary::of(&report, &options))?)?,
    }
    judge(&report)
}

/// What kind of action it is, for programs.
fn name(action: &Action) -> &'static str {
    match action {
        Action::Boundary(_) => "boundary",
        Action::Checkpoint(..) => "checkpoint",
        Action::NoCheckpoint(..) => "no-checkpoint",
        Action::Generation(..) => "generation",
        Action::Root { .. } => "root",
        Action::Manifest { .. } => "manifest",
        Action::Removed(_) => "removed",
        Action::Needless(_) => "removed",
        Action::Writer(..) => "writer",
        Action::NoWriter(..) => "no-writer",
        Action::Replaced(_) => "replaced",
        Action::Unresolved(_) => "unresolved",
        Action::Incomplete { .. } => "incomplete",
        Action::Adopted { .. } => "named",
        Action::Left { .. } => "left",
        Action::Waste { .. } => "waste",
    }
}

impl Summary {
    fn of(report: &Report, options: &Options) -> Summary {
        Summary {
            dry_run: options.dry_run,
            repaired: report.repaired,
            segments_named: report.adopted.0,
            packets_named: report.adopted.1,
            segments_left: report.left.0,
            bytes_left: report.left.1,
            segments_removed: report.removed.0,
            bytes_removed: report.removed.1,
            cannot_be_repaired: report.beyond,
            stopped: report.stopped,
        }
    }
}

fn summary(report: &Report, options: &Options) -> String {
    let (segments, packets) = report.adopted;
    let mut out = match (report.repaired, segments) {
        (0, 0) if report.beyond > 0 => "nothing could be repaired\n".to_owned(),
        (0, 0) => "nothing needs repair\n".to_owned(),
        (repaired, 0) => format!("{} of the catalog repaired\n", count(repaired, "object")),
        (repaired, segments) => format!(
            "{} of the catalog repaired; {} with {} named again\n",
            count(repaired, "object"),
            count(segments, "segment"),
            count(packets, "packet")
        ),
    };
    let mut add = |(segments, of): (u64, u64), what: &str| {
        if segments > 0 {
            out += &format!("{}, {}, {what}\n", count(segments, "segment"), bytes(of));
        }
    };
    add(report.left, "orphaned: left alone");
    add(report.removed, "no longer needed: removed");
    if options.dry_run {
        out += "dry run: nothing was changed\n";
    }
    out
}

/// How the repair ends.
fn judge(report: &Report) -> Result<(), Failure> {
    if report.stopped {
        return Err(Failure::new(FailureKind::Interrupted, STOPPED));
    }
    if report.beyond > 0 {
        let what = format!(
            "{} cannot be repaired: capstan verify says what is still readable",
            count(report.beyond, "object")
        );
        return Err(Failure::new(FailureKind::Damaged, what));
    }
    Ok(())
}
