//! Memory of `verify` and `repair` over hours with many segments. Both read all logs and go hour by hour, so their
//! memory must follow one hour and not the number of hours.
//!
//! The store is a folder with a real catalog of made segments. Their objects are empty: `verify` reports each, and
//! that costs no memory either. Each measurement is a process of its own, so that no allocator remembers another one.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use capstan_model::coverage::Listened;
use capstan_model::{Failure, FailureKind, HOUR_NANOS, Time, TimeRange};
use capstan_storage_engine::catalog::names;
use capstan_storage_engine::catalog::{
    CommitDraft, LayerEntry, Outcome, Recorder, Rollup, SegmentEntry, Stay,
};
use capstan_storage_engine::repair::{self, repair};
use capstan_storage_engine::segment::Layers;
use capstan_storage_engine::store::{Location, Options, Store};
use capstan_storage_engine::verify::{self, verify};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::busy::{BEGIN, COMMITS, STEP, addresses, segment, start};

/// Memory of verify and repair by number of hours, as Markdown
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Recorders; each commits 360 segments an hour
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    recorders: u64,
    /// How many hours there are; several numbers in ascending order
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', default_values_t = [1, 2, 4])]
    hours: Vec<u64>,
    /// A folder that does not exist; the store is made in it, and removed in the end
    #[arg(long, value_name = "FOLDER")]
    store: PathBuf,
    /// Measure one step on the store that is there
    #[arg(long, hide = true)]
    step: Option<Step>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    Verify,
    Repair,
}

/// The cluster of the store.
const CLUSTER: &str = "check";

struct Silent;

impl verify::Watch for Silent {}
impl repair::Watch for Silent {}

pub(crate) fn run(arguments: &Arguments) -> Result<String, Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::io("cannot start threads", error))?;
    if let Some(step) = arguments.step {
        let cost = runtime.block_on(measure(step, &arguments.store))?;
        return serde_json::to_string(&cost)
            .map_err(|error| Failure::new(FailureKind::Other, error.to_string()));
    }
    if arguments.store.exists() {
        let what = format!("{} exists: name a folder that does not", arguments.store.display());
        return Err(Failure::new(FailureKind::Usage, what));
    }
    let text = runtime.block_on(table(arguments));
    std::fs::remove_dir_all(&arguments.store).map_err(|error| {
        Failure::io(format!("cannot remove {}", arguments.store.display()), error)
    })?;
    text
}

/// Makes the store hour by hour, and a row for each number of hours asked for.
async fn table(arguments: &Arguments) -> Result<String, Failure> {
    let store =
        Store::open_or_create(&place(&arguments.store), CLUSTER, &Options::default()).await?;
    let mut recorders = start(&store, arguments.recorders).await?;
    let mut text = String::from(
        "| recorders | hours | commits | verify: MiB | s | repair: MiB | s |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let mut done = 0;
    for hours in &arguments.hours {
        for hour in done..*hours {
            eprintln!("making hour {} of {hours}", hour + 1);
            make(&store, &arguments.store, &mut recorders, hour).await?;
        }
        done = done.max(*hours);
        eprintln!("verifying");
        let verified = measure_apart("verify", &arguments.store)?;
        eprintln!("looking for what to repair");
        let repaired = measure_apart("repair", &arguments.store)?;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {done} | {} | {} | {:.1} | {} | {:.1} |",
            arguments.recorders,
            verified.commits,
            verified.mib,
            verified.seconds,
            repaired.mib,
            repaired.seconds
        );
    }
    Ok(text)
}

fn place(folder: &Path) -> Location {
    Location::Folder(folder.to_owned())
}

/// Commits an hour of segments, with empty objects, and rolls it up.
async fn make(
    store: &Store,
    folder: &Path,
    recorders: &mut [Recorder],
    hour: u64,
) -> Result<(), Failure> {
    let mut rollup = Rollup::claim(store, "check", Stay::Keeps).await?;
    let many = recorders.len() as u64;
    let long = HOUR_NANOS / COMMITS as i64;
    for number in hour * COMMITS..(hour + 1) * COMMITS {
        let begin = Time(BEGIN.0 + number as i64 * long);
        let range = TimeRange { start: begin, end: Time(begin.0 + long) };
        for (node, recorder) in (0..).zip(recorders.iter_mut()) {
            let made = segment(node, number, range, &addresses(many, node, number));
            let empty = |of: LayerEntry| LayerEntry { bytes: 0, ..of };
            let layers = made.layers.iter().cloned().map(empty).collect();
            let entry = SegmentEntry { hour: begin.hour(), layers, ..made };
            put_empty(folder, &entry)
                .map_err(|error| Failure::io("cannot make the objects of a segment", error))?;
            let listened = Listened { range, interfaces: vec![0] };
            recorder.commit(CommitDraft::recorded([entry], [listened], [])).await?;
        }
        if number % STEP == STEP - 1
            && let Outcome::Fenced { by } = rollup.step().await?
        {
            return Err(Failure::new(FailureKind::Other, format!("{by} rolls up")));
        }
    }
    rollup.roll_up_all().await.map(|_| ())
}

/// Creates the objects as files: a hundred thousand files by way of the store would take minutes.
fn put_empty(folder: &Path, entry: &SegmentEntry) -> std::io::Result<()> {
    for layer in capstan_storage_engine::catalog::Layer::SEALED {
        let path = names::layer(entry.hour, &entry.name, layer.file());
        let path = folder.join(CLUSTER).join(path.as_ref());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::File::create(path)?;
    }
    Ok(())
}

/// The cost of a step.
#[derive(Debug, Serialize, Deserialize)]
struct Cost {
    commits: u64,
    /// Peak memory of its process.
    mib: u64,
    seconds: f64,
}

/// Measures a step in a process of its own: this program again.
fn measure_apart(step: &str, store: &Path) -> Result<Cost, Failure> {
    let cannot =
        |error| Failure::io(format!("cannot measure {step} in a process of its own"), error);
    let program = std::env::current_exe().map_err(cannot)?;
    let mut command = Command::new(program);
    command.args(["check", "--step", step, "--store"]).arg(store).stderr(Stdio::inherit());
    let ended = command.output().map_err(cannot)?;
    if !ended.status.success() {
        let what = format!("measuring {step} failed ({})", ended.status);
        return Err(Failure::new(FailureKind::Other, what));
    }
    serde_json::from_slice(&ended.stdout)
        .map_err(|error| Failure::new(FailureKind::Other, format!("{step} said no cost: {error}")))
}

/// Takes a step, and measures it by the peak memory of this process.
async fn measure(step: Step, folder: &Path) -> Result<Cost, Failure> {
    let began = Instant::now();
    let store = Store::open(&place(folder), CLUSTER, &Options::default()).await?;
    let commits = match step {
        Step::Verify => {
            let (range, layers) = (TimeRange::ALL, Layers::KNOWN);
            let options = verify::Options { range, deep: false, layers };
            verify(&store, &options, &Silent).await?.commits
        }
        Step::Repair => {
            let options = repair::Options { dry_run: true, ..repair::Options::default() };
            repair(&store, &options, &Silent).await?;
            0
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let kib = status_kib("VmHWM:")
        .map_err(|error| Failure::io("cannot measure the memory of this process", error))?;
    Ok(Cost { commits, mib: kib / 1_024, seconds })
}

fn status_kib(field: &str) -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    number.ok_or_else(|| std::io::Error::other(format!("/proc/self/status has no {field}")))
}
