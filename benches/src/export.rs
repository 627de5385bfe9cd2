//! Exports part of the store, and lets tcpdump search the whole capture for the same packets.

use std::process::Command;

use capstan_model::{Failure, FailureKind};

use crate::bench::{Bench, alternate, remove};
use crate::measure::Usage;
use crate::pcap::count_packets;
use crate::peers;

/// What both did.
pub(crate) struct Exported {
    pub(crate) ours: Vec<Usage>,
    pub(crate) peer: Vec<Usage>,
    /// Packets that each wrote.
    pub(crate) packets: u64,
}

/// Runs both in turn, `capstan export` with these options and `tcpdump -r` with this filter.
///
/// # Errors
/// One of them fails; they write different numbers of packets.
pub(crate) fn export(
    bench: &mut Bench,
    rounds: usize,
    options: &[&str],
    filter: &str,
) -> Result<Exported, Failure> {
    let store = bench.store()?;
    let capture = bench.capture()?;
    let (our_file, their_file) = (bench.place("ours.pcapng"), bench.place("theirs.pcap"));
    let ours = |bench: &mut Bench| {
        remove(&our_file)?;
        let mut export = bench.capstan("export", &store);
        export.args(options).arg("-o").arg(&our_file);
        Ok(bench.run(export)?.usage)
    };
    let theirs = |bench: &mut Bench| {
        remove(&their_file)?;
        let mut tcpdump: Command = peers::tcpdump();
        tcpdump.arg("-r").arg(&capture.path).arg("-w").arg(&their_file).arg(filter);
        Ok(bench.run(tcpdump)?.usage)
    };
    let (ours, peer) = alternate(rounds, bench, ours, ("tcpdump", theirs))?;
    let (packets, theirs) = (count_packets(&our_file)?, count_packets(&their_file)?);
    remove(&our_file)?;
    remove(&their_file)?;
    if packets != theirs {
        return Err(Failure::new(
            FailureKind::Other,
            format!("capstan exported {packets} packets, tcpdump found {theirs}: '{filter}'"),
        ));
    }
    Ok(Exported { ours, peer, packets })
}
