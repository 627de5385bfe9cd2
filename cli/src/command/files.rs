//! `capstan files`.

use arrow::array::RecordBatch;
use capstan_model::{Failure, TimeRange};
use capstan_storage_engine::segment::{Layer, Layers};
use futures::StreamExt;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::asked::{Server, is_rest_of_answer, touching};
use super::cells;
use super::window::Window;
use crate::interrupt;
use crate::output;
use crate::settings::Settings;

/// List a store's committed objects
///
/// Lists only objects that a commit names, no orphans of interrupted uploads. DuckDB, Spark and
/// pandas can read the Parquet layers directly.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan files --store ./store --from -1h
  capstan files --store ./store --layer flows --format json
  capstan files --server http://127.0.0.1:32010 --from -1h")]
pub(crate) struct Arguments {
    #[command(flatten)]
    window: Window,
    /// Only objects of this layer: body, head, packets, flows or index
    #[arg(long, value_name = "LAYER", value_parser = layer)]
    layer: Option<Layer>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One object name per line
    Text,
    /// All properties of each object
    Json,
}

fn layer(name: &str) -> Result<Layer, String> {
    Layers::KNOWN.named(name).ok_or_else(|| {
        let names: Vec<_> = Layers::KNOWN.all().map(Layer::name).collect();
        format!("layers are {}", names.join(", "))
    })
}

#[derive(Serialize)]
struct Object {
    path: String,
    segment: String,
    layer: String,
    bytes: u64,
    sha256: String,
    first: Option<String>,
    last: Option<String>,
    packets: u64,
}

pub(crate) fn run(
    arguments: &Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let sql = statement(arguments.window.range()?, arguments.layer);
    interrupt::until(runtime, "stopped: the list of objects is incomplete", async {
        let asked = arguments.server.open(settings).await?;
        let mut answer = asked.query(&sql).await?;
        let mut objects = Vec::new();
        let mut ended = Ok(());
        while let Some(batch) = answer.batches.next().await {
            let batch = match batch {
                Err(failure) if is_rest_of_answer(&failure) => {
                    ended = Err(failure);
                    break;
                }
                batch => batch?,
            };
            match arguments.format {
                Format::Json => objects.extend(read(&batch)?),
                Format::Text => {
                    let paths = cells::texts(&batch, "path")?.into_iter().flatten();
                    let lines = paths.map(|path| format!("{}\n", output::name(&path)));
                    output::print(&lines.collect::<String>())?;
                }
            }
        }
        if arguments.format == Format::Json {
            output::print(&output::json(&objects)?)?;
        }
        ended
    })
}

fn statement(range: TimeRange, layer: Option<Layer>) -> String {
    let window = touching(range, "first_time", "last_time");
    let layer = layer.map(|layer| format!(" AND layer = '{}'", layer.name())).unwrap_or_default();
    format!("SELECT * FROM files WHERE {window}{layer} ORDER BY path")
}

fn read(batch: &RecordBatch) -> Result<Vec<Object>, Failure> {
    let text = |name| -> Result<_, Failure> {
        let texts = cells::texts(batch, name)?;
        Ok(texts.into_iter().map(Option::unwrap_or_default))
    };
    let time = |name| -> Result<_, Failure> {
        let times = cells::times(batch, name)?;
        Ok(times.into_iter().map(|time| time.map(|time| time.to_string())))
    };
    let (mut paths, mut segments, mut layers) = (text("path")?, text("segment")?, text("layer")?);
    let (mut hashes, mut firsts, mut lasts) =
        (text("sha256")?, time("first_time")?, time("last_time")?);
    let (bytes, packets) = (cells::numbers(batch, "bytes")?, cells::numbers(batch, "packets")?);
    let objects = bytes.into_iter().zip(packets).map(|(bytes, packets)| Object {
        path: paths.next().unwrap_or_default(),
        segment: segments.next().unwrap_or_default(),
        layer: layers.next().unwrap_or_default(),
        bytes,
        sha256: hashes.next().unwrap_or_default(),
        first: firsts.next().flatten(),
        last: lasts.next().flatten(),
        packets,
    });
    Ok(objects.collect())
}
