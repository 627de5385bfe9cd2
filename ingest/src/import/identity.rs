//! Identity of a capture file.
//!
//! The *beginning* is a SHA-256 over the first packet. It stays the same while the file grows. It
//! determines the recorder of an import, so two imports of one file meet in the store. During the
//! read, each commit holds the BLAKE3 hash of all bytes so far. A file is thus read once. Only a file
//! whose beginning is in the store is compared first, up to the end of the earlier import. Imports of
//! earlier versions have a SHA-256 there instead.
//!
//! The *sketch* is a SHA-256 over the length and samples of the file. It detects an overwrite during
//! the import. Imports of earlier versions have a recorder derived from the sketch.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use capstan_model::packet::Stamp;
use capstan_model::{Failure, FailureKind, Packet};
use capstan_storage_engine::catalog::{SourceHash, SourceMark};
use sha2::{Digest, Sha256};

use super::Watch;
use super::file_state::State;
use crate::source::{self, Event, PacketSource, Progress};

/// Length of a sample, bytes.
const SAMPLE: u64 = 64 * 1024;
/// Number of samples. A shorter file is hashed whole.
const SAMPLES: u64 = 16;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;
/// A file has a beginning if a packet is among this many interfaces, blocks and packets.
const BEFORE_PACKET: usize = 4_096;

/// A file and its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) sketch: String,
    /// The hash of its first packet. None if it has no packet or is not a capture.
    pub(super) beginning: Option<String>,
    pub(super) state: State,
}

/// Computes a file's beginning and sketch.
///
/// # Errors
/// The file cannot be read.
pub fn identify(path: &Path) -> Result<Known, Failure> {
    let failed = |error| cannot_read(path, error);
    let state = State::of(&std::fs::metadata(path).map_err(failed)?);
    let sketch = sketch_of(path, state.bytes).map_err(failed)?;
    let beginning = beginning(path);
    Ok(Known { path: path.to_owned(), bytes: state.bytes, sketch, beginning, state })
}

/// The SHA-256 of a file's first packet: a byte for the kind of time stamp, the stamp (8 bytes:
/// nanoseconds, or ticks of a finer clock), the length on the wire (4) and the bytes. Numbers are
/// little-endian.
fn beginning(path: &Path) -> Option<String> {
    // The import itself reports errors.
    let mut source = source::open(path).ok()?;
    for _ in 0..BEFORE_PACKET {
        if let Event::Packet(packet) = source.next_event().ok()?? {
            return Some(of_packet(&packet));
        }
    }
    None
}

fn of_packet(packet: &Packet<'_>) -> String {
    let (kind, ticks) = match packet.stamp {
        Stamp::At(time) => (0_u8, time.0.cast_unsigned()),
        Stamp::Raw { ticks, .. } => (1, ticks),
        Stamp::None => (2, 0),
    };
    let mut hasher = Sha256::new();
    hasher.update([kind]);
    hasher.update(ticks.to_le_bytes());
    hasher.update(packet.length.to_le_bytes());
    hasher.update(packet.data);
    hex::encode(hasher.finalize())
}

/// The sketch of a file's first `bytes`: the SHA-256 of that length (8 bytes, little-endian) and of
/// 16 samples of 64 KiB. The first sample is at the start, the last at the end, the others evenly
/// between, rounded down to a whole byte. A file no longer than the samples is hashed whole.
pub(super) fn sketch_of(path: &Path, bytes: u64) -> io::Result<String> {
    let file = File::open(path)?;
    let mut hasher = Sha256::new();
    hasher.update(bytes.to_le_bytes());
    let mut buffer = Vec::new();
    for (start, length) in samples(bytes) {
        buffer.resize(length, 0);
        file.read_exact_at(&mut buffer, start)?;
        hasher.update(&buffer);
    }
    Ok(hex::encode(hasher.finalize()))
}

/// Offset and length of each sample in a file of `bytes` bytes.
fn samples(bytes: u64) -> Vec<(u64, usize)> {
    if bytes <= SAMPLE * SAMPLES {
        return vec![(0, bytes as usize)];
    }
    let start = |number| u128::from(bytes - SAMPLE) * u128::from(number) / u128::from(SAMPLES - 1);
    (0..SAMPLES).map(|number| (start(number) as u64, SAMPLE as usize)).collect()
}

/// Compares the beginning of a file with each mark. Reads the file once, up to the longest mark.
///
/// # Errors
/// The file cannot be read; [`FailureKind::Interrupted`] when `stop` was set.
pub(super) fn begins_with(
    path: &Path,
    marks: &[&SourceMark],
    stop: &AtomicBool,
    watch: &dyn Watch,
) -> Result<Vec<bool>, Failure> {
    let mut places: Vec<usize> = (0..marks.len()).collect();
    places.sort_unstable_by_key(|place| marks[*place].bytes);
    let mut prefix = Prefix::new(marks);
    let mut file = File::open(path).map_err(|error| cannot_read(path, error))?;
    let mut begins = vec![false; marks.len()];
    for place in places {
        let more = marks[place].bytes.saturating_sub(prefix.bytes);
        read_all(path, (&mut file).take(more), stop, |bytes| {
            prefix.add(bytes);
            watch.comparing(prefix.bytes);
        })?;
        begins[place] = prefix.is(marks[place]);
    }
    Ok(begins)
}

