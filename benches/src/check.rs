//! Memory of `verify` and `repair` over hours with many segments. Both read all logs and go hour by hour, so their
//! memory must follow one hour and not the number of hours.
//!
//! The store is a folder with a real catalog of generated segments. Their objects are empty: `verify` reports each,
//! and that costs no memory either.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use capstan_model::coverage::Listened;
use capstan_model::{Failure, FailureKind, HOUR_NANOS, Time, TimeRange};
use capstan_storage_engine::catalog::names;
use capstan_storage_engine::catalog::{
    CommitDraft, LayerEntry, Outcome, Recorder, Rollup, SegmentEntry, Stay,
};
use capstan_storage_engine::repair::{self, repair};
use capstan_storage_engine::store::{Location, Options, Store};
use capstan_storage_engine::verify::{self, verify};
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
}

struct Silent;

impl verify::Watch for Silent {}
impl repair::Watch for Silent {}

pub(crate) fn run(arguments: &Arguments) -> Result<String, Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::io("cannot start threads", error))?;
    if arguments.store.exists() {
        let what = format!("{} exists: name a folder that does not", arguments.store.display());
        return Err(Failure::new(FailureKind::Usage, what));
    }
    let text = runtime.block_on(measure(arguments));
    std::fs::remove_dir_all(&arguments.store).map_err(|error| {
        Failure::io(format!("cannot remove {}", arguments.store.display()), error)
    })?;
    text
}

async fn measure(arguments: &Arguments) -> Result<String, Failure> {
    let location = Location::Folder(arguments.store.clone());
    let store = Store::open_or_create(&location, "check", &Options::default()).await?;
    let mut recorders = start(&store, arguments.recorders).await?;
    let mut text = String::from(
        "| hours | commits | verify: MiB | s | repair: MiB | s |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let mut done = 0;
    for hours in &arguments.hours {
        for hour in done..*hours {
            eprintln!("making hour {} of {hours}", hour + 1);
            make(&store, &arguments.store, &mut recorders, hour).await?;
        }
        done = done.max(*hours);
        let options = verify::Options {
            range: TimeRange::ALL,
            deep: false,
            layers: capstan_storage_engine::segment::Layers::KNOWN,
        };
        let (checked, verified) = peak(verify(&store, &options, &Silent)).await?;
        let options = repair::Options { dry_run: true, ..repair::Options::default() };
        let (_, repaired) = peak(repair(&store, &options, &Silent)).await?;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {done} | {} | {} | {:.1} | {} | {:.1} |",
            checked.commits, verified.mib, verified.seconds, repaired.mib, repaired.seconds
        );
    }
    Ok(text)
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
        let path = folder.join("check").join(path.as_ref());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::File::create(path)?;
    }
    Ok(())
}

/// The cost of a step.
struct Cost {
    mib: u64,
    seconds: f64,
}

/// Peak memory of the process during a step, above the memory before it.
async fn peak<T>(step: impl Future<Output = Result<T, Failure>>) -> Result<(T, Cost), Failure> {
    let cannot = |error| Failure::io("cannot measure the memory of this process", error);
    // "5" resets the peak (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").map_err(cannot)?;
    let before = status_kib("VmRSS:").map_err(cannot)?;
    let began = Instant::now();
    let done = step.await?;
    let seconds = began.elapsed().as_secs_f64();
    let peak = status_kib("VmHWM:").map_err(cannot)?;
    Ok((done, Cost { mib: peak.saturating_sub(before) / 1_024, seconds }))
}

fn status_kib(field: &str) -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    number.ok_or_else(|| std::io::Error::other(format!("/proc/self/status has no {field}")))
}
