//! A question over all packets, against DuckDB over the very same Parquet files. Both are held to
//! one processor, which both take as the number of their threads.

use std::path::PathBuf;
use std::process::Command;

use capstan_model::{Failure, FailureKind};

use crate::bench::{Bench, Measured, Outcome, alternate, rows, totals};
use crate::machine::first_processor;
use crate::measure::Usage;
use crate::peers;
use crate::report::{Figure, Judged, Row, cpu_ratio, median_usage, short};

/// What is asked. `{}` is the table.
const QUERY: &str = "SELECT protocol, sum(length) AS bytes FROM {} GROUP BY protocol";

/// Runs the first argument over the files that are the rest, and prints an object a row.
const SCRIPT: &str = "
import json, sys, duckdb
connection = duckdb.connect()
connection.execute('SET threads = 1')
query, files = sys.argv[1], sys.argv[2:]
if query:
    table = 'read_parquet(' + repr(files) + ')'
    answer = connection.execute(query.replace('{}', table))
    for protocol, total in answer.fetchall():
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
        bench.run(on_one_processor(sql))
    };
    let theirs = |bench: &Bench, query: &str, files: &[PathBuf]| {
        let mut duckdb = Command::new(&python);
        duckdb.arg("-c").arg(SCRIPT).arg(query).args(files);
        bench.run(on_one_processor(duckdb))
    };
    let (mut our_answer, mut their_answer) = (String::new(), String::new());
    let mut start_ups = (Vec::new(), Vec::new());
    let (our_runs, their_runs) = alternate(
        bench.rounds,
        bench,
        |bench| {
            start_ups.0.push(ours(bench, "SELECT 1")?.usage);
            let ended = ours(bench, &QUERY.replace("{}", "packets"))?;
            our_answer = ended.output;
            Ok(ended.usage)
        },
        ("DuckDB", |bench| {
            start_ups.1.push(theirs(bench, "", &[])?.usage);
            let ended = theirs(bench, QUERY, &files)?;
            their_answer = ended.output;
            Ok(ended.usage)
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
    let start_ups = (median_usage(&start_ups.0), median_usage(&start_ups.1));
    let their_runs: Vec<Usage> = their_runs.iter().map(|run| without(run, &start_ups.1)).collect();
    let ratio = cpu_ratio(&our_runs, &their_runs);
    let milliseconds = |usage: &Usage| short(usage.cpu.as_secs_f64() * 1e3);
    Ok(Outcome::Measured(Measured {
        rows: vec![Row {
            work: "sum(length) of all packets by protocol".to_owned(),
            ours: Figure::Runs(our_runs),
            peers: vec![("DuckDB".to_owned(), Figure::Runs(their_runs))],
            judged: Judged::new(ratio, "CPU ratio", 1.3, 1.0),
        }],
        notes: vec![
            format!(
                "DuckDB {version} is without what starting Python and importing it costs, {} ms CPU",
                milliseconds(&start_ups.1)
            ),
            format!(
                "capstan is with its own start; `SELECT 1` costs {} ms CPU",
                milliseconds(&start_ups.0)
            ),
        ],
    }))
}

/// The same command, held to one processor.
fn on_one_processor(command: Command) -> Command {
    let mut held = Command::new("taskset");
    held.arg("-c").arg(first_processor()).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        held.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => held.env(name, value),
            None => held.env_remove(name),
        };
    }
    held
}

/// What a run used beyond its start.
fn without(run: &Usage, start: &Usage) -> Usage {
    Usage {
        cpu: run.cpu.saturating_sub(start.cpu),
        wall: run.wall.saturating_sub(start.wall),
        peak_bytes: run.peak_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_command_is_the_same_command() {
        let mut command = Command::new("true");
        command.arg("x").env("A", "b").env_remove("C").current_dir("/tmp");
        let held = on_one_processor(command);
        let arguments: Vec<_> = held.get_args().collect();
        assert_eq!(arguments[2..], ["true", "x"]);
        assert_eq!(held.get_envs().count(), 2);
        assert_eq!(held.get_current_dir().unwrap(), "/tmp");
    }
}
