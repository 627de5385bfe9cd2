//! Where packets come from: files, streams, live interfaces. One trait, so that
//! everything behind it is the same pipeline.

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

/// What a source gives, in the order in which the source has it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A capture point; the first is number 0, the next 1, and so on. It comes
    /// before the first packet that names it.
    Interface(Interface),
    /// A packet.
    Packet(Packet<'a>),
    /// A pcapng block that is not a packet.
    Block(Block),
    /// The source says that packets are missing.
    Lost(Lost),
    /// Bytes that the source has and that are not kept.
    Cut(Cut),
    /// A live source listens at a capture point from this moment on.
    Opened {
        /// Its number.
        interface: u32,
        /// When listening had begun.
        at: Time,
    },
    /// A capture point is gone, or its source was stopped: nothing was heard from it after
    /// this moment.
    Closed {
        /// Its number.
        interface: u32,
        /// When it was found to be gone.
        at: Time,
    },
    /// A live source was listening up to this moment, and has given all packets from before it.
    Idle(Time),
}

/// Packets that the source knows to be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Which interface, if it can be told.
    pub interface: Option<u32>,
    /// How many packets since the last such message.
    pub packets: u64,
    /// Dropped by the kernel while we listened (else: by whoever made the file).
    pub live: bool,
    /// The last moment when none of them was missing yet, if that is known.
    pub since: Option<Time>,
    /// When they were found to be missing, if that is known.
    pub noticed: Option<Time>,
}

impl Lost {
    /// Packets of a file that were found to be missing at a moment, if that is known.
    pub(crate) fn at(interface: Option<u32>, packets: u64, noticed: Option<Time>) -> Lost {
        Lost { interface, packets, live: false, since: None, noticed }
    }
}

/// Bytes of a source that are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Of the next packet, which is of this interface: it has more captured bytes than are kept
    /// ([`capstan_model::packet::MAX_CAPTURED`]). None: of a block that is not a packet, and is
    /// left out.
    pub interface: Option<u32>,
    /// How many.
    pub bytes: u64,
    /// Of the packet, if it has one.
    pub time: Option<Time>,
}

/// Why a source ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Damaged or cut short from `offset` on; every packet before was given.
    #[error("{name}: damaged at byte {offset}: {what}")]
    Damaged {
        /// The file, or `standard input`.
        name: String,
        /// The first byte (after decompression) that cannot be used.
        offset: u64,
        /// What was met there.
        what: String,
    },
    /// Not a capture in any format known here.
    #[error("{name}: {what}")]
    NotACapture {
        /// The file, or `standard input`.
        name: String,
        /// What was met, and which formats are known.
        what: String,
    },
    /// Reading failed.
    #[error("{name}: cannot read")]
    Io {
        /// The file, interface, or `standard input`.
        name: String,
        /// Why.
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

/// Anything that gives packets, one after the other.
pub trait PacketSource {
    /// The next thing the source has; none at its end. After an error there is
    /// no more. The borrowed packet is valid until the next call.
    fn next_event(&mut self) -> Result<Option<Event<'_>>, SourceError>;
}
