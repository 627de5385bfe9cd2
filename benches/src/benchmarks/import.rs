//! Imports the whole capture, against a compressor that does not parse it.

use std::process::Command;

use capstan_model::Failure;

use crate::bench::{Bench, Measured, Outcome, alternate, remove};
use crate::peers;
use crate::report::{Figure, Judged, Row, cpu_ratio};

pub(super) fn run(bench: &mut Bench) -> Result<Outcome, Failure> {
    if let Err(missing) = peers::require("lz4", "lz4") {
        return Ok(Outcome::Skipped(missing));
    }
    let capture = bench.capture()?;
    let compressed = bench.place("capture.lz4");
    let (ours, peer) = alternate(
        bench.rounds,
        bench,
        Bench::import,
        ("lz4", |bench| {
            remove(&compressed)?;
            let mut lz4 = Command::new("lz4");
            lz4.args(["-1", "-f", "-q"]).arg(&capture.path).arg(&compressed);
            Ok(bench.run(lz4)?.usage)
        }),
    )?;
    remove(&compressed)?;
    let ratio = cpu_ratio(&ours, &peer);
    Ok(Outcome::Measured(Measured {
        rows: vec![Row {
            work: "import a capture".to_owned(),
            ours: Figure::Runs(ours),
            peers: vec![("lz4 -1".to_owned(), Figure::Runs(peer))],
            judged: Judged::new(ratio, "CPU ratio", 1.3, 1.0),
        }],
        notes: vec![],
    }))
}
