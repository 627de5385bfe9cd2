//! Capture files and streams: format detection, and expansion of file names, folders and `-`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use capstan_model::Packet;
use capstan_model::words::{agree, count};

use super::compressed::{self, Progress};
use super::input::Input;
use super::pcap::{self, PcapReader};
use super::pcapng::{self, PcapngReader};
use super::stoppable::Stoppable;
use super::{Event, PacketSource, SourceError};

/// The name of standard input in messages.
const STANDARD_INPUT: &str = "standard input";

/// An open capture file or stream.
pub struct CaptureFile {
    format: Format,
    size: Option<u64>,
    ended: bool,
}

/// Supported formats.
enum Format {
    Pcap(PcapReader),
    Pcapng(PcapngReader),
}

impl std::fmt::Debug for CaptureFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let input = self.input();
        f.debug_struct("CaptureFile")
            .field("name", &input.name())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

/// Opens a capture file: pcap or pcapng, plain or inside gzip, zstd or LZ4. Also a
/// named pipe.
///
/// # Errors
/// The file cannot be opened or read, or it is not a capture.
pub fn open(path: &Path) -> Result<CaptureFile, SourceError> {
    let name = path.display().to_string();
    let failed = |source| SourceError::Io { name: name.clone(), source };
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    let mut capture = open_reader(&name, file)?;
    capture.size = about.is_file().then_some(about.len());
    Ok(capture)
}

/// Opens a capture stream. `name` identifies it in messages.
///
/// It never reads further than necessary, so packets of a live pipe arrive as they are written.
///
/// # Errors
/// The stream cannot be read, or it is not a capture.
pub fn open_reader(
    name: &str,
    reader: impl Read + Send + 'static,
) -> Result<CaptureFile, SourceError> {
    let progress = Arc::new(Progress::default());
    let reader = compressed::decompress(reader, &progress)
        .map_err(|source| compressed::failed(name, 0, source, &progress))?;
    let mut input = Input::new(name.to_owned(), reader, progress);
    let format = if !input.fill(4)? {
        return Err(input.not_a_capture(match input.bytes().len() {
            0 => "it is empty".to_owned(),
            length => format!(
                "{} {} too few for a capture",
                count(length as u64, "byte"),
                agree(length as u64, "is", "are")
            ),
        }));
    } else if let Some(magic) =
        input.bytes().first_chunk().and_then(|&first| pcap::Magic::of(first))
    {
        Format::Pcap(PcapReader::new(input, magic)?)
    } else if input.fill(12)? && pcapng::is_pcapng(input.bytes()) {
        Format::Pcapng(PcapngReader::new(input))
    } else {
        let first = input.bytes().get(..4).unwrap_or_default();
        return Err(input.not_a_capture(format!(
            "unknown format: its first bytes are {first:02x?}; pcap and pcapng are supported, \
             plain or compressed with gzip, zstd or LZ4"
        )));
    };
    Ok(CaptureFile { format, size: None, ended: false })
}

impl CaptureFile {
    fn input(&self) -> &Input {
        match &self.format {
            Format::Pcap(reader) => reader.input(),
            Format::Pcapng(reader) => reader.input(),
        }
    }

    /// The read position in bytes of the file, before decompression.
    pub fn position(&self) -> u64 {
        self.input().progress().consumed()
    }

    /// The counter behind [`CaptureFile::position`], for another thread.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(self.input().progress())
    }

    /// Buffer size, bytes.
    #[cfg(test)]
    pub(super) fn buffer_size(&self) -> usize {
        self.input().buffer_size()
    }

    /// The file's size when it was opened, bytes; none for a stream.
    pub fn size(&self) -> Option<u64> {
        self.size
    }
}

impl PacketSource for CaptureFile {
    #[inline]
    fn next_event(&mut self) -> Result<Option<Event<'_>>, SourceError> {
        if self.ended {
            return Ok(None);
        }
        let ended = &mut self.ended;
        match &mut self.format {
            Format::Pcap(reader) => match reader.step() {
                Ok(pcap::Step::Packet(found)) => Ok(Some(Event::Packet(Packet {
                    interface: 0,
                    stamp: found.stamp,
                    length: found.length,
                    data: reader.bytes().get(found.data).unwrap_or_default(),
                    options: &[],
                }))),
                Ok(pcap::Step::Cut(cut)) => Ok(Some(Event::Cut(cut))),
                Ok(pcap::Step::Interface(interface)) => Ok(Some(Event::Interface(interface))),
                Ok(pcap::Step::End) => {
                    *ended = true;
                    Ok(None)
                }
                Err(error) => {
                    *ended = true;
                    Err(error)
                }
            },
            Format::Pcapng(reader) => match reader.step() {
                Ok(pcapng::Step::Packet(found)) => Ok(Some(Event::Packet(reader.packet(found)))),
                Ok(pcapng::Step::Interface(interface)) => Ok(Some(Event::Interface(interface))),
                Ok(pcapng::Step::Block(block)) => Ok(Some(Event::Block(block))),
                Ok(pcapng::Step::Cut(cut)) => Ok(Some(Event::Cut(cut))),
                Ok(pcapng::Step::Lost(lost)) => Ok(Some(Event::Lost(lost))),
                Ok(pcapng::Step::End) => {
                    *ended = true;
                    Ok(None)
                }
                Err(error) => {
                    *ended = true;
                    Err(error)
                }
            },
        }
    }
}