/// The bytes read so far, hashed in each way that a mark needs.
struct Prefix {
    bytes: u64,
    blake3: Option<blake3::Hasher>,
    sha256: Option<Sha256>,
}

impl Prefix {
    fn new(marks: &[&SourceMark]) -> Prefix {
        let any =
            |is: fn(&SourceHash) -> Option<&str>| marks.iter().any(|mark| is(&mark.hash).is_some());
        Prefix {
            bytes: 0,
            blake3: any(SourceHash::blake3).then(blake3::Hasher::new),
            sha256: any(SourceHash::sha256).then(Sha256::new),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.blake3 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.sha256 {
            hasher.update(bytes);
        }
        self.bytes += bytes.len() as u64;
    }

    /// Whether the mark is of these bytes.
    fn is(&self, mark: &SourceMark) -> bool {
        let same = match &mark.hash {
            SourceHash::Blake3(hash) => {
                self.blake3.as_ref().is_some_and(|of| *of.finalize().to_hex() == **hash)
            }
            SourceHash::Sha256(hash) => {
                self.sha256.as_ref().is_some_and(|of| hex::encode(of.clone().finalize()) == *hash)
            }
        };
        self.bytes == mark.bytes && same
    }
}

/// Reads the rest of a file of `bytes` bytes that the source's reader left: bytes after the
/// capture's end or after damage.
///
/// # Errors
/// The file cannot be read; [`FailureKind::Interrupted`] when `stop` was set.
pub(super) fn read_rest(
    known: &Known,
    progress: &Progress,
    stop: &AtomicBool,
    watch: &dyn Watch,
) -> Result<(), Failure> {
    let left = known.bytes.saturating_sub(progress.consumed());
    if left == 0 {
        return Ok(());
    }
    let path = &known.path;
    let mut file = File::open(path).map_err(|error| cannot_read(path, error))?;
    file.seek(SeekFrom::Start(progress.consumed())).map_err(|error| cannot_read(path, error))?;
    read_all(path, file.take(left), stop, |bytes| {
        progress.add(bytes);
        watch.comparing(progress.consumed());
    })
}

/// Reads a stream to its end, in pieces.
fn read_all(
    path: &Path,
    mut from: impl Read,
    stop: &AtomicBool,
    mut add: impl FnMut(&[u8]),
) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from.read(&mut buffer).map_err(|error| cannot_read(path, error))?;
        if length == 0 {
            return Ok(());
        }
        add(&buffer[..length]);
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::new(
                FailureKind::Interrupted,
                format!("stopped while {} was read for its hash", path.display()),
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
        let mark = |bytes, hash| SourceMark { bytes, hash, damaged: false };
        let first = &bytes[..2_100_000];
        let old = mark(2_100_000, SourceHash::Sha256(hex::encode(Sha256::digest(first))));
        let new = mark(2_100_000, SourceHash::Blake3(blake3::hash(first).to_hex().to_string()));
        let wrong = mark(3, SourceHash::Sha256(String::new()));
        let same = |bytes: &[u8]| {
            let marks = [&old, &wrong, &new];
            let found = begins_with(file(bytes).path(), &marks, &AtomicBool::new(false), &Quiet);
            let [old, wrong, new] = found.unwrap()[..] else { panic!("one for each mark") };
            assert!(!wrong);
            assert_eq!(old, new);
            new
        };
        assert!(same(&bytes));
        assert!(same(&bytes[..2_100_000]));
        assert!(!same(&bytes[..2_099_999]));
        let mut other = bytes.clone();
        other[2_099_999] = 8;
        assert!(!same(&other));
        let stopped = AtomicBool::new(true);
        let failure = begins_with(file(&bytes).path(), &[&new], &stopped, &Quiet).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Interrupted);
    }

    #[test]
    fn bytes_after_the_identified_length_are_not_in_the_mark() {
        let bytes: Vec<u8> = (0..2_300_000_u32).map(|at| at as u8).collect();
        let progress = Progress::default();
        progress.add(&bytes[..1_000]);
        let known = identify(file(&bytes[..2_200_000]).path()).unwrap();
        // It has grown since: what came later was not read as packets, and does not belong to the mark.
        let grown = file(&bytes);
        let known = Known { path: grown.path().to_owned(), ..known };
        read_rest(&known, &progress, &AtomicBool::new(false), &Quiet).unwrap();
        let hash = SourceHash::Blake3(blake3::hash(&bytes[..2_200_000]).to_hex().to_string());
        assert_eq!(progress.mark(), SourceMark { bytes: 2_200_000, hash, damaged: false });
    }
}
