//! Compression of a capture: gzip, zstd and LZ4, detected by magic bytes. Also tracks the read position.

mod members;

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use capstan_storage_engine::catalog::{SourceHash, SourceMark};

use self::members::{Members, Stream};
use super::SourceError;

/// Read position and hash of a stream, shared with progress display and commits.
#[derive(Debug, Default)]
pub struct Progress {
    consumed: AtomicU64,
    /// Hash of the consumed bytes, updated on each read while they are in the processor cache.
    hash: Mutex<blake3::Hasher>,
    /// The stream itself failed, not the decompressor.
    failed: AtomicBool,
    /// Nonzero trailing bytes after the last compressed member.
    trailing: AtomicU64,
    /// The input is damaged.
    damaged: AtomicBool,
}

impl Progress {
    /// Bytes read so far of the file or stream, before decompression.
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    /// Trailing bytes after the last compressed member. 0 if there are none, or only zeros, which
    /// tapes and block devices leave. Known at the end of the stream.
    pub fn trailing(&self) -> u64 {
        self.trailing.load(Ordering::Relaxed)
    }

    /// Records that part of the input was unreadable.
    pub(crate) fn note_damage(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// The BLAKE3 hash and count of the bytes read so far, and whether they are damaged.
    pub fn mark(&self) -> SourceMark {
        let hash = self.hash.lock().unwrap_or_else(PoisonError::into_inner);
        SourceMark {
            bytes: self.consumed(),
            hash: SourceHash::Blake3(hash.finalize().to_hex().to_string()),
            damaged: self.damaged.load(Ordering::Relaxed),
        }
    }

    /// Hashes and counts the next bytes.
    pub(crate) fn add(&self, bytes: &[u8]) {
        let mut hash = self.hash.lock().unwrap_or_else(PoisonError::into_inner);
        hash.update(bytes);
        // Under the lock: the hash and the count of a mark must match.
        self.consumed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// Classifies a failed read of decompressed bytes: the stream failed, or its bytes cannot be
/// decompressed. `offset` is the number of bytes before.
pub(super) fn failed(
    name: &str,
    offset: u64,
    source: io::Error,
    progress: &Progress,
) -> SourceError {
    let name = name.to_owned();
    if progress.failed.load(Ordering::Relaxed) {
        return SourceError::Io { name, source };
    }
    let what = format!("decompression failed: {source}");
    SourceError::Damaged { name, offset, what }
}

/// Counts bytes read from the raw stream.
struct Counted<R> {
    inner: R,
    progress: Arc<Progress>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(room) {
            Ok(count) => {
                self.progress.add(room.get(..count).unwrap_or_default());
                Ok(count)
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.progress.failed.store(true, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }
}

/// The decompressed stream.
///
/// # Errors
/// Reading the first bytes failed, or a decompressor cannot start.
pub(super) fn decompress(
    stream: impl Read + Send + 'static,
    progress: &Arc<Progress>,
) -> io::Result<Box<dyn Read + Send>> {
    let stream = Counted { inner: stream, progress: Arc::clone(progress) };
    let mut stream = Stream::new(stream);
    Ok(match stream.next_member()? {
        Some(member) => Box::new(Members::new(stream, member, Arc::clone(progress))?),
        None => Box::new(stream),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    fn plain() -> Vec<u8> {
        (0..3_000_000u32).map(|i| (i / 7 % 251) as u8).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("into memory");
        encoder.finish().expect("into memory")
    }

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(bytes).expect("into memory");
        encoder.finish().expect("into memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 1).expect("into memory")
    }

    fn skippable() -> Vec<u8> {
        let mut frame = vec![0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0];
        frame.extend_from_slice(b"hello");
        frame
    }

    fn read(bytes: Vec<u8>) -> (Vec<u8>, io::Result<usize>) {
        let (out, result, _) = read_with_trailing(bytes);
        (out, result)
    }

    fn read_with_trailing(bytes: Vec<u8>) -> (Vec<u8>, io::Result<usize>, u64) {
        let progress = Arc::new(Progress::default());
        let length = bytes.len() as u64;
        let mut out = Vec::new();
        let result = decompress(Cursor::new(bytes), &progress)
            .and_then(|mut reader| reader.read_to_end(&mut out));
        if result.is_ok() {
            assert_eq!(progress.consumed(), length);
        }
        (out, result, progress.trailing())
    }

    #[test]
    fn many_members_and_frames_are_one_stream() {
        let plain = plain();
        let (front, back) = plain.split_at(1_000_001);
        let cases = [
            plain.clone(),
            [gzip(front), gzip(back)].concat(),
            [zstd(front), zstd(back)].concat(),
            [skippable(), zstd(front), skippable(), zstd(back), skippable()].concat(),
            [lz4(front), lz4(back)].concat(),
            [skippable(), skippable(), lz4(front), skippable(), lz4(back), skippable()].concat(),
        ];
        for (number, case) in cases.into_iter().enumerate() {
            let (out, result) = read(case);
            result.unwrap_or_else(|error| panic!("case {number}: {error}"));
            assert!(out == plain, "case {number}");
        }
    }

    #[test]
    fn truncated_stream_yields_its_bytes_and_an_error() {
        let plain = plain();
        for (name, whole) in [("gzip", gzip(&plain)), ("zstd", zstd(&plain)), ("lz4", lz4(&plain))]
        {
            for cut in [5, 100, whole.len() / 2, whole.len() - 1] {
                let (out, result) = read(whole[..cut].to_vec());
                assert!(result.is_err(), "{name} cut at {cut}");
                assert!(plain.starts_with(&out), "{name} cut at {cut}");
            }
        }
    }

    #[test]
    fn an_lz4_frame_cut_between_blocks_is_cut() {
        let whole = lz4(&plain());
        // The end mark and nothing else is missing.
        let (out, result) = read(whole[..whole.len() - 4].to_vec());
        assert_eq!(result.expect_err("cut").kind(), io::ErrorKind::UnexpectedEof);
        assert!(out == plain());
    }

    #[test]
    fn short_streams_are_not_compressed() {
        for bytes in [&b""[..], &[0x1f], &[0x1f, 0x8b, 8]] {
            let (out, result) = read(bytes.to_vec());
            assert!(result.is_ok());
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn bytes_behind_the_last_member_are_counted_and_zeros_are_not() {
        let plain = plain();
        let (front, back) = plain.split_at(1_000_001);
        let junk = |count: usize| (0..count).map(|n| (n % 7 + 1) as u8).collect::<Vec<u8>>();
        let nearly = |magic: &[u8]| [magic, &[9; 40]].concat();
        for (name, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd), ("lz4", lz4)] {
            let whole = [pack(front), pack(back)].concat();
            let cases: [(Vec<u8>, u64); 15] = [
                (Vec::new(), 0),
                (vec![0; 1], 0),
                (vec![0; 512], 0),
                (vec![0; 1_000_000], 0),
                (junk(1), 1),
                (vec![0x1f], 1),
                (vec![0x1f, 0x8b], 2),
                (vec![0x28], 1),
                (vec![0x28, 0xb5], 2),
                (vec![0x28, 0xb5, 0x2f], 3),
                (vec![0x04, 0x22, 0x4d], 3),
                ([vec![0; 5], vec![0x1f, 0x8b]].concat(), 7),
                (junk(100_000), 100_000),
                ([vec![0; 300_000], junk(3), vec![0; 7]].concat(), 300_010),
                (nearly(&[0x1f, 0x8b, 7]), 43),
            ];
            for (behind, trailing) in cases {
                let length = behind.len();
                let read = read_with_trailing([&whole[..], &behind].concat());
                assert!(read.0 == plain, "{name}, {length} bytes behind");
                assert_eq!((read.1.ok(), read.2), (Some(plain.len()), trailing), "{name} {length}");
            }
        }
    }

    #[test]
    fn members_may_be_empty_padded_and_of_several_kinds() {
        let plain = plain();
        let (front, back) = plain.split_at(1_000_001);
        let empty = [gzip(b""), zstd(b""), lz4(b""), skippable()].concat();
        let padded = [gzip(front), vec![0; 700], gzip(back), vec![0; 3]].concat();
        let mixed = [&empty[..], &gzip(front), &empty, &zstd(&back[..9]), &lz4(&back[9..])];
        for bytes in [padded, mixed.concat()] {
            let (out, result, trailing) = read_with_trailing(bytes);
            assert!(result.is_ok() && out == plain);
            assert_eq!(trailing, 0);
        }
        assert_eq!(read(empty).0, b"");
    }

    #[test]
    fn member_truncated_after_its_magic_number_is_truncated() {
        let whole = plain();
        for (pack, magic) in
            [(gzip as fn(&[u8]) -> Vec<u8>, 3), (zstd as fn(&[u8]) -> Vec<u8>, 4), (lz4, 4)]
        {
            let member = pack(&whole);
            for cut in magic..12 {
                let (out, result) = read([&member, &member[..cut]].concat());
                assert!(result.is_err() && out == whole, "cut at {cut}");
            }
        }
    }
}
