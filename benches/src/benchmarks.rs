//! The benchmarks, a file each.

mod bucket;
mod ceph;
mod common;
mod decode;
mod far;
mod group;
mod import;
mod layers;
mod live;
mod rare;
mod stenotype;
mod stored;

use capstan_model::Failure;

use crate::bench::{Bench, Outcome};

/// One of the benchmarks.
pub(crate) struct Benchmark {
    /// How it is asked for.
    pub(crate) name: &'static str,
    /// What it measures, against what.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&mut Bench) -> Result<Outcome, Failure>,
}

/// All of them, in the order they are run in.
pub(crate) const ALL: &[Benchmark] = &[
    Benchmark {
        name: "import",
        about: "processor time of importing the capture, against lz4 -1 of the same file",
        run: import::run,
    },
    Benchmark {
        name: "stored",
        about: "bytes stored, against the file as independent blocks of 256 KiB, each zstd -3",
        run: stored::run,
    },
    Benchmark {
        name: "layers",
        about: "bytes of the packets and index layers a packet, of the flows layer a flow part",
        run: layers::run,
    },
    Benchmark {
        name: "rare",
        about: "wall time of exporting a host with few packets; tcpdump -r beside it",
        run: rare::run,
    },
    Benchmark {
        name: "common",
        about: "processor time of exporting a busy host and port, against tcpdump -r",
        run: common::run,
    },
    Benchmark {
        name: "far",
        about: "requests, bytes and wall time of one host out of a bucket with 20 ms to the first byte",
        run: far::run,
    },
    Benchmark {
        name: "group",
        about: "processor time of a GROUP BY over all packets, against DuckDB over our Parquet",
        run: group::run,
    },
    Benchmark {
        name: "live",
        about: "drops, processor time and memory of recording; tcpdump -w, dumpcap and stenotype beside it",
        run: live::run,
    },
    Benchmark {
        name: "bucket",
        about: "the same into an S3 bucket (Ceph), the upload included",
        run: bucket::run,
    },
    Benchmark { name: "decode", about: "decoding headers, against etherparse", run: decode::run },
];
