//! A small store, and ways to damage it.

use std::path::{Path, PathBuf};

use crate::capstan::{answer, over};
use crate::traffic::Noise;

/// A store with three segments, in three hours.
pub(crate) fn store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (capture, store) = (folder.path().join("noise.pcap"), folder.path().join("store"));
    Noise { hours: 3, packets_an_hour: 2_000 }.write(&capture);
    answer(over(&store, "import").arg(&capture));
    (folder, store)
}

/// The layers' objects of that file name, by hour.
pub(crate) fn objects(store: &Path, file: &str) -> Vec<PathBuf> {
    let listed = answer(&mut over(store, "files"));
    listed.lines().filter(|name| name.ends_with(file)).map(|name| store.join(name)).collect()
}

pub(crate) fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).expect("an object");
    bytes[at] ^= 0x10;
    std::fs::write(file, bytes).expect("an object that is ours");
}

/// All files below a folder.
pub(crate) fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

pub(crate) fn length(file: &Path) -> u64 {
    std::fs::metadata(file).expect("an object").len()
}
