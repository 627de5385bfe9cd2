//! `capstan up`.

use capstan_model::Failure;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::folding::Folding;
use super::limited::Limited;
use super::record::{self, Capture};
use super::serve::{self, Keeping, Ports};
use crate::interrupt;
use crate::settings::Settings;

/// The store where none is named.
const STORE: &str = "./capstan-store";

/// Record this machine and serve: both at once
///
/// The quickest way to try Capstan: records every interface into a local folder
/// and answers questions about it. Runs until Ctrl-C, which seals and commits
/// what was captured.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sudo capstan up
  sudo capstan up -i lo --store /tmp/try --commit-seconds 2")]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: Capture,
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
    let (store, cache, listening) = runtime.block_on(async {
        let listening = arguments.ports.listen(settings).await?;
        let cache = arguments.keeping.open(settings).await?;
        let store = settings.open_or_create(Some(STORE)).await?;
        Ok::<_, Failure>((store, cache, listening))
    })?;
    let (mut source, options) = arguments.capture.open(settings)?;
    let stop_recording = source.stop_handle();
    let also_stop_recording = source.stop_handle();
    let (stop, stopped) = watch::channel(false);
    let stop_serving = stop.clone();
    interrupt::watch(runtime, move || {
        stop_recording.stop();
        stop_serving.send_replace(true);
    })?;
    eprintln!("recording {} into {}", options.description, store.place());
    let limits = arguments.limits.of_server(settings);
    let serving = runtime.spawn({
        let store = store.clone();
        async move {
            let ended = serve::serve(listening, store, cache, limits, stopped).await;
            // A recorder nobody can ask is not what was wanted.
            also_stop_recording.stop();
            ended
        }
    });
    let folding = Folding::start(&store, runtime);
    let recorded = record::watch(&store, &mut source, &options, runtime);
    folding.stop(runtime);
    stop.send_replace(true);
    let served = runtime.block_on(serving).map_err(|error| {
        Failure::caused_by(capstan_model::FailureKind::Other, "the server crashed", error)
    });
    record::report(&recorded?)?;
    served?
}
