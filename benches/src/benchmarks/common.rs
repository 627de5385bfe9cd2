//! Exports a large part of the capture: one host and port with many packets.

use capstan_model::{Failure, FailureKind};

use crate::bench::{Bench, Measured, Outcome};
use crate::export::export;
use crate::report::{Figure, Judged, Row, cpu_ratio, short};
use crate::{choose, peers};

/// Pairs looked at, from the most packets on.
const LOOKED_AT: u64 = 1_000;

pub(super) fn run(bench: &mut Bench) -> Result<Outcome, Failure> {
    if let Err(missing) = peers::require("tcpdump", "tcpdump") {
        return Ok(Outcome::Skipped(missing));
    }
    let store = bench.store()?;
    let pairs = choose::pairs(&bench.sql(&store, &choose::pairs_query(LOOKED_AT))?);
    let pair = choose::pair(&pairs, bench.pair).ok_or_else(|| {
        Failure::new(FailureKind::NotFound, "the capture has no plain TCP or UDP flow")
    })?;
    let port = pair.port.to_string();
    bench.say(&format!("the host and port are {} {port}", pair.ip));
    let filter = format!("host {} and port {port}", pair.ip);
    let both = export(bench, bench.rounds, &["--ip", &pair.ip, "--port", &port], &filter)?;
    let ratio = cpu_ratio(&both.ours, &both.peer);
    Ok(Outcome::Measured(Measured {
        rows: vec![Row {
            work: "export a busy host and port".to_owned(),
            ours: Figure::Runs(both.ours),
            peers: vec![("tcpdump -r".to_owned(), Figure::Runs(both.peer))],
            judged: Judged::new(ratio, "CPU ratio", 1.2, 0.9),
        }],
        notes: vec![format!(
            "the busy host and port are {} and {port}: {} packets, {} MB on the wire",
            pair.ip,
            both.packets,
            short(pair.size.bytes as f64 / 1e6)
        )],
    }))
}
