//! Settings: from the command line, then the environment, then `capstan.toml`, then defaults.

use std::path::{Path, PathBuf};

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::store::{Location, Options, Prices, Store};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;

/// Options of every subcommand.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The store: a folder, file:///folder or s3://bucket/prefix
    #[arg(long, global = true, env = "CAPSTAN_STORE", value_name = "STORE",
          value_parser = NonEmptyStringValueParser::new())]
    store: Option<String>,
    /// The cluster's name within the store
    #[arg(long, global = true, env = "CAPSTAN_CLUSTER", value_name = "NAME",
          value_parser = NonEmptyStringValueParser::new())]
    cluster: Option<String>,
    /// Settings file [default: ./capstan.toml, then /etc/capstan/capstan.toml, if it exists]
    #[arg(long, global = true, env = "CAPSTAN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log more (-vv: even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// `capstan.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    store: Option<String>,
    cluster: Option<String>,
    #[serde(default)]
    record: RecordFile,
    #[serde(default)]
    serve: ServeFile,
    #[serde(default)]
    cache: CacheFile,
    #[serde(default)]
    prices: Prices,
}

/// `[record]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordFile {
    /// Interfaces by name, or `any`.
    pub(crate) interfaces: Option<Vec<String>>,
    /// MiB of memory for all capture rings together.
    pub(crate) ring_mib: Option<usize>,
    /// Seconds between commits.
    pub(crate) commit_seconds: Option<u64>,
    /// Address and port of the metrics.
    pub(crate) metrics: Option<String>,
    /// MiB of memory for the recorder.
    pub(crate) memory_mib: Option<usize>,
}

/// `[serve]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServeFile {
    /// Address and port of Arrow Flight.
    pub(crate) flight: Option<String>,
    /// Address and port of HTTP.
    pub(crate) http: Option<String>,
    /// Whether listening addresses other than loopback are allowed.
    #[serde(default)]
    pub(crate) insecure: bool,
    /// Host names that requests may name besides this machine's own.
    #[serde(default)]
    pub(crate) allow_hosts: Vec<String>,
    /// Maximum number of connections of each port.
    pub(crate) connections: Option<usize>,
    /// MiB of memory for all queries and exports together.
    pub(crate) memory_mib: Option<u32>,
    /// Seconds one query may work; 0 is no limit.
    pub(crate) query_seconds: Option<u64>,
}

/// `[cache]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheFile {
    /// MiB of memory for pieces of segments.
    pub(crate) memory_mib: Option<usize>,
    /// Size limit of the disk cache, MiB.
    pub(crate) disk_mib: Option<u64>,
    /// Folder of the disk cache.
    pub(crate) folder: Option<PathBuf>,
}

/// All settings but a subcommand's own.
#[derive(Debug)]
pub(crate) struct Settings {
    store: Option<String>,
    cluster: String,
    pub(crate) record: RecordFile,
    pub(crate) serve: ServeFile,
    pub(crate) cache: CacheFile,
    prices: Prices,
}

/// The cluster's name where none is given.
const CLUSTER: &str = "default";

impl Settings {
    /// Puts command line, environment and file together.
    pub(crate) fn load(global: Global) -> Result<Settings, Failure> {
        let file = match &global.config {
            Some(path) => read(path)?,
            None => ["capstan.toml", "/etc/capstan/capstan.toml"]
                .iter()
                .map(Path::new)
                .find(|path| path.is_file())
                .map_or_else(|| Ok(File::default()), read)?,
        };
        Ok(Settings {
            store: global.store.or(file.store),
            cluster: global.cluster.or(file.cluster).unwrap_or_else(|| CLUSTER.to_owned()),
            record: file.record,
            serve: file.serve,
            cache: file.cache,
            prices: file.prices,
        })
    }

    /// Where the store is.
    pub(crate) fn location(&self) -> Result<Location, Failure> {
        self.location_or(None)
    }

    /// Where the store is, or a place of the subcommand's own choice.
    pub(crate) fn location_or(&self, fallback: Option<&str>) -> Result<Location, Failure> {
        match self.store.as_deref().or(fallback) {
            Some(text) => text.parse(),
            None => Err(Failure::new(
                FailureKind::Usage,
                "no store given: use --store DIR or --store s3://bucket/prefix, set \
                 CAPSTAN_STORE, or write store = \"…\" into capstan.toml",
            )),
        }
    }

    /// Opens the store to read.
    pub(crate) async fn open(&self) -> Result<Store, Failure> {
        Store::open(&self.location()?, &self.cluster, &self.options()?).await
    }

    /// Opens the store to repair it; see [`Store::open_damaged`].
    pub(crate) async fn open_damaged(&self, rehearsal: bool) -> Result<(Store, bool), Failure> {
        let (location, options) = (self.location()?, self.options()?);
        Store::open_damaged(&location, &self.cluster, &options, rehearsal).await
    }

    fn options(&self) -> Result<Options, Failure> {
        Ok(Options { prices: self.prices, ..Options::from_env()? })
    }

    /// Opens the store to write; makes it if there is none.
    pub(crate) async fn open_or_create(&self, fallback: Option<&str>) -> Result<Store, Failure> {
        let location = self.location_or(fallback)?;
        Store::open_or_create(&location, &self.cluster, &self.options()?).await
    }
}

fn read(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::io(format!("cannot read the settings in {}", path.display()), error)
    })?;
    toml::from_str(&text).map_err(|error| {
        Failure::caused_by(
            FailureKind::Usage,
            format!("invalid settings in {}", path.display()),
            error,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_read_and_a_misspelt_key_is_refused() {
        let file: File = toml::from_str(
            "store = '/data'\ncluster = 'a'\n[record]\ninterfaces = ['any']\nring_mib = 64\n\
             commit_seconds = 10\nmetrics = '127.0.0.1:3'\nmemory_mib = 992\n[serve]\nflight = '127.0.0.1:1'\nhttp = '127.0.0.1:2'\n\
             insecure = false\nallow_hosts = ['a']\nconnections = 9\nmemory_mib = 512\nquery_seconds = 60\n\
             [cache]\nmemory_mib = 64\ndisk_mib = 1024\nfolder = '/cache'\n[prices]\nget = 0.1\n",
        )
        .unwrap();
        assert_eq!(file.cache.folder, Some("/cache".into()));
        assert_eq!(file.prices, Prices { get: 0.1, ..Prices::default() });
        assert_eq!(file.store.as_deref(), Some("/data"));
        assert!(toml::from_str::<File>("stroe = '/data'").is_err());
    }
}
