//! `up` is a recorder and a server, each a process of its own.

use std::time::{Duration, Instant};

use crate::cable::{Cable, numbers};
use crate::capstan::{capstan, numeric, over, run, said};
use crate::sandbox::{self, Own};
use crate::server::{PATIENCE, Server};

/// The processes that this one started and that run.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|process| parent_of(*process) == Some(parent)).collect()
}

/// The parent of a process that runs; `pid (name) state parent …`.
fn parent_of(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut after = stat.rsplit_once(')')?.1.split_whitespace();
    let runs = after.next()? != "Z";
    after.next()?.parse().ok().filter(|_| runs)
}

fn server_of(recorder: u32) -> u32 {
    match children(recorder)[..] {
        [server] => server,
        ref others => panic!("not one server: {others:?}"),
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[allow(unsafe_code)]
fn kill(process: u32) {
    let process = libc::pid_t::try_from(process).expect("a process id");
    // SAFETY: integers only.
    assert_eq!(unsafe { libc::kill(process, libc::SIGKILL) }, 0, "kill");
}

#[test]
fn killed_server_is_restarted_and_no_packet_is_lost() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    sandbox::with(Own::Network, || {
        let mut cable = Cable::new();
        let mut command = over(&store, "up");
        let mut up = Server::launch(command.args(["-i", "b0", "--commit-seconds", "1"]));
        cable.send(500);
        let server = server_of(up.pid());
        let first_to_go = |process: u32| -> i32 {
            let place = format!("/proc/{process}/oom_score_adj");
            std::fs::read_to_string(place).expect("a number").trim().parse().expect("a number")
        };
        assert!(first_to_go(server) > first_to_go(up.pid()));
        kill(server);
        cable.send(500);
        let url = format!("http://{}", up.flight);
        wait_for("the server does not come back", || {
            let ask = ["sql", "--server", &url, "select 1"];
            children(up.pid()).first().is_some_and(|other| *other != server)
                && run(capstan().args(ask)).status.success()
        });
        assert_eq!(up.get("/healthz"), (200, b"ok\n".to_vec()));
        cable.send(500);
        let output = up.stop();
        said("up", &output, 0, &["recording continues"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("recorded 1500 packets"));
        assert_eq!(numbers(&store, scratch.path()), Vec::from_iter(0..1_500));
        let lost = "select count(*) from coverage where kind = 'lost'";
        assert_eq!(numeric(&store, lost), [0]);
    });
}

#[test]
fn server_ends_with_its_recorder() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    sandbox::with(Own::Network, || {
        let _cable = Cable::new();
        let start = || Server::launch(over(&store, "up").args(["-i", "b0"]));
        let mut stopped = start();
        let server = server_of(stopped.pid());
        said("up", &stopped.stop(), 0, &[]);
        assert_eq!(parent_of(server), None, "it runs");
        let killed = start();
        let server = server_of(killed.pid());
        kill(killed.pid());
        wait_for("the server outlives its recorder", || parent_of(server).is_none());
    });
}
