//! Reads the few packets of one host from a bucket where each request takes 20 ms to its first byte: by an export and
//! by SQL, each in a new process that has nothing cached.

use std::process::Command;

use capstan_model::{Failure, FailureKind};

use crate::bench::{Bench, Measured, Outcome, remove, rows};
use crate::choose::{self, Host};
use crate::distant::{Asked, Distant};
use crate::measure::Usage;
use crate::pcap::count_packets;
use crate::report::{Figure, Judged, Row, median_usage, short};

/// The host has about so many packets.
const PACKETS: u64 = 2_000;

/// Hosts looked at, from the rarest on.
const LOOKED_AT: u64 = 10_000;

/// Bytes a segment that such a host of the made capture took before gaps were read (measured: 1.49 to 1.63 MB of 15
/// segments); half as much more is allowed.
const BYTES_BEFORE: f64 = 100_000.0;

/// The most requests in flight.
const IN_FLIGHT: u64 = 64;

/// A run is short, so there are more of them.
const LEAST_ROUNDS: usize = 5;

pub(super) fn run(bench: &mut Bench) -> Result<Outcome, Failure> {
    let store = bench.store()?;
    let hosts = choose::hosts(&bench.sql(&store, &choose::rare_hosts_query(LOOKED_AT))?);
    let host = nearest(&hosts)
        .ok_or_else(|| Failure::new(FailureKind::NotFound, "the capture has no plain IP host"))?;
    bench.say(&format!("the far host is {}, {} packets", host.ip, host.packets));
    let distant = Distant::start(&store)?;
    let file = bench.place("far.pcapng");
    let mut export = bench.capstan("export", &distant.store());
    export.args(["--ip", &host.ip, "-o"]).arg(&file);
    let by_export = measure(bench, &distant, export)?;
    let exported = count_packets(&file)?;
    remove(&file)?;
    let mut sql = bench.capstan("sql", &distant.store());
    let query = "select count(data) as packets from packets where host";
    sql.args(["--format", "json", &format!("{query}('{}')", host.ip)]);
    let by_sql = measure(bench, &distant, sql)?;
    let answered = rows(&by_sql.output)?.first().and_then(|row| row["packets"].as_u64());
    if answered != Some(exported) {
        return Err(Failure::new(
            FailureKind::Other,
            format!("the export has {exported} packets, SQL says {answered:?}"),
        ));
    }
    let mut measured = Measured { rows: Vec::new(), notes: Vec::new() };
    for (name, answer) in [("export", by_export), ("SQL", by_sql)] {
        measured.rows.extend(answer.rows(name));
        measured.notes.push(answer.note(name, host));
    }
    Ok(Outcome::Measured(measured))
}

/// The host whose packets are nearest to [`PACKETS`].
fn nearest(hosts: &[Host]) -> Option<&Host> {
    hosts.iter().min_by_key(|host| host.packets.abs_diff(PACKETS))
}

/// Runs of one question, and what the last one asked of the bucket.
struct Answer {
    runs: Vec<Usage>,
    asked: Asked,
    output: String,
}

fn measure(bench: &Bench, distant: &Distant, command: Command) -> Result<Answer, Failure> {
    let (mut runs, mut output) = (Vec::new(), String::new());
    let command = distant.reached(command);
    let mut asked = Asked::default();
    for _ in 0..bench.rounds.max(LEAST_ROUNDS) {
        let mut again = Command::new(command.get_program());
        again.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => again.env(name, value),
                None => again.env_remove(name),
            };
        }
        distant.asked();
        let ended = bench.run(again)?;
        asked = distant.asked();
        runs.push(ended.usage);
        output = ended.output;
    }
    Ok(Answer { runs, asked, output })
}

impl Answer {
    fn segments(&self) -> u64 {
        self.asked.layers.get("index").copied().unwrap_or(0)
    }

    fn a_segment(&self, number: u64) -> f64 {
        number as f64 / self.segments() as f64
    }

    fn rows(&self, name: &str) -> Vec<Row> {
        let wall = median_usage(&self.runs).wall.as_secs_f64();
        let (requests, bytes) =
            (self.a_segment(self.asked.data()), self.a_segment(self.asked.data_bytes));
        let row = |what: &str, ours, judged| Row {
            work: format!("{what} of a far host's {name}"),
            ours,
            peers: Vec::new(),
            judged,
        };
        let most = self.asked.most_in_flight as f64;
        let limit = IN_FLIGHT as f64;
        vec![
            row(
                "requests",
                Figure::Number(self.asked.data() as f64, "requests"),
                Judged::new(requests, "requests a segment", 12.0, 4.0),
            ),
            row(
                "bytes",
                Figure::Bytes(self.asked.data_bytes),
                Judged::new(bytes / BYTES_BEFORE, "of the bytes before", 1.5, 1.0),
            ),
            row(
                "requests in flight",
                Figure::Number(most, "at once"),
                Judged::new(most, "at once", limit, limit),
            ),
            row("time", Figure::Runs(self.runs.clone()), Judged::new(wall, "s wall", 0.5, 0.3)),
        ]
    }

    fn note(&self, name: &str, host: &Host) -> String {
        let layers: Vec<String> =
            self.asked.layers.iter().map(|(layer, count)| format!("{count} {layer}")).collect();
        format!(
            "{name} of the far host {} ({} packets): {} segments, requests: {}, {} for the catalog; {} kB a segment",
            host.ip,
            host.packets,
            self.segments(),
            layers.join(", "),
            self.asked.others,
            short(self.a_segment(self.asked.data_bytes) / 1e3)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_with_the_nearest_number_of_packets_is_chosen() {
        let host = |packets| Host { ip: "10.0.0.1".to_owned(), packets };
        let hosts = [host(1), host(1_500), host(2_100), host(1_000_000)];
        assert_eq!(nearest(&hosts).unwrap().packets, 2_100);
        assert!(nearest(&[]).is_none());
    }
}
