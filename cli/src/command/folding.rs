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
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Folding {
    /// Begins.
    pub(super) fn start(store: &Store, runtime: &Runtime) -> Folding {
        let (stop, stopped) = oneshot::channel();
        let task = role::keep_folding(store.clone(), holder(), role::EVERY, stopped);
        Folding { stop, task: runtime.spawn(task) }
    }

    /// Folds what was written last, and ends.
    pub(super) fn stop(self, runtime: &Runtime) {
        drop(self.stop);
        if let Err(error) = runtime.block_on(self.task) {
            tracing::warn!(%error, "folding ended early; another process does it");
        }
    }
}

/// Who folds, for people.
pub(super) fn holder() -> String {
    format!("{} (process {})", host_name(), std::process::id())
}
