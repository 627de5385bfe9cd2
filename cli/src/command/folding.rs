//! Folding while another command runs.

use std::sync::atomic::AtomicBool;

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::role;
use capstan_storage_engine::store::Store;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::import::host_name;
use crate::stopped::or_stopped_if;

const LATER: &str = "the store is away: the next who writes folds what was written";

/// Keeps the catalog folded, if nobody else does.
#[derive(Debug)]
pub(super) struct Folding {
    store: Store,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Folding {
    /// Begins.
    pub(super) fn start(store: &Store, runtime: &Runtime) -> Folding {
        let (stop, stopped) = oneshot::channel();
        let task = role::keep_folding(store.clone(), holder(), role::EVERY, stopped);
        Folding { store: store.clone(), stop, task: runtime.spawn(task) }
    }

    /// Folds what was written last, unless another process will, and ends.
    pub(super) fn stop(self, asked: &AtomicBool, runtime: &Runtime) {
        drop(self.stop);
        let ended = async {
            self.task.await.map_err(|error| {
                Failure::caused_by(FailureKind::Other, "folding ended early", error)
            })
        };
        let away = || self.store.is_in_trouble();
        match runtime.block_on(or_stopped_if(asked, away, LATER, ended)) {
            Ok(()) => before_leaving(&self.store, asked, runtime),
            Err(failure) => tracing::warn!("{failure}"),
        }
    }
}

/// Folds what is there, unless somebody who stays does.
pub(super) fn before_leaving(store: &Store, asked: &AtomicBool, runtime: &Runtime) {
    let (away, holder) = (|| store.is_in_trouble(), holder());
    let folding = role::fold_before_leaving(store, &holder);
    if let Err(failure) = runtime.block_on(or_stopped_if(asked, away, LATER, folding)) {
        // All of it can be read from the logs; the next who writes folds it.
        tracing::warn!(%failure, "what was written is not folded into the catalog yet");
    }
}

/// Who folds, for people.
fn holder() -> String {
    format!("{} (process {})", host_name(), std::process::id())
}
