//! Buckets whose server does something else than was asked: stalls, cuts, loses answers, refuses
//! credentials.

#![allow(clippy::disallowed_methods)] // Nobody simulates tests.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use capstan_tests::s3::{Fate, Memory, Request};
use futures::future::join_all;

use super::*;

mod credentials;
mod keys;

fn options(server: &Memory, credentials: S3Credentials) -> Options {
    let s3 = S3Options {
        credentials: Some(credentials),
        endpoint: Some(server.endpoint()),
        ..S3Options::default()
    };
    Options { s3, ..Options::default() }
}

fn fixed() -> S3Credentials {
    let (id, secret) = ("id".to_owned(), "secret".to_owned());
    S3Credentials::Keys(S3Keys { id, secret, token: None })
}

/// A place with little patience.
fn hurried(server: &Memory, text: &str, access: Access) -> Place {
    let location = text.parse().unwrap();
    Place::connect(&location, &options(server, fixed()), access).unwrap().hurried()
}

async fn made(server: &Memory, text: &str) -> Store {
    hurried(server, text, Access::Create).open_or_create("prod").await.unwrap()
}

const PLACE: &str = "s3://packets/a";

fn body(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// The ranges that an object was asked for.
fn ranges(asked: &[Request]) -> Vec<Option<String>> {
    let reads = asked.iter().filter(|request| request.reads());
    reads.map(|request| request.headers.get("range").cloned()).collect()
}

fn some(range: &str) -> Option<String> {
    Some(format!("bytes={range}"))
}

/// Lets these happen to the first reads, the others are fair.
fn reads_meet(server: &Memory, fates: Vec<Fate>) {
    let mut fates = fates.into_iter();
    server.rule(move |request| match request.reads() {
        true => fates.next().unwrap_or(Fate::Fair),
        false => Fate::Fair,
    });
}

#[tokio::test]
async fn interrupted_or_stalled_body_is_resumed_by_range() {
    let server = Memory::start();
    let store = made(&server, PLACE).await;
    let (path, content) = (Path::from("data/x"), body(1_000));
    store.put_new(&path, vec![content.clone()]).await.unwrap();
    for cut in [Fate::Short, Fate::Stalls] {
        for (range, expected) in [
            (None, vec![None, some("500-999"), some("750-999")]),
            (Some(100..300), vec![some("100-299"), some("200-299"), some("250-299")]),
        ] {
            reads_meet(&server, vec![cut.clone(), cut.clone()]);
            server.asked();
            let (read, right) = match range.clone() {
                None => (store.get(&path).await, content.clone()),
                Some(range) => (
                    store.get_range(&path, range.clone()).await,
                    content.slice(range.start as usize..range.end as usize),
                ),
            };
            assert_eq!(read.unwrap(), right, "{cut:?} {range:?}");
            assert_eq!(ranges(&server.asked()), expected, "{cut:?}");
        }
    }
}

#[tokio::test]
async fn short_body_is_never_a_short_answer() {
    let server = Memory::start();
    let store = made(&server, PLACE).await;
    for length in [1, 2, 3, 1_000] {
        let path = Path::from(format!("data/{length}"));
        store.put_new(&path, vec![body(length)]).await.unwrap();
        server.rule(|request| if request.reads() { Fate::Short } else { Fate::Fair });
        // Half of one byte is none: there it never goes on.
        let failure = store.get(&path).await.expect_err("the last byte never comes");
        assert_eq!(failure.kind(), FailureKind::Unavailable, "{failure}");
        assert!(failure.to_string().contains(path.as_ref()), "{failure}");
        server.rule(|_| Fate::Fair);
        assert_eq!(store.get(&path).await.unwrap(), body(length));
    }
}

#[tokio::test]
async fn object_changed_during_a_read_is_read_again() {
    let server = Memory::start();
    let store = made(&server, PLACE).await;
    let path = Path::from("data/x");
    store.put_new(&path, vec![body(1_000)]).await.unwrap();
    reads_meet(&server, vec![Fate::Short]);
    server.asked();
    let (before, after) = (body(1_000), body(2_000).slice(1_000..));
    let changed = async {
        while server.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.objects().insert("/packets/a/prod/data/x".to_owned(), after.to_vec());
    };
    let (read, ()) = futures::join!(store.get(&path), changed);
    let read = read.unwrap();
    assert!(read == before || read == after, "a mixture");
}

#[tokio::test]
async fn request_without_answer_is_retried_soon() {
    let server = Memory::start();
    let store = made(&server, PLACE).await;
    let path = Path::from("data/x");
    store.put_new(&path, vec![body(10)]).await.unwrap();
    reads_meet(&server, vec![Fate::Silence, Fate::Silence]);
    let began = Instant::now();
    assert_eq!(store.get(&path).await.unwrap(), body(10));
    // 3 s and 6 s, a tenth of it.
    let took = began.elapsed() * 10;
    assert!(took >= Duration::from_secs(9), "{took:?}");
    assert!(!store.is_in_trouble());
}

#[tokio::test]
async fn silent_server_times_out_and_is_reported_meanwhile() {
    let server = Memory::start();
    let store = made(&server, PLACE).await;
    for (fate, words) in
        [(Fate::Silence, "no answer within"), (Fate::error(503, "SlowDown"), "overloaded")]
    {
        let met = fate.clone();
        server.rule(move |_| met.clone());
        let other = store.clone();
        let reading = tokio::spawn(async move { other.get(&Path::from("data/x")).await });
        let began = Instant::now();
        while !store.is_in_trouble() {
            assert!(began.elapsed() < Duration::from_secs(10), "nobody worries");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let failure = reading.await.unwrap().expect_err(words);
        assert_eq!(failure.kind(), FailureKind::Unavailable);
        assert!(failure.to_string().contains(words), "{failure}");
        assert!(!store.is_in_trouble(), "all waiting requests were cancelled");
        // A write that is given up, too.
        let failure = store.create(&Path::from("log/x"), nonce().into()).await.expect_err(words);
        assert_eq!(failure.kind(), FailureKind::Unavailable, "{failure}");
    }
    let stopped = store.clone();
    let reading = tokio::spawn(async move { stopped.get(&Path::from("data/x")).await });
    while !store.is_in_trouble() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    reading.abort();
    let _ = reading.await;
    assert!(!store.is_in_trouble(), "who was stopped does not wait any more");
}

#[tokio::test]
async fn lost_answers_do_not_prevent_the_creation_of_a_store() {
    let codes = ["InternalError", "SlowDown"];
    for every in 1..=4 {
        let server = Memory::start();
        let mut puts = 0;
        server.rule(move |request| {
            puts += usize::from(request.creates());
            match request.creates() && puts % every == 0 {
                true if puts % 2 == 0 => Fate::AnswerLost,
                true => {
                    let Fate::Instead(status, body) = Fate::error(500, codes[puts % 2]) else {
                        unreachable!("it is one")
                    };
                    Fate::DoneBut(status, body)
                }
                false => Fate::Fair,
            }
        });
        let store = made(&server, PLACE).await;
        for number in 0..10 {
            let path = Path::from(format!("log/{number}"));
            let created = store.create(&path, nonce().into()).await.unwrap();
            assert_eq!(created, Created::Created, "every {every}");
        }
        // Of the test nothing is left, and nobody else's store was found.
        let keys: BTreeSet<String> = server.objects().keys().cloned().collect();
        assert_eq!(keys.len(), 11, "{keys:?}");
        if every > 1 {
            made(&server, PLACE).await;
        }
    }
}

#[tokio::test]
async fn interrupted_listing_resumes_after_the_last_name() {
    let server = Memory::with_pages(2);
    let store = made(&server, PLACE).await;
    let names: Vec<Path> = (0..9).map(|number| Path::from(format!("data/{number}"))).collect();
    for name in &names {
        store.put_new(name, vec!["x".into()]).await.unwrap();
    }
    for cut in [Fate::Short, Fate::Silence, Fate::error(503, "SlowDown")] {
        let mut asked = 0;
        let cut = cut.clone();
        server.rule(move |_| {
            asked += 1;
            if asked % 3 == 2 { cut.clone() } else { Fate::Fair }
        });
        let listed: Vec<Listed> = store.list(&Path::from("data")).try_collect().await.unwrap();
        let listed: Vec<Path> = listed.into_iter().map(|object| object.path).collect();
        assert_eq!(listed, names);
        let after = store.list_after(&Path::from("data"), &names[3]);
        let after: Vec<Listed> = after.try_collect().await.unwrap();
        assert_eq!(after.len(), 5);
    }
}

#[tokio::test]
async fn server_without_if_none_match_is_readable_but_not_written() {
    let server = Memory::start();
    let store = made(&server, PLACE).await;
    store.put_new(&Path::from("data/x"), vec!["x".into()]).await.unwrap();
    let before = server.objects().clone();
    server.rule(|_| Fate::Unconditional);
    let refused = hurried(&server, PLACE, Access::Create).open_or_create("prod").await;
    let failure = refused.expect_err("it would overwrite");
    assert_eq!(failure.kind(), FailureKind::Usage, "{failure}");
    assert!(failure.to_string().contains("If-None-Match"), "{failure}");
    let store = hurried(&server, PLACE, Access::Read).open("prod").await.unwrap().expect("a store");
    assert_eq!(store.get(&Path::from("data/x")).await.unwrap(), "x");
    assert_eq!(*server.objects(), before, "nothing has changed");
}
