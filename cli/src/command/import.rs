//! `capstan import`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use capstan_ingest::import::{self, ImportOptions, Imported, Watch};
use capstan_ingest::metrics::UploadMetrics;
use capstan_ingest::source::{self, Place};
use capstan_model::{Failure, FailureKind, IngestShares, MemoryBudget, Time};
use capstan_storage_engine::catalog::succession::DEAD_AFTER;
use capstan_storage_engine::store::Store;
use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use super::rollup;
use crate::host::host_name;
use crate::interrupt;
use crate::output::{self, agree, bytes, count};
use crate::settings::Settings;
use crate::stopped::{or_stopped, or_stopped_if};

/// Import capture files into a store
///
/// pcap and pcapng, plain or compressed with gzip, zstd or LZ4. A folder stands for every capture
/// in it. The same command resumes an interrupted import, and continues with a file that has grown.
/// A source is refused if the store has it already, or if another process imports it now.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan import --store ./store capture.pcapng
  capstan import --store s3://bucket/captures /var/captures
  zcat old.pcap.gz | capstan import --store ./store -")]
pub(crate) struct Arguments {
    /// Capture files, folders, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Import the source even if the store has it already
    #[arg(long)]
    again: bool,
    /// Seconds without a commit after which an unfinished import counts as dead and is resumed
    ///
    /// A live import commits every 3 seconds. 0 resumes at once: if the other process is still
    /// alive, it stops with an error, and nothing is stored twice.
    #[arg(long, value_name = "SECONDS", default_value_t = DEAD_AFTER.as_secs(),
        value_parser = clap::value_parser!(u64).range(..=86_400))]
    dead_after: u64,
    /// Memory limit of this process, MiB [default: 992]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    memory: Option<u32>,
}

const NOTHING: &str = "stopped before anything was imported";

pub(crate) fn run(
    arguments: Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let memory = match arguments.memory {
        None => IngestShares::default(),
        Some(mib) => MemoryBudget::from_mib(mib as usize).for_ingest(None).map_err(|error| {
            Failure::new(FailureKind::Usage, format!("{error}; --memory sets the memory"))
        })?,
    };
    let places = source::expand(&arguments.files)?;
    for skipped in &places.skipped {
        let path = skipped.path.display().to_string();
        output::tell(&format!("skipped {}: {}", output::name(&path), skipped.reason));
    }
    if places.found.is_empty() {
        return Err(Failure::new(
            FailureKind::Usage,
            "no capture file was found in the given files and folders",
        ));
    }
    let stop = interrupt::watch(runtime, interrupt::UNCOMMITTED, || ())?;
    let opening = or_stopped(&stop, NOTHING, settings.open_or_create(None));
    let store = runtime.block_on(opening)?;
    let dead_after = Duration::from_secs(arguments.dead_after);
    let (again, host) = (arguments.again, host_name());
    let options = ImportOptions { again, stop, host, dead_after, memory };
    let ended = import_all(&store, &places.found, &options, runtime);
    let is_away = |failure: &Failure| failure.kind() == FailureKind::Unavailable;
    if !ended.as_ref().is_err_and(is_away) {
        rollup::before_leaving(&store, &options.stop, runtime);
    }
    ended
}

/// Imports the sources one after the other; returns the worst failure.
fn import_all(
    store: &Store,
    places: &[Place],
    options: &ImportOptions,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let several = places.len() > 1;
    let mut worst: Option<Failure> = None;
    for (number, place) in places.iter().enumerate() {
        let name = output::name(&place.to_string()).into_owned();
        let bar = output::byte_bar(size(place));
        bar.set_prefix(if several {
            format!("{}/{} {name}", number + 1, places.len())
        } else {
            name.clone()
        });
        let ended =
            one(store, place, options, &Bar { name: name.clone(), bar: bar.clone() }, runtime);
        bar.finish_and_clear();
        let failed = match ended {
            Ok(imported) => {
                report(&name, &imported)?;
                verdict(place, &imported)
            }
            Err(failure) => Some(failure),
        };
        let Some(failure) = failed else { continue };
        // A source that is stored already, or damaged, does not affect the others.
        let go_on = several
            && matches!(
                failure.kind(),
                FailureKind::AlreadyThere
                    | FailureKind::Busy
                    | FailureKind::Damaged
                    | FailureKind::Usage
            )
            && !options.stop.load(Ordering::Relaxed);
        if !go_on {
            return Err(failure);
        }
        output::print_failure(&failure);
        if worst.as_ref().is_none_or(|worst| weight(worst.kind()) <= weight(failure.kind())) {
            worst = Some(failure);
        }
    }
    match worst {
        Some(failure) => Err(Failure::new(
            failure.kind(),
            "some sources were not imported completely: see the messages above",
        )),
        None => Ok(()),
    }
}

/// Severity of a source that was not imported.
fn weight(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::Damaged => 2,
        // It may not be in the store yet.
        FailureKind::Busy => 1,
        _ => 0,
    }
}

