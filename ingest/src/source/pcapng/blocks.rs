//! Blocks that are not packets, turned to little-endian where their fields are
//! known, so that they can stand in another section.

use capstan_model::block::block_type;
use capstan_model::link::{Interface, LinkType};
use capstan_model::words::count;

use super::options::{self, Options, Place, RawOption, code, too_few};
use crate::source::input::{u16_at, u32_at};

/// The default of `if_tsresol`: microseconds.
const MICROSECONDS: u8 = 6;

/// A block's body for keeping.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// It could not be converted: its fields are not known.
    pub(super) big_endian: bool,
}

/// The body of a block of this type as it is kept. `body` is what stands between the
/// two length fields.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn keep(kind: u32, body: &[u8], big_endian: bool) -> Result<Body, String> {
    let mut bytes = Vec::new();
    match kind {
        block_type::SECTION_HEADER => section_header(&mut bytes, body, big_endian)?,
        block_type::NAME_RESOLUTION => name_resolution(&mut bytes, body, big_endian)?,
        block_type::INTERFACE_STATISTICS => statistics(&mut bytes, body, big_endian)?,
        block_type::DECRYPTION_SECRETS => secrets(&mut bytes, body, big_endian)?,
        block_type::CUSTOM | block_type::CUSTOM_NO_COPY if body.len() < 4 => {
            return Err("a custom block without an enterprise number".to_owned());
        }
        _ => return Ok(Body { bytes: body.to_vec(), big_endian }),
    }
    Ok(Body { bytes, big_endian: false })
}

fn push_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn push_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Splits a body after its fixed part.
fn split(body: &[u8], fixed: usize, what: &str) -> Result<usize, String> {
    if body.len() < fixed {
        return Err(format!("{what} of {}, fewer than {fixed}", count(body.len() as u64, "byte")));
    }
    Ok(fixed)
}

fn section_header(out: &mut Vec<u8>, body: &[u8], big_endian: bool) -> Result<(), String> {
    let fixed = split(body, 16, "a section header")?;
    push_u32(out, u32_at(body, 0, big_endian));
    push_u16(out, u16_at(body, 4, big_endian));
    push_u16(out, u16_at(body, 6, big_endian));
    let mut length: Vec<u8> = body.get(8..16).unwrap_or_default().to_vec();
    if big_endian {
        length.reverse();
    }
    out.extend_from_slice(&length);
    kept_options(out, body.get(fixed..).unwrap_or_default(), Place::Section, big_endian)
}

fn statistics(out: &mut Vec<u8>, body: &[u8], big_endian: bool) -> Result<(), String> {
    let fixed = split(body, 12, "interface statistics")?;
    for at in [0, 4, 8] {
        push_u32(out, u32_at(body, at, big_endian));
    }
    kept_options(out, body.get(fixed..).unwrap_or_default(), Place::Statistics, big_endian)
}

fn secrets(out: &mut Vec<u8>, body: &[u8], big_endian: bool) -> Result<(), String> {
    let fixed = split(body, 8, "decryption secrets")?;
    let length = u32_at(body, 4, big_endian);
    push_u32(out, u32_at(body, 0, big_endian));
    push_u32(out, length);
    // The block was bounded before, so the sum does not overflow.
    let end = fixed + length as usize;
    let Some(data) = body.get(fixed..end) else {
        let length = count(length.into(), "byte");
        return Err(format!("decryption secrets of {length} do not fit into their block"));
    };
    out.extend_from_slice(data);
    let padded = end.next_multiple_of(4);
    out.resize(padded, 0);
    kept_options(out, body.get(padded..).unwrap_or_default(), Place::Secrets, big_endian)
}

