//! Simulates recorders, maintainers of layers, importers, rollups, repairs and readers over a faulty bucket, from a seed.
//!
//! The simulation runs on one thread. Its clock stands still while an actor computes, and all
//! randomness derives from the seed. So a failing seed fails again in the same way.

#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a command.

mod actors;
mod bucket;
mod chance;
mod run;
mod truth;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use capstan_storage_engine::store::Planted;
use clap::{Parser, ValueEnum};

/// Simulate recorders, maintainers of layers, importers, rollups, repairs and readers over a faulty bucket
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  simulate --seeds 1000                 seeds 0 to 999
  simulate --first 4711 --seeds 1 --story
  simulate --planted root-first --seeds 200")]
struct Arguments {
    /// Number of seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Print the events; for one seed
    #[arg(long)]
    story: bool,
    /// Plant this fault; the run succeeds if a seed finds it
    #[arg(long, value_enum)]
    planted: Option<Fault>,
    /// Number of threads; each runs one seed at a time
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// A fault to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// A root declares commits rolled up before manifests have them
    RootFirst,
    /// A create takes an existing name for its own earlier try
    TakenIsOurs,
    /// The creator of a root does not look for boundaries
    NoBoundary,
    /// A sweep removes leased versions
    NoLeases,
    /// An import continues without ending the previous generation
    NoFence,
    /// A repair writes manifests without the changes of segments, so retired layers are back
    Resurrects,
    /// Logs are truncated up to the newest root, although readers may have an older one
    TruncatesAhead,
}

impl From<Fault> for Planted {
    fn from(fault: Fault) -> Planted {
        match fault {
            Fault::RootFirst => Planted::RootFirst,
            Fault::TakenIsOurs => Planted::TakenIsOurs,
            Fault::NoBoundary => Planted::NoBoundary,
            Fault::NoLeases => Planted::NoLeases,
            Fault::NoFence => Planted::NoFence,
            Fault::Resurrects => Planted::Resurrects,
            Fault::TruncatesAhead => Planted::TruncatesAhead,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let planted = arguments.planted.map(Planted::from);
    let began = Instant::now();
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first.saturating_add(arguments.seeds);
    let found = AtomicBool::new(false);
    let (commits, requests, seeds) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || found.load(Ordering::Relaxed) && planted.is_some() {
                        return;
                    }
                    let outcome = run::run(seed, planted, arguments.story);
                    seeds.fetch_add(1, Ordering::Relaxed);
                    commits.fetch_add(outcome.commits, Ordering::Relaxed);
                    requests.fetch_add(outcome.requests, Ordering::Relaxed);
                    for line in &outcome.story {
                        println!("{line}");
                    }
                    if arguments.story {
                        println!("fingerprint {:016x}", outcome.fingerprint);
                    }
                    if !outcome.broken.is_empty() {
                        found.store(true, Ordering::Relaxed);
                        let mut text = format!("seed {seed}:");
                        for what in outcome.broken.iter().take(5) {
                            text += &format!("\n  {what}");
                        }
                        println!("{text}");
                    }
                }
            });
        }
    });
    let broken = found.into_inner();
    println!(
        "{} seeds, {} commits, {} requests, {:.1} s",
        seeds.into_inner(),
        commits.into_inner(),
        requests.into_inner(),
        began.elapsed().as_secs_f64()
    );
    match (arguments.planted, broken) {
        (None, false) => ExitCode::SUCCESS,
        (None, true) => {
            eprintln!("a seed failed: --first SEED --seeds 1 --story tells what happened");
            ExitCode::FAILURE
        }
        (Some(fault), true) => {
            println!("{fault:?} was found");
            ExitCode::SUCCESS
        }
        (Some(fault), false) => {
            eprintln!("{fault:?} was not found: the simulation does not see it");
            ExitCode::FAILURE
        }
    }
}
