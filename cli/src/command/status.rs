//! `capstan status`.

mod read;

use std::collections::BTreeMap;

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::segment::Layers;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::asked::Server;
use super::window::Window;
use crate::interrupt;
use crate::output::{self, bytes, count};
use crate::settings::Settings;

/// Show contents, time range, coverage and losses of a store
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan status --store ./store
  capstan status --store s3://bucket/prefix --from -1h --format json
  capstan status --server http://127.0.0.1:32010")]
pub(crate) struct Arguments {
    #[command(flatten)]
    window: Window,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Default, Serialize)]
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
    /// Times between those, of which it is unknown whether anything was captured.
    unknown: Vec<Span>,
    losses: Vec<LossLine>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Span {
    from: String,
    to: String,
}

#[derive(Debug, Serialize)]
struct LossLine {
    recorder: String,
    /// None if it is not known when it was.
    from: Option<String>,
    to: Option<String>,
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
    let (status, ended) = interrupt::until(runtime, "stopped", async {
        let asked = arguments.server.open(settings).await?;
        read::status(&asked, range).await
    })?;
    match arguments.format {
        Format::Json => output::print(&output::json(&status)?)?,
        Format::Table => output::print(&text(&status))?,
    }
    ended?;
    // Nothing is missing in the output, but the problem needs attention.
    match status.problems.first() {
        None => Ok(()),
        Some(first) => {
            let many = count(status.problems.len() as u64, "problem");
            let what =
                format!("the catalog has {many} without effect on this output; the first: {first}");
            Err(Failure::new(FailureKind::Damaged, what))
        }
    }
}

/// Spans and losses listed in full; more are only counted.
const LISTED: usize = 10;

fn text(status: &Status) -> String {
    let mut out = format!("{}\n", output::name(&status.store));
    if status.segments == 0 {
        out += "no packets are stored in this time window\n";
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
        let stored = |name: &str| status.layers.get(name).copied().unwrap_or(0);
        let known = Layers::KNOWN.all().map(|layer| (layer.name(), stored(layer.name())));
        let unknown = status.layers.iter().map(|(name, stored)| (name.as_str(), *stored));
        let unknown = unknown.filter(|(name, _)| Layers::KNOWN.named(name).is_none());
        for (name, stored) in known.chain(unknown) {
            let share = 100.0 * stored as f64 / status.stored_bytes.max(1) as f64;
            let name = output::name(name).into_owned();
            table.add_row([name, bytes(stored), format!("{share:.1} %")]);
        }
        table.add_row(["all".to_owned(), bytes(status.stored_bytes), String::new()]);
        out += &format!("\n{table}\n\n");
        let mut table = output::table(&["protocol", "packets"]);
        let mut protocols: Vec<_> = status.packets_by_protocol.iter().collect();
        protocols.sort_by_key(|(name, packets)| (std::cmp::Reverse(**packets), (*name).clone()));
        for (name, packets) in protocols {
            table.add_row([output::name(name).into_owned(), packets.to_string()]);
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
        out += "no coverage in this time window: whether there were packets is unknown\n";
    }
    out += &spans("listened", &status.listened);
    out += &spans("unknown", &status.unknown);
    for loss in status.losses.iter().take(LISTED) {
        let packets = match loss.packets {
            0 => "an unknown number of packets".to_owned(),
            packets => count(packets, "packet"),
        };
        let when = match (&loss.from, &loss.to) {
            (Some(from), Some(to)) => format!("from {from} to {to}"),
            _ => "at an unknown time".to_owned(),
        };
        out += &format!("lost  {packets} {when}: {}", loss.cause);
        out += &if loss.note.is_empty() {
            "\n".to_owned()
        } else {
            format!(" ({})\n", output::name(&loss.note))
        };
    }
    if status.losses.len() > LISTED {
        out += &format!("lost  … and {} more\n", status.losses.len() - LISTED);
    }
    out
}
