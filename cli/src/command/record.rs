//! `capstan record`.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use capstan_ingest::metrics::RecorderMetrics;
use capstan_ingest::record::{self, COMMIT_EVERY, RecordOptions, Recorded, Watch};
use capstan_ingest::source::live::{Interfaces, LiveOptions, LiveSource, StopHandle};
use capstan_model::{Failure, FailureKind, IngestShares, MemoryBudget};
use capstan_storage_engine::store::Store;
use clap::builder::NonEmptyStringValueParser;
use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use super::metrics::{self, MetricsPort};
use super::rollup::RollupTask;
use crate::host::host_name;
use crate::interrupt;
use crate::output::{self, bytes, count};
use crate::settings::Settings;
use crate::stopped::or_stopped;

const NOTHING: &str = "stopped before anything was recorded";

/// MiB that the capture rings of a recorder may have.
const RING_MIB: RangeInclusive<usize> = 1..=65_536;

/// Record this machine's interfaces
///
/// Records until Ctrl-C, which seals and commits the captured packets. Needs root or CAP_NET_RAW.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sudo capstan record --store /var/lib/capstan
  sudo capstan record --store s3://bucket/cluster -i eth0 -i cni0
  sudo capstan record --store ./store --duration 60")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) capture: Capture,
    #[command(flatten)]
    metrics: MetricsPort,
    /// Memory limit of this process, MiB [default: 992]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    memory: Option<u32>,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
}

/// What to capture on, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Capture {
    /// Interface; may be repeated [default: any, which means all interfaces]
    #[arg(short, long = "interface", value_name = "NAME",
          value_parser = NonEmptyStringValueParser::new())]
    interfaces: Vec<String>,
    /// MiB of memory for the kernel's capture rings, shared by all interfaces
    /// [default: a 14th of the recorder's memory beyond 96 MiB, usually 64]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ring_mib: Option<u32>,
    /// Seconds between commits: the maximum delay until a packet is visible to queries
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    commit_seconds: Option<u64>,
}

impl Capture {
    /// Shares of the recorder, of which `mib` is the memory, if it is given by `option`.
    pub(super) fn memory(
        &self,
        settings: &Settings,
        option: &str,
        mib: Option<u32>,
    ) -> Result<IngestShares, Failure> {
        let rings = match (self.ring_mib, settings.record.ring_mib) {
            (None, Some(mib)) if !RING_MIB.contains(&mib) => {
                let what = format!(
                    "[record] ring_mib is {mib} in the settings file; it must be {} to {}",
                    RING_MIB.start(),
                    RING_MIB.end()
                );
                return Err(Failure::new(FailureKind::Usage, what));
            }
            (given, set) => given.map(|mib| mib as usize).or(set),
        };
        let mib = mib.map(|mib| mib as usize).or(settings.record.memory_mib);
        recorder_shares(option, mib, rings.map(|mib| mib << 20))
    }

    /// Starts to listen: from here on every packet is stored or counted as lost.
    pub(super) fn open(
        &self,
        settings: &Settings,
        memory: IngestShares,
    ) -> Result<(LiveSource, RecordOptions), Failure> {
        let given = if self.interfaces.is_empty() {
            settings.record.interfaces.clone().unwrap_or_else(|| vec!["any".to_owned()])
        } else {
            self.interfaces.clone()
        };
        let description = given.join(", ");
        let mut options = LiveOptions::new(Interfaces::from_names(given));
        options.ring_bytes = memory.source;
        let source = LiveSource::open(options)?;
        let commit = self.commit_seconds.or(settings.record.commit_seconds);
        let options = RecordOptions {
            host: host_name(),
            description,
            commit_every: commit.map_or(COMMIT_EVERY, Duration::from_secs),
            memory,
        };
        Ok((source, options))
    }
}

/// Shares of a recorder, of which `mib` is the memory, if it is given by `option`. Without it, rings of a given size
/// replace the usual ones, and nothing else changes.
fn recorder_shares(
    option: &str,
    mib: Option<usize>,
    rings: Option<usize>,
) -> Result<IngestShares, Failure> {
    let Some(mib) = mib else {
        let usual = IngestShares::default();
        return Ok(IngestShares { source: rings.unwrap_or(usual.source), ..usual });
    };
    MemoryBudget::from_mib(mib).for_ingest(rings).map_err(|error| {
        let what = format!("{error}; {option} sets the memory, --ring-mib that of the source");
        Failure::new(FailureKind::Usage, what)
    })
}

