//! Folding while another command runs.

use capstan_storage_engine::catalog::role;
use capstan_storage_engine::store::Store;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::import::host_name;

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
    pub(super) fn stop(self, runtime: &Runtime) {
        drop(self.stop);
        if let Err(error) = runtime.block_on(self.task) {
            tracing::warn!(%error, "folding ended early");
        }
        before_leaving(&self.store, runtime);
    }
}

/// Folds what is there, unless somebody who stays does.
pub(super) fn before_leaving(store: &Store, runtime: &Runtime) {
    if let Err(failure) = runtime.block_on(role::fold_before_leaving(store, &holder())) {
        // All of it can be read from the logs; the next who writes folds it.
        tracing::warn!(%failure, "what was written is not folded into the catalog yet");
    }
}

/// Who folds, for people.
fn holder() -> String {
    format!("{} (process {})", host_name(), std::process::id())
}
