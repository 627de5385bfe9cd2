//! What an import writes today, against the newest golden store (see
//! `storage-engine/tests/golden/README.md`), and the way to make the next one.

#![allow(clippy::unwrap_used)] // Of a test, all of it.

#[path = "../../storage-engine/tests/describe/mod.rs"]
mod describe;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use capstan_ingest::import::{self, ImportOptions, Watch};
use capstan_ingest::source;
use capstan_model::{FailureKind, IngestShares, TimeRange};
use capstan_storage_engine::catalog::rollup::truncate::Limits;
use capstan_storage_engine::catalog::{CatalogView, Rollup, Stay, role};
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::store::{Location, Options, Store};
use tokio::runtime::Runtime;

use self::describe::Described;

/// The variable that asks for the next golden store.
const MAKE: &str = "CAPSTAN_MAKE_GOLDEN";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage-engine/tests/golden")
}

/// The captures golden stores are made of, by name.
fn captures() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(golden().join("captures")).unwrap();
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "txt"))
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// The number of the newest golden store; 0 if there is none.
fn newest() -> u32 {
    let entries = std::fs::read_dir(golden()).unwrap();
    let numbers = entries.filter_map(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str()?.parse().ok()
    });
    numbers.max().unwrap_or(0)
}

struct Silent;

impl Watch for Silent {}

fn options() -> ImportOptions {
    ImportOptions {
        again: false,
        stop: Arc::new(AtomicBool::new(false)),
        host: "golden".to_owned(),
        dead_after: Duration::ZERO,
        memory: IngestShares::default(),
    }
}

/// Opens the store in `folder`, or creates it.
fn store_in(folder: &Path, runtime: &Runtime) -> Store {
    let (location, options) = (Location::Folder(folder.to_owned()), Options::default());
    runtime.block_on(Store::open_or_create(&location, "golden", &options)).unwrap()
}

/// Imports all captures into a new store in `folder`. The log of the first one is truncated.
fn import_all(folder: &Path, runtime: &Runtime) -> Store {
    let store = store_in(folder, runtime);
    for (place, path) in captures().into_iter().enumerate() {
        let options = options();
        let known = Some(import::identify(&path).unwrap());
        let capture = source::open(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let plan = import::plan(&store, name, known, &options, &Silent);
        let plan = runtime.block_on(plan).unwrap();
        let done = import::run(&store, plan, capture, &options, &Silent, runtime.handle());
        let done = done.unwrap();
        assert!(done.damage.is_none() && done.losses.is_empty(), "{done:?}");
        runtime.block_on(role::roll_up_before_leaving(&store, "golden")).unwrap();
        if place == 0 {
            runtime.block_on(truncate(&store));
        }
    }
    store
}

/// Truncates logs, once every root that does not count all of their commits is removed.
async fn truncate(store: &Store) {
    let claim = || Rollup::claim(store, "golden", Stay::Leaves);
    // The log ends in one step, and is dropped in the next one.
    claim().await.unwrap().roll_up_all().await.unwrap();
    let mut rollup = claim().await.unwrap();
    for _ in 0..5 {
        rollup = claim().await.unwrap();
    }
    rollup.sweep(Duration::ZERO).await.unwrap();
    let limits = Limits { least: 1, ..Limits::default() };
    let truncated = rollup.truncate(limits).await.unwrap();
    assert_eq!((truncated.logs, truncated.commits), (1, 1));
}

/// Every layer of a store by its object's name.
async fn layers(store: &Store) -> Vec<(String, bytes::Bytes)> {
    let view = CatalogView::load(store).await.unwrap();
    let mut found = Vec::new();
    for known in view.window(TimeRange::ALL).await.unwrap().segments.iter() {
        for layer in Layer::SEALED {
            let path = known.path(layer);
            found.push((path.to_string(), store.get(&path).await.unwrap()));
        }
    }
    found.sort();
    found
}

fn check_packets(described: &Described) {
    for (name, packets) in &described.sources {
        let expected = golden().join("captures").join(name).with_extension("txt");
        let expected = std::fs::read_to_string(&expected).unwrap();
        for (found, expected) in packets.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(packets.lines().count(), expected.lines().count(), "{name}");
    }
}

/// Not the bytes, which change with compression libraries and with every better layout, but all
/// they say, and the formats' numbers, sections and columns: those of the newest golden store.
#[test]
fn new_import_equals_the_newest_golden_store() {
    let (runtime, folder) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let store = import_all(folder.path(), &runtime);
    let described = runtime.block_on(describe::describe(&store));
    check_packets(&described);
    if std::env::var_os(MAKE).is_some() {
        make_next(folder.path(), &described);
    }
    let newest = golden().join(newest().to_string());
    for (name, found) in [("flows.txt", &described.flows), ("shape.txt", &described.shape)] {
        let expected = std::fs::read_to_string(newest.join(name)).unwrap();
        for (found, expected) in found.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "{name}: is a new golden store due? see its README.md");
        }
        assert_eq!(found.lines().count(), expected.lines().count(), "{name}");
    }
}

/// The same capture gives the same layers, whenever and wherever it is imported.
#[test]
fn two_imports_write_the_same_bytes() {
    let runtime = Runtime::new().unwrap();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = folders.each_ref().map(|folder| {
        let store = import_all(folder.path(), &runtime);
        runtime.block_on(layers(&store))
    });
    assert!(one.len() >= 10);
    for ((name, bytes), (other, others)) in one.iter().zip(&two) {
        assert_eq!(name, other);
        assert!(bytes == others, "{name}");
    }
    assert_eq!(one.len(), two.len());
}

/// The commits of each golden store recognise the captures that were imported into it, by whatever hash they have.
#[test]
fn what_an_earlier_version_imported_is_stored_already() {
    let runtime = Runtime::new().unwrap();
    for number in 1..=newest() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("store");
        copy(&golden().join(number.to_string()).join("store"), &folder);
        let store = store_in(&folder, &runtime);
        for path in captures() {
            let name = path.file_name().unwrap().to_str().unwrap();
            let known = Some(import::identify(&path).unwrap());
            let options = options();
            let plan = import::plan(&store, name, known, &options, &Silent);
            let failure = runtime.block_on(plan).err().map(|failure| failure.kind());
            assert_eq!(failure, Some(FailureKind::AlreadyThere), "golden store {number}: {name}");
        }
    }
}

/// Copies what an import left; the store's own scratch folders stay behind.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        match path.is_dir() {
            true if name == ".staging" || name == "probe" => {}
            true => copy(&path, &to.join(name)),
            false => drop(std::fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

/// Makes the next golden store of what an import left in `folder`, never touching one that is
/// there.
fn make_next(folder: &Path, described: &Described) {
    let number = newest();
    let newest = golden().join(number.to_string());
    let said = ["flows.txt", "shape.txt"].map(|name| std::fs::read_to_string(newest.join(name)));
    assert!(
        said.map(Result::unwrap_or_default) != [&*described.flows, &*described.shape],
        "golden store {number} is of today's formats: there is nothing to add"
    );
    let next = golden().join((number + 1).to_string());
    std::fs::create_dir(&next).unwrap();
    copy(folder, &next.join("store"));
    std::fs::write(next.join("flows.txt"), &described.flows).unwrap();
    std::fs::write(next.join("shape.txt"), &described.shape).unwrap();
}
