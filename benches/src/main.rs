//! Measures Capstan side by side with programs that do the same work. The real binary and its peers run as processes,
//! in turn, in the same run, on the same input. Prints a Markdown table.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A command line speaks to its user.

mod bench;
mod benchmarks;
mod busy;
mod check;
mod choose;
mod distant;
mod export;
mod history;
mod machine;
mod measure;
mod network;
mod pcap;
mod peers;
mod report;
mod send;
mod sys;

use std::path::PathBuf;
use std::process::ExitCode;

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use crate::bench::{Bench, Measured, Outcome};
use crate::benchmarks::{ALL, Benchmark};
use crate::choose::Size;
use crate::machine::Machine;
use crate::report::{Row, Verdict};

/// Measure Capstan side by side with programs that do the same work
///
/// Floors and aims hold for realistic traffic of a gigabyte or more, on an idle machine. The exit code is 1 if a floor
/// is missed.
#[derive(Debug, Parser)]
#[command(name = "capstan-bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommands>,
    /// The capture; editcap converts a file that is not plain pcap
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// The binary to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    capstan: Option<PathBuf>,
    /// Runs of each program; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Run only this benchmark; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// List the benchmarks and exit
    #[arg(long)]
    list: bool,
    /// Write all results, including each round, to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder for stores and temporary files, with free space of two or three times the capture's size; all files are
    /// removed [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// For `common`: use the host and port with about this number of packets and bytes [default: the ones with most
    /// packets]
    #[arg(long, value_name = "PACKETS:BYTES")]
    pair: Option<Size>,
    /// A Python with the duckdb module
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    #[command(hide = true)]
    Send(send::Arguments),
    History(history::Arguments),
    Busy(busy::Arguments),
    Check(check::Arguments),
}

/// A capture below this length says little about the floors, bytes.
const LEAST: u64 = 500_000_000;

