//! Every shared capture: `capstan import` and `capstan export --order recorded` return exactly its packets.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::capstan::{Ended, capstan, measure};
use crate::captures::{captures, packets, shared};
use crate::parallel::check_all;

/// Peak memory one command may have, MiB.
const MEMORY: u64 = 256;

fn round_trip(shared: &Path, name: &str, scratch: &Path) -> Result<usize, String> {
    let capture = shared.join("captures").join(name);
    let (store, back) = (scratch.join("store"), scratch.join("back.pcapng"));
    let log = scratch.join("log");
    let said = |ended: &Ended, what: &str| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        format!("{what} ended with {}: {text}", ended.status)
    };
    let imported = measure(capstan().arg("import").arg("--store").arg(&store).arg(&capture), &log);
    let before = packets(&capture);
    // 0: all of it; 6: damaged, everything before the damage.
    if !matches!(imported.status.code(), Some(0 | 6)) {
        return Err(said(&imported, "import"));
    }
    let exported = measure(
        capstan()
            .args(["export", "--order", "recorded", "--store"])
            .arg(&store)
            .arg("-o")
            .arg(&back),
        &log,
    );
    if exported.status.code() != Some(0) {
        return Err(said(&exported, "export"));
    }
    for (what, ended) in [("import", &imported), ("export", &exported)] {
        if ended.peak_mib > MEMORY {
            return Err(format!("{what} took {} MiB", ended.peak_mib));
        }
    }
    let after = packets(&back);
    if before.len() != after.len() {
        return Err(format!("{} packets became {}", before.len(), after.len()));
    }
    if let Some(at) = (0..before.len()).find(|at| before[*at] != after[*at]) {
        return Err(format!("packet {at}: {:?} became {:?}", before[at], after[at]));
    }
    std::fs::remove_dir_all(&store).map_err(|error| error.to_string())?;
    Ok(before.len())
}

#[test]
fn every_capture_round_trips() {
    let Some(shared) = shared() else { return };
    let (all, total) = (captures(&shared), AtomicUsize::new(0));
    check_all(&all, |capture, scratch| match round_trip(&shared, &capture.name, scratch) {
        Ok(packets) => {
            total.fetch_add(packets, Ordering::Relaxed);
            Ok(())
        }
        Err(why) => {
            let _ = std::fs::remove_dir_all(scratch.join("store"));
            Err(format!("{}: {why}", capture.name))
        }
    });
    println!("{} packets of {} captures", total.into_inner(), all.len());
}
