//! `capstan files`.

use capstan_model::{Failure, TimeRange};
use capstan_storage_engine::catalog::Catalog;
use capstan_storage_engine::segment::Layer;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::window::Window;
use crate::output;
use crate::settings::Settings;

/// List a store's committed objects
///
/// Only what a commit names: what an interrupted upload left behind is not in it. The Parquet
/// layers can be read by DuckDB, Spark or pandas as they are.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan files --store ./store --from -1h
  capstan files --store ./store --layer flows --format json")]
pub(crate) struct Arguments {
    #[command(flatten)]
    window: Window,
    /// Only objects of this layer: body, head, packets, flows or index
    #[arg(long, value_name = "LAYER", value_parser = layer)]
    layer: Option<Layer>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One object name a line
    Text,
    /// All that is known of each object
    Json,
}

fn layer(name: &str) -> Result<Layer, String> {
    Layer::from_name(name)
        .ok_or_else(|| "layers are body, head, packets, flows and index".to_owned())
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
    let range = arguments.window.range()?;
    let (store, catalog) = runtime.block_on(async {
        let store = settings.open().await?;
        let catalog = Catalog::load(&store).await?;
        Ok::<_, Failure>((store, catalog))
    })?;
    let objects = list(&catalog, range, arguments.layer, &store.format().cluster);
    match arguments.format {
        Format::Json => output::print(&output::json(&objects)?)?,
        Format::Text => {
            let lines: String = objects.iter().map(|object| object.path.clone() + "\n").collect();
            output::print(&lines)?;
        }
    }
    super::status::say_problems(&catalog)
}

fn list(catalog: &Catalog, range: TimeRange, only: Option<Layer>, cluster: &str) -> Vec<Object> {
    let mut objects = Vec::new();
    for segment in catalog.segments(range) {
        let entry = &segment.entry;
        for layer in Layer::ALL.into_iter().filter(|layer| only.is_none_or(|only| only == *layer)) {
            let Some(known) = entry.layer(layer) else { continue };
            objects.push(Object {
                path: format!("{cluster}/{}", entry.path(layer)),
                segment: entry.name.clone(),
                layer: layer.name().to_owned(),
                bytes: known.bytes,
                sha256: known.sha256.clone(),
                first: entry.first.map(|time| time.to_string()),
                last: entry.last.map(|time| time.to_string()),
                packets: entry.packets,
            });
        }
    }
    objects
}
