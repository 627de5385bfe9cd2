//! pcapng options (draft-ietf-opsawg-pcapng section 3.5): checked, and turned to
//! little-endian where a section is big-endian.

use capstan_model::words::{agree, count};

use crate::source::input::{u16_at, u32_at, u64_at};

/// The kind of block that options are in. The same code has different meanings in different blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Section,
    Interface,
    Packet,
    Statistics,
    NameResolution,
    Secrets,
}

/// Option codes whose values are read.
pub(super) mod code {
    pub(in super::super) const END: u16 = 0;
    pub(in super::super) const IF_NAME: u16 = 2;
    pub(in super::super) const IF_TSRESOL: u16 = 9;
    pub(in super::super) const IF_TSOFFSET: u16 = 14;
    pub(in super::super) const EPB_DROPCOUNT: u16 = 4;
    pub(in super::super) const ISB_STARTTIME: u16 = 2;
    pub(in super::super) const ISB_ENDTIME: u16 = 3;
    pub(in super::super) const ISB_IFDROP: u16 = 5;
    pub(in super::super) const ISB_OSDROP: u16 = 7;
}

/// The parts of the value of an option that depend on byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Bytes, text, or not known: the same in both byte orders.
    Bytes,
    /// One number of this many bytes, and nothing else is allowed.
    Exactly(usize),
    /// One number of this many bytes; a longer or shorter value stays unchanged.
    Number(usize),
    /// A time stamp: the upper and the lower 32 bits, each a number.
    Halves,
    /// A private enterprise number, then bytes (custom options).
    Enterprise,
}

fn shape(place: Place, code: u16) -> Shape {
    match (place, code) {
        (_, 2988 | 2989 | 19372 | 19373) => Shape::Enterprise,
        (Place::Packet, 2 | 6) => Shape::Exactly(4),
        (Place::Packet, 4 | 5) => Shape::Exactly(8),
        (Place::Interface, 8 | 14 | 16 | 17) => Shape::Number(8),
        (Place::Interface, 10) => Shape::Number(4),
        (Place::Statistics, 2 | 3) => Shape::Halves,
        (Place::Statistics, 4..=8) => Shape::Number(8),
        _ => Shape::Bytes,
    }
}

/// One option: its code and its value without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawOption<'a> {
    pub(super) code: u16,
    pub(super) value: &'a [u8],
}

/// The options at the start of `bytes` up to the end mark or the end of `bytes`. It ends after its first error.
pub(super) struct Options<'a> {
    rest: &'a [u8],
    place: Place,
    big_endian: bool,
    passed: usize,
}

impl<'a> Options<'a> {
    pub(super) fn new(bytes: &'a [u8], place: Place, big_endian: bool) -> Options<'a> {
        Options { rest: bytes, place, big_endian, passed: 0 }
    }

    /// Length of the options so far, without the end mark, bytes.
    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    fn parse(&mut self) -> Result<Option<RawOption<'a>>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.rest.len() < 4 {
            return Err(too_few(self.rest.len(), "an option"));
        }
        let code = u16_at(self.rest, 0, self.big_endian);
        let length = usize::from(u16_at(self.rest, 2, self.big_endian));
        if code == code::END {
            return Ok(None);
        }
        let Some(value) = self.rest.get(4..4 + length) else {
            let length = count(length as u64, "byte");
            return Err(format!("option {code} of {length} does not fit into its block"));
        };
        match shape(self.place, code) {
            Shape::Exactly(right) if right != length => {
                let length = count(length as u64, "byte");
                return Err(format!("option {code} has {length}, not {right}"));
            }
            Shape::Enterprise if length < 4 => {
                let length = count(length as u64, "byte");
                return Err(format!("custom option {code} has {length}, fewer than 4"));
            }
            _ => {}
        }
        let size = 4 + length.next_multiple_of(4);
        self.passed += size.min(self.rest.len());
        self.rest = self.rest.get(size..).unwrap_or_default();
        Ok(Some(RawOption { code, value }))
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<RawOption<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.parse().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.rest = &[];
        }
        item
    }
}

/// Checks options. Returns their length without the end mark, bytes.
pub(super) fn check(bytes: &[u8], place: Place, big_endian: bool) -> Result<usize, String> {
    let mut options = Options::new(bytes, place, big_endian);
    for option in options.by_ref() {
        option?;
    }
    Ok(options.passed())
}

/// Appends one option to `out`, little-endian and padded to four bytes.
pub(super) fn push(out: &mut Vec<u8>, place: Place, option: RawOption<'_>, big_endian: bool) {
    let RawOption { code, value } = option;
    out.extend_from_slice(&code.to_le_bytes());
    // The length was read from 16 bits.
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    let start = out.len();
    out.extend_from_slice(value);
    if big_endian && let Some(copy) = out.get_mut(start..) {
        turn(shape(place, code), copy);
    }
    out.resize(start + value.len().next_multiple_of(4), 0);
}

