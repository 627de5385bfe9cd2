//! Commands over a bucket whose server stalls, loses answers, ignores conditions or is unavailable: their results,
//! their messages, and that Ctrl-C ends them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use capstan_tests::s3::{Fate, Memory, Request};

use crate::capstan::{answer, capstan, fails, in_csv, only_numbers, over, said, signal};
use crate::captures::read;
use crate::server::PATIENCE;
use crate::traffic::Noise;

/// Two segments and commits.
const FILE: Noise = Noise { hours: 2, packets_an_hour: 1_100 };

/// A server with a store, and the file that is in it.
struct Bucket {
    server: Memory,
    scratch: tempfile::TempDir,
}

const STORE: &str = "s3://bucket/a";

impl Bucket {
    fn new() -> Bucket {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        FILE.write(&scratch.path().join("noise.pcap"));
        Bucket { server: Memory::start(), scratch }
    }

    fn made() -> Bucket {
        let bucket = Bucket::new();
        answer(bucket.over("import").arg(bucket.file()));
        bucket
    }

    fn file(&self) -> PathBuf {
        self.scratch.path().join("noise.pcap")
    }

    fn reached<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for variable in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "CAPSTAN_S3_STYLE"] {
            command.env_remove(variable);
        }
        command
            .env("CAPSTAN_S3_ENDPOINT", self.server.endpoint())
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
    }

    fn over(&self, subcommand: &str) -> Command {
        let mut command = over(Path::new(STORE), subcommand);
        self.reached(&mut command);
        command
    }

    /// Packets in it, each counted once.
    fn packets(&self) -> u64 {
        let mut command =
            in_csv(Path::new(STORE), "select count(*), count(distinct ordinal) from packets");
        let [all, each] = only_numbers(&answer(self.reached(&mut command)))[..] else {
            panic!("two numbers")
        };
        assert_eq!(all, each);
        all
    }
}

fn spawned(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("capstan starts")
}

/// How it ends, and how long that takes.
fn ended(child: Child) -> (Output, Duration) {
    let began = Instant::now();
    let output = child.wait_with_output().expect("it is ours");
    (output, began.elapsed())
}

/// Lets this happen to every `every`th request that `concerns`.
fn each(
    every: usize,
    concerns: fn(&Request) -> bool,
    fate: Fate,
) -> impl FnMut(&Request) -> Fate + Send {
    let mut met = 0;
    move |request| {
        met += usize::from(concerns(request));
        if concerns(request) && met.is_multiple_of(every) { fate.clone() } else { Fate::Fair }
    }
}

#[test]
fn interrupted_bodies_do_not_change_an_answer() {
    let bucket = Bucket::made();
    let back = bucket.scratch.path().join("back.pcapng");
    for cut in [Fate::Short, Fate::Stalls] {
        // A stall takes three seconds each.
        let mut left = if cut == Fate::Stalls { 2 } else { usize::MAX };
        let mut rule = each(3, Request::reads, cut);
        bucket.server.rule(move |request| match rule(request) {
            Fate::Stalls if left == 0 => Fate::Fair,
            fate => {
                left -= usize::from(fate != Fate::Fair);
                fate
            }
        });
        assert_eq!(bucket.packets(), FILE.packets());
        let _ = std::fs::remove_file(&back);
        answer(bucket.over("export").args(["--order", "recorded", "-o"]).arg(&back));
        assert!(read(&back).eq(read(&bucket.file())), "the packets differ");
    }
    // Never a short answer: it ends with the name of the object.
    bucket.server.rule(|request| match request.reads() && request.path.contains("/data/") {
        true => Fate::Short,
        false => Fate::Fair,
    });
    let export = bucket.over("export").args(["-o"]).arg(&back).output().expect("capstan starts");
    let words = String::from_utf8_lossy(&export.stderr).into_owned();
    assert!(!export.status.success() || read(&back).eq(read(&bucket.file())), "{words}");
}

#[test]
fn new_store_is_created_despite_lost_answers() {
    for every in [2, 3, 7] {
        let bucket = Bucket::new();
        let mut lost = each(every, Request::creates, Fate::AnswerLost);
        let mut failed = each(
            5,
            Request::creates,
            Fate::DoneBut(500, "<Error><Code>InternalError</Code></Error>".into()),
        );
        bucket.server.rule(move |request| match lost(request) {
            Fate::Fair => failed(request),
            fate => fate,
        });
        let words =
            said("import", &bucket.over("import").arg(bucket.file()).output().unwrap(), 0, &[]);
        assert!(!words.contains("another"), "{words}");
        bucket.server.rule(|_| Fate::Fair);
        assert_eq!(bucket.packets(), FILE.packets());
        answer(bucket.over("verify").arg("--deep"));
        let keys = bucket.server.objects().keys().filter(|key| key.contains("/probe/")).count();
        assert_eq!(keys, 0);
    }
}

