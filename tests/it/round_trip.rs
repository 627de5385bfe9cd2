//! Every capture there is: in by `capstan import`, out by `capstan export --order recorded`,
//! packet for packet the same.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use capstan_ingest::source::{self, Event, PacketSource};
use capstan_model::packet::Stamp;
use capstan_model::{LinkType, Time};

use crate::capstan::{Ended, capstan, captures, measure, shared};

/// What must be the same on both sides.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    link_type: LinkType,
    time: Option<Time>,
    ticks: Option<u64>,
    length: u32,
    data: Vec<u8>,
}

/// All packets up to the end or the damage.
fn packets(path: &Path) -> Vec<Seen> {
    let mut seen = Vec::new();
    let Ok(mut source) = source::open(path) else { return seen };
    let mut links = Vec::new();
    while let Ok(Some(event)) = source.next_event() {
        match event {
            Event::Interface(interface) => links.push(interface.link_type),
            Event::Packet(packet) => seen.push(Seen {
                link_type: links[packet.interface as usize],
                time: packet.stamp.time(),
                ticks: match packet.stamp {
                    Stamp::Raw { ticks, .. } => Some(ticks),
                    _ => None,
                },
                length: packet.length,
                data: packet.data.to_vec(),
            }),
            _ => {}
        }
    }
    seen
}

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
fn every_capture_comes_back_as_it_was() {
    let Some(shared) = shared() else { return };
    let names = captures(&shared);
    let (next, total) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let scratch = tempfile::tempdir().expect("a scratch folder");
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match round_trip(&shared, name, scratch.path()) {
                        Ok(packets) => {
                            total.fetch_add(packets, Ordering::Relaxed);
                        }
                        Err(why) => {
                            failures.lock().expect("no panic").push(format!("{name}: {why}"));
                            let _ = std::fs::remove_dir_all(scratch.path().join("store"));
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    let shown: Vec<String> =
        failures.iter().take(20).map(|line| line.chars().take(600).collect()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} differ:\n{}",
        failures.len(),
        names.len(),
        shown.join("\n")
    );
    println!("{} packets of {} captures", total.into_inner(), names.len());
}