fn name_resolution(out: &mut Vec<u8>, body: &[u8], big_endian: bool) -> Result<(), String> {
    let mut rest = body;
    while !rest.is_empty() {
        if rest.len() < 4 {
            return Err(too_few(rest.len(), "a name record"));
        }
        let kind = u16_at(rest, 0, big_endian);
        let length = usize::from(u16_at(rest, 2, big_endian));
        let size = 4 + length.next_multiple_of(4);
        push_u16(out, kind);
        if kind == code::END {
            push_u16(out, 0);
            rest = rest.get(4..).unwrap_or_default();
            return kept_options(out, rest, Place::NameResolution, big_endian);
        }
        let Some(record) = rest.get(4..size) else {
            let length = count(length as u64, "byte");
            return Err(format!("a name record of {length} does not fit into its block"));
        };
        push_u16(out, length as u16);
        out.extend_from_slice(record);
        rest = rest.get(size..).unwrap_or_default();
    }
    Ok(())
}

/// Appends options and, if there are any, the end mark, as in the body of a block in a file.
fn kept_options(
    out: &mut Vec<u8>,
    bytes: &[u8],
    place: Place,
    big_endian: bool,
) -> Result<(), String> {
    let before = out.len();
    options::normalise(out, bytes, place, big_endian)?;
    if out.len() > before {
        push_u32(out, 0);
    }
    Ok(())
}

/// Reads an interface description's body.
///
/// The options that Capstan keeps as fields are taken out of the list; the others
/// stay, little-endian. A clock option of a wrong length says nothing and is left out.
pub(super) fn interface(body: &[u8], big_endian: bool) -> Result<Interface, String> {
    let fixed = split(body, 8, "an interface description")?;
    let mut interface = Interface {
        link_type: LinkType(u16_at(body, 0, big_endian)),
        snap_length: u32_at(body, 4, big_endian),
        name: None,
        resolution: MICROSECONDS,
        offset_seconds: 0,
        options: Vec::new(),
    };
    let list = body.get(fixed..).unwrap_or_default();
    for option in Options::new(list, Place::Interface, big_endian) {
        let option = option?;
        let RawOption { code, value } = option;
        match code {
            code::IF_TSRESOL => {
                if let [resolution] = value {
                    interface.resolution = *resolution;
                }
            }
            code::IF_TSOFFSET => {
                if let Some(offset) = options::number(value, big_endian) {
                    interface.offset_seconds = offset.cast_signed();
                }
            }
            code::IF_NAME if interface.name.is_none() && std::str::from_utf8(value).is_ok() => {
                interface.name = Some(String::from_utf8_lossy(value).into_owned());
            }
            _ => options::push(&mut interface.options, Place::Interface, option, big_endian),
        }
    }
    Ok(interface)
}

/// The statistics of an interface. Times are ticks of the clock of the interface, 0 if there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Packets dropped so far: by the interface and by the operating system.
    pub(super) dropped: u64,
    /// The time of the count.
    pub(super) at: u64,
    /// The start of the count.
    pub(super) start: u64,
}

/// Reads an interface's statistics. `body` is as [`keep`] gives it.
pub(super) fn counts(body: &[u8]) -> Counts {
    let ticks = |bytes: &[u8], at| {
        u64::from(u32_at(bytes, at, false)) << 32 | u64::from(u32_at(bytes, at + 4, false))
    };
    let mut counts = Counts { at: ticks(body, 4), ..Counts::default() };
    let list = body.get(12..).unwrap_or_default();
    for option in Options::new(list, Place::Statistics, false).filter_map(Result::ok) {
        match option.code {
            code::ISB_STARTTIME if option.value.len() == 8 => counts.start = ticks(option.value, 0),
            code::ISB_ENDTIME if option.value.len() == 8 && counts.at == 0 => {
                counts.at = ticks(option.value, 0);
            }
            code::ISB_IFDROP | code::ISB_OSDROP => {
                let dropped = options::small_number(option.value, false).unwrap_or(0);
                counts.dropped = counts.dropped.saturating_add(dropped);
            }
            _ => {}
        }
    }
    counts
}
