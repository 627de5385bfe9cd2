//! Records a busy interface into a folder or a bucket, while tcpdump, dumpcap and stenotype record it to files.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use capstan_model::{Failure, FailureKind, LinkType};
use serde_json::Value;

use super::ceph::Ceph;
use super::stenotype;
use crate::bench::{Bench, Measured, Outcome, remove};
use crate::measure::{Running, Usage};
use crate::network::{FAR, NEAR, Network};
use crate::pcap::{Pcap, count_packets};
use crate::peers;
use crate::report::{Figure, Judged, Row, median};
use crate::send::Sent;

/// Packets a second: 1 Gbit/s with frames of 625 bytes.
const RATE: u64 = 200_000;

/// For how long at most, seconds; a shorter capture is sent once.
const SECONDS: f64 = 20.0;

/// Memory of the kernel's ring or buffer, the same for all, MiB: what capstan takes by itself.
const RING_MIB: usize = 64;

/// The part of the rate that a sender must reach for a round to count.
const ENOUGH: f64 = 0.98;

/// How often a round is done again in which the sender was too slow.
const AGAIN: usize = 3;

/// Runs the sender before all else: a network does not wait for who wants the processor.
const FIRST: [&str; 3] = ["chrt", "--fifo", "1"];

/// How long the last packets may take to the recorder: stenotype writes what has not filled a block
/// after one second.
const SETTLE: Duration = Duration::from_secs(2);

/// What one program recorded.
struct Recording {
    usage: Usage,
    sent: Sent,
    stored: u64,
    /// Packets that it says itself were lost.
    admitted: u64,
}

impl Recording {
    fn dropped(&self) -> f64 {
        self.sent.packets.saturating_sub(self.stored) as f64
    }

    /// Processor seconds a million packets that were stored: dropping some makes nothing cheaper.
    fn cpu_a_million(&self) -> f64 {
        self.usage.cpu.as_secs_f64() * 1e6 / self.stored as f64
    }

    /// Packets sent a second.
    fn rate(&self) -> f64 {
        self.sent.packets as f64 / self.sent.seconds
    }
}

/// What Capstan records into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Folder,
    /// One of a server that runs beside it, on the same processors.
    Bucket,
}

impl Into {
    fn name(self) -> &'static str {
        match self {
            Into::Folder => "live",
            Into::Bucket => "bucket",
        }
    }

    /// Processor seconds a million packets: floor and aim.
    fn judged(self) -> (f64, f64) {
        match self {
            Into::Folder => (1.8, 1.2),
            Into::Bucket => (2.0, 1.3),
        }
    }
}

/// Who records.
#[derive(Clone, Copy)]
enum Recorder {
    Capstan,
    Tcpdump,
    Dumpcap,
    Stenotype,
}