pub(crate) fn run(
    arguments: Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let memory = arguments.capture.memory(settings, "--memory", arguments.memory)?;
    let recording = Arc::new(OnceLock::<StopHandle>::new());
    let asked = interrupt::watch(runtime, interrupt::UNCOMMITTED, {
        let recording = Arc::clone(&recording);
        move || {
            if let Some(handle) = recording.get() {
                handle.stop();
            }
        }
    })?;
    let opening = async {
        let listener = arguments.metrics.listen(settings, None).await?;
        Ok::<_, Failure>((settings.open_or_create(None).await?, listener))
    };
    let (store, listener) = runtime.block_on(or_stopped(&asked, NOTHING, opening))?;
    let (mut source, options) = arguments.capture.open(settings, memory)?;
    let by_clock = source.stop_handle();
    let stop = recording.get_or_init(|| source.stop_handle());
    if asked.load(Ordering::Relaxed) {
        // Stop was requested before the recording started.
        stop.stop();
    }
    runtime.spawn(tell_what_waits(store.clone(), Arc::clone(&asked)));
    if let Some(seconds) = arguments.duration {
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            by_clock.stop();
        });
    }
    let (what, place) = (&options.description, store.place());
    output::tell(&format!("recording {what} into {place}; Ctrl-C stops"));
    let counted = Arc::<RecorderMetrics>::default();
    metrics::serve(listener, &store, &counted, runtime)?;
    let rollup = RollupTask::start(&store, runtime);
    let recorded = watch(&store, &mut source, &options, &counted, runtime);
    rollup.stop(&asked, runtime);
    report(&recorded?)
}

/// Tells a user who stops a recording that it still waits for its store, if so.
pub(super) async fn tell_what_waits(store: Store, asked: Arc<AtomicBool>) {
    while !(asked.load(Ordering::Relaxed) && store.is_in_trouble()) {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    output::tell(
        "capstan: stopping: the store is unavailable; waiting to commit the captured packets. \
         Ctrl-C again ends at once and loses uncommitted packets",
    );
}

/// Records until the source is stopped, with a line on the terminal that tells how it goes.
pub(super) fn watch(
    store: &Store,
    source: &mut LiveSource,
    options: &RecordOptions,
    metrics: &Arc<RecorderMetrics>,
    runtime: &Runtime,
) -> Result<Recorded, Failure> {
    let bar = output::byte_bar(None);
    bar.set_prefix("recording");
    let line = Line(bar.clone());
    let ended = record::run(store, source, options, metrics, &line, runtime.handle());
    bar.finish_and_clear();
    ended
}

struct Line(ProgressBar);

impl Watch for Line {
    fn recording(&self, metrics: &RecorderMetrics) {
        let RecorderMetrics { capture, upload } = metrics;
        self.0.set_position(capture.bytes.get());
        self.0.set_message(format!(
            "{}, {} committed, {} lost",
            count(capture.packets.get(), "packet"),
            upload.packets.get(),
            capture.dropped.get()
        ));
    }
}

/// Tells what was recorded.
pub(super) fn report(recorded: &Recorded) -> Result<(), Failure> {
    output::report(&format!(
        "recorded {}, {} in {}, {} stored\n",
        count(recorded.packets, "packet"),
        bytes(recorded.captured_bytes),
        count(recorded.segments, "segment"),
        bytes(recorded.stored_bytes)
    ))?;
    if recorded.ended > 0 {
        output::tell(&format!(
            "  {} ended after a day without a commit; the recording continued in a new log each time",
            count(recorded.ended, "log")
        ));
    }
    if recorded.lost > 0 {
        output::tell(&format!(
            "the kernel dropped {}: the loss is recorded in the store; a larger --ring-mib helps",
            count(recorded.lost, "packet")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn rings_without_a_memory_limit_change_the_rings_alone() {
        let usual = IngestShares::default();
        for mib in [1, 64, 512, 65_536] {
            let shares = recorder_shares("--memory", None, Some(mib * MIB)).unwrap();
            assert_eq!(shares, IngestShares { source: mib * MIB, ..usual });
        }
        assert_eq!(recorder_shares("--memory", None, None).unwrap(), usual);
    }

    #[test]
    fn rings_are_part_of_a_given_memory_limit() {
        let shares = recorder_shares("--memory", Some(512), Some(128 * MIB)).unwrap();
        assert!(shares.source == 128 * MIB && shares.segment < IngestShares::default().segment);
        let refused = recorder_shares("--record-memory", Some(200), Some(128 * MIB)).unwrap_err();
        assert_eq!(refused.kind(), FailureKind::Usage);
        assert!(refused.to_string().contains("--record-memory sets the memory"), "{refused}");
    }
}
