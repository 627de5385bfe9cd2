//! `capstan serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use capstan_model::Failure;
use capstan_query_server::listen::{self, Hosts, Listener, Rules};
use capstan_query_server::sessions::{Options, StoreSessions};
use capstan_query_server::{flight, http};
use capstan_storage_engine::cache::{Cache, CacheSettings, DiskSettings};
use capstan_storage_engine::store::Store;
use capstan_view::access::Principal;
use clap::builder::NonEmptyStringValueParser;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::bind::{addresses, bind};
use super::limited::Limited;
use crate::interrupt;
use crate::output;
use crate::settings::Settings;
use crate::stopped::or_stopped;

/// Default address of Flight.
const FLIGHT: &str = "127.0.0.1:32010";
/// Default address of HTTP.
const HTTP: &str = "127.0.0.1:32080";
/// Hint about other addresses.
const HINT: &str = "--flight and --http choose other ports";
/// Default size of the disk cache, MiB.
const DISK_MIB: u64 = 1_024;

/// Serve SQL (Arrow Flight) and PCAPNG (HTTP)
///
/// There is no authentication yet: any client that reaches the ports can read all packets. So both
/// listen on loopback by default, and another address is refused without --insecure. Runs until
/// Ctrl-C; running answers then have ten seconds to finish.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan serve --store ./store
  capstan serve --store s3://bucket/prefix --flight 0.0.0.0:32010 --insecure
  capstan serve --store s3://bucket/prefix --cache-folder /var/cache/capstan
  capstan sql --server http://127.0.0.1:32010 'select count(*) from packets'
  curl -o dns.pcapng 'http://127.0.0.1:32080/api/v1/export.pcapng?port=53'")]
pub(crate) struct Arguments {
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    keeping: Keeping,
    #[command(flatten)]
    limits: Limited,
}

/// Where to listen.
#[derive(Debug, clap::Args)]
pub(crate) struct Ports {
    /// Listening address and port of Arrow Flight; port 0 picks one [default: 127.0.0.1:32010]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = NonEmptyStringValueParser::new())]
    flight: Option<String>,
    /// Listening address and port of HTTP; port 0 picks one [default: 127.0.0.1:32080]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = NonEmptyStringValueParser::new())]
    http: Option<String>,
    /// Allow listening addresses other than loopback: any client that reaches them can read all
    /// packets
    #[arg(long)]
    insecure: bool,
    /// Also accept requests for this host name or address; may be repeated [default: this machine's
    /// names]
    #[arg(long = "allow-host", value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    allow_hosts: Vec<String>,
    /// Maximum number of connections per port [default: a quarter of the limit of open files, at
    /// most 1024]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: Option<u32>,
}

/// What is kept of what was read.
#[derive(Debug, clap::Args)]
pub(crate) struct Keeping {
    /// Memory for cached pieces of segments, MiB [default: 64, at most an eighth of --memory]
    #[arg(long, value_name = "MIB")]
    cache_memory_mib: Option<usize>,
    /// Folder of the disk cache on a local disk; one process per folder [default: none]
    #[arg(long, value_name = "DIR")]
    cache_folder: Option<PathBuf>,
    /// Size limit of the disk cache, MiB [default: 1024]
    #[arg(long, value_name = "MIB")]
    cache_disk_mib: Option<u64>,
}

impl Keeping {
    /// Memory of the cache, MiB, if it is given.
    pub(super) fn memory_mib(&self, settings: &Settings) -> Option<usize> {
        self.cache_memory_mib.or(settings.cache.memory_mib)
    }

    /// Opens the cache, with so many bytes of memory.
    pub(super) async fn open(&self, settings: &Settings, memory: usize) -> Result<Cache, Failure> {
        let file = &settings.cache;
        let room = self.cache_disk_mib.or(file.disk_mib).unwrap_or(DISK_MIB);
        let folder = self.cache_folder.as_ref().or(file.folder.as_ref());
        let bytes = room.saturating_mul(1 << 20);
        let disk = folder.map(|folder| DiskSettings { folder: folder.clone(), bytes });
        Cache::open(CacheSettings { memory, disk }).await
    }
}

