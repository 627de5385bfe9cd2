//! The rollup, beside another command.

use std::sync::atomic::AtomicBool;

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::role;
use capstan_storage_engine::store::Store;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::host::host_name;
use crate::stopped::or_stopped_if;

const LATER: &str = "the store is unavailable: the next writer rolls up the pending commits";

/// Keeps the catalog rolled up, if no other process does.
#[derive(Debug)]
pub(super) struct RollupTask {
    store: Store,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl RollupTask {
    /// Begins.
    pub(super) fn start(store: &Store, runtime: &Runtime) -> RollupTask {
        let (stop, stopped) = oneshot::channel();
        let task = role::run_rollup(store.clone(), holder(), role::EVERY, stopped);
        RollupTask { store: store.clone(), stop, task: runtime.spawn(task) }
    }

    /// Rolls up the latest commits, unless another process will, and ends.
    pub(super) fn stop(self, asked: &AtomicBool, runtime: &Runtime) {
        drop(self.stop);
        let ended = async {
            self.task.await.map_err(|error| {
                Failure::caused_by(FailureKind::Other, "the rollup ended early", error)
            })
        };
        let away = || self.store.is_in_trouble();
        match runtime.block_on(or_stopped_if(asked, away, LATER, ended)) {
            Ok(()) => before_leaving(&self.store, asked, runtime),
            Err(failure) => tracing::warn!("{failure}"),
        }
    }
}

/// Rolls up the pending commits, unless a long-running process does.
pub(super) fn before_leaving(store: &Store, asked: &AtomicBool, runtime: &Runtime) {
    let (away, holder) = (|| store.is_in_trouble(), holder());
    let rollup = role::roll_up_before_leaving(store, &holder);
    if let Err(failure) = runtime.block_on(or_stopped_if(asked, away, LATER, rollup)) {
        // Readers find all of it in the logs; the next process that writes rolls it up.
        tracing::warn!(%failure, "pending commits are not rolled up into the catalog yet");
    }
}

/// Name of this process in the root, for people.
fn holder() -> String {
    format!("{} (process {})", host_name(), std::process::id())
}
