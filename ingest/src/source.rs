//! Packet sources: files, streams, live interfaces. All implement one trait, so the pipeline is the
//! same for all.

pub mod live;

mod compressed;
mod files;
mod input;
mod pcap;
mod pcapng;
mod stoppable;
#[cfg(test)]
mod tests;
mod ticks;

use capstan_model::link::Interface;
use capstan_model::{Block, Failure, FailureKind, Packet, Time};

pub use compressed::Progress;
pub use files::{CaptureFile, Place, Places, Skipped, expand, open, open_reader};

/// Events of a source, in source order.
#[derive(Debug)]
pub enum Event<'a> {
    /// An interface; the first is number 0, the next 1, and so on. It comes before the first packet
    /// that names it.
    Interface(Interface),
    /// A packet.
    Packet(Packet<'a>),
    /// A pcapng block that is not a packet.
    Block(Block),
    /// The source reports lost packets.
    Lost(Lost),
    /// Source bytes that are not stored.
    Cut(Cut),
    /// A live source captures on an interface from this moment on.
    Opened {
        /// Its number.
        interface: u32,
        /// The start of the capture.
        at: Time,
    },
    /// An interface is gone, or its source was stopped. Coverage ends at this moment.
    Closed {
        /// Its number.
        interface: u32,
        /// The time of detection.
        at: Time,
    },
    /// A live source has captured up to this moment and delivered all earlier packets.
    Idle(Time),
}

/// Packets that the source reports as lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The interface, if known.
    pub interface: Option<u32>,
    /// Packets lost since the last such event.
    pub packets: u64,
    /// Dropped by the kernel during live capture. Otherwise by the file's writer.
    pub live: bool,
    /// The last moment before the loss, if known.
    pub since: Option<Time>,
    /// The time of detection, if known.
    pub noticed: Option<Time>,
}

impl Lost {
    /// Lost packets of a file, with the time of detection if known.
    pub(crate) fn at(interface: Option<u32>, packets: u64, noticed: Option<Time>) -> Lost {
        Lost { interface, packets, live: false, since: None, noticed }
    }
}

/// Source bytes that are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The interface of the next packet, whose captured length exceeds the limit
    /// ([`capstan_model::packet::MAX_CAPTURED`]). None for an omitted block that is not a packet.
    pub interface: Option<u32>,
    /// Number of bytes.
    pub bytes: u64,
    /// The packet's time, if it has one.
    pub time: Option<Time>,
}

/// Why a source ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Damaged or truncated at `offset`. Every packet before was delivered.
    #[error("{name}: damaged at byte {offset}: {what}")]
    Damaged {
        /// The file, or `standard input`.
        name: String,
        /// The first unusable byte (after decompression).
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// Not a capture in a supported format.
    #[error("{name}: {what}")]
    NotACapture {
        /// The file, or `standard input`.
        name: String,
        /// What was found, and the supported formats.
        what: String,
    },
    /// Reading failed.
    #[error("{name}: cannot read")]
    Io {
        /// The file, interface, or `standard input`.
        name: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Io { name, source } => Failure::io(format!("cannot read {name}"), source),
            damaged @ SourceError::Damaged { .. } => {
                Failure::new(FailureKind::Damaged, damaged.to_string())
            }
            other @ SourceError::NotACapture { .. } => {
                Failure::new(FailureKind::Usage, other.to_string())
            }
        }
    }
}

/// A packet source.
pub trait PacketSource {
    /// The next event; none at the end. After an error there are no more events. The borrowed packet
    /// is valid until the next call.
    fn next_event(&mut self) -> Result<Option<Event<'_>>, SourceError>;
}
