//! `capstan`: the one binary. Each subcommand has a file in `command`; the implementation is in the other
//! crates.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A command line speaks to its user.

mod command;
mod host;
mod interrupt;
mod memory;
mod output;
mod process;
mod settings;
mod stopped;

use std::process::ExitCode;
use std::time::Duration;

use capstan_model::{Failure, FailureKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Counts the allocations of queries, to find the one that uses too much memory.
#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// How long the process waits at its end for cancelled queries: they remove their temporary files.
const STOPPING: Duration = Duration::from_secs(1);

/// Records network packets into object storage, and returns any past time window.
#[derive(Debug, Parser)]
#[command(name = "capstan", version, propagate_version = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    global: settings::Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  capstan import --store ./store capture.pcap.gz
  capstan status --store ./store
  capstan export --store ./store --from -15m --host 10.0.0.7 -o window.pcapng
  capstan export --store ./store --port 53 -o - | wireshark -k -i -
  capstan sql --store ./store 'select protocol, count(*) from packets group by protocol'
  sudo capstan up

Exit codes: 0 success, 1 error, 2 wrong usage, 3 not found, 4 permission denied,
5 disk full or limit reached, 6 damaged, 7 written by a newer version, 8 store or server unavailable,
9 exists already, 10 another process does the same, 130 stopped by Ctrl-C.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Import capture files into a store
    Import(command::import::Arguments),
    /// Write the packets of a time window as PCAPNG
    Export(command::export::Arguments),
    /// Run a SQL query
    Sql(command::sql::Arguments),
    /// Show contents, time range, coverage and losses of a store
    Status(command::status::Arguments),
    /// List a store's committed objects
    Files(command::files::Arguments),
    /// Check the integrity of a store
    Verify(command::verify::Arguments),
    /// Make a damaged store readable again
    Repair(command::repair::Arguments),
    /// Record this machine's interfaces
    Record(command::record::Arguments),
    /// Serve SQL (Arrow Flight) and PCAPNG (HTTP)
    Serve(command::serve::Arguments),
    /// Record this machine and serve the recording
    Up(command::up::Arguments),
}

impl Command {
    /// Arenas of memory: more than one where many are served at a time, or many threads unpack.
    fn arenas(&self) -> u8 {
        match self {
            Command::Serve(_) | Command::Up(_) | Command::Sql(_) | Command::Export(_) => 2,
            _ => 1,
        }
    }
}

/// Reads the command line; ends the process if it is wrong, or asks for help.
fn arguments() -> Arguments {
    // A number below zero is a wrong value, not an option that is not known.
    fn with_numbers(command: clap::Command) -> clap::Command {
        let with_number = |of: clap::Arg| {
            let takes_values = of.get_action().takes_values();
            of.allow_negative_numbers(takes_values)
        };
        command.mut_args(with_number).mut_subcommands(with_numbers)
    }
    let matches = with_numbers(Arguments::command()).get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn main() -> ExitCode {
    let arguments = arguments();
    memory::configure_allocator(arguments.command.arenas());
    output::start_logging(arguments.global.verbose);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("capstan")
        .on_thread_stop(capstan_model::account::flush)
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = run(arguments, &runtime);
            capstan_query_server::questions::wait_for_all(STOPPING);
            // All output is written. Tasks that still run only read ahead, and end with the process. Shutting
            // the runtime down without waiting would detach threads that may be ending just then.
            std::mem::forget(runtime);
            ended
        }
        Err(error) => Err(Failure::io("cannot start", error)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::print_failure(&failure);
            ExitCode::from(failure.kind().exit_code())
        }
    }
}

fn run(arguments: Arguments, runtime: &tokio::runtime::Runtime) -> Result<(), Failure> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| {
        Failure::new(FailureKind::Other, "another TLS provider was installed before ours")
    })?;
    let settings = settings::Settings::load(arguments.global)?;
    match arguments.command {
        Command::Import(arguments) => command::import::run(arguments, &settings, runtime),
        Command::Export(arguments) => command::export::run(arguments, &settings, runtime),
        Command::Sql(arguments) => command::sql::run(arguments, &settings, runtime),
        Command::Status(arguments) => command::status::run(&arguments, &settings, runtime),
        Command::Files(arguments) => command::files::run(&arguments, &settings, runtime),
        Command::Verify(arguments) => command::verify::run(&arguments, &settings, runtime),
        Command::Repair(arguments) => command::repair::run(&arguments, &settings, runtime),
        Command::Record(arguments) => command::record::run(arguments, &settings, runtime),
        Command::Serve(arguments) => command::serve::run(arguments, &settings, runtime),
        Command::Up(arguments) => command::up::run(arguments, &settings, runtime),
    }
}
