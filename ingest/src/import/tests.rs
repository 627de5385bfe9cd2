//! Imports into a folder, and what they ask of it.

use capstan_model::{IngestShares, TimeRange};
use capstan_storage_engine::catalog::Catalog;
use capstan_storage_engine::store::{Location, Options, Requests};

use super::*;
use crate::source::open;

struct Quiet;

impl Watch for Quiet {}

/// A store in a folder of its own.
struct Place {
    _folder: tempfile::TempDir,
    store: Store,
}

fn place(runtime: &Handle) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let location: Location = folder.path().to_str().unwrap().parse().unwrap();
    let options = Options::default();
    let store = runtime.block_on(Store::open_or_create(&location, "test", &options)).unwrap();
    Place { _folder: folder, store }
}

/// A pcap file of UDP packets, a millisecond apart.
fn pcap(seed: u8, packets: u32) -> Vec<u8> {
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(field.to_le_bytes());
    }
    for number in 0..packets {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, seed, 10, 0, 0, 200]);
        frame.extend([0x13, 0x88, 0, 53, 0, 12, 0, 0]);
        frame.extend(number.to_le_bytes());
        let length = frame.len() as u32;
        for field in [1_700_000_000 + number / 1_000, number % 1_000 * 1_000, length, length] {
            file.extend(field.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

fn import(
    store: &Store,
    file: &[u8],
    stopped: bool,
    runtime: &Handle,
) -> Result<Imported, Failure> {
    let stop = Arc::new(AtomicBool::new(stopped));
    let host = String::new();
    let (dead_after, memory) = (Duration::ZERO, IngestShares::default());
    let options = ImportOptions { again: false, stop, host, dead_after, memory };
    let capture = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(capture.path(), file).unwrap();
    let known = Some(identify(capture.path()).unwrap());
    let going_on = ImportOptions { stop: Arc::default(), ..options.clone() };
    let plan = plan(store, "x.pcap", known, &going_on, &Quiet);
    let plan = runtime.block_on(plan)?;
    let source = open(capture.path()).unwrap();
    run(store, plan, source, &options, &Quiet, runtime)
}

fn count(requests: Requests) -> u64 {
    requests.gets + requests.puts + requests.lists + requests.heads
}

#[test]
fn requests_per_file_do_not_grow_with_the_number_of_imports() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let place = place(runtime.handle());
    let mut asked = Vec::new();
    for seed in 1..=100 {
        let before = place.store.requests();
        let imported = import(&place.store, &pcap(seed, 3), false, runtime.handle()).unwrap();
        assert_eq!(imported.packets, 3);
        asked.push(count(place.store.requests() - before));
    }
    // Five layers, a writer, two commits, and a few looks.
    assert!(asked[0] < 20, "{asked:?}");
    assert!(asked.iter().all(|requests| *requests == asked[0]), "{asked:?}");
    let catalog = runtime.block_on(Catalog::load(&place.store)).unwrap();
    assert_eq!(catalog.totals(TimeRange::ALL).packets, 300);
}

#[test]
fn source_is_recognized_among_others() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let place = place(runtime.handle());
    for seed in 1..5 {
        import(&place.store, &pcap(seed, 10), false, runtime.handle()).unwrap();
    }
    let there = import(&place.store, &pcap(3, 10), false, runtime.handle()).unwrap_err();
    assert_eq!(there.kind(), FailureKind::AlreadyThere);
    assert!(there.to_string().contains("10 packets"), "{there}");

    let stopped = import(&place.store, &pcap(9, 5_000), true, runtime.handle()).unwrap();
    assert!(stopped.interrupted && stopped.packets < 5_000);
    let rest = import(&place.store, &pcap(9, 5_000), false, runtime.handle()).unwrap();
    assert_eq!(rest.packets_before, stopped.packets);
    assert_eq!(rest.packets_before + rest.packets, 5_000);
}

/// Changes a byte in the middle of a file, which no sample of its sketch holds.
fn changed(file: &[u8]) -> Vec<u8> {
    let mut other = file.to_vec();
    let at = file.len() / 2;
    // Samples are 64 KiB, and of a file of this length they begin at fifteenths.
    assert!(file.len() > 4 << 20);
    other[at] ^= 1;
    other
}

