//! Requests that a server refuses: each error says what to do, and the refused command stores nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use capstan_tests::proxy::{Absence, Mishap, once};
use capstan_tests::s3_variable;

use super::{Bucket, FIRST, behind, fair, is_second_commit};
use crate::capstan::{answer, fails, over};
use crate::captures::packets;
use crate::tools::have;
use crate::traffic::Noise;

/// Longer than the test.
const FOREVER: Duration = Duration::from_secs(3_600);

/// Three segments and commits, each with an hour of its own.
const FILE: Noise = Noise { hours: 3, packets_an_hour: 1_100 };

/// A store with a first file in it, and a second file.
struct Place {
    bucket: Bucket,
    scratch: tempfile::TempDir,
}

impl Place {
    fn new() -> Option<Place> {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let bucket = Bucket::made(scratch.path())?;
        let place = Place { bucket, scratch };
        FILE.write(&place.file());
        Some(place)
    }

    fn file(&self) -> PathBuf {
        self.scratch.path().join("noise.pcap")
    }

    fn import(&self) -> Command {
        let mut command = over(self.bucket.store(), "import");
        command.arg(self.file());
        command
    }

    /// A command of each kind: one that writes a file, one that records, some that read.
    fn commands(&self) -> Vec<Command> {
        let mut record = over(self.bucket.store(), "record");
        record.args(["-i", "lo", "--duration", "1"]);
        let mut sql = over(self.bucket.store(), "sql");
        sql.arg("select count(*) from packets");
        let mut all = vec![self.import(), record, sql];
        all.extend(["status", "verify"].map(|command| over(self.bucket.store(), command)));
        all
    }

    /// Checks that every command is refused with these words, the store's name among them, and
    /// that nothing came of it.
    fn refuses(&self, code: i32, words: &[&str], change: impl Fn(&mut Command)) {
        let place = self.bucket.store().to_str().expect("text");
        for mut command in self.commands() {
            change(&mut command);
            fails(&mut command, code, &[&[place], words].concat());
        }
        self.bucket.holds(FIRST.packets());
    }
}

#[test]
fn wrong_keys_and_wrong_location_are_distinguished() {
    let Some(place) = Place::new() else { return };
    place.refuses(4, &["does not know this access key", "AWS_ACCESS_KEY_ID"], |command| {
        command.env("AWS_ACCESS_KEY_ID", "nobody");
    });
    place.refuses(4, &["does not match the access key", "AWS_SECRET_ACCESS_KEY"], |command| {
        command.env("AWS_SECRET_ACCESS_KEY", "wrong");
    });
    for mut command in place.commands() {
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        // Where there are no profiles.
        command.env("HOME", place.scratch.path());
        fails(&mut command, 4, &["no credentials for bucket '", "AWS_PROFILE"]);
    }
    let elsewhere = ["connection refused: is the S3 server running", "endpoint"];
    let mut status = over(place.bucket.store(), "status");
    fails(status.env("CAPSTAN_S3_ENDPOINT", "http://127.0.0.1:1"), 8, &elsewhere);
    let missing = ["s3://no-such-bucket/x", "the bucket does not exist: create it"];
    for name in ["status", "verify"] {
        fails(&mut over(Path::new("s3://no-such-bucket/x"), name), 3, &missing);
    }
    fails(over(Path::new("s3://no-such-bucket/x"), "import").arg(place.file()), 3, &missing);
}

#[test]
fn refusals_of_cloud_services_are_reported() {
    let Some(place) = Place::new() else { return };
    let proxy = place.bucket.proxy(fair);
    for (code, words) in [
        ("ExpiredToken", ["the session token has run out", "get new temporary keys"]),
        ("InvalidToken", ["AWS_SESSION_TOKEN", "unset it"]),
        ("RequestTimeTooSkewed", ["clock", "NTP"]),
    ] {
        proxy.go_away(Absence::Forbids(code), FOREVER);
        place.refuses(4, &words, |command| {
            behind(&proxy, command);
        });
    }
}

#[test]
fn keys_that_expire_during_an_import_lose_nothing() {
    let Some(place) = Place::new() else { return };
    let runs_out = Mishap::Gone(Absence::Forbids("ExpiredToken"), FOREVER);
    let proxy = place.bucket.proxy(once(runs_out, is_second_commit));
    let words = fails(
        behind(&proxy, &mut place.import()),
        4,
        &[
            "noise.pcap stopped: 1100 of its packets are committed and stay",
            "run the same command again to resume",
            "these credentials have expired (the session token has run out): get new temporary keys",
        ],
    );
    assert!(words.contains(place.bucket.store().to_str().expect("text")), "{words}");
    // As long as there are no new keys nothing changes.
    fails(behind(&proxy, &mut place.import()), 4, &["run out"]);
    place.bucket.holds(FIRST.packets() + FILE.packets_an_hour);

    let text = answer(&mut place.import());
    assert!(text.contains("1100 packets of it were committed by an earlier run"), "{text}");
    place.bucket.holds(FIRST.packets() + FILE.packets());
    fails(&mut place.import(), 9, &["already", "--again"]);
}

#[test]
fn read_only_keys_read_everything_and_write_nothing() {
    let Some((place, keys)) = Place::new().zip(s3_variable("CAPSTAN_TEST_S3_READER")) else {
        return;
    };
    let (id, secret) = keys.split_once(':').expect("ID:SECRET");
    let reader = |command: &mut Command| {
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
    };
    let [import, record, reading @ ..] = &mut place.commands()[..] else { panic!("many") };
    for command in [import, record] {
        reader(command);
        fails(command, 4, &["create writers/", "permission denied: allow it in the policy"]);
    }
    let mut new = over(&place.bucket.store().join("new"), "import");
    reader(new.arg(place.file()));
    fails(&mut new, 4, &["/new (cluster default)", "permission denied: allow it in the policy"]);
    for command in reading {
        reader(command);
        answer(command);
    }
    let back = place.scratch.path().join("back.pcapng");
    let mut export = over(place.bucket.store(), "export");
    reader(export.arg("-o").arg(&back));
    answer(&mut export);
    assert_eq!(packets(&back).len() as u64, FIRST.packets());
    place.bucket.holds(FIRST.packets());
}

#[test]
fn wrong_clock_is_reported() {
    let Some(place) = Place::new().filter(|_| have(&["faketime"])) else { return };
    for offset in ["-1h", "+1h"] {
        place.refuses(4, &["clock", "NTP"], |command| {
            let mut faked = Command::new("faketime");
            faked.args(["-f", offset]).arg(command.get_program()).args(command.get_args());
            // Only the time of day is wrong; waiting takes as long as it does.
            faked.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            *command = faked;
        });
    }
}