/// Sockets that listen already.
pub(super) struct Listening {
    pub(super) flight: Listener,
    pub(super) http: Listener,
}

impl Ports {
    /// Takes the ports, before anything else is started.
    pub(super) async fn listen(&self, settings: &Settings) -> Result<Listening, Failure> {
        let insecure = self.insecure || settings.serve.insecure;
        let rules = self.rules(settings)?;
        let [flight, http] = self.places(settings);
        let flight = ("flight", flight, addresses(flight, HINT).await?);
        let http = ("http", http, addresses(http, HINT).await?);
        for (option, _, addresses) in [&flight, &http] {
            listen::check_reach(option, addresses, insecure)?;
        }
        let listener =
            async |(_, place, addresses): (&str, &str, Vec<SocketAddr>)| -> Result<_, Failure> {
                Ok(Listener::new(bind(place, &addresses, HINT).await?, rules.clone()))
            };
        Ok(Listening { flight: listener(flight).await?, http: listener(http).await? })
    }

    /// How the ports are served.
    pub(super) fn rules(&self, settings: &Settings) -> Result<Rules, Failure> {
        let file = &settings.serve;
        let mut hosts = Hosts::default();
        let listed = self.allow_hosts.iter().chain(&file.allow_hosts).map(String::as_str);
        for host in self.places(settings).into_iter().chain(listed) {
            hosts.allow(host)?;
        }
        let connections = self.connections.map(|number| number as usize).or(file.connections);
        Ok(Rules::new(hosts, connections))
    }

    /// Where Flight and HTTP are to listen.
    fn places<'a>(&'a self, settings: &'a Settings) -> [&'a str; 2] {
        let file = &settings.serve;
        [
            self.flight.as_deref().or(file.flight.as_deref()).unwrap_or(FLIGHT),
            self.http.as_deref().or(file.http.as_deref()).unwrap_or(HTTP),
        ]
    }
}

pub(crate) fn run(
    arguments: Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let cache = arguments.keeping.memory_mib(settings);
    let (limits, shares) = arguments.limits.of_server(settings, cache)?;
    let (stop, stopped) = watch::channel(false);
    let asked = interrupt::watch(runtime, "answers in progress are incomplete", move || {
        stop.send_replace(true);
    })?;
    let opening = async {
        let store = settings.open().await?;
        let cache = arguments.keeping.open(settings, shares.cache).await?;
        Ok::<_, Failure>((arguments.ports.listen(settings).await?, store, cache))
    };
    let (listening, store, cache) =
        runtime.block_on(or_stopped(&asked, "stopped before anything was served", opening))?;
    let options = Options { cache, limits, opened_memory: shares.opened, ..Options::default() };
    runtime.block_on(serve(listening, store, options, stopped))
}

/// Serves until a stop is requested.
pub(super) async fn serve(
    listening: Listening,
    store: Store,
    options: Options,
    stopped: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let (place, cache) = (store.place().to_owned(), options.cache.clone());
    let sessions = Arc::new(StoreSessions::open(store, options).await?);
    let everybody = Principal::everything();
    // Both follow the store as one, and share what is open of it.
    let (sql, pcapng) = (listening.flight.address()?, listening.http.address()?);
    for reached in [sql, pcapng].iter().filter(|address| !listen::is_own(address)) {
        output::tell(&format!(
            "--insecure: there is no authentication; any client that reaches {reached} can read \
             all packets"
        ));
    }
    output::tell(&format!(
        "serving {place}: SQL at http://{sql}, PCAPNG at http://{pcapng}/api/v1/export.pcapng; Ctrl-C stops"
    ));
    let http = http::serve(
        listening.http,
        Arc::clone(&sessions),
        Arc::clone(&everybody),
        until(stopped.clone()),
    );
    let flight = flight::serve(listening.flight, sessions, everybody, until(stopped));
    let ended = tokio::try_join!(flight, http).map(|_| ());
    cache.flush().await;
    ended
}

/// Ends when a stop is requested, or when the sender is gone.
async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopped.wait_for(|stop| *stop).await;
}