#[test]
fn another_file_with_the_same_sketch_is_another_file() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let place = place(runtime.handle());
    let one = pcap(1, 100_000);
    let other = changed(&one);
    import(&place.store, &one, false, runtime.handle()).unwrap();
    let imported = import(&place.store, &other, false, runtime.handle()).unwrap();
    assert_eq!((imported.packets, imported.packets_before), (100_000, 0));
    for file in [&one, &other] {
        let there = import(&place.store, file, false, runtime.handle()).unwrap_err();
        assert_eq!(there.kind(), FailureKind::AlreadyThere);
    }
}

#[test]
fn import_resumes_only_its_own_file() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let place = place(runtime.handle());
    let one = pcap(1, 100_000);
    let stopped = import(&place.store, &one, true, runtime.handle()).unwrap();
    assert!(stopped.interrupted);
    let mut other = one.clone();
    // Within what was read before it was stopped, and in no sample.
    other[100_000] ^= 1;
    let imported = import(&place.store, &other, false, runtime.handle()).unwrap();
    assert_eq!((imported.packets, imported.packets_before), (100_000, 0));
    let rest = import(&place.store, &one, false, runtime.handle()).unwrap();
    assert_eq!(rest.packets_before, stopped.packets);
    assert_eq!(rest.packets_before + rest.packets, 100_000);
}

#[test]
fn last_commit_has_the_mark_of_the_whole_file() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let place = place(runtime.handle());
    // What is behind the damage is not read as packets, and is a part of the file all the same.
    let mut file = pcap(1, 50);
    file.extend([0xff; 300_000]);
    let imported = import(&place.store, &file, false, runtime.handle()).unwrap();
    assert!(imported.damage.is_some());
    let catalog = runtime.block_on(Catalog::load(&place.store)).unwrap();
    let [import] = catalog.imports().try_into().unwrap();
    let mark = import.source_read.unwrap();
    assert!(mark.damaged && mark.bytes == file.len() as u64);
    assert_eq!(mark.hash.blake3(), Some(&*blake3::hash(&file).to_hex()));
}

#[test]
fn import_without_data_commits_heartbeats() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let place = place(runtime.handle());
    let info = WriterInfo {
        kind: WriterKind::Import,
        description: String::new(),
        host: String::new(),
        source: None,
        resumes: None,
        started_at: Time(1),
    };
    let (id, first) = (capstan_model::RecorderId(7), capstan_model::Generation(1));
    let begun = runtime.block_on(Recorder::succeed(&place.store, id, first, info));
    let (store, handle) = (place.store.clone(), runtime.handle().clone());
    let rule = CommitRule::EachSegment;
    let (recorder, metrics) = (begun.unwrap().unwrap(), Arc::default());
    let uploader = Uploader::start(store, recorder, first, rule, None, metrics, handle);
    let commits = || {
        let catalog = runtime.block_on(Catalog::load(&place.store)).unwrap();
        let state = catalog.state(capstan_model::GenerationId::new(id, first)).unwrap();
        (state.commits(), state.finished().map(|of| of.complete))
    };
    assert_eq!(commits(), (0, None));
    let began = std::time::Instant::now();
    while commits().0 < 2 {
        assert!(began.elapsed() < Duration::from_secs(30), "no heartbeat");
        std::thread::sleep(Duration::from_millis(100));
    }
    // What is given up says so, so that it can be gone on with at once.
    drop(uploader);
    let (commits, finished) = commits();
    assert!(commits >= 3 && finished == Some(false), "{commits} {finished:?}");
}

#[test]
fn growing_file_is_identified_by_its_first_packet() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let place = place(runtime.handle());
    let file = pcap(1, 5_000);
    // In the middle of a packet, of the second one, and of the file.
    for bytes in [24 + 62 + 30, file.len() / 2, file.len() / 2 + 1, file.len()] {
        let imported = import(&place.store, &file[..bytes], false, runtime.handle()).unwrap();
        let whole = (bytes as u64 - 24) / 62;
        assert_eq!(imported.packets_before + imported.packets, whole, "{bytes}");
    }
    let failure = import(&place.store, &file, false, runtime.handle()).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::AlreadyThere);
    let catalog = runtime.block_on(Catalog::load(&place.store)).unwrap();
    let [import] = catalog.imports().try_into().unwrap();
    assert!(import.complete && import.packets == 5_000 && import.stated == 5_000);
}
