//! Concatenated compressed members: gzip members (RFC 1952), zstd frames (RFC 8878) and LZ4 frames,
//! with skippable frames between them. One stream may mix them.
//!
//! Bytes after the last member that start no member are not part of the capture. Zeros are padding,
//! and another member may follow them. All other trailing bytes are counted and reported.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Progress;

/// Bytes per read of compressed input.
const COMPRESSED_CHUNK: usize = 128 * 1024;

/// The format of a member, by its first four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gzip,
    Zstd,
    Lz4,
}

/// The first bytes of each kind.
const MAGIC: [(Kind, &[u8]); 3] = [
    (Kind::Gzip, &[0x1f, 0x8b, 8]),
    (Kind::Zstd, &[0x28, 0xb5, 0x2f, 0xfd]),
    (Kind::Lz4, &[0x04, 0x22, 0x4d, 0x18]),
];

/// Whether a skippable frame begins like this (RFC 8878 section 3.1.2).
fn is_skippable(first: &[u8]) -> bool {
    matches!(first, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}

/// A stream with peek.
pub(super) struct Stream<R> {
    inner: BufReader<R>,
    /// Peeked bytes not yet consumed: `front[start..end]`.
    front: [u8; 4],
    start: usize,
    end: usize,
    /// The end of the stream was reached.
    ended: bool,
}

impl<R: Read> Stream<R> {
    pub(super) fn new(inner: R) -> Self {
        let inner = BufReader::with_capacity(COMPRESSED_CHUNK, inner);
        Stream { inner, front: [0; 4], start: 0, end: 0, ended: false }
    }

    /// The next four bytes, or fewer at the end, without consuming them.
    fn peek(&mut self) -> io::Result<&[u8]> {
        self.front.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while let Some(room) = self.front.get_mut(self.end..).filter(|room| !room.is_empty()) {
            match self.inner.read(room) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.front.get(..self.end).unwrap_or_default())
    }

    /// The format of the next member after skippable frames. None if there is none.
    ///
    /// # Errors
    /// Reading failed, or the stream ends inside a skippable frame.
    pub(super) fn next_member(&mut self) -> io::Result<Option<Kind>> {
        loop {
            let first = self.peek()?;
            if !is_skippable(first) {
                let is_it =
                    |(_, magic): &&(Kind, &[u8])| first.starts_with(magic) && first.len() == 4;
                return Ok(MAGIC.iter().find(is_it).map(|(kind, _)| *kind));
            }
            let mut header = [0; 8];
            self.read_exact(&mut header)?;
            let [.., a, b, c, d] = header;
            let length = u64::from(u32::from_le_bytes([a, b, c, d]));
            if io::copy(&mut self.by_ref().take(length), &mut io::sink())? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Skips zeros and returns their count.
    fn skip_zeros(&mut self) -> io::Result<u64> {
        let mut skipped = 0;
        loop {
            let bytes = self.fill_buf()?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let all = zeros == bytes.len();
            self.consume(zeros);
            skipped += zeros as u64;
            if !all || zeros == 0 {
                return Ok(skipped);
            }
        }
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() {
            return Ok(0);
        }
        if self.start < self.end {
            let count = self.fill_buf()?.read(room)?;
            self.consume(count);
            return Ok(count);
        }
        let count = self.inner.read(room)?;
        self.ended |= count == 0;
        Ok(count)
    }
}

impl<R: Read> BufRead for Stream<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start < self.end {
            return Ok(self.front.get(self.start..self.end).unwrap_or_default());
        }
        let bytes = self.inner.fill_buf()?;
        self.ended |= bytes.is_empty();
        Ok(bytes)
    }

    fn consume(&mut self, count: usize) {
        if self.start < self.end {
            self.start += count.min(self.end - self.start);
        } else {
            self.inner.consume(count);
        }
    }
}

/// The decompressor of one member.
enum Member<R: Read> {
    Gzip(flate2::bufread::GzDecoder<Stream<R>>),
    Zstd(zstd::stream::read::Decoder<'static, Stream<R>>),
    /// The decoder accepts a stream that ends between two blocks. Here that is an error.
    Lz4(lz4_flex::frame::FrameDecoder<Stream<R>>),
}

impl<R: Read> Member<R> {
    fn new(kind: Kind, stream: Stream<R>) -> io::Result<Self> {
        Ok(match kind {
            Kind::Gzip => Member::Gzip(flate2::bufread::GzDecoder::new(stream)),
            Kind::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
                Member::Zstd(decoder.single_frame())
            }
            Kind::Lz4 => Member::Lz4(lz4_flex::frame::FrameDecoder::new(stream)),
        })
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Member::Gzip(decoder) => decoder.read(room),
            Member::Zstd(decoder) => decoder.read(room),
            Member::Lz4(decoder) => {
                let count = decoder.read(room)?;
                if count == 0 && decoder.get_ref().ended {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(count)
            }
        }
    }

    fn into_stream(self) -> Stream<R> {
        match self {
            Member::Gzip(decoder) => decoder.into_inner(),
            Member::Zstd(decoder) => decoder.finish(),
            Member::Lz4(decoder) => decoder.into_inner(),
        }
    }
}

/// The decompressed content of all members of a stream.
pub(super) struct Members<R: Read> {
    /// None after the last member, and after an error between two.
    member: Option<Member<R>>,
    progress: Arc<Progress>,
}

impl<R: Read> Members<R> {
    /// Reads a stream that begins with a member of that kind.
    pub(super) fn new(stream: Stream<R>, first: Kind, progress: Arc<Progress>) -> io::Result<Self> {
        Ok(Members { member: Some(Member::new(first, stream)?), progress })
    }

    /// The next member. None at the end of the stream.
    fn next(&self, mut stream: Stream<R>) -> io::Result<Option<Member<R>>> {
        let mut padding = 0;
        loop {
            stream.ended = false;
            if let Some(kind) = stream.next_member()? {
                return Member::new(kind, stream).map(Some);
            }
            let first = stream.peek()?;
            if first.is_empty() {
                return Ok(None);
            }
            // A partial magic number may be any bytes. Only the whole gzip magic starts a member.
            if MAGIC.iter().any(|(_, magic)| first.starts_with(magic)) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let zeros = stream.skip_zeros()?;
            padding += zeros;
            if zeros == 0 {
                let rest = io::copy(&mut stream, &mut io::sink())?;
                self.progress.trailing.store(padding + rest, Ordering::Relaxed);
                return Ok(None);
            }
        }
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let count = member.read(room)?;
            if count > 0 {
                return Ok(count);
            }
            if let Some(ended) = self.member.take() {
                self.member = self.next(ended.into_stream())?;
            }
        }
        Ok(0)
    }
}
