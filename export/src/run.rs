//! Sorted packets of one segment that wait for output: in memory, or in an unnamed temporary file, which
//! vanishes however the process ends.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use capstan_model::{Failure, FailureKind, Time};

use super::records::{Arena, HEADER, Record, is_timed, parse, record_length};

/// Bytes of time and ordinal in front of a record in a file.
const PREFIX: usize = 16;

/// Bytes that are read from a file, or written to it, at a time.
const BUFFER: usize = 256 << 10;

/// A file longer than this is followed by a new one, so that disk space is freed as its runs are consumed.
const FILE_BYTES: u64 = 512 << 20;

/// Sorted packets that are not consumed yet.
#[derive(Debug)]
pub(super) enum Run {
    Memory { arena: Arena, next: usize },
    File(FileRun),
}

/// The sort key of the front packet of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) time: Option<Time>,
    pub(super) ordinal: u64,
}

impl Run {
    /// A run of an arena that was sorted.
    pub(super) fn new(arena: Arena) -> Run {
        Run::Memory { arena, next: 0 }
    }

    /// The packet at the front.
    #[inline]
    pub(super) fn head(&self) -> Option<Head> {
        match self {
            Run::Memory { arena, next } => {
                arena.key(*next).map(|key| Head { time: key.time(), ordinal: key.ordinal })
            }
            Run::File(run) => run.head,
        }
    }

    /// Its record.
    #[inline]
    pub(super) fn record(&self) -> Option<Record<'_>> {
        match self {
            Run::Memory { arena, next } => {
                let key = arena.key(*next)?;
                parse(arena.bytes(key), key.time)
            }
            Run::File(run) => run.record(),
        }
    }

    /// Advances to the next packet.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<(), Failure> {
        match self {
            Run::Memory { next, .. } => {
                *next += 1;
                Ok(())
            }
            Run::File(run) => run.advance(),
        }
    }

    /// Bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        match self {
            Run::Memory { arena, .. } => arena.memory(),
            Run::File(run) => run.buffer.capacity(),
        }
    }

    /// Frees memory if most of it is for consumed packets.
    pub(super) fn compact(&mut self) {
        if let Run::Memory { arena, next } = self
            && arena.len() - (*next).min(arena.len()) < arena.len() / 8
        {
            *arena = arena.rest(*next);
            *next = 0;
        }
    }
}

/// Temporary files for runs that exceed the memory budget.
#[derive(Debug)]
pub(super) struct Spill {
    folder: PathBuf,
    /// The file that is being filled, and its length.
    file: Option<(Arc<File>, u64)>,
    /// Bytes written so far.
    pub(super) written: u64,
}

impl Spill {
    pub(super) fn new(folder: PathBuf) -> Self {
        Spill { folder, file: None, written: 0 }
    }

    /// Writes the rest of a run in memory to a file, and frees the memory.
    ///
    /// # Errors
    /// The temporary file cannot be written; of kind `Full` if the disk is.
    pub(super) fn spill(&mut self, run: &mut Run) -> Result<(), Failure> {
        let Run::Memory { arena, next } = run else { return Ok(()) };
        let failed = |folder: &PathBuf| {
            let what = format!("cannot keep packets in a temporary file in {}", folder.display());
            move |error| Failure::io(what, error)
        };
        let (file, start) = match self.file.take() {
            Some((file, end)) if end < FILE_BYTES => (file, end),
            _ => {
                let file = tempfile::tempfile_in(&self.folder).map_err(failed(&self.folder))?;
                (Arc::new(file), 0)
            }
        };
        let mut end = start;
        let mut buffer = Vec::with_capacity(BUFFER);
        for place in *next..arena.len() {
            let Some(key) = arena.key(place) else { break };
            let bytes = arena.bytes(key);
            let record = record_length(bytes).and_then(|length| bytes.get(..length));
            let record = record.ok_or_else(broken)?;
            if !buffer.is_empty() && buffer.len() + PREFIX + record.len() > BUFFER {
                file.write_all_at(&buffer, end).map_err(failed(&self.folder))?;
                end += buffer.len() as u64;
                buffer.clear();
            }
            buffer.extend_from_slice(&key.time.to_le_bytes());
            buffer.extend_from_slice(&key.ordinal.to_le_bytes());
            buffer.extend_from_slice(record);
        }
        file.write_all_at(&buffer, end).map_err(failed(&self.folder))?;
        end += buffer.len() as u64;
        self.written += end - start;
        self.file = Some((Arc::clone(&file), end));
        *run = Run::File(FileRun::open(file, start, end)?);
        Ok(())
    }
}

fn broken() -> Failure {
    Failure::new(FailureKind::Other, "a packet kept in memory or in a temporary file is broken")
}

/// A run in a file.
#[derive(Debug)]
pub(super) struct FileRun {
    file: Arc<File>,
    /// Where the next read begins, and where the run ends.
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    /// The front packet's place in the buffer, prefix included.
    start: usize,
    length: usize,
    head: Option<Head>,
}