impl Recorder {
    fn name(self) -> &'static str {
        match self {
            Recorder::Capstan => "capstan",
            Recorder::Tcpdump => "tcpdump -w",
            Recorder::Dumpcap => "dumpcap",
            Recorder::Stenotype => "stenotype",
        }
    }

    /// What it says once it hears everything.
    fn says(self) -> &'static str {
        match self {
            Recorder::Capstan => "recording ",
            Recorder::Tcpdump => "listening on",
            Recorder::Dumpcap => "File:",
            Recorder::Stenotype => stenotype::SAYS,
        }
    }

    /// The command that records into a file or store.
    fn command(self, bench: &Bench, into: &Path) -> Result<Command, Failure> {
        Ok(match self {
            Recorder::Capstan => {
                let mut record = bench.capstan("record", into);
                record.args(["-i", FAR, "--ring-mib", &RING_MIB.to_string()]);
                record
            }
            Recorder::Tcpdump => {
                let mut tcpdump = peers::tcpdump();
                // Its buffer is given in KiB.
                tcpdump.args(["-i", FAR, "-B", &(RING_MIB << 10).to_string(), "-w"]).arg(into);
                tcpdump
            }
            Recorder::Dumpcap => {
                let mut dumpcap = Command::new("dumpcap");
                let buffer = RING_MIB.to_string();
                dumpcap.args(["-q", "-P", "-i", FAR, "-B", &buffer, "-w"]).arg(into);
                dumpcap
            }
            Recorder::Stenotype => stenotype::command(FAR, RING_MIB, into)?,
        })
    }

    /// Ends it; what it used and said.
    fn end(self, mut recording: Running) -> Result<(Usage, String), Failure> {
        recording.ask_to_end()?;
        let ended = match self {
            Recorder::Stenotype => {
                recording.wait_until_it_says(stenotype::STORED)?;
                recording.kill()?
            }
            _ => recording.finish()?,
        };
        Ok((ended.usage, ended.said))
    }

    /// How many packets it has stored, and how many are committed as lost.
    fn stored(
        self,
        bench: &Bench,
        into: &Path,
        said: &str,
        inside: impl FnOnce(Command) -> Command,
    ) -> Result<(u64, u64), Failure> {
        match self {
            Recorder::Capstan => counts(&bench.status_by(into, inside)?).ok_or_else(|| {
                Failure::new(FailureKind::Other, "capstan status does not tell the packets")
            }),
            Recorder::Tcpdump | Recorder::Dumpcap => Ok((count_packets(into)?, 0)),
            Recorder::Stenotype => Ok((stenotype::stored(said)?, 0)),
        }
    }
}

/// The packets stored and those lost, as `capstan status` tells them.
fn counts(status: &Value) -> Option<(u64, u64)> {
    let losses = status["losses"].as_array()?.iter().map(|loss| loss["packets"].as_u64());
    Some((status["packets"].as_u64()?, losses.sum::<Option<u64>>()?))
}

pub(super) fn run(bench: &mut Bench) -> Result<Outcome, Failure> {
    run_into(bench, Into::Folder)
}

