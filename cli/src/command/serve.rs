//! `capstan serve`.

use std::path::PathBuf;
use std::sync::Arc;

use capstan_model::{Failure, FailureKind};
use capstan_query_server::questions::Limits;
use capstan_query_server::sessions::{Options, StoreSessions};
use capstan_query_server::{flight, http};
use capstan_storage_engine::cache::{Cache, CacheSettings, DiskSettings};
use capstan_storage_engine::store::Store;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::limited::Limited;
use crate::interrupt;
use crate::settings::Settings;

/// Where Flight listens unless said otherwise.
const FLIGHT: &str = "127.0.0.1:32010";
/// Where HTTP listens unless said otherwise.
const HTTP: &str = "127.0.0.1:32080";
/// Memory of the cache unless said otherwise.
const MEMORY_MIB: usize = 64;
/// What the cache may take on a disk unless said otherwise.
const DISK_MIB: u64 = 1_024;

/// Serve SQL (Arrow Flight) and PCAPNG (HTTP)
///
/// Anybody who reaches the ports can read all packets: there is no log-in yet, so both listen on this
/// machine only unless told otherwise. Runs until Ctrl-C; answers that are being sent are finished.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan serve --store ./store
  capstan serve --store s3://bucket/prefix --flight 0.0.0.0:32010
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
    /// Address and port of Arrow Flight; port 0 takes a free one [default: 127.0.0.1:32010]
    #[arg(long, value_name = "ADDRESS:PORT")]
    flight: Option<String>,
    /// Address and port of HTTP; port 0 takes a free one [default: 127.0.0.1:32080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
}

/// What is kept of what was read.
#[derive(Debug, clap::Args)]
pub(crate) struct Keeping {
    /// MiB of memory for pieces of segments that were read [default: 64]
    #[arg(long, value_name = "MIB")]
    cache_memory_mib: Option<usize>,
    /// Folder on a local disk where such pieces are kept too, for this process alone [default: none]
    #[arg(long, value_name = "DIR")]
    cache_folder: Option<PathBuf>,
    /// MiB that may be taken in that folder [default: 1024]
    #[arg(long, value_name = "MIB")]
    cache_disk_mib: Option<u64>,
}

impl Keeping {
    /// Opens the cache.
    pub(super) async fn open(&self, settings: &Settings) -> Result<Cache, Failure> {
        let file = &settings.cache;
        let memory = self.cache_memory_mib.or(file.memory_mib).unwrap_or(MEMORY_MIB);
        let room = self.cache_disk_mib.or(file.disk_mib).unwrap_or(DISK_MIB);
        let folder = self.cache_folder.as_ref().or(file.folder.as_ref());
        let bytes = room.saturating_mul(1 << 20);
        let disk = folder.map(|folder| DiskSettings { folder: folder.clone(), bytes });
        Cache::open(CacheSettings { memory: memory.saturating_mul(1 << 20), disk }).await
    }
}

/// Sockets that listen already.
pub(super) struct Listening {
    pub(super) flight: TcpListener,
    pub(super) http: TcpListener,
}

impl Ports {
    /// Takes the ports, before anything else is started.
    pub(super) async fn listen(&self, settings: &Settings) -> Result<Listening, Failure> {
        let flight = self.flight.as_deref().or(settings.serve.flight.as_deref()).unwrap_or(FLIGHT);
        let http = self.http.as_deref().or(settings.serve.http.as_deref()).unwrap_or(HTTP);
        Ok(Listening { flight: bind(flight).await?, http: bind(http).await? })
    }
}

async fn bind(address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::AddrInUse => FailureKind::AlreadyThere,
            std::io::ErrorKind::PermissionDenied => FailureKind::Permission,
            std::io::ErrorKind::InvalidInput => FailureKind::Usage,
            _ => FailureKind::Unavailable,
        };
        let what = format!("cannot listen on {address}; --flight and --http choose other ports");
        Failure::caused_by(kind, what, error)
    })
}

pub(crate) fn run(
    arguments: Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let (listening, store, cache) = runtime.block_on(async {
        let store = settings.open().await?;
        let cache = arguments.keeping.open(settings).await?;
        Ok::<_, Failure>((arguments.ports.listen(settings).await?, store, cache))
    })?;
    let (stop, stopped) = watch::channel(false);
    interrupt::watch(runtime, move || {
        stop.send_replace(true);
    })?;
    let limits = arguments.limits.of_server(settings);
    runtime.block_on(serve(listening, store, cache, limits, stopped))
}

/// Serves until told to stop.
pub(super) async fn serve(
    listening: Listening,
    store: Store,
    cache: Cache,
    limits: Limits,
    stopped: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let place = store.place().to_owned();
    let options = Options { cache: cache.clone(), limits, ..Options::default() };
    let sessions = Arc::new(StoreSessions::open(store, options).await?);
    let told = |listener: &TcpListener| {
        listener.local_addr().map_err(|error| Failure::io("a listener fails", error))
    };
    eprintln!(
        "serving {place}: SQL at http://{}, PCAPNG at http://{}/api/v1/export.pcapng; Ctrl-C stops",
        told(&listening.flight)?,
        told(&listening.http)?
    );
    // Both follow the store as one, and share what is open of it.
    let http = http::serve(listening.http, Arc::clone(&sessions), until(stopped.clone()));
    let flight = flight::serve(listening.flight, sessions, until(stopped));
    let ended = tokio::try_join!(flight, http).map(|_| ());
    cache.settle().await;
    ended
}

/// Ends when told to stop, or when nobody can tell any more.
async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopped.wait_for(|stop| *stop).await;
}
