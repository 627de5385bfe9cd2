//! `capstan up`: the recorder in this process, the server in its own process, so that no query can end a
//! recording.
//!
//! * `apart`: the server process
//! * `keeper`: starts that process, and restarts it when it ends

mod apart;
mod keeper;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use capstan_ingest::metrics::RecorderMetrics;
use capstan_ingest::source::live::StopHandle;
use capstan_model::Failure;
use tokio::runtime::Runtime;

use self::keeper::Keeper;
use super::limited::Limited;
use super::metrics::{self, METRICS_OF_UP, MetricsPort};
use super::record::{self, Capture};
use super::rollup::RollupTask;
use super::serve::{Keeping, Ports};
use crate::interrupt;
use crate::output;
use crate::settings::Settings;
use crate::stopped::or_stopped;

/// The store where none is named.
const STORE: &str = "./capstan-store";

/// Record this machine and serve the recording
///
/// The quickest way to try Capstan: records every interface into a local folder and serves queries.
/// Runs until Ctrl-C, which seals and commits the captured packets. The server is a separate
/// process: if it ends, recording continues and the server is restarted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sudo capstan up
  sudo capstan up -i lo --store /tmp/try --commit-seconds 2")]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: Capture,
    #[command(flatten)]
    metrics: MetricsPort,
    /// Memory limit of the recorder, MiB; --memory is that of the server's queries [default: 992]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    record_memory: Option<u32>,
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    keeping: Keeping,
    #[command(flatten)]
    limits: Limited,
}

pub(crate) fn run(
    arguments: Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    if let Some(parent) = apart::parent() {
        return apart::run(&arguments, settings, runtime, parent);
    }
    // The server checks the same; here it is refused before anything is recorded.
    arguments.limits.of_server(settings, arguments.keeping.memory_mib(settings))?;
    let memory = arguments.record_memory;
    let memory = arguments.capture.memory(settings, "--record-memory", memory)?;
    let recording = Arc::new(OnceLock::<StopHandle>::new());
    let serving = Arc::new(OnceLock::<Arc<Keeper>>::new());
    let asked = interrupt::watch(runtime, interrupt::UNCOMMITTED, {
        let (recording, serving) = (Arc::clone(&recording), Arc::clone(&serving));
        move || {
            if let Some(handle) = recording.get() {
                handle.stop();
            }
            if let Some(keeper) = serving.get() {
                keeper.stop();
            }
        }
    })?;
    let opening = async {
        let listening = arguments.ports.listen(settings).await?;
        let metrics = arguments.metrics.listen(settings, Some(METRICS_OF_UP)).await?;
        let store = settings.open_or_create(Some(STORE)).await?;
        Ok::<_, Failure>((store, listening, metrics))
    };
    let (store, listening, listener) =
        runtime.block_on(or_stopped(&asked, "stopped before anything was recorded", opening))?;
    let (mut source, options) = arguments.capture.open(settings, memory)?;
    let also_stop_recording = source.stop_handle();
    let handle = recording.get_or_init(|| source.stop_handle());
    let keeper = Arc::new(Keeper::new(listening)?);
    serving.get_or_init(|| Arc::clone(&keeper));
    if asked.load(Ordering::Relaxed) {
        // Stop was requested before the recording started.
        handle.stop();
        keeper.stop();
    }
    runtime.spawn(record::tell_what_waits(store.clone(), Arc::clone(&asked)));
    output::tell(&format!("recording {} into {}", options.description, store.place()));
    let counted = Arc::<RecorderMetrics>::default();
    metrics::serve(listener, &store, &counted, runtime)?;
    // A recorder without a server is not what the user wants.
    let kept = Keeper::start(&keeper, move || also_stop_recording.stop())?;
    let rollup = RollupTask::start(&store, runtime);
    let recorded = record::watch(&store, &mut source, &options, &counted, runtime);
    rollup.stop(&asked, runtime);
    keeper.stop();
    let served = keeper::joined(kept);
    record::report(&recorded?)?;
    served
}
