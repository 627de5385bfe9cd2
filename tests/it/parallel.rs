//! The same check over many things, on all processors.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Checks each item and fails with what was wrong, the first twenty in words. A check gets a
/// scratch folder that is its worker's own.
pub(crate) fn check_all<T: Sync>(
    items: &[T],
    check: impl Fn(&T, &Path) -> Result<(), String> + Sync,
) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let scratch = tempfile::tempdir().expect("a scratch folder");
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = check(item, scratch.path()) {
                        failures.lock().expect("no panic").push(why);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    let shown: Vec<String> =
        failures.iter().take(20).map(|line| line.chars().take(600).collect()).collect();
    let (wrong, all) = (failures.len(), items.len());
    assert!(failures.is_empty(), "{wrong} of {all} differ:\n{}", shown.join("\n"));
}
