//! Ctrl-C and SIGTERM: the first asks to stop cleanly, the second ends at once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use capstan_model::{Failure, FailureKind};
use tokio::signal::unix::{SignalKind, signal};

/// What a process that writes packets leaves undone when it ends at once.
pub(crate) const UNCOMMITTED: &str = "uncommitted packets are not in the store";

/// Watches for Ctrl-C. `on_first` runs once, on the runtime, when it comes. The second Ctrl-C ends the process, and
/// `undone` says what that leaves undone.
pub(crate) fn watch(
    runtime: &tokio::runtime::Runtime,
    undone: &'static str,
    on_first: impl FnOnce() + Send + 'static,
) -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let failed = |error| Failure::io("cannot watch for Ctrl-C", error);
    let _guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    runtime.spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        flag.store(true, Ordering::Relaxed);
        on_first();
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        eprintln!("capstan: ended at once: {undone}");
        std::process::exit(i32::from(FailureKind::Interrupted.exit_code()));
    });
    Ok(stop)
}

/// Does `work` until it is done, or until Ctrl-C, which is heard whatever the work waits for.
///
/// # Errors
/// What the work says; of kind `Interrupted`, with `words`, if it was stopped.
pub(crate) fn until<T>(
    runtime: &tokio::runtime::Runtime,
    words: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    watch(runtime, "the answer is incomplete", move || drop(stop))?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            // Told by the sender's end.
            _ = stopped => Err(Failure::new(FailureKind::Interrupted, words)),
            done = work => done,
        }
    })
}