/// Reverses the numbers of a value.
fn turn(shape: Shape, value: &mut [u8]) {
    match shape {
        Shape::Bytes => {}
        Shape::Exactly(width) | Shape::Number(width) => {
            if value.len() == width {
                value.reverse();
            }
        }
        Shape::Halves => {
            if value.len() == 8 {
                value.chunks_mut(4).for_each(<[u8]>::reverse);
            }
        }
        Shape::Enterprise => {
            if let Some(number) = value.first_chunk_mut::<4>() {
                number.reverse();
            }
        }
    }
}

/// Appends all options at the start of `bytes`, little-endian, without the end mark.
pub(super) fn normalise(
    out: &mut Vec<u8>,
    bytes: &[u8],
    place: Place,
    big_endian: bool,
) -> Result<(), String> {
    if !big_endian {
        let length = check(bytes, place, false)?;
        out.extend_from_slice(bytes.get(..length).unwrap_or_default());
        return Ok(());
    }
    for option in Options::new(bytes, place, true) {
        push(out, place, option?, true);
    }
    Ok(())
}

/// The number an eight-byte option value holds, if it has eight bytes.
pub(super) fn number(value: &[u8], big_endian: bool) -> Option<u64> {
    (value.len() == 8).then(|| u64_at(value, 0, big_endian))
}

/// As [`number`] for values that may have been written with four bytes.
pub(super) fn small_number(value: &[u8], big_endian: bool) -> Option<u64> {
    match value.len() {
        4 => Some(u64::from(u32_at(value, 0, big_endian))),
        _ => number(value, big_endian),
    }
}

/// The error that the rest of a block is too short.
pub(super) fn too_few(bytes: usize, what: &str) -> String {
    let bytes = bytes as u64;
    format!("{} {} too few for {what}", count(bytes, "byte"), agree(bytes, "is", "are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(code: u16, value: &[u8], big_endian: bool) -> Vec<u8> {
        let number = |n: u16| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut out = Vec::new();
        out.extend(number(code));
        out.extend(number(value.len() as u16));
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    #[test]
    fn big_endian_options_become_the_little_endian_ones() {
        let pair = |big: bool| {
            let order4 = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
            let order8 = |n: u64| if big { n.to_be_bytes() } else { n.to_le_bytes() };
            [
                option(1, b"a comment", big),
                option(2, &order4(0x0102_0304), big),
                option(4, &order8(5), big),
                option(3, &[2, 0xde, 0xad, 0xbe, 0xef], big),
                option(2988, &[&order4(32473)[..], b"text"].concat(), big),
                option(32_769, &[1, 2, 3, 4], big),
            ]
            .concat()
        };
        let (little, big) = (pair(false), pair(true));
        let mut out = Vec::new();
        normalise(&mut out, &big, Place::Packet, true).expect("sound");
        assert_eq!(out, little);
        out.clear();
        normalise(&mut out, &little, Place::Packet, false).expect("sound");
        assert_eq!(out, little);
    }

    #[test]
    fn options_end_at_the_end_mark_or_the_block() {
        let one = option(1, b"abc", false);
        let marked = [&one[..], &[0, 0, 0, 0], &option(1, b"after", false)].concat();
        assert_eq!(check(&marked, Place::Packet, false), Ok(8));
        assert_eq!(check(&one, Place::Packet, false), Ok(8));
        assert_eq!(check(&[], Place::Packet, false), Ok(0));
    }

    #[test]
    fn captures_refused_by_tshark_are_refused() {
        let long = [1, 0, 0x90, 1, b'a', b'b', b'c', b'd'];
        assert!(check(&long, Place::Packet, false).is_err());
        assert!(check(&option(2, &[0; 8], false), Place::Packet, false).is_err());
        assert!(check(&option(2, &[0; 8], false), Place::Interface, false).is_ok());
        assert!(check(&option(2988, &[0; 3], false), Place::Section, false).is_err());
        assert!(check(&[1, 0], Place::Packet, false).is_err());
    }

    #[test]
    fn time_stamps_in_statistics_are_two_halves() {
        let big = option(2, &[0, 1, 2, 3, 4, 5, 6, 7], true);
        let mut out = Vec::new();
        normalise(&mut out, &big, Place::Statistics, true).expect("sound");
        assert_eq!(out, option(2, &[3, 2, 1, 0, 7, 6, 5, 4], false));
    }
}