pub(super) fn run_into(bench: &mut Bench, what: Into) -> Result<Outcome, Failure> {
    if what == Into::Bucket && !Ceph::is_there() {
        return Ok(Outcome::Skipped(
            "run it as scripts/bench does, beside scripts/ceph".to_owned(),
        ));
    }
    let capture = bench.capture()?.path;
    let link_type = Pcap::open(&capture)?.link_type;
    if LinkType(link_type) != LinkType::ETHERNET {
        let why = format!("only Ethernet can be sent; the capture has link type {link_type}");
        return Ok(Outcome::Skipped(why));
    }
    let network = match Network::new() {
        Ok(network) => network,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    // Where real-time priority is not allowed it fails here, and not in the first round.
    if peers::said(FIRST[0], &[FIRST[1], FIRST[2], "true"]).is_none() {
        let why =
            "the sender needs real-time priority: root, and chrt (apt-get install util-linux)";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    let mut recorders = vec![Recorder::Capstan];
    let mut notes = Vec::new();
    for (recorder, program, package) in [
        (Recorder::Tcpdump, "tcpdump", "tcpdump"),
        (Recorder::Dumpcap, "dumpcap", "wireshark-common"),
        (Recorder::Stenotype, "stenotype", "stenographer"),
    ] {
        match peers::require(program, package) {
            Ok(()) => recorders.push(recorder),
            Err(missing) => notes.push(missing),
        }
    }
    let mut all: Vec<Vec<Recording>> = recorders.iter().map(|_| Vec::new()).collect();
    for round in 1..=bench.rounds {
        for (recorder, recordings) in recorders.iter().zip(&mut all) {
            let recording = record_in_time(bench, &network, &capture, *recorder, what)?;
            bench.say(&format!(
                "round {round} of {}: {} CPU {:.2} s, {} dropped",
                bench.rounds,
                recorder.name(),
                recording.usage.cpu.as_secs_f64(),
                recording.dropped()
            ));
            recordings.push(recording);
        }
    }
    let ours = &all[0];
    notes.extend(what_happened(ours, what.name()));
    let named = recorders.iter().map(|recorder| recorder.name().to_owned());
    let peers: Vec<(String, &Vec<Recording>)> = named.zip(&all).skip(1).collect();
    Ok(Outcome::Measured(Measured { rows: rows(ours, &peers, what), notes }))
}

/// What the rows do not say: what was sent, and whether what was dropped is known to be.
fn what_happened(ours: &[Recording], name: &str) -> Vec<String> {
    let each = |of: fn(&Sent) -> f64| median(ours.iter().map(|recording| of(&recording.sent)));
    let mut notes = vec![format!(
        "{name}: {:.0} packets/s and {:.0} Mbit/s for {:.1} s through a veth pair, the capture's own \
         frames; a ring or buffer of {RING_MIB} MiB each",
        each(|sent| sent.packets as f64 / sent.seconds),
        each(|sent| sent.bytes as f64 * 8.0 / sent.seconds / 1e6),
        each(|sent| sent.seconds),
    )];
    let left_out = each(|sent| sent.left_out as f64);
    if left_out > 0.0 {
        notes.push(format!("{name}: {left_out:.0} packets are no frames that can be sent"));
    }
    notes.extend(ours.iter().filter(|recording| recording.dropped() > 0.0).map(|recording| {
        format!(
            "{name}: of {} packets dropped in a round {} are in the store as lost",
            recording.dropped(),
            recording.admitted
        )
    }));
    notes
}

/// Records at the full rate. A round in which the sender did not reach it says nothing, and is done
/// again.
fn record_in_time(
    bench: &Bench,
    network: &Network,
    capture: &Path,
    recorder: Recorder,
    what: Into,
) -> Result<Recording, Failure> {
    for _ in 0..=AGAIN {
        let recording = record(bench, network, capture, recorder, what)?;
        if recording.rate() >= ENOUGH * RATE as f64 {
            return Ok(recording);
        }
        bench.say(&format!(
            "{}: the sender reached only {:.0} packets a second; CPU {:.2} s, {} dropped",
            recorder.name(),
            recording.rate(),
            recording.usage.cpu.as_secs_f64(),
            recording.dropped()
        ));
    }
    Err(Failure::new(
        FailureKind::Other,
        format!(
            "not measured: the sender does not reach {RATE} packets a second beside {}; let the \
             machine do nothing else, or take one with more cores",
            recorder.name()
        ),
    ))
}

/// Records what a sender sends from beginning to end.
fn record(
    bench: &Bench,
    network: &Network,
    capture: &Path,
    recorder: Recorder,
    what: Into,
) -> Result<Recording, Failure> {
    let mut into = bench.place("recorded");
    remove(&into)?;
    let logs = bench.place("server");
    std::fs::create_dir_all(&logs).map_err(|error| Failure::io("cannot make a folder", error))?;
    let ceph = match (what, recorder) {
        // It has room for one recording.
        (Into::Bucket, Recorder::Capstan) => {
            Some(Ceph::start(network, bench.place("ceph"), &logs)?)
        }
        _ => None,
    };
    if let Some(ceph) = &ceph {
        into = ceph.bucket()?;
    }
    // A bucket is reached from inside the network alone.
    let inside = |command: Command| match &ceph {
        Some(ceph) => network.command(&ceph.reached(command)),
        None => command,
    };
    let command = recorder.command(bench, &into)?;
    let command = match &ceph {
        Some(ceph) => ceph.reached(command),
        None => command,
    };
    let command = network.command(&command);
    let mut recording = Running::start(command, bench.logs())?;
    recording.wait_until_it_says(recorder.says())?;
    let this = std::env::current_exe()
        .map_err(|error| Failure::io("cannot tell where this program lies", error))?;
    let mut send = Command::new(FIRST[0]);
    send.args(&FIRST[1..]).arg(this);
    send.args(["send", "--interface", NEAR, "--rate", &RATE.to_string()]);
    send.args(["--seconds", &SECONDS.to_string(), "--capture"]).arg(capture);
    // Its files are named after the program: both are `ip` here, so they need folders of their own.
    let logs = bench.place("sender");
    std::fs::create_dir_all(&logs).map_err(|error| Failure::io("cannot make a folder", error))?;
    let output = Running::start(network.command(&send), &logs)?.finish()?.output;
    let sent: Sent = serde_json::from_str(&output).map_err(|error| {
        Failure::caused_by(FailureKind::Other, "the sender does not tell what it sent", error)
    })?;
    thread::sleep(SETTLE);
    let (usage, said) = recorder.end(recording)?;
    let (stored, admitted) = recorder.stored(bench, &into, &said, inside)?;
    if ceph.is_none() {
        remove(&into)?;
    }
    if stored > sent.packets {
        let what = format!("{} stored {stored} packets of {}", recorder.name(), sent.packets);
        return Err(Failure::new(FailureKind::Other, what));
    }
    Ok(Recording { usage, sent, stored, admitted })
}

/// What is judged: drops and memory by the worst round, processor time by the median.
fn rows(ours: &[Recording], peers: &[(String, &Vec<Recording>)], what: Into) -> Vec<Row> {
    fn usages(recordings: &[Recording]) -> Figure {
        Figure::Runs(recordings.iter().map(|recording| recording.usage).collect())
    }
    fn cpu(recordings: &[Recording]) -> f64 {
        median(recordings.iter().map(Recording::cpu_a_million))
    }
    fn most(recordings: &[Recording], of: impl Fn(&Recording) -> f64) -> f64 {
        recordings.iter().map(of).fold(0.0, f64::max)
    }
    let mib = |recording: &Recording| recording.usage.peak_bytes as f64 / f64::from(1 << 20);
    let (floor, aim) = what.judged();
    let row = |work: &str, figure: &dyn Fn(&[Recording]) -> Figure, judged: Judged| Row {
        work: format!("{}: {work}", what.name()),
        ours: figure(ours),
        peers: peers.iter().map(|(name, all)| (name.clone(), figure(all))).collect(),
        judged,
    };
    vec![
        row(
            "packets dropped, worst round",
            &|all| Figure::Number(most(all, Recording::dropped), "dropped"),
            Judged::new(most(ours, Recording::dropped), "dropped", 0.0, 0.0),
        ),
        row(
            "processor time",
            &usages,
            Judged::new(cpu(ours), "CPU s a million packets", floor, aim),
        ),
        row(
            "peak memory, worst round",
            &|all| Figure::Number(most(all, mib), "MiB"),
            Judged::new(most(ours, mib), "MiB", 512.0, 384.0),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(cpu: u64, mib: u64, stored: u64) -> Recording {
        Recording {
            usage: Usage {
                cpu: Duration::from_secs(cpu),
                wall: Duration::from_secs(20),
                peak_bytes: mib << 20,
            },
            sent: Sent { packets: 4_000_000, bytes: 0, left_out: 0, refused: 0, seconds: 20.0 },
            stored,
            admitted: 0,
        }
    }

    #[test]
    fn the_worst_round_counts_for_drops_and_memory_and_the_median_for_processor_time() {
        let ours = [
            recording(4, 100, 4_000_000),
            recording(8, 300, 3_999_999),
            recording(6, 200, 4_000_000),
        ];
        let values: Vec<f64> =
            rows(&ours, &[], Into::Folder).iter().map(|row| row.judged.value).collect();
        assert_eq!(values, [1.0, 1.5, 300.0]);
        assert_eq!(ours[0].rate(), 200_000.0);
    }

    #[test]
    fn losses_are_summed() {
        let status = serde_json::json!({"packets": 5, "losses": [{"packets": 2}, {"packets": 3}]});
        assert_eq!(counts(&status), Some((5, 5)));
        assert_eq!(counts(&serde_json::json!({"packets": 5, "losses": []})), Some((5, 0)));
        assert_eq!(counts(&serde_json::json!({})), None);
    }
}
