//! Stores in a real S3 server that `scripts/ceph` starts, and faults of networks and servers.

use std::path::{Path, PathBuf};
use std::process::Command;

use capstan_storage_engine::store::nonce;
use capstan_tests::proxy::{Mishap, Proxy, Request, Rule, Way};
use capstan_tests::{s3_variable, way_to_s3};

use crate::capstan::{answer, over};
use crate::traffic::{Noise, readable};

mod gone;
mod many;
mod refused;
mod trouble;

/// Small, and later than other noise.
const FIRST: Noise = Noise { hours: 1, packets_an_hour: 10 };

/// A place in a bucket that nothing is in, and the way to its server.
pub(crate) struct Bucket {
    store: PathBuf,
    way: Way,
}

impl Bucket {
    /// A new one on the server that the environment names.
    pub(crate) fn new() -> Option<Bucket> {
        let base = s3_variable("CAPSTAN_TEST_S3")?;
        // Nothing is cleaned away: the server is thrown away as a whole.
        Some(Bucket { store: format!("{base}/{}", nonce()).into(), way: way_to_s3()? })
    }

    /// A store with [`FIRST`] in it.
    fn made(scratch: &Path) -> Option<Bucket> {
        let (bucket, first) = (Bucket::new()?, scratch.join("first.pcap"));
        FIRST.write_from(&first, 1_000);
        answer(over(&bucket.store, "import").arg(&first));
        Some(bucket)
    }

    /// For `--store`, reached straight.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// In the network of this thread.
    pub(crate) fn proxy(&self, rule: impl Rule + 'static) -> Proxy {
        Proxy::start(&self.way, rule)
    }

    /// Checks that all is well with the store, and that it has so many packets of noise, each once.
    fn holds(&self, packets: u64) {
        answer(&mut over(&self.store, "verify"));
        assert_eq!(readable(&self.store), packets);
    }
}

/// Lets a command reach its bucket through a proxy.
pub(crate) fn behind<'a>(proxy: &Proxy, command: &'a mut Command) -> &'a mut Command {
    command.env("CAPSTAN_S3_ENDPOINT", proxy.endpoint())
}

/// Whether a request is about the second commit of a log.
pub(crate) fn is_second_commit(request: &Request) -> bool {
    request.path.contains("/log/") && request.path.ends_with("/00000000000000000001")
}

/// All is well.
fn fair(_: &Request) -> Mishap {
    Mishap::None
}