#[test]
fn store_on_a_server_that_ignores_if_none_match_is_only_read() {
    let bucket = Bucket::made();
    bucket.server.rule(|_| Fate::Unconditional);
    let mut again = bucket.over("import");
    fails(again.arg("--again").arg(bucket.file()), 2, &["ignores If-None-Match"]);
    assert_eq!(bucket.packets(), FILE.packets());
}

#[test]
fn unavailable_store_is_reported_after_seconds_and_fails_within_a_minute() {
    let bucket = Bucket::made();
    bucket.server.rule(|_| Fate::Silence);
    let (status, took) = ended(spawned(&mut bucket.over("status")));
    let words = said("status", &status, 8, &["no answer yet; retrying for", "no answer within"]);
    assert_eq!(words.matches("retrying for").count(), 2, "once early, and once more: {words}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// Starts commands over a bucket whose server falls silent, and stops each.
fn stopped(bucket: &Bucket, commands: Vec<Command>, wait: Duration) {
    let children: Vec<(String, Child)> = commands
        .into_iter()
        .map(|mut command| (format!("{command:?}"), spawned(bucket.reached(&mut command))))
        .collect();
    std::thread::sleep(wait);
    for (command, child) in children {
        signal(&child, libc::SIGINT);
        let (output, took) = ended(child);
        said(&command, &output, 130, &["stopped"]);
        assert!(took < Duration::from_secs(5), "{command} took {took:?}");
    }
}

#[test]
fn ctrl_c_stops_every_command_while_the_store_is_unavailable() {
    let bucket = Bucket::made();
    let out = bucket.scratch.path().join("out.pcapng");
    let store = Path::new(STORE);
    let commands = || {
        let mut sql = over(store, "sql");
        sql.arg("select count(*) from packets");
        let mut export = over(store, "export");
        export.arg("-o").arg(&out);
        let mut import = over(store, "import");
        import.arg("--again").arg(bucket.file());
        let mut serve = over(store, "serve");
        serve.args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        let mut all = vec![sql, export, import, serve];
        all.extend(["status", "files", "verify", "repair"].map(|name| over(store, name)));
        all
    };
    // At the first connect, whether it is silent or gone.
    bucket.server.rule(|_| Fate::Silence);
    stopped(&bucket, commands(), Duration::from_secs(5));
    bucket.server.rule(|_| Fate::error(503, "SlowDown"));
    stopped(&bucket, commands(), Duration::from_secs(5));
    // And once it is open.
    bucket.server.rule(|request| match request.path.ends_with("/format") {
        true => Fate::Fair,
        false => Fate::Silence,
    });
    let mut opened = commands();
    // It serves until it is told to stop, and that is how it ends well.
    opened.remove(3);
    stopped(&bucket, opened, Duration::from_secs(5));
    assert!(!out.exists());
}

#[test]
fn import_waiting_for_its_store_can_be_stopped_and_resumed() {
    let bucket = Bucket::new();
    // The second commit has no answer any more.
    bucket.server.rule(|request| match request.path.ends_with("/00000000000000000001") {
        true => Fate::error(503, "SlowDown"),
        false => Fate::Fair,
    });
    let child = spawned(bucket.over("import").arg(bucket.file()));
    let began = Instant::now();
    let is_second = |request: &Request| request.path.ends_with("/00000000000000000001");
    while !bucket.server.asked().iter().any(is_second) {
        assert!(began.elapsed() < PATIENCE, "no second commit");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_secs(1));
    signal(&child, libc::SIGINT);
    let (output, took) = ended(child);
    said("import", &output, 130, &["stopped", "stay", "run the same command again to resume"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
    bucket.server.rule(|_| Fate::Fair);
    let words = answer(bucket.over("import").arg(bucket.file()));
    assert!(words.contains("committed by an earlier run"), "{words}");
    assert_eq!(bucket.packets(), FILE.packets());
}

#[test]
fn token_file_with_a_line_break_does_not_panic() {
    let bucket = Bucket::made();
    let file = bucket.scratch.path().join("token");
    for (content, code, words) in
        [("tok\n", 8, "does not answer"), ("to\nk", 4, "line break"), ("tök", 4, "not ASCII")]
    {
        std::fs::write(&file, content).expect("a scratch file");
        let mut command = capstan();
        command.args(["status", "--store", STORE]);
        bucket
            .reached(&mut command)
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY");
        // Nobody listens there.
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/creds");
        command
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file)
            .env("HOME", bucket.scratch.path());
        let words = fails(&mut command, code, &[words]);
        assert!(code == 8 || words.contains(file.to_str().expect("a path")), "{words}");
    }
}
