//! Exports the few packets of one host, in a new process that has nothing cached.

use capstan_model::{Failure, FailureKind};

use crate::bench::{Bench, Measured, Outcome};
use crate::export::export;
use crate::report::{Figure, Judged, Row, median_usage};
use crate::{choose, peers};

/// A host with no more packets than this is rare.
const FEW: u64 = 50;

/// Hosts looked at, from the rarest on.
const LOOKED_AT: u64 = 10_000;

/// A run is short, so there are more of them.
const LEAST_ROUNDS: usize = 5;

pub(super) fn run(bench: &mut Bench) -> Result<Outcome, Failure> {
    if let Err(missing) = peers::require("tcpdump", "tcpdump") {
        return Ok(Outcome::Skipped(missing));
    }
    let store = bench.store()?;
    let hosts = choose::hosts(&bench.sql(&store, &choose::rare_hosts_query(LOOKED_AT))?);
    let host = choose::rare_host(&hosts, FEW)
        .ok_or_else(|| Failure::new(FailureKind::NotFound, "the capture has no plain IP host"))?;
    bench.say(&format!("the rare host is {}", host.ip));
    let rounds = bench.rounds.max(LEAST_ROUNDS);
    let both = export(bench, rounds, &["--ip", &host.ip], &format!("host {}", host.ip))?;
    let wall = median_usage(&both.ours).wall.as_secs_f64();
    Ok(Outcome::Measured(Measured {
        rows: vec![Row {
            work: "export a rare host".to_owned(),
            ours: Figure::Runs(both.ours),
            peers: vec![("tcpdump -r".to_owned(), Figure::Runs(both.peer))],
            judged: Judged::new(wall, "s wall", 0.2, 0.1),
        }],
        notes: vec![format!("the rare host is {}, {} packets", host.ip, both.packets)],
    }))
}
