//! The clients people use: `tests/python/flight_clients.py` with pyarrow and ADBC.

use std::path::Path;
use std::process::{Command, Output};

use super::fixture::Server;

fn python(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new("python3").args(arguments).output()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pyarrow_and_adbc_understand_the_server() {
    let found = python(&["-c", "import pyarrow.flight, adbc_driver_flightsql.dbapi"]);
    if !found.is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 with pyarrow and adbc_driver_flightsql is not installed");
        return;
    }
    let server = Server::start().await;
    let url = format!("grpc://{}", server.address);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/flight_clients.py");
    let run = tokio::task::spawn_blocking(move || {
        let script = script.to_str().expect("a path in UTF-8");
        python(&[script, "--server", &url, "--table", "packets", "--empty-table", "flows"])
    });
    let run = run.await.expect("no panic").expect("python3 runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    println!("{said}");
}
