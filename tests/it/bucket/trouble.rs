//! Faults of networks and servers: in the end a file is stored once, whatever happened to requests.

use std::sync::Arc;

use capstan_tests::proxy::{InTurn, Mishap};

use super::{Bucket, FIRST, behind};
use crate::capstan::{answer, over};
use crate::captures::read;
use crate::traffic::Noise;

/// Two segments and commits.
const FILE: Noise = Noise { hours: 2, packets_an_hour: 1_100 };

/// Imports a file, and asks for it again, while requests meet these mishaps in turn.
fn survives(mishaps: &[Mishap]) {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let Some(bucket) = Bucket::made(scratch.path()) else { return };
    let (file, back) = (scratch.path().join("noise.pcap"), scratch.path().join("back.pcapng"));
    FILE.write(&file);
    let all = InTurn::new(mishaps, |_| true);
    let proxy = bucket.proxy(Arc::clone(&all));
    answer(behind(&proxy, over(bucket.store(), "import").arg(&file)));
    // What was there before is of a later month.
    let export = ["--to", "2023-12-01T00:00:00Z", "--order", "recorded", "-o"];
    answer(behind(&proxy, over(bucket.store(), "export").args(export).arg(&back)));
    assert!(read(&back).eq(read(&file)), "the packets differ");
    bucket.holds(FIRST.packets() + FILE.packets());
    let met = all.met();
    assert!(mishaps.iter().all(|mishap| met[mishap] >= 5), "{met:?}");
}

#[test]
fn slow_store_is_waited_for() {
    survives(&[Mishap::Slow(512)]);
}

#[test]
fn lost_requests_are_retried_and_stored_once() {
    use Mishap::*;
    survives(&[
        None,
        AnswerLost,
        None,
        Busy,
        None,
        AnswerCut,
        None,
        BusyAfterwards,
        RequestLost,
        None,
        RequestCut,
    ]);
}