fn one(
    store: &Store,
    place: &Place,
    options: &ImportOptions,
    bar: &Bar,
    runtime: &Runtime,
) -> Result<Imported, Failure> {
    let name = place.to_string();
    let known = match place {
        Place::File(path) if path.is_file() => Some(import::identify(path)?),
        _ => None,
    };
    let source = match place.open(&options.stop) {
        // Nothing had come out of the stream yet.
        Err(_) if place.is_stream() && options.stop.load(Ordering::Relaxed) => {
            return Err(Failure::new(FailureKind::Interrupted, NOTHING));
        }
        opened => opened?,
    };
    let plan = import::plan(store, &name, known, options, bar);
    let away = || store.is_in_trouble();
    let plan = runtime.block_on(or_stopped_if(&options.stop, away, NOTHING, plan))?;
    import::run(store, plan, source, options, bar, runtime.handle())
}

/// The failure of an import that committed all readable packets.
fn verdict(place: &Place, imported: &Imported) -> Option<Failure> {
    if imported.interrupted {
        let packets = imported.packets + imported.packets_before;
        let are = agree(packets, "is", "are");
        let mut what = format!("stopped: {} of {place} {are} committed", count(packets, "packet"));
        if !place.is_stream() {
            what += "; run the same command again to resume";
        }
        return Some(Failure::new(FailureKind::Interrupted, what));
    }
    if let Some(changed) = imported.changed {
        let what = format!(
            "{place} {changed} during the import: {} read before that stay committed; import it \
             again when it no longer changes",
            count(imported.packets + imported.packets_before, "packet")
        );
        return Some(Failure::new(FailureKind::Damaged, what));
    }
    imported.damage.as_ref().map(|damage| {
        let packets = imported.packets + imported.packets_before;
        let are = agree(packets, "is", "are");
        let before = count(packets, "packet");
        Failure::new(
            FailureKind::Damaged,
            format!("{damage}; the {before} before it {are} imported"),
        )
    })
}

fn report(name: &str, imported: &Imported) -> Result<(), Failure> {
    let mut text = format!(
        "{name}: {}, {} captured, {} in {}, {} stored\n",
        count(imported.packets, "packet"),
        bytes(imported.captured_bytes),
        count(imported.flows, "flow"),
        count(imported.segments, "segment"),
        bytes(imported.stored_bytes),
    );
    if imported.packets_before > 0 {
        let were = agree(imported.packets_before, "was", "were");
        text += &format!(
            "  {} of it {were} committed by an earlier run\n",
            count(imported.packets_before, "packet")
        );
    }
    // What a hostile file says may be anything.
    let dropped = imported.losses.iter().fold(0_u64, |sum, loss| sum.saturating_add(loss.packets));
    if dropped > 0 {
        text += &format!("  dropped during capture: {}\n", count(dropped, "packet"));
    }
    let cut = imported.losses.iter().fold(0_u64, |sum, loss| sum.saturating_add(loss.bytes));
    if cut > 0 {
        text += &format!("  {} of oversized packets or blocks were discarded\n", bytes(cut));
    }
    if imported.trailing_bytes > 0 {
        let behind = count(imported.trailing_bytes, "byte");
        output::print_warning(&format!(
            "{name}: {behind} after the end of the compressed data were ignored"
        ));
    }
    if imported.homeless_blocks > 0 {
        text += &format!(
            "  {} discarded: the source has no packet to store them with\n",
            count(imported.homeless_blocks as u64, "block")
        );
    }
    if let Some(read) = imported.grew {
        text += &format!(
            "  the file grew during the import: its first {} were imported; run the same command \
             again to continue\n",
            bytes(read)
        );
    }
    output::report(&text)
}

struct Bar {
    name: String,
    bar: ProgressBar,
}

impl Watch for Bar {
    fn waiting(&self, host: &str, since: Option<Time>, at_most: Duration) {
        let since = since.map(|since| format!(" (started at {since})")).unwrap_or_default();
        let seconds = at_most.as_secs_f64().ceil();
        self.bar.suspend(|| {
            output::tell(&format!(
                "{}: an import of this source on {} has not ended{since}; waiting up to {seconds} \
                 s for its next commit",
                output::name(&self.name),
                output::name(host)
            ));
        });
    }

    fn comparing(&self, bytes: u64) {
        self.bar.set_message("comparing the file with an earlier import");
        self.bar.set_position(bytes);
    }

    fn resuming(&self, packets: u64) {
        self.bar.println(format!("resuming after {}", count(packets, "packet")));
    }

    fn alike(&self, name: &str, packets: u64) {
        self.bar.suspend(|| {
            output::tell(&format!(
                "{}: begins with the same packet as {}, of which the store has {}: if both are \
                 the same capture, its packets are now stored twice",
                output::name(&self.name),
                output::name(name),
                count(packets, "packet")
            ));
        });
    }

    fn importing(&self, source_bytes: u64, packets: u64, committed: &UploadMetrics) {
        self.bar.set_position(source_bytes);
        self.bar.set_message(format!(
            "{} read, {} committed",
            count(packets, "packet"),
            committed.packets.get()
        ));
    }
}

/// Length of what is imported, if it is known beforehand.
fn size(place: &Place) -> Option<u64> {
    match place {
        Place::File(path) => {
            path.metadata().ok().filter(|about| about.is_file()).map(|about| about.len())
        }
        Place::StandardInput => None,
    }
}
