//! The parts blocks are put together from. All numbers are little-endian.

use capstan_model::Address;
use capstan_model::block::block_type;
use capstan_model::bytes::{le16, le32};
use capstan_model::link::Interface;

use super::clock::Clock;

/// The longest option value and the longest name record, bytes.
const MAX_VALUE: usize = u16::MAX as usize;

/// A block whose lengths are filled in when it ends.
#[must_use]
pub(super) struct BlockStart {
    at: usize,
}

impl BlockStart {
    pub(super) fn new(kind: u32, out: &mut Vec<u8>) -> BlockStart {
        let at = out.len();
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        BlockStart { at }
    }

    /// Pads the body and writes both lengths.
    pub(super) fn end(self, out: &mut Vec<u8>) {
        pad(out.len() - self.at, out);
        // A block holds one packet, one block that was read, or what is bounded here: far below 4 GiB.
        let total = ((out.len() - self.at + 4) as u32).to_le_bytes();
        if let Some(field) = out.get_mut(self.at + 4..self.at + 8) {
            field.copy_from_slice(&total);
        }
        out.extend_from_slice(&total);
    }
}

/// Fills up to a multiple of four after something of `length` bytes.
pub(super) fn pad(length: usize, out: &mut Vec<u8>) {
    let missing = length.next_multiple_of(4) - length;
    out.extend_from_slice([0; 4].get(..missing).unwrap_or_default());
}

/// A list of options, with the end mark if it has any.
pub(super) struct Options<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Options<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Options<'a> {
        let start = out.len();
        Options { out, start }
    }

    /// Appends options that are written already, without their end mark.
    pub(super) fn ready(&mut self, options: &[u8]) {
        self.out.extend_from_slice(options);
    }

    /// Appends an option; what is longer than an option can be is cut.
    pub(super) fn push(&mut self, code: u16, value: &[u8]) {
        let value = value.get(..MAX_VALUE).unwrap_or(value);
        self.out.extend_from_slice(&code.to_le_bytes());
        self.out.extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.out.extend_from_slice(value);
        pad(value.len(), self.out);
    }

    /// Appends an option of text, cut between characters if it is too long.
    pub(super) fn text(&mut self, code: u16, text: &str) {
        self.push(code, cut(text, MAX_VALUE).as_bytes());
    }

    pub(super) fn comment(&mut self, text: &str) {
        self.text(1, text);
    }

    pub(super) fn end(self) {
        if self.out.len() > self.start {
            self.out.extend_from_slice(&[0; 4]);
        }
    }
}

/// As much of `text` as `most` bytes hold.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// The options in front of the end mark, if there is one.
pub(super) fn without_end(options: &[u8]) -> &[u8] {
    let mut end = 0;
    while let (Some(code), Some(length)) = (le16(options, end), le16(options, end + 2)) {
        if code == 0 {
            return options.get(..end).unwrap_or_default();
        }
        end += 4 + usize::from(length).next_multiple_of(4);
    }
    options
}

/// The codes and values of a list of which [`are_options`] holds.
pub(super) fn each(options: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (code, length) = (le16(options, at)?, usize::from(le16(options, at + 2)?));
        let value = options.get(at + 4..at + 4 + length)?;
        at += 4 + length.next_multiple_of(4);
        Some((code, value))
    })
}

/// Whether these are whole options, padded and without an end mark.
pub(super) fn are_options(mut options: &[u8]) -> bool {
    while !options.is_empty() {
        let (Some(code), Some(length)) = (le16(options, 0), le16(options, 2)) else {
            return false;
        };
        match options.get(4 + usize::from(length).next_multiple_of(4)..) {
            Some(rest) if code != 0 => options = rest,
            _ => return false,
        }
    }
    true
}

/// Of the options of a packet (draft, section 4.3) those that are about this packet alone: comment, flags, hash and
/// verdict. The others count packets or name queues of the whole capture, or have an unknown meaning. Options that are
/// damaged stay as they are.
pub(crate) fn about_packet(options: &[u8]) -> Vec<u8> {
    let options = without_end(options);
    if !are_options(options) {
        return options.to_vec();
    }
    let mut kept = Vec::new();
    let mut list = Options::new(&mut kept);
    for (code, value) in each(options).filter(|(code, _)| matches!(code, 1..=3 | 7)) {
        list.push(code, value);
    }
    kept
}

/// The options of a packet and a comment.
pub(crate) fn with_comment(options: &[u8], comment: &str) -> Vec<u8> {
    let mut all = without_end(options).to_vec();
    Options::new(&mut all).comment(comment);
    all
}

/// A time stamp in its two halves, the upper one first.
pub(super) fn halves(ticks: u64) -> [u8; 8] {
    let [a, b, c, d] = ((ticks >> 32) as u32).to_le_bytes();
    let [e, f, g, h] = (ticks as u32).to_le_bytes();
    [a, b, c, d, e, f, g, h]
}

fn from_halves(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(le32(bytes, at)?) << 32 | u64::from(le32(bytes, at + 4)?))
}

/// An interface description (draft, section 4.2) with this snap length and clock.
pub(super) fn interface(interface: &Interface, snap_length: u32, clock: Clock, out: &mut Vec<u8>) {
    let block = BlockStart::new(block_type::INTERFACE, out);
    out.extend_from_slice(&interface.link_type.0.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&snap_length.to_le_bytes());
    let mut options = Options::new(out);
    if let Some(name) = &interface.name {
        options.text(2, name);
    }
    options.push(9, &[clock.resolution]);
    if clock.offset_seconds != 0 {
        options.push(14, &clock.offset_seconds.to_le_bytes());
    }
    if are_options(&interface.options) {
        options.ready(&interface.options);
    }
    options.end();
    block.end(out);
}

/// A record of a name resolution block (draft, section 4.5): an address and its name.
pub(super) fn name_record(address: Address, name: &str, out: &mut Vec<u8>) {
    // Room for the longest address and the zero byte.
    let name = cut(name.split('\0').next().unwrap_or_default(), MAX_VALUE - 17);
    if name.is_empty() {
        return;
    }
    let (kind, address) = match address.ip() {
        std::net::IpAddr::V4(v4) => (1u16, v4.octets().to_vec()),
        std::net::IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    let length = address.len() + name.len() + 1;
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&(length as u16).to_le_bytes());
    out.extend_from_slice(&address);
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(length, out);
}

/// Statistics after their interface number, every time stamp (of the reading, of the
/// start, of the end) changed by `ticks`. None if one cannot be.
pub(super) fn moved_statistics(body: &[u8], ticks: impl Fn(u64) -> Option<u64>) -> Option<Vec<u8>> {
    let mut moved = halves(ticks(from_halves(body, 4)?)?).to_vec();
    moved.extend_from_slice(body.get(12..)?);
    let mut at = 8;
    while let (Some(code), Some(length)) = (le16(&moved, at), le16(&moved, at + 2)) {
        if code == 0 {
            break;
        }
        if matches!((code, length), (2 | 3, 8)) {
            let time = halves(ticks(from_halves(&moved, at + 4)?)?);
            moved.get_mut(at + 4..at + 12)?.copy_from_slice(&time);
        }
        at += 4 + usize::from(length).next_multiple_of(4);
    }
    Some(moved)
}
