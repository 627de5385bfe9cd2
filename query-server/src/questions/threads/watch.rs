//! A watchdog thread that checks running queries every few milliseconds while there are any.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Shared;

/// Interval of the checks. In this time a processor fills some 20 MiB.
const EVERY: Duration = Duration::from_millis(10);

/// Starts the watchdog; it ends when no more queries are accepted.
pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let shared = Arc::downgrade(shared);
    let thread = std::thread::Builder::new().name("capstan-watch".to_owned());
    let watching = thread.spawn(move || watch(&shared))?;
    // The thread ends by itself, and is not detached: see `threads`.
    std::mem::forget(watching);
    Ok(())
}

fn watch(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        if !shared.look() {
            return;
        }
        drop(shared);
        std::thread::sleep(EVERY);
    }
}
