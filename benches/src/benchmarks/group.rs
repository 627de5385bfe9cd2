//! A query over all packets, against DuckDB over the same Parquet files. Both run on one processor, and so with one
//! thread.

use std::process::Command;
use std::time::Duration;

use capstan_model::{Failure, FailureKind};

use crate::bench::{Bench, Measured, Outcome, alternate, rows, totals};
use crate::machine::first_processor;
use crate::measure::{Usage, run_by};
use crate::peers;
use crate::report::{Figure, Judged, Row, cpu_ratio, median, median_usage, short};

/// A run is short, so there are more of them.
const LEAST_ROUNDS: usize = 5;

/// What is asked. `{}` is the table.
const QUERY: &str = "SELECT protocol, sum(length) AS bytes FROM {} GROUP BY protocol";

/// Runs the first argument over the files that are the rest, and prints an object a row. The first
/// object is what that took, seconds, and `start` of it until DuckDB was ready: Python's start and
/// the import are not DuckDB's own.
const SCRIPT: &str = "
import json, sys, time, duckdb
cpu, wall = time.process_time(), time.perf_counter()
connection = duckdb.connect()
connection.execute('SET threads = 1')
start = time.process_time() - cpu
table = 'read_parquet(' + repr(sys.argv[2:]) + ')'
rows = connection.execute(sys.argv[1].replace('{}', table)).fetchall()
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
print(json.dumps({'cpu': cpu, 'wall': wall, 'start': start}))
for protocol, total in rows:
    print(json.dumps({'protocol': protocol, 'bytes': int(total)}))
";

pub(super) fn run(bench: &mut Bench) -> Result<Outcome, Failure> {
    let (python, version) = match peers::duckdb(&bench.python) {
        Ok(found) => found,
        Err(missing) => return Ok(Outcome::Skipped(missing)),
    };
    if let Err(missing) = peers::require("taskset", "util-linux") {
        return Ok(Outcome::Skipped(missing));
    }
    let store = bench.store()?;
    let files = bench.files(&store, "packets")?;
    let ours = |bench: &Bench, query: &str| {
        let mut sql = bench.capstan("sql", &store);
        sql.args(["--format", "json", query]);
        bench.run(on_one_processor(&sql))
    };
    let (mut our_answer, mut their_answer) = (String::new(), String::new());
    let (mut our_starts, mut their_starts) = (Vec::new(), Vec::new());
    let (our_runs, their_runs) = alternate(
        bench.rounds.max(LEAST_ROUNDS),
        bench,
        |bench| {
            our_starts.push(ours(bench, "SELECT 1")?.usage.cpu.as_secs_f64());
            let ended = ours(bench, &QUERY.replace("{}", "packets"))?;
            our_answer = ended.output;
            Ok(ended.usage)
        },
        ("DuckDB", |bench| {
            let mut duckdb = Command::new(&python);
            duckdb.arg("-c").arg(SCRIPT).arg(QUERY).args(&files);
            let ended = bench.run(on_one_processor(&duckdb))?;
            their_answer = ended.output;
            let (usage, start) = its_own(&their_answer, ended.usage.peak_bytes)?;
            their_starts.push(start);
            Ok(usage)
        }),
    )?;
    let answer = |output: &str| Ok::<_, Failure>(totals(&rows(output)?, "protocol", "bytes"));
    let (our_answer, their_answer) = (answer(&our_answer)?, answer(&their_answer)?);
    if our_answer != their_answer || our_answer.is_empty() {
        return Err(Failure::new(
            FailureKind::Other,
            format!("capstan answers {our_answer:?}, DuckDB {their_answer:?}"),
        ));
    }
    let ratio = cpu_ratio(&our_runs, &their_runs);
    let (our_start, their_start) = (median(our_starts), median(their_starts));
    let cpu = |runs: &[Usage]| median_usage(runs).cpu.as_secs_f64();
    let notes = vec![
        format!(
            "DuckDB {version} is without Python's start and importing it, and with connecting to a \
             new database, {} ms CPU",
            short(their_start * 1e3)
        ),
        format!(
            "`capstan sql` is with its own start, {} ms CPU for `SELECT 1`; without both starts \
             the ratio is {}",
            short(our_start * 1e3),
            short((cpu(&our_runs) - our_start) / (cpu(&their_runs) - their_start))
        ),
    ];
    Ok(Outcome::Measured(Measured {
        rows: vec![Row {
            work: "sum(length) of all packets by protocol".to_owned(),
            ours: Figure::Runs(our_runs),
            peers: vec![("DuckDB".to_owned(), Figure::Runs(their_runs))],
            judged: Judged::new(ratio, "CPU ratio", 1.3, 1.0),
        }],
        notes,
    }))
}

/// What DuckDB says that it took, on the first line of what the script prints, and the processor
/// seconds of its start.
fn its_own(output: &str, peak_bytes: u64) -> Result<(Usage, f64), Failure> {
    let first = rows(output.lines().next().unwrap_or_default())?;
    let number = |name: &str| first.first().and_then(|row| row[name].as_f64());
    let time = |name| number(name).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match (time("cpu"), time("wall"), number("start")) {
        (Some(cpu), Some(wall), Some(start)) => Ok((Usage { cpu, wall, peak_bytes }, start)),
        _ => Err(Failure::new(FailureKind::Other, "the DuckDB script does not say what it took")),
    }
}

/// The same command, held to one processor.
fn on_one_processor(command: &Command) -> Command {
    let mut taskset = Command::new("taskset");
    taskset.arg("-c").arg(first_processor());
    run_by(taskset, command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_of_the_script_is_on_its_first_line() {
        let output = "{\"cpu\": 0.25, \"wall\": 1, \"start\": 0.1}\n{\"protocol\": \"dns\"}\n";
        let (usage, start) = its_own(output, 7).unwrap();
        assert_eq!((usage.cpu.as_millis(), usage.wall.as_secs(), usage.peak_bytes), (250, 1, 7));
        assert_eq!(start, 0.1);
        assert!(its_own("", 7).is_err());
        assert!(its_own("{\"cpu\": -1, \"wall\": 1, \"start\": 0}", 7).is_err());
    }
}
