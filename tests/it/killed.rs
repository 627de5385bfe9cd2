//! Kills commands at every place where they change a store: on a folder before each system call that changes it, in a
//! bucket before and after each such request. At every place the store is intact, each visible packet is readable and
//! there once, and the same command then comes to the same result.
//!
//! [`everywhere`] takes how to run a command and what must hold afterwards, and does the rest.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::running::Running;
use crate::tools::number_of;

mod calls;
mod imports;
mod places;
mod recordings;
mod repairs;

use places::{InBucket, InFolder};

/// Where a command is killed.
#[derive(Debug, Clone, Copy)]
enum Kill {
    Never,
    /// At this change, from 0.
    At(usize),
    /// At the first change of something with this in its name.
    AtFirst(&'static str),
}

/// What a command that is watched has changed so far.
struct Changes {
    kill: Kill,
    made: Vec<String>,
}

impl Changes {
    /// Notes one that is about to be made, or was; true if the command is to be killed there.
    fn note(&mut self, what: String) -> bool {
        let hit = match self.kill {
            Kill::Never => false,
            Kill::At(place) => place == self.made.len(),
            Kill::AtFirst(name) => what.contains(name),
        };
        self.made.push(what);
        hit
    }
}

/// Where a store is, and how its users are watched.
trait Place: Sync {
    /// For `--store`.
    fn store(&self) -> &Path;

    /// Runs a command, unless it is killed before its end. While it runs this thread does
    /// `meanwhile`.
    fn run(&self, command: &mut Command, kill: Kill, meanwhile: &mut dyn FnMut(&Running)) -> Run;
}

/// How a command ended.
struct Run {
    output: Output,
    /// What it changed; where it was killed is the last.
    changes: Vec<String>,
}

impl Run {
    fn is_killed(&self) -> bool {
        self.output.status.signal() == Some(libc::SIGKILL)
    }

    /// What it changed, but for what is asked to be refused: who opens a store in a bucket to write creates the
    /// object `format` once more, to see whether the server holds to conditions.
    fn changes_made(&self) -> Vec<&String> {
        self.changes.iter().filter(|change| !change.ends_with("/default/format")).collect()
    }
}

/// Runs a command once unharmed and then again and again, killed at another change each time, and
/// checks what each left. Runs and checks are told their number. At most so many are killed, or as many as
/// `CAPSTAN_TEST_KILLS` says, evenly over all changes if these are more. How many runs it were.
#[allow(clippy::print_stdout)] // Shown if the test fails.
fn everywhere(
    usually: usize,
    mut run: impl FnMut(u64, Kill) -> Run,
    mut check: impl FnMut(u64, &Run),
) -> u64 {
    let unharmed = run(0, Kill::Never);
    check(0, &unharmed);
    let places = unharmed.changes.len();
    let wanted = number_of("CAPSTAN_TEST_KILLS").map(|kills| kills as usize);
    let runs = places.min(wanted.unwrap_or(usually));
    let mut ended = 0;
    for number in 0..runs {
        let place = number * places / runs;
        let run = run(number as u64 + 1, Kill::At(place));
        println!("killed at change {place}, {:?}", run.changes.last());
        ended += usize::from(!run.is_killed());
        check(number as u64 + 1, &run);
    }
    // Not every run makes as many as the first.
    assert!(places > 10 && ended <= runs / 8, "{ended} of {runs} ended, of {places} places");
    runs as u64 + 1
}
