//! A Capstan server that ends with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::capstan::{over, signal};
use crate::crash;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `capstan serve` or `capstan up`, on ports of its own choice.
pub(crate) struct Server {
    began: SystemTime,
    child: Option<Child>,
    words: Option<JoinHandle<String>>,
    /// `127.0.0.1:port` of Arrow Flight.
    pub(crate) flight: String,
    /// `127.0.0.1:port` of HTTP.
    pub(crate) http: String,
}

impl Server {
    /// Serves a store.
    pub(crate) fn start(store: &Path) -> Server {
        Server::launch(&mut over(store, "serve"))
    }

    /// Starts a command that serves, and waits until it does.
    pub(crate) fn launch(command: &mut Command) -> Server {
        Server::launch_at(command, "127.0.0.1:0")
    }

    /// The same, listening on this address.
    pub(crate) fn launch_at(command: &mut Command, address: &str) -> Server {
        command.args(["--flight", address, "--http", address]);
        let began = SystemTime::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        let (tell, told) = mpsc::channel();
        // Somebody must go on reading, or the server would block on what it says.
        let words = std::thread::spawn(move || {
            let mut all = String::new();
            for line in errors.lines().map_while(Result::ok) {
                if line.starts_with("serving ") {
                    let _ = tell.send(line.clone());
                }
                all.push_str(&line);
                all.push('\n');
            }
            all
        });
        let mut server = Server {
            began,
            child: Some(child),
            words: Some(words),
            flight: String::new(),
            http: String::new(),
        };
        let Ok(line) = told.recv_timeout(PATIENCE) else {
            let output = server.stop();
            panic!("{command:?} does not serve: {}", String::from_utf8_lossy(&output.stderr));
        };
        let after = |words: &str| {
            let (_, rest) = line.split_once(words).unwrap_or_else(|| panic!("{line}"));
            rest.split([',', '/', ';']).next().unwrap_or_default().to_owned()
        };
        server.flight = after("SQL at http://");
        server.http = after("PCAPNG at http://");
        server
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was not stopped").id()
    }

    /// Asks it to stop, once, and waits for its end.
    pub(crate) fn stop(&mut self) -> Output {
        let mut child = self.child.take().expect("it is stopped once");
        signal(&child, libc::SIGINT);
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("it is ours") {
                break status;
            }
            if asked.elapsed() > PATIENCE {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut stdout = Vec::new();
        let _ = child.stdout.take().expect("it is piped").read_to_end(&mut stdout);
        let stderr = self.words.take().map(|words| words.join().expect("it only reads"));
        let stderr = stderr.unwrap_or_default();
        crash::check(self.began, status, &stderr);
        Output { status, stdout, stderr: stderr.into_bytes() }
    }

    /// `GET` by HTTP: the status and the body.
    pub(crate) fn get(&self, path: &str) -> (u16, Vec<u8>) {
        get(&self.http, path)
    }
}

/// `GET` by HTTP at `address:port`: the status and the body.
pub(crate) fn get(address: &str, path: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    // In HTTP/1.0 the body ends with the connection: no chunks to put together.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("it listens");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("headers") + 4;
    let status = std::str::from_utf8(&answer[9..12]).expect("a status line");
    (status.parse().expect("a status"), answer[end..].to_vec())
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
