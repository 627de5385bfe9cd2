//! `capstan up`: the recorder in this process, the server in one of its own, so that nothing that is
//! asked can end a recording.
//!
//! * `apart`: the process of the server, from the inside
//! * `keeper`: starts that process, and starts it again when it ends

mod apart;
mod keeper;

use std::sync::Arc;

use capstan_model::Failure;
use tokio::runtime::Runtime;

use self::keeper::Keeper;
use super::folding::Folding;
use super::limited::Limited;
use super::record::{self, Capture};
use super::serve::{Keeping, Ports};
use crate::interrupt;
use crate::output;
use crate::settings::Settings;

/// The store where none is named.
const STORE: &str = "./capstan-store";

/// Record this machine and serve: both at once
///
/// The quickest way to try Capstan: records every interface into a local folder
/// and answers questions about it. Runs until Ctrl-C, which seals and commits
/// what was captured. The server is a process of its own: whatever happens to it,
/// recording goes on and it is started again.
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
    if let Some(parent) = apart::parent() {
        return apart::run(&arguments, settings, runtime, parent);
    }
    let (store, listening) = runtime.block_on(async {
        let listening = arguments.ports.listen(settings).await?;
        let store = settings.open_or_create(Some(STORE)).await?;
        Ok::<_, Failure>((store, listening))
    })?;
    let (mut source, options) = arguments.capture.open(settings)?;
    let stop_recording = source.stop_handle();
    let also_stop_recording = source.stop_handle();
    let keeper = Arc::new(Keeper::new(listening)?);
    let stop_serving = Arc::clone(&keeper);
    interrupt::watch(runtime, move || {
        stop_recording.stop();
        stop_serving.stop();
    })?;
    output::tell(&format!("recording {} into {}", options.description, store.place()));
    // A recorder that nobody could ever ask is not what was wanted.
    let serving = Keeper::start(&keeper, move || also_stop_recording.stop())?;
    let folding = Folding::start(&store, runtime);
    let recorded = record::watch(&store, &mut source, &options, runtime);
    folding.stop(runtime);
    keeper.stop();
    let served = keeper::joined(serving);
    record::report(&recorded?)?;
    served
}