/// A benchmark that was run.
struct Run {
    benchmark: &'static Benchmark,
    ended: Result<Outcome, Failure>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Subcommands::Send(arguments)) => {
            Some(send::run(arguments).map(|sent| json!(sent).to_string()))
        }
        Some(Subcommands::History(arguments)) => Some(history::run(arguments)),
        Some(Subcommands::Busy(arguments)) => Some(busy::run(arguments)),
        Some(Subcommands::Check(arguments)) => Some(check::run(arguments)),
        None => None,
    };
    match done {
        Some(Ok(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Some(Err(failure)) => return fail(&failure),
        None => {}
    }
    if arguments.list {
        for benchmark in ALL {
            println!("{:8} {}", benchmark.name, benchmark.about);
        }
        return ExitCode::SUCCESS;
    }
    match run(arguments) {
        Ok(code) => code,
        Err(failure) => fail(&failure),
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let chosen = choose_benchmarks(&arguments.only)?;
    sys::watch_for_signals().map_err(|error| Failure::io("cannot watch for Ctrl-C", error))?;
    let capstan = match arguments.capstan {
        Some(path) => path,
        None => bench::beside()?,
    };
    let machine = Machine::this();
    let place = arguments.dir.unwrap_or_else(std::env::temp_dir);
    let mut bench = Bench::new(capstan, arguments.capture, usize::from(arguments.rounds), &place)?;
    bench.pair = arguments.pair;
    bench.python = arguments.python;

    let mut runs = Vec::new();
    for benchmark in chosen {
        eprintln!("{}: {}", benchmark.name, benchmark.about);
        let ended = (benchmark.run)(&mut bench);
        // What Ctrl-C did to a child may look like anything.
        measure::check_interrupted()?;
        runs.push(Run { benchmark, ended });
    }
    let mut about = vec![
        format!(
            "{} cores of {}, {} MiB, Linux {}",
            machine.cores, machine.cpu, machine.memory_mib, machine.kernel
        ),
        format!("load average before: {}", machine.load_before),
    ];
    about.extend(
        bench.known_capture().map(|capture| {
            format!("capture: {} packets, {} bytes", capture.packets, capture.bytes)
        }),
    );
    about.push(format!("{}, rounds: {}", version(&bench), bench.rounds));
    about.extend(peers::versions(&bench.python));
    if bench.known_capture().is_some_and(|capture| capture.bytes < LEAST) {
        about.push(
            "this capture is short: the fixed costs of a process and of a segment weigh more than the \
             floors allow for"
                .to_owned(),
        );
    }
    print_report(&runs, &about);
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", as_json(&runs, &machine, &about));
        std::fs::write(path, text)
            .map_err(|error| Failure::io(format!("cannot write {}", path.display()), error))?;
    }
    Ok(if runs.iter().all(Run::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The benchmarks of these names, all if there are none.
fn choose_benchmarks(only: &[String]) -> Result<Vec<&'static Benchmark>, Failure> {
    if let Some(unknown) = only.iter().find(|name| ALL.iter().all(|known| known.name != **name)) {
        let names: Vec<&str> = ALL.iter().map(|known| known.name).collect();
        return Err(Failure::new(
            FailureKind::Usage,
            format!("there is no benchmark '{unknown}'; there are: {}", names.join(", ")),
        ));
    }
    let chosen =
        |benchmark: &&Benchmark| only.is_empty() || only.iter().any(|n| n == benchmark.name);
    Ok(ALL.iter().filter(chosen).collect())
}

impl Run {
    fn rows(&self) -> &[Row] {
        match &self.ended {
            Ok(Outcome::Measured(measured)) => &measured.rows,
            _ => &[],
        }
    }

    /// What must be said beside the table.
    fn notes(&self) -> Vec<String> {
        match &self.ended {
            Ok(Outcome::Measured(Measured { notes, .. })) => notes.clone(),
            Ok(Outcome::Skipped(why)) => vec![format!("`{}` skipped: {why}", self.benchmark.name)],
            Err(failure) => {
                vec![format!("`{}` **FAILED**: {}", self.benchmark.name, with_causes(failure))]
            }
        }
    }

    /// Whether no floor was missed and nothing failed.
    fn is_good(&self) -> bool {
        self.ended.is_ok() && self.rows().iter().all(|row| row.judged.verdict() != Verdict::Missed)
    }
}

fn print_report(runs: &[Run], about: &[String]) {
    println!("{}", report::table(runs.iter().flat_map(Run::rows)));
    println!("CPU is user and system time, memory the peak; of several rounds the median.\n");
    for note in runs.iter().flat_map(Run::notes) {
        println!("* {note}");
    }
    println!();
    for line in about {
        println!("* {line}");
    }
}

fn as_json(runs: &[Run], machine: &Machine, about: &[String]) -> Value {
    let run = |run: &Run| {
        let rows: Vec<Value> = run
            .rows()
            .iter()
            .map(|row| json!({ "row": row, "verdict": row.judged.verdict() }))
            .collect();
        json!({
            "name": run.benchmark.name,
            "rows": rows,
            "notes": run.notes(),
            "good": run.is_good(),
        })
    };
    json!({
        "machine": machine,
        "about": about,
        "benchmarks": runs.iter().map(run).collect::<Vec<_>>(),
    })
}

fn version(bench: &Bench) -> String {
    let said = peers::said(&bench.capstan.to_string_lossy(), &["--version"]);
    said.map_or_else(|| "capstan".to_owned(), |said| said.trim().to_owned())
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("capstan-bench: {}", with_causes(failure));
    ExitCode::from(failure.kind().exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn benchmarks_are_selected_by_name() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            choose_benchmarks(&only).map(|all| all.iter().map(|one| one.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), ALL.len());
        assert_eq!(names(&["group", "import"]).unwrap(), ["import", "group"]);
        assert!(names(&["grope"]).unwrap_err().to_string().contains("import, stored"));
    }

    #[test]
    fn failures_and_missed_floors_fail_the_run() {
        let run = |ended| Run { benchmark: &ALL[0], ended };
        let measured = |value| {
            let judged = report::Judged::new(value, "", 1.0, 0.5);
            let row =
                Row { work: String::new(), ours: report::Figure::Bytes(1), peers: vec![], judged };
            Ok(Outcome::Measured(Measured { rows: vec![row], notes: vec![] }))
        };
        assert!(run(measured(0.9)).is_good());
        assert!(!run(measured(1.1)).is_good());
        assert!(run(Ok(Outcome::Skipped("no peer".to_owned()))).is_good());
        let failed = run(Err(Failure::new(FailureKind::Other, "broke")));
        assert!(!failed.is_good());
        assert_eq!(failed.notes(), ["`import` **FAILED**: broke"]);
    }
}
