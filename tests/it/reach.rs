//! Which requests a server accepts, and that no client blocks the others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::capstan::{answer, binary, capstan, fails, over, run};
use crate::server::Server;
use crate::traffic::Noise;

/// A store of a hundred packets.
fn store(scratch: &std::path::Path) -> std::path::PathBuf {
    let (store, file) = (scratch.join("store"), scratch.join("noise.pcap"));
    Noise { hours: 1, packets_an_hour: 100 }.write(&file);
    answer(over(&store, "import").arg(&file));
    store
}

/// The status that `GET` with this `Host` is answered with.
fn status(address: &str, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        .expect("it listens");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[9..12]).into_owned()
}

#[test]
fn non_loopback_addresses_need_insecure() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = store(scratch.path());
    for option in ["--flight", "--http"] {
        for place in ["0.0.0.0:0", "[::]:0"] {
            let other = if option == "--http" { "--flight" } else { "--http" };
            let mut command = over(&store, "serve");
            command.args([option, place, other, "127.0.0.1:0"]);
            let said = fails(&mut command, 2, &[option, "--insecure"]);
            assert!(!said.contains("serving "), "{said}");
        }
    }
    let file = scratch.path().join("capstan.toml");
    std::fs::write(&file, "[serve]\nhttp = '0.0.0.0:0'\n").expect("a scratch file");
    let mut command = over(&store, "serve");
    command.arg("--config").arg(&file).args(["--flight", "127.0.0.1:0"]);
    fails(&mut command, 2, &["--http", "--insecure"]);
    fails(over(&store, "serve").args(["--allow-host", "a b"]), 2, &["'a b'"]);

    let mut server = Server::launch_at(over(&store, "serve").arg("--insecure"), "0.0.0.0:0");
    let port = server.http.rsplit(':').next().expect("a port").to_owned();
    let local = format!("127.0.0.1:{port}");
    assert_eq!(status(&local, "/api/v1/status", &local), "200");
    assert_eq!(status(&local, "/api/v1/status", "evil.example"), "421");
    let output = server.stop();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.matches("can read all packets").count(), 2, "{said}");
}

#[test]
fn only_own_host_names_are_accepted() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = store(scratch.path());
    let server =
        Server::launch(over(&store, "serve").args(["--allow-host", "capstan.example.net"]));
    for path in ["/api/v1/export.pcapng", "/api/v1/status", "/metrics", "/healthz", "/nothing"] {
        let own = if path == "/nothing" { "404" } else { "200" };
        for host in ["localhost", &server.http, "127.0.0.1", "[::1]:9", "Capstan.Example.net:80"] {
            assert_eq!(status(&server.http, path, host), own, "{path} of {host}");
        }
        for host in ["evil.example", "127.0.0.1.nip.io", "10.1.2.3", "evil.example:32080"] {
            assert_eq!(status(&server.http, path, host), "421", "{path} of {host}");
        }
    }
    // The command line comes by the address, and by the name of this machine for itself.
    let (_, port) = server.flight.rsplit_once(':').expect("a port");
    for url in [format!("http://{}", server.flight), format!("grpc://localhost:{port}")] {
        let mut command = capstan();
        command.args(["sql", "--format", "csv", "select count(*) from packets", "--server", &url]);
        assert!(answer(&mut command).ends_with("\n100\n"));
    }
}

#[test]
fn slow_clients_do_not_block_others() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = store(scratch.path());
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 128 && exec \"$0\" serve --store \"$1\" \"$2\" \"$3\" \"$4\" \"$5\"",
    ]);
    command.arg(binary()).arg(&store).env_remove("CAPSTAN_CONFIG");
    let server = Server::launch(&mut command);
    let mut slow = Vec::new();
    for number in 0..400 {
        let address = if number % 2 == 0 { &server.http } else { &server.flight };
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let _ = stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: ");
        slow.push(stream);
    }
    let began = Instant::now();
    assert_eq!(status(&server.http, "/healthz", "localhost"), "200");
    assert_eq!(status(&server.http, "/api/v1/status", "localhost"), "200");
    assert_eq!(server.get("/api/v1/export.pcapng").0, 200);
    let mut command = capstan();
    command.args(["sql", "select count(*) from packets", "--server"]);
    let asked = run(command.arg(format!("http://{}", server.flight)));
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    drop(slow);
}

#[test]
fn options_without_a_value_are_refused() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = store(scratch.path());
    let out = scratch.path().join("out.pcapng");
    for option in ["--ip", "--port", "--protocol", "--from", "--to", "--order"] {
        let mut command = over(&store, "export");
        command.args([option, ""]).arg("-o").arg(&out);
        fails(&mut command, 2, &[]);
    }
    fails(over(&store, "export").args(["-o", ""]), 2, &["-o"]);
    fails(over(&store, "status").args(["--from", ""]), 2, &[]);
    fails(over(&store, "files").args(["--layer", ""]), 2, &[]);
    for option in ["--store", "--cluster", "--config", "--server"] {
        let mut command = capstan();
        command.args(["status", option, ""]);
        if option != "--store" {
            command.arg("--store").arg(&store);
        }
        fails(&mut command, 2, &[option]);
    }
    let mut command = over(&store, "serve");
    command.args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--allow-host", ""]);
    fails(&mut command, 2, &[]);
    assert!(!out.exists());
}
