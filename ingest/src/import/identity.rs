//! What a capture file is known by.
//!
//! Before it is read: its *sketch*, a SHA-256 over its length and samples of it, which costs
//! next to nothing however large it is. While it is read: the SHA-256 of all bytes so far, which each commit
//! holds. A file is thus read once; only one whose sketch the store knows is compared to the last byte.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::SourceMark;
use sha2::{Digest, Sha256};

use super::Watch;
use crate::source::Progress;

/// Length of a sample, bytes.
const SAMPLE: u64 = 64 * 1024;
/// Samples of a file that is longer than all of them together.
const SAMPLES: u64 = 16;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// A file and its sketch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) sketch: String,
}

/// Takes a file's sketch: the SHA-256 of its length (8 bytes, little-endian) and of 16 samples of
/// 64 KiB, the first at its start, the last at its end, the others evenly between, each at a whole byte
/// rounded down; of its length and all of it where it has no more bytes than that.
///
/// # Errors
/// The file cannot be read.
pub fn identify(path: &Path) -> Result<Known, Failure> {
    let failed = |error| cannot_read(path, error);
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let mut hasher = Sha256::new();
    hasher.update(bytes.to_le_bytes());
    let mut buffer = Vec::new();
    for (start, length) in samples(bytes) {
        buffer.resize(length, 0);
        file.read_exact_at(&mut buffer, start).map_err(failed)?;
        hasher.update(&buffer);
    }
    Ok(Known { path: path.to_owned(), bytes, sketch: hex::encode(hasher.finalize()) })
}

/// Where the samples of a file of so many bytes lie, and how long each is.
fn samples(bytes: u64) -> Vec<(u64, usize)> {
    if bytes <= SAMPLE * SAMPLES {
        return vec![(0, bytes as usize)];
    }
    let start = |number| u128::from(bytes - SAMPLE) * u128::from(number) / u128::from(SAMPLES - 1);
    (0..SAMPLES).map(|number| (start(number) as u64, SAMPLE as usize)).collect()
}

/// Whether a file begins with the bytes that a mark is of.
///
/// # Errors
/// The file cannot be read; [`FailureKind::Interrupted`] when `stop` was set.
pub(super) fn begins_with(
    path: &Path,
    mark: &SourceMark,
    stop: &AtomicBool,
    watch: &dyn Watch,
) -> Result<bool, Failure> {
    let progress = Progress::default();
    let file = File::open(path).map_err(|error| cannot_read(path, error))?;
    take_in(path, file.take(mark.bytes), &progress, stop, watch)?;
    Ok(progress.mark() == *mark)
}

/// Reads what a source's reader has left of its file: what lies behind a capture's end, or behind damage.
///
/// # Errors
/// The file cannot be read; [`FailureKind::Interrupted`] when `stop` was set.
pub(super) fn read_rest(
    path: &Path,
    progress: &Progress,
    stop: &AtomicBool,
    watch: &dyn Watch,
) -> Result<(), Failure> {
    let mut file = File::open(path).map_err(|error| cannot_read(path, error))?;
    file.seek(SeekFrom::Start(progress.consumed())).map_err(|error| cannot_read(path, error))?;
    take_in(path, file, progress, stop, watch)
}

fn take_in(
    path: &Path,
    mut from: impl Read,
    progress: &Progress,
    stop: &AtomicBool,
    watch: &dyn Watch,
) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from.read(&mut buffer).map_err(|error| cannot_read(path, error))?;
        if length == 0 {
            return Ok(());
        }
        progress.add(&buffer[..length]);
        watch.comparing(progress.consumed());
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::new(
                FailureKind::Interrupted,
                format!("stopped while {} was read for its SHA-256", path.display()),
            ));
        }
    }
}

fn cannot_read(path: &Path, error: io::Error) -> Failure {
    Failure::io(format!("cannot read {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Quiet;

    impl Watch for Quiet {}

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn samples_reach_from_the_first_byte_to_the_last() {
        assert_eq!(samples(0), [(0, 0)]);
        assert_eq!(samples(1 << 20), [(0, 1 << 20)]);
        for bytes in [(1 << 20) + 1, 2_000_628_166, u64::from(u32::MAX) << 20] {
            let found = samples(bytes);
            assert_eq!(found.len(), 16);
            assert_eq!(found[0], (0, 65_536));
            assert_eq!(found[15].0 + 65_536, bytes);
            assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }

    #[test]
    fn a_sketch_is_of_length_and_samples() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7 % 251) as u8).collect();
        let whole = identify(file(&bytes).path()).unwrap();
        assert_eq!(whole.bytes, 3_000_000);
        assert_eq!(whole.sketch, identify(file(&bytes).path()).unwrap().sketch);
        for at in [0, 65_535, 2_999_999] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(whole.sketch, identify(file(&other).path()).unwrap().sketch, "byte {at}");
        }
        assert_ne!(whole.sketch, identify(file(&bytes[..2_999_999]).path()).unwrap().sketch);
        // By the words above: a short file is its length and itself.
        let mut short = Sha256::new();
        short.update([3, 0, 0, 0, 0, 0, 0, 0]);
        short.update(b"abc");
        assert_eq!(identify(file(b"abc").path()).unwrap().sketch, hex::encode(short.finalize()));
    }

    #[test]
    fn a_mark_tells_whether_a_file_begins_with_it() {
        let bytes = vec![7; 2_500_000];
        let mark = SourceMark {
            bytes: 2_100_000,
            sha256: hex::encode(Sha256::digest(&bytes[..2_100_000])),
        };
        let same = |bytes: &[u8]| {
            begins_with(file(bytes).path(), &mark, &AtomicBool::new(false), &Quiet).unwrap()
        };
        assert!(same(&bytes));
        assert!(same(&bytes[..2_100_000]));
        assert!(!same(&bytes[..2_099_999]));
        let mut other = bytes.clone();
        other[2_099_999] = 8;
        assert!(!same(&other));
        let stopped = AtomicBool::new(true);
        let failure = begins_with(file(&bytes).path(), &mark, &stopped, &Quiet).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Interrupted);
    }

    #[test]
    fn the_rest_of_a_file_belongs_to_its_mark() {
        let bytes: Vec<u8> = (0..2_300_000_u32).map(|at| at as u8).collect();
        let progress = Progress::default();
        progress.add(&bytes[..1_000]);
        read_rest(file(&bytes).path(), &progress, &AtomicBool::new(false), &Quiet).unwrap();
        let sha256 = hex::encode(Sha256::digest(&bytes));
        assert_eq!(progress.mark(), SourceMark { bytes: 2_300_000, sha256 });
    }
}
