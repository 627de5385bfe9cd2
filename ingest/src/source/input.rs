//! A buffered byte stream with large reads. Records are borrowed from the buffer: no copy and no
//! system call per packet.

use std::io::Read;
use std::sync::Arc;

use capstan_model::bytes::{be16, be32, be64, le16, le32, le64};

use super::SourceError;
use super::compressed::{self, Progress};

/// Read size, bytes. (2 GB from the page cache took the same processor time with 64 KiB and 1 MiB.)
const CHUNK: usize = 256 * 1024;

/// The longest valid frame, bytes: the limit of libpcap and Wireshark for USB and D-Bus. A larger
/// length field is damage.
pub(super) const MAX_FRAME: usize = 128 << 20;

/// The buffered stream. The unread bytes are `buffer[start..end]`.
pub(super) struct Input {
    name: String,
    reader: Box<dyn Read + Send>,
    progress: Arc<Progress>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset of `start` in the decompressed stream.
    offset: u64,
    ended: bool,
}

impl Input {
    /// A stream called `name` in messages. `reader` gives decompressed bytes.
    pub(super) fn new(
        name: String,
        reader: Box<dyn Read + Send>,
        progress: Arc<Progress>,
    ) -> Input {
        let buffer = vec![0; CHUNK];
        Input { name, reader, progress, buffer, start: 0, end: 0, offset: 0, ended: false }
    }

    /// Bytes that are read but not consumed.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        // The invariant start <= end <= buffer.len() holds by construction.
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The stream's name in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The read position of the stream before decompression.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Buffer size, bytes.
    #[cfg(test)]
    pub(super) fn buffer_size(&self) -> usize {
        self.buffer.len()
    }

    /// Makes at least `need` bytes available. False if the stream ends before.
    ///
    /// It never waits for more than `need`, so a live pipe is not delayed. The caller bounds `need`;
    /// the buffer grows as bytes arrive.
    #[inline]
    pub(super) fn fill(&mut self, need: usize) -> Result<bool, SourceError> {
        if self.end - self.start >= need { Ok(true) } else { self.read_on(need) }
    }

    #[cold]
    fn read_on(&mut self, need: usize) -> Result<bool, SourceError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < need {
            if self.ended {
                return Ok(false);
            }
            if self.end == self.buffer.len() {
                // Doubles with the bytes received: a false length field alone allocates nothing.
                self.buffer.resize(self.end * 2, 0);
            }
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.reader.read(room) {
                Ok(0) => self.ended = true,
                Ok(read) => self.end += read.min(room.len()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    return Err(self.failed(error));
                }
            }
        }
        Ok(true)
    }

    /// Whether the stream has ended and the buffer is empty.
    pub(super) fn at_end(&mut self) -> Result<bool, SourceError> {
        self.fill(1).map(|more| !more)
    }

    /// Consumes `count` available bytes.
    #[inline]
    pub(super) fn take(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.offset += count as u64;
    }

    /// Skips `count` bytes. False if the stream ends before.
    pub(super) fn skip(&mut self, count: usize) -> Result<bool, SourceError> {
        let mut left = count;
        while left > 0 {
            if !self.fill(1)? {
                return Ok(false);
            }
            let some = left.min(self.end - self.start);
            self.take(some);
            left -= some;
        }
        Ok(true)
    }

    /// A [`SourceError::Damaged`] at the current offset.
    pub(super) fn damaged(&self, what: impl Into<String>) -> SourceError {
        SourceError::Damaged { name: self.name.clone(), offset: self.offset, what: what.into() }
    }

    /// A [`SourceError::NotACapture`].
    pub(super) fn not_a_capture(&self, what: impl Into<String>) -> SourceError {
        SourceError::NotACapture { name: self.name.clone(), what: what.into() }
    }

    fn failed(&self, source: std::io::Error) -> SourceError {
        let offset = self.offset + (self.end - self.start) as u64;
        compressed::failed(&self.name, offset, source, &self.progress)
    }
}

/// Reads an integer at `at` in the given byte order. 0 past the end, which callers exclude by a length check.
#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize, big_endian: bool) -> u16 {
    if big_endian { be16(bytes, at) } else { le16(bytes, at) }.unwrap_or_default()
}

/// Like [`u16_at`].
#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    if big_endian { be32(bytes, at) } else { le32(bytes, at) }.unwrap_or_default()
}

/// Like [`u16_at`].
#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize, big_endian: bool) -> u64 {
    if big_endian { be64(bytes, at) } else { le64(bytes, at) }.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most seven bytes a call, as a pipe may.
    struct Trickle(std::io::Cursor<Vec<u8>>);

    impl Read for Trickle {
        fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
            let few = room.len().min(7);
            self.0.read(&mut room[..few])
        }
    }

    fn input(bytes: Vec<u8>) -> Input {
        let reader = Box::new(Trickle(std::io::Cursor::new(bytes)));
        Input::new("it".to_owned(), reader, Arc::new(Progress::default()))
    }

    #[test]
    fn a_record_across_reads_is_one_slice() {
        let bytes: Vec<u8> = (0..=255).cycle().take(700_000).collect();
        let mut input = input(bytes.clone());
        let mut at = 0;
        for size in [1, 5, 8, 300_000, 2, 262_144] {
            assert!(input.fill(size).expect("reads"));
            assert_eq!(input.offset, at as u64);
            assert_eq!(input.bytes()[..size], bytes[at..at + size]);
            input.take(size);
            at += size;
        }
        assert!(!input.fill(700_000).expect("reads"));
        assert_eq!(input.bytes().len(), 700_000 - at);
        assert!(!input.at_end().expect("reads"));
    }

    #[test]
    fn length_field_alone_allocates_no_memory() {
        let mut input = input(vec![1; 300_000]);
        assert!(!input.fill(1 << 30).expect("reads"));
        assert!(input.buffer_size() <= 1 << 20);
        assert!(input.skip(299_999).expect("reads"));
        assert!(!input.skip(2).expect("reads"));
    }

    #[test]
    fn reader_waits_for_no_more_bytes_than_requested() {
        let mut input = input(vec![1; 100]);
        assert!(input.fill(3).expect("reads"));
        assert_eq!(input.bytes().len(), 7);
    }
}