/// A place to read a capture from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file, or a named pipe.
    File(PathBuf),
    /// Standard input.
    StandardInput,
}

impl Place {
    /// Opens it. A stream (standard input, a named pipe) ends when `stop` is set, even while it is silent.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(&self, stop: &Arc<AtomicBool>) -> Result<CaptureFile, SourceError> {
        let name = self.to_string();
        let failed = |source| SourceError::Io { name: name.clone(), source };
        match self {
            Place::File(path) if path.is_file() => open(path),
            Place::File(path) => {
                let path = path.clone();
                let stream = Stoppable::new(move || File::open(path), stop).map_err(failed)?;
                open_reader(&name, stream)
            }
            Place::StandardInput => {
                let stream = Stoppable::new(|| Ok(std::io::stdin()), stop).map_err(failed)?;
                open_reader(&name, stream)
            }
        }
    }

    /// Whether it can be read only once.
    pub fn is_stream(&self) -> bool {
        match self {
            Place::File(path) => !path.is_file(),
            Place::StandardInput => true,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(path) => path.display().fmt(f),
            Place::StandardInput => f.write_str(STANDARD_INPUT),
        }
    }
}

/// A folder entry that is not imported, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its path.
    pub path: PathBuf,
    /// The reason, as text.
    pub reason: String,
}

/// The result of expanding a list of names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Captures to read: in the order of the names, files of a folder sorted by path.
    pub found: Vec<Place>,
    /// Folder entries that are not captures.
    pub skipped: Vec<Skipped>,
}

/// Expands names from the command line: a file is itself, a folder is all captures below it, `-` is
/// standard input.
///
/// In a folder, the first bytes decide whether a file is a capture, not its name. An explicitly
/// named file is always accepted: opening it reports any error.
///
/// # Errors
/// A name does not exist, or a named folder cannot be listed.
pub fn expand(names: &[PathBuf]) -> Result<Places, SourceError> {
    let mut places = Places::default();
    for name in names {
        if name.as_os_str() == OsStr::new("-") {
            places.found.push(Place::StandardInput);
            continue;
        }
        let failed = |source| SourceError::Io { name: name.display().to_string(), source };
        if fs::metadata(name).map_err(failed)?.is_dir() {
            let entries = list(name).map_err(failed)?;
            walk(entries, &mut places);
        } else {
            places.found.push(Place::File(name.clone()));
        }
    }
    Ok(places)
}

/// A folder's entries, in reverse order.
fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_unstable_by(|one, other| other.cmp(one));
    Ok(entries)
}

/// Visits the remaining entries, from the end of the list.
fn walk(mut todo: Vec<PathBuf>, places: &mut Places) {
    while let Some(path) = todo.pop() {
        match look_at(&path) {
            Ok(Entry::Capture) => places.found.push(Place::File(path)),
            Ok(Entry::Folder(entries)) => todo.extend(entries),
            Ok(Entry::Other(reason)) => places.skipped.push(Skipped { path, reason }),
            Err(source) => {
                let reason = format!("cannot be read: {source}");
                places.skipped.push(Skipped { path, reason });
            }
        }
    }
}

enum Entry {
    Capture,
    Folder(Vec<PathBuf>),
    Other(String),
}

fn look_at(path: &Path) -> std::io::Result<Entry> {
    let itself = fs::symlink_metadata(path)?;
    if itself.is_dir() {
        return list(path).map(Entry::Folder);
    }
    // Follows links to files, not to folders: those may form a cycle.
    let target = fs::metadata(path)?;
    if target.is_dir() {
        return Ok(Entry::Other("a link to a folder".to_owned()));
    }
    if !target.is_file() {
        return Ok(Entry::Other("not a regular file".to_owned()));
    }
    match open(path) {
        // A damaged capture counts as one: reading it reports the damage.
        Ok(_) | Err(SourceError::Damaged { .. }) => Ok(Entry::Capture),
        Err(SourceError::NotACapture { what, .. }) => Ok(Entry::Other(what)),
        Err(SourceError::Io { source, .. }) => Err(source),
    }
}

#[cfg(test)]
#[path = "files/tests.rs"]
mod tests;
