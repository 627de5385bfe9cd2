//! Many recorders write into one bucket at the same time: every packet is stored once, and readers see neither a hole
//! nor a packet twice meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use capstan_tests::proxy::Proxy;

use super::{Bucket, behind, fair};
use crate::cable::{Cable, listening, lost, record_of};
use crate::capstan::{answer, in_csv, numeric, over, said};
use crate::running::Running;
use crate::sandbox::{self, Own};
use crate::tools::number_of;

const GENERATIONS: &str = "select recorder, generation, count(*), count(distinct ordinal), min(ordinal), \
                     max(ordinal) from packets group by recorder, generation";

/// Packets of each generation, after checking that they are numbered from 0 without a hole, each once.
fn generations(bucket: &Bucket, proxy: Option<&Proxy>) -> BTreeMap<String, u64> {
    let mut question = in_csv(bucket.store(), GENERATIONS);
    if let Some(proxy) = proxy {
        behind(proxy, &mut question);
    }
    let text = answer(&mut question);
    let state = |line: &str| {
        let words: Vec<&str> = line.split(',').collect();
        let [recorder, generation, packets, distinct, first, last] = words[..] else {
            panic!("six columns: {line}")
        };
        let number = |word: &str| word.parse::<u64>().expect("a number");
        assert_eq!(packets, distinct, "a packet is there twice: {line}");
        assert_eq!(number(first), 0, "the first packets are missing: {line}");
        assert_eq!(number(last) + 1, number(packets), "a hole: {line}");
        (format!("{recorder}-{generation}"), number(packets))
    };
    text.lines().skip(1).map(state).collect()
}

/// Asks again and again, and checks that nothing that was seen is gone; how many answers it were.
fn read(bucket: &Bucket, proxy: &Proxy, done: &AtomicBool) -> u64 {
    let (mut before, mut answers) = (BTreeMap::new(), 0);
    while !done.load(Ordering::Relaxed) {
        let now = generations(bucket, Some(proxy));
        for (state, packets) in &before {
            assert!(now.get(state) >= Some(packets), "{state} had {packets} packets: {now:?}");
        }
        (before, answers) = (now, answers + 1);
    }
    answers
}

#[test]
#[allow(clippy::print_stdout)] // Shown if the test fails, or where somebody wants to see it.
fn every_packet_of_many_recorders_is_there_once() {
    let Some(bucket) = Bucket::new() else { return };
    let many = number_of("CAPSTAN_TEST_RECORDERS").unwrap_or(6);
    let seconds = Duration::from_secs(number_of("CAPSTAN_TEST_SECONDS").unwrap_or(12));
    // Several commits of each, and not more than recorders usually make.
    let commit_seconds = (seconds.as_secs() / 6).clamp(1, 10).to_string();
    let pause = Duration::from_secs(1) / number_of("CAPSTAN_TEST_RATE").unwrap_or(50) as u32;
    let (mut sent, mut answers) = (0, 0);
    let is_run = sandbox::with(Own::Network, || {
        let mut cables = Cable::several(many);
        let proxy = bucket.proxy(fair);
        let start = |cable: &Cable| {
            let arguments = ["--ring-mib", "7", "--commit-seconds", &commit_seconds];
            let mut command = record_of(&cable.end, bucket.store(), &arguments);
            listening(behind(&proxy, &mut command))
        };
        let recorders: Vec<Running> = cables.iter().map(start).collect();
        let done = AtomicBool::new(false);
        answers = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read(&bucket, &proxy, &done));
            let began = Instant::now();
            while began.elapsed() < seconds && !reader.is_finished() {
                cables.iter_mut().for_each(|cable| cable.send(1));
                std::thread::sleep(pause);
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        recorders.iter().for_each(|recorder| recorder.signal(libc::SIGINT));
        recorders.iter().for_each(|recorder| drop(said("record", &recorder.wait(), 0, &[])));
        for cable in &cables {
            assert_eq!(cable.arrived(), u64::from(cable.sent));
            sent += u64::from(cable.sent);
        }
    });
    if !is_run {
        return;
    }
    let generations = generations(&bucket, None);
    let stored = generations.values().sum::<u64>();
    let lost = lost(bucket.store());
    println!("{many} recorders, {sent} packets, {lost} dropped, {answers} answers meanwhile");
    // Where there are more recorders than processors the kernel may have to drop some.
    assert_eq!((generations.len() as u64, stored + lost), (many, sent));
    assert_eq!(numeric(bucket.store(), "select count(data) from packets"), [stored]);
    assert!(answers > 0);
    answer(over(bucket.store(), "verify").arg("--deep"));
}
