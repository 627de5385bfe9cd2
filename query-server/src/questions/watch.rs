//! A thread that looks at the questions that run, every few milliseconds while there are any.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::threads::Shared;

/// How often it looks. In this time a processor fills some 20 MiB.
const EVERY: Duration = Duration::from_millis(10);

/// Starts to look, until nobody asks any more.
pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let shared = Arc::downgrade(shared);
    let thread = std::thread::Builder::new().name("capstan-watch".to_owned());
    let watching = thread.spawn(move || watch(&shared))?;
    // It ends by itself, and is not detached: see `threads`.
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
