//! `capstan status`.

use std::collections::BTreeMap;

use capstan_model::coverage::{Listened, Loss};
use capstan_model::{Failure, FailureKind, Time, TimeRange};
use capstan_storage_engine::catalog::Catalog;
use capstan_storage_engine::segment::Layer;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::window::Window;
use crate::output::{self, bytes, count};
use crate::settings::Settings;

/// Show what a store holds, from when to when, and what is missing
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan status --store ./store
  capstan status --store s3://bucket/prefix --from -1h --format json")]
pub(crate) struct Arguments {
    #[command(flatten)]
    window: Window,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Serialize)]
struct Status {
    store: String,
    segments: u64,
    packets: u64,
    flow_parts: u64,
    captured_bytes: u64,
    wire_bytes: u64,
    stored_bytes: u64,
    layers: BTreeMap<String, u64>,
    oldest: Option<String>,
    newest: Option<String>,
    packets_by_protocol: BTreeMap<String, u64>,
    listened: Vec<Span>,
    gaps: Vec<Span>,
    losses: Vec<LossLine>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Span {
    from: String,
    to: String,
}

#[derive(Serialize)]
struct LossLine {
    recorder: String,
    from: String,
    to: String,
    cause: String,
    packets: u64,
    bytes: u64,
    note: String,
}

pub(crate) fn run(
    arguments: &Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let range = arguments.window.range()?;
    let (place, catalog) = runtime.block_on(async {
        let store = settings.open().await?;
        let catalog = Catalog::load(&store).await?;
        Ok::<_, Failure>((store.place().to_owned(), catalog))
    })?;
    let status = status(place, &catalog, range);
    match arguments.format {
        Format::Json => output::print(&output::json(&status)?)?,
        Format::Table => output::print(&text(&status))?,
    }
    say_problems(&catalog)
}

/// Fails when the catalog is damaged: what was printed is what is still readable.
pub(super) fn say_problems(catalog: &Catalog) -> Result<(), Failure> {
    let problems = catalog.problems();
    let Some(first) = problems.first() else { return Ok(()) };
    Err(Failure::new(
        FailureKind::Damaged,
        format!(
            "the catalog has {}, so this is not all there was; the first: {first}",
            count(problems.len() as u64, "problem")
        ),
    ))
}

fn status(store: String, catalog: &Catalog, range: TimeRange) -> Status {
    let totals = catalog.totals(range);
    let mut protocols: BTreeMap<String, u64> = BTreeMap::new();
    let (mut oldest, mut newest): (Option<Time>, Option<Time>) = (None, None);
    for segment in catalog.segments(range) {
        for (name, packets) in &segment.entry.protocols {
            *protocols.entry(name.clone()).or_default() += packets;
        }
        oldest =
            segment.entry.first.map(|time| oldest.map_or(time, |old| old.min(time))).or(oldest);
        newest = segment.entry.last.map(|time| newest.map_or(time, |new| new.max(time))).or(newest);
    }
    let listened = merge(catalog.coverage(range).map(|(_, _, listened)| listened));
    let gaps = listened
        .windows(2)
        .map(|pair| TimeRange { start: pair[0].end, end: pair[1].start })
        .collect::<Vec<_>>();
    let span =
        |range: &TimeRange| Span { from: range.start.to_string(), to: range.end.to_string() };
    let loss = |recorder: String, loss: &Loss| LossLine {
        recorder,
        from: loss.range.start.to_string(),
        to: loss.range.end.to_string(),
        cause: loss.cause.name().to_owned(),
        packets: loss.packets,
        bytes: loss.bytes,
        note: loss.note.clone(),
    };
    let layers: BTreeMap<String, u64> =
        totals.layers.iter().map(|(name, (_, bytes))| (name.clone(), *bytes)).collect();
    Status {
        store,
        segments: totals.segments,
        packets: totals.packets,
        flow_parts: totals.flow_parts,
        captured_bytes: totals.captured_bytes,
        wire_bytes: totals.wire_bytes,
        stored_bytes: layers.values().sum(),
        layers,
        oldest: oldest.map(|time| time.to_string()),
        newest: newest.map(|time| time.to_string()),
        packets_by_protocol: protocols,
        listened: listened.iter().map(span).collect(),
        gaps: gaps.iter().map(span).collect(),
        losses: catalog
            .losses(range)
            .map(|(recorder, _, lost)| loss(recorder.to_string(), lost))
            .collect(),
        problems: catalog.problems().iter().map(ToString::to_string).collect(),
    }
}

/// Stretches during which anything listened, touching ones joined.
fn merge<'a>(listened: impl Iterator<Item = &'a Listened>) -> Vec<TimeRange> {
    let mut ranges: Vec<TimeRange> = listened.map(|listened| listened.range).collect();
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<TimeRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Spans and losses listed in full; more are only counted.
const LISTED: usize = 10;

fn text(status: &Status) -> String {
    let mut out = format!("{}\n", status.store);
    if status.segments == 0 {
        out += "nothing is stored in this window\n";
    } else {
        out += &format!(
            "{} in {}, {} in {}\n",
            count(status.packets, "packet"),
            count(status.segments, "segment"),
            count(status.flow_parts, "flow part"),
            bytes(status.captured_bytes)
        );
    }
    if let (Some(oldest), Some(newest)) = (&status.oldest, &status.newest) {
        out += &format!("oldest packet  {oldest}\nnewest packet  {newest}\n");
    }
    if status.segments > 0 {
        let mut table = output::table(&["layer", "stored", "share"]);
        for layer in Layer::ALL {
            let stored = status.layers.get(layer.name()).copied().unwrap_or(0);
            let share = 100.0 * stored as f64 / status.stored_bytes.max(1) as f64;
            table.add_row([layer.name().to_owned(), bytes(stored), format!("{share:.1} %")]);
        }
        table.add_row(["all".to_owned(), bytes(status.stored_bytes), String::new()]);
        out += &format!("\n{table}\n\n");
        let mut table = output::table(&["protocol", "packets"]);
        let mut protocols: Vec<_> = status.packets_by_protocol.iter().collect();
        protocols.sort_by_key(|(name, packets)| (std::cmp::Reverse(**packets), (*name).clone()));
        for (name, packets) in protocols {
            table.add_row([name.clone(), packets.to_string()]);
        }
        out += &format!("{table}\n\n");
    }
    let spans = |title: &str, spans: &[Span]| {
        let mut text = String::new();
        for span in spans.iter().take(LISTED) {
            text += &format!("{title}  {} to {}\n", span.from, span.to);
        }
        if spans.len() > LISTED {
            text += &format!("{title}  … and {} more\n", spans.len() - LISTED);
        }
        text
    };
    if status.listened.is_empty() {
        out += "nothing says that anybody listened in this window: what happened is unknown\n";
    }
    out += &spans("listened", &status.listened);
    out += &spans("not listened", &status.gaps);
    for loss in status.losses.iter().take(LISTED) {
        let packets = match loss.packets {
            0 => "an unknown number of packets".to_owned(),
            packets => count(packets, "packet"),
        };
        out += &format!("lost  {packets} from {} to {}: {}", loss.from, loss.to, loss.cause);
        out += &if loss.note.is_empty() { "\n".to_owned() } else { format!(" ({})\n", loss.note) };
    }
    if status.losses.len() > LISTED {
        out += &format!("lost  … and {} more\n", status.losses.len() - LISTED);
    }
    out
}
