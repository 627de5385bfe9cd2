//! Stores in a real S3 server, which `scripts/ceph` starts: what holds over memory must hold
//! there, and what goes wrong there must be said in plain words.
//!
//! Each test makes stores below a prefix of its own and skips, saying so, where the environment
//! names no server.

#![allow(clippy::unwrap_used)] // Of a test, all of it.

mod encryption;
mod refusals;
mod rules;
mod trouble;

use bytes::Bytes;
use capstan_model::{Failure, Generation, GenerationId, RecorderId, Time};
use capstan_storage_engine::catalog::names;
use capstan_storage_engine::catalog::{
    Catalog, Commit, CommitDraft, CommitId, WriterInfo, WriterKind,
};
use capstan_storage_engine::store::{Location, Options, S3Credentials, S3Keys, Store, nonce};
use capstan_tests::s3_variable;
use futures::TryStreamExt;

/// A place in a bucket that nothing is in, and how the server is reached.
#[derive(Clone)]
struct Place {
    location: Location,
    options: Options,
}

impl Place {
    /// A new one on the server that the environment names.
    fn new() -> Option<Place> {
        let base = s3_variable("CAPSTAN_TEST_S3")?;
        // Nothing is cleaned away: the server is thrown away as a whole.
        let location = format!("{base}/{}", nonce()).parse().unwrap();
        Some(Place { location, options: Options::from_env().unwrap() })
    }

    /// The same by https, with the server's private authority.
    fn over_tls(mut self) -> Option<Place> {
        self.options.s3.endpoint = Some(s3_variable("CAPSTAN_TEST_S3_TLS")?);
        self.options.s3.ca_bundle = Some(s3_variable("CAPSTAN_TEST_S3_CA")?);
        Some(self)
    }

    /// The same with other keys.
    fn with_keys(mut self, id: &str, secret: &str) -> Place {
        let keys = S3Keys { id: id.to_owned(), secret: secret.to_owned(), token: None };
        self.options.s3.credentials = Some(S3Credentials::Keys(keys));
        self
    }

    /// The same with keys that may only read.
    fn for_readers(self) -> Option<Place> {
        let keys = s3_variable("CAPSTAN_TEST_S3_READER")?;
        let (id, secret) = keys.split_once(':').unwrap();
        Some(self.with_keys(id, secret))
    }

    /// The same at another server.
    fn at(mut self, endpoint: &str) -> Place {
        self.options.s3.endpoint = Some(endpoint.to_owned());
        self
    }

    async fn make(&self, cluster: &str) -> Result<Store, Failure> {
        Store::open_or_create(&self.location, cluster, &self.options).await
    }

    async fn open(&self, cluster: &str) -> Result<Store, Failure> {
        Store::open(&self.location, cluster, &self.options).await
    }
}

const RECORDER: RecorderId = RecorderId(0xce);

fn writer() -> WriterInfo {
    WriterInfo {
        kind: WriterKind::Live,
        description: "eth0".to_owned(),
        host: "node-1".to_owned(),
        source: None,
        resumes: None,
        started_at: Time(1),
    }
}

/// A commit that can be told from others.
fn draft(number: u64) -> CommitDraft {
    CommitDraft { note: format!("commit {number}"), ..CommitDraft::default() }
}

/// Checks that a log is there as it was written: every number once, each with its own words.
async fn assert_log(store: &Store, generation: Generation, commits: u64) {
    let listed: Vec<_> = store.list(&names::log(Some(RECORDER))).try_collect().await.unwrap();
    let mut found: Vec<_> =
        listed.iter().filter_map(|object| names::parse_commit(&object.path)).collect();
    found.sort_unstable();
    let of = GenerationId::new(RECORDER, generation);
    let expected: Vec<_> = (0..commits).map(|seq| CommitId { of, seq }).collect();
    assert_eq!(found, expected);
    for seq in 0..commits {
        let bytes = store.get(&names::commit(of, seq)).await.unwrap();
        let commit: Commit = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((commit.seq, commit.content), (seq, draft(seq)));
    }
    let catalog = Catalog::load(store).await.unwrap();
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    let generations: Vec<_> = catalog.generations().map(|(_, state)| state.commits()).collect();
    assert_eq!(generations, [commits]);
}

/// Bytes that are not the same all over.
fn body(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}
