//! The same questions to DuckDB over the same files: `tests/python/sql_against_duckdb.py`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use capstan_fixtures::{Recording, record, traffic};
use capstan_storage_engine::store::{Location, Options, Store};
use capstan_view::access::Principal;
use tokio::net::TcpListener;

use super::fixture::capture;
use crate::flight::{self, Sessions};
use crate::sessions::{self, StoreSessions};

/// The script's exit code when something it needs is not installed.
const SKIPPED: i32 = 77;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_and_every_client_give_the_same_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::Folder(folder.path().to_owned());
    let store = Store::open_or_create(&location, "default", &Options::default()).await;
    let store = store.expect("a store");
    let start = 1_700_000_000_000_000_000;
    let small = |recorder| Recording { segment_bytes: 64 << 10, ..Recording::of(recorder) };
    record(&store, small(1), traffic(1, 3_000, start, 10_000_000)).await;
    for (name, recorder) in [
        ("wireshark/http2-data-reassembly.pcap", 2),
        ("ndpi/vxlan.pcap", 3),
        ("ndpi/http_ipv6.pcap", 4),
        ("arkime/twovlan.pcap", 5),
    ] {
        if let Some(given) = capture(name) {
            record(&store, small(recorder), given).await;
        }
    }
    let sessions = StoreSessions::open(store, sessions::Options::default()).await;
    let sessions: Arc<dyn Sessions> = Arc::new(sessions.expect("a store"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(flight::serve(
        listener,
        sessions,
        Principal::everything(),
        std::future::pending(),
    ));

    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/sql_against_duckdb.py");
    let mut python = Command::new("python3");
    python.arg(script).arg("--store").arg(folder.path());
    python.args(["--server", &format!("grpc://{address}")]);
    let run = tokio::task::spawn_blocking(move || python.output()).await.expect("no panic");
    server.abort();
    let Ok(run) = run else {
        println!("skipped: python3 is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&run.stdout);
    if run.status.code() == Some(SKIPPED) {
        println!("{said}");
        return;
    }
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
}
