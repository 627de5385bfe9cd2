//! Blocks that are not packets: those that came with a source, and those made here.

use capstan_model::block::block_type;
use capstan_model::{Address, Block, Time};

use super::bytes::{self, BlockStart, Options};
use super::clock::Clock;
use super::{PcapngWriter, WriteError};

/// Most bytes of names in one name resolution block; then the next is begun.
const NAMES_IN_A_BLOCK: usize = 1 << 20;

/// Most bytes of secrets in one block: readers bound blocks at 16 MiB.
pub(super) const MAX_SECRETS: usize = 8 << 20;

/// Decryption secrets of TLS in the SSLKEYLOGFILE form (draft, section 4.7).
pub const SECRETS_TLS_KEY_LOG: u32 = 0x544c_534b;

/// What an interface counted. What is not known is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// When the counters were read.
    pub at: Time,
    /// When capturing began.
    pub start: Option<Time>,
    /// When capturing ended.
    pub end: Option<Time>,
    /// Packets the interface received.
    pub received: Option<u64>,
    /// Packets it dropped for want of room.
    pub dropped_by_interface: Option<u64>,
    /// Packets the operating system dropped.
    pub dropped_by_system: Option<u64>,
    /// Packets that were handed to the capturing program.
    pub delivered: Option<u64>,
}

/// The outcome of writing a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was written.
    Written,
    /// Section headers, interfaces and packets are written by the writer itself.
    OwnKind,
    /// Its byte order cannot be changed because its fields are not known.
    ByteOrder,
    /// Its author forbids it (custom blocks that must not be copied).
    NotToBeCopied,
    /// It is about an interface that is not in this file.
    NoInterface,
}

impl PcapngWriter {
    /// Writes a block that came with a source. `number_of` says which number here the
    /// interface with a number there has.
    pub fn block(
        &mut self,
        block: &Block,
        number_of: impl FnOnce(u32) -> Option<u32>,
        out: &mut Vec<u8>,
    ) -> Fate {
        match block.block_type {
            block_type::SECTION_HEADER
            | block_type::INTERFACE
            | block_type::PACKET
            | block_type::SIMPLE_PACKET
            | block_type::ENHANCED_PACKET => Fate::OwnKind,
            block_type::CUSTOM_NO_COPY => Fate::NotToBeCopied,
            _ if block.big_endian => Fate::ByteOrder,
            block_type::INTERFACE_STATISTICS => {
                let there = block.body.first_chunk().copied().map(u32::from_le_bytes);
                match there.and_then(number_of) {
                    Some(number) => self.moved_statistics(number, &block.body, out),
                    None => Fate::NoInterface,
                }
            }
            kind => {
                let start = BlockStart::new(kind, out);
                out.extend_from_slice(&block.body);
                start.end(out);
                Fate::Written
            }
        }
    }

    /// Writes statistics from another file with this file's interface number and clock.
    fn moved_statistics(&mut self, interface: u32, body: &[u8], out: &mut Vec<u8>) -> Fate {
        let Ok(declared) = self.declared(interface) else { return Fate::NoInterface };
        let (own, usual) = (Clock::of(&declared.interface), declared.usual_clock());
        let moved = bytes::moved_statistics(body, |ticks| usual.ticks_of(own, ticks));
        let (clock, moved) = match moved {
            Some(moved) => (usual, moved),
            // One of the times does not fit: all stay as they are.
            None => (own, body.get(4..).unwrap_or_default().to_vec()),
        };
        let number = self.declare(interface, clock, out);
        let block = BlockStart::new(block_type::INTERFACE_STATISTICS, out);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&moved);
        block.end(out);
        Fate::Written
    }

    /// Writes what an interface counted. A start or end that its clock cannot say is left
    /// out; such a moment of reading, which the block must have, becomes the clock's first.
    ///
    /// # Errors
    /// The interface was not written.
    pub fn statistics(
        &mut self,
        interface: u32,
        counted: &Statistics,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let clock = self.declared(interface)?.usual_clock();
        let number = self.declare(interface, clock, out);
        let block = BlockStart::new(block_type::INTERFACE_STATISTICS, out);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&bytes::halves(clock.ticks(counted.at).unwrap_or(0)));
        let mut options = Options::new(out);
        for (code, time) in [(2, counted.start), (3, counted.end)] {
            if let Some(ticks) = time.and_then(|time| clock.ticks(time)) {
                options.push(code, &bytes::halves(ticks));
            }
        }
        for (code, count) in [
            (4, counted.received),
            (5, counted.dropped_by_interface),
            (7, counted.dropped_by_system),
            (8, counted.delivered),
        ] {
            if let Some(count) = count {
                options.push(code, &count.to_le_bytes());
            }
        }
        options.end();
        block.end(out);
        Ok(())
    }

    /// Writes names of addresses. What stands after a zero byte in a name is left out, as
    /// the format cannot have it; so are empty names.
    pub fn names<'a>(
        &mut self,
        names: impl IntoIterator<Item = (Address, &'a str)>,
        out: &mut Vec<u8>,
    ) {
        let mut names = names.into_iter().peekable();
        while names.peek().is_some() {
            let block = BlockStart::new(block_type::NAME_RESOLUTION, out);
            let start = out.len();
            for (address, name) in names.by_ref() {
                bytes::name_record(address, name, out);
                if out.len() - start > NAMES_IN_A_BLOCK {
                    break;
                }
            }
            out.extend_from_slice(&[0; 4]);
            block.end(out);
        }
    }

    /// Writes secrets to decrypt packets with; they must come before those packets. `kind`
    /// is for instance [`SECRETS_TLS_KEY_LOG`].
    ///
    /// # Errors
    /// They are longer than readers take (8 MiB here): split them.
    pub fn secrets(
        &mut self,
        kind: u32,
        secrets: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        if secrets.len() > MAX_SECRETS {
            return Err(WriteError::TooLong { what: "secrets", length: secrets.len() });
        }
        let block = BlockStart::new(block_type::DECRYPTION_SECRETS, out);
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&(secrets.len() as u32).to_le_bytes());
        out.extend_from_slice(secrets);
        block.end(out);
        Ok(())
    }
}
