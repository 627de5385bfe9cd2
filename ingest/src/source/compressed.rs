//! What a capture may be wrapped in: gzip, zstd and LZ4 frames, told by their
//! first bytes; and how far the wrapped stream has been read.

use std::io::{self, BufReader, Cursor, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use capstan_storage_engine::catalog::SourceMark;
use sha2::{Digest, Sha256};

use super::SourceError;
use super::input::u32_at;

/// Bytes read at once below a decompressor.
const COMPRESSED_CHUNK: usize = 128 * 1024;

/// How far a stream has been read and what was read, shared with whoever shows or commits it.
#[derive(Debug, Default)]
pub struct Progress {
    consumed: AtomicU64,
    /// Of the bytes consumed. Hashed as they come, while they are in the processor's cache.
    sha256: Mutex<Sha256>,
    /// The stream itself failed, not what unpacks it.
    failed: AtomicBool,
}

impl Progress {
    /// Bytes of the file or stream (as it lies there, compressed or not) read so far.
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    /// The SHA-256 of the bytes read so far, and how many they are.
    pub fn mark(&self) -> SourceMark {
        let sha256 = self.sha256.lock().unwrap_or_else(PoisonError::into_inner);
        SourceMark { bytes: self.consumed(), sha256: hex::encode(sha256.clone().finalize()) }
    }

    /// Takes in the next bytes.
    pub(crate) fn add(&self, bytes: &[u8]) {
        let mut sha256 = self.sha256.lock().unwrap_or_else(PoisonError::into_inner);
        sha256.update(bytes);
        // Under the lock: a mark's two halves belong together.
        self.consumed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// What a failed read of unwrapped bytes means: the stream failed, or its bytes came and
/// cannot be unpacked. `offset` is how many bytes came before.
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
    let what = format!("the compressed data cannot be read on: {source}");
    SourceError::Damaged { name, offset, what }
}

/// Counts what is read from the stream itself.
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

/// How a stream is compressed, by its first four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrapping {
    None,
    Gzip,
    Zstd,
    Lz4,
    /// A frame that carries no data of its own, before a zstd or LZ4 frame (RFC 8878 section 3.1.2).
    Skippable,
}

fn wrapping(magic: [u8; 4]) -> Wrapping {
    match magic {
        [0x1f, 0x8b, 8, _] => Wrapping::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Wrapping::Zstd,
        [0x04, 0x22, 0x4d, 0x18] => Wrapping::Lz4,
        [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Wrapping::Skippable,
        _ => Wrapping::None,
    }
}

/// The stream without its wrapping.
///
/// # Errors
/// Reading the first bytes failed, or a decompressor cannot start.
pub(super) fn unwrap(
    stream: impl Read + Send + 'static,
    progress: &Arc<Progress>,
) -> io::Result<Box<dyn Read + Send>> {
    let mut stream = Counted { inner: stream, progress: Arc::clone(progress) };
    loop {
        let mut first = [0; 4];
        let count = read_up_to(&mut stream, &mut first)?;
        let magic = if count == 4 { wrapping(first) } else { Wrapping::None };
        if magic == Wrapping::Skippable {
            skip_frame(&mut stream)?;
            continue;
        }
        let start = first.get(..count).unwrap_or_default().to_vec();
        let whole = Cursor::new(start).chain(stream);
        if magic == Wrapping::None {
            return Ok(Box::new(whole));
        }
        let whole = BufReader::with_capacity(COMPRESSED_CHUNK, whole);
        return Ok(match magic {
            Wrapping::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
            Wrapping::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
            _ => Box::new(Lz4Frames::new(whole)),
        });
    }
}

/// Fills as much of `room` as the stream has.
fn read_up_to(stream: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = room.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Steps over a skippable frame whose magic number was read.
fn skip_frame(stream: &mut impl Read) -> io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u64::from(u32::from_le_bytes(length));
    if io::copy(&mut stream.take(length), &mut io::sink())? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// LZ4 frames one after the other, with skippable ones between. The decoder below
/// takes a stream that ends between two blocks for a whole frame; here it is an error.
struct Lz4Frames<R: Read> {
    decoder: lz4_flex::frame::FrameDecoder<Watched<R>>,
    in_frame: bool,
}

/// Lets the first bytes of a frame be looked at and remembers that the stream ended.
struct Watched<R> {
    inner: R,
    peeked: [u8; 4],
    /// How many of `peeked` are still to be given: the last ones.
    left: usize,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.left > 0 {
            let from = self.peeked.len() - self.left;
            let mut rest = self.peeked.get(from..).unwrap_or_default();
            let count = rest.read(room)?;
            self.left -= count;
            return Ok(count);
        }
        let count = self.inner.read(room)?;
        self.ended |= count == 0 && !room.is_empty();
        Ok(count)
    }
}

impl<R: Read> Lz4Frames<R> {
    fn new(inner: R) -> Self {
        let watched = Watched { inner, peeked: [0; 4], left: 0, ended: false };
        Lz4Frames { decoder: lz4_flex::frame::FrameDecoder::new(watched), in_frame: false }
    }

    /// Finds the next frame; false at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        let watched = self.decoder.get_mut();
        loop {
            let mut magic = [0; 4];
            match read_up_to(&mut watched.inner, &mut magic)? {
                0 => return Ok(false),
                4 => {}
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            match wrapping(magic) {
                Wrapping::Skippable => skip_frame(&mut watched.inner)?,
                Wrapping::Lz4 => {
                    watched.peeked = magic;
                    watched.left = magic.len();
                    return Ok(true);
                }
                _ => {
                    let what = format!(
                        "{:#010x} is not the start of an LZ4 frame",
                        u32_at(&magic, 0, false)
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
    }
}

impl<R: Read> Read for Lz4Frames<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            let count = self.decoder.read(room)?;
            if count > 0 {
                return Ok(count);
            }
            if self.decoder.get_ref().ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
        let progress = Arc::new(Progress::default());
        let length = bytes.len() as u64;
        let mut out = Vec::new();
        let result = unwrap(Cursor::new(bytes), &progress)
            .and_then(|mut reader| reader.read_to_end(&mut out));
        if result.is_ok() {
            assert_eq!(progress.consumed(), length);
        }
        (out, result)
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
    fn a_cut_stream_gives_what_it_has_and_says_so() {
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
}