impl FileRun {
    fn open(file: Arc<File>, at: u64, end: u64) -> Result<FileRun, Failure> {
        let mut run =
            FileRun { file, at, end, buffer: Vec::new(), start: 0, length: 0, head: None };
        run.advance()?;
        Ok(run)
    }

    fn record(&self) -> Option<Record<'_>> {
        let bytes = self.buffer.get(self.start..self.start + self.length)?;
        let (prefix, record) = bytes.split_at_checked(PREFIX)?;
        parse(record, i64::from_le_bytes(*prefix.first_chunk()?))
    }

    fn advance(&mut self) -> Result<(), Failure> {
        self.start += self.length;
        self.length = 0;
        self.head = None;
        if self.start == self.buffer.len() && self.at == self.end {
            self.buffer = Vec::new();
            self.start = 0;
            return Ok(());
        }
        self.need(PREFIX + HEADER)?;
        let header = self.buffer.get(self.start..).unwrap_or_default();
        let (Some((time, rest)), Some(length)) =
            (header.split_first_chunk(), header.get(PREFIX..).and_then(record_length))
        else {
            return Err(broken());
        };
        let ordinal = rest.first_chunk().copied().map(u64::from_le_bytes).ok_or_else(broken)?;
        let timed = header.get(PREFIX..).is_some_and(is_timed);
        let time = timed.then(|| Time(i64::from_le_bytes(*time)));
        self.need(PREFIX + length)?;
        self.length = PREFIX + length;
        self.head = Some(Head { time, ordinal });
        Ok(())
    }

    /// Fills the buffer to this many bytes from `start` on.
    fn need(&mut self, bytes: usize) -> Result<(), Failure> {
        if self.buffer.len() - self.start >= bytes {
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let have = self.buffer.len();
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let more = BUFFER.max(bytes).saturating_sub(have).min(left);
        if have + more < bytes {
            return Err(broken());
        }
        self.buffer.resize(have + more, 0);
        let room = self.buffer.get_mut(have..).unwrap_or_default();
        self.file
            .read_exact_at(room, self.at)
            .map_err(|error| Failure::io("cannot read a temporary file", error))?;
        self.at += more as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_model::packet::Stamp;

    fn run(count: u64, long: usize) -> Run {
        let mut arena = Arena::default();
        for number in 0..count {
            let data = vec![number as u8; if number % 50 == 7 { long } else { 40 }];
            let stamp = match number % 5 {
                0 => Stamp::None,
                1 => Stamp::Raw { ticks: number, time: None },
                _ => Stamp::At(Time(1_000 - number as i64)),
            };
            let record = Record { interface: 1, length: 70, stamp, data: &data, options: &[] };
            arena.push(number, &record);
        }
        arena.sort(true);
        Run::new(arena)
    }

    fn drain(mut run: Run) -> Vec<(Head, Vec<u8>, Stamp)> {
        let mut all = Vec::new();
        while let Some(head) = run.head() {
            let record = run.record().unwrap();
            all.push((head, record.data.to_vec(), record.stamp));
            run.advance().unwrap();
        }
        all
    }

    #[test]
    fn a_spilled_run_gives_the_same_packets_and_takes_little_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(folder.path().to_owned());
        let mut spilled: Vec<Run> = Vec::new();
        for skip in [0, 3] {
            let mut run = run(500, 400_000);
            (0..skip).for_each(|_| run.advance().unwrap());
            let before = run.memory();
            spill.spill(&mut run).unwrap();
            assert!(run.memory() <= 450_000 && before > 4_000_000);
            spilled.push(run);
        }
        // The file has no name.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let whole = drain(run(500, 400_000));
        let mut spilled = spilled.into_iter();
        assert_eq!(drain(spilled.next().unwrap()), whole);
        assert_eq!(drain(spilled.next().unwrap()), whole[3..]);
    }

    #[test]
    fn an_empty_run_can_be_spilled() {
        let mut spill = Spill::new(std::env::temp_dir());
        let mut run = run(0, 0);
        spill.spill(&mut run).unwrap();
        assert_eq!(run.head(), None);
    }

    #[test]
    fn almost_finished_run_returns_memory() {
        let mut nearly = run(1_000, 40);
        (0..990).for_each(|_| nearly.advance().unwrap());
        let before = nearly.memory();
        nearly.compact();
        assert!(nearly.memory() < before / 20);
        assert_eq!(drain(nearly), drain(run(1_000, 40))[990..]);
    }

    #[test]
    fn missing_folder_is_reported() {
        let mut spill = Spill::new("/nowhere/at/all".into());
        let failure = spill.spill(&mut run(3, 40)).unwrap_err();
        assert!(failure.to_string().contains("/nowhere/at/all"));
    }
}
