//! MongoDB's wire protocol: a 16-byte little-endian header before every message.

use capstan_model::bytes::le32;

/// The default port.
pub(super) const PORT: u16 = 27_017;

/// Longest message servers accept (48,000,000 bytes), and the header's length.
const LONGEST: u32 = 48_000_000;
const HEADER: u32 = 16;

/// A complete message whose body begins as its kind requires.
pub(super) fn is_sure(payload: &[u8]) -> bool {
    let Some((length, operation)) = header(payload) else {
        return false;
    };
    let body = &payload[16..];
    let begins_right = match operation {
        // OP_MSG: only the lowest bits and 16 of the flags exist, then a section
        // of kind 0 (a document) or 1.
        2013 => {
            let flags = le32(body, 0).unwrap_or(u32::MAX);
            flags & !0x0001_0003 == 0 && matches!(body.get(4), Some(0 | 1))
        }
        // OP_QUERY: flags, then "database.collection".
        2004 => {
            let name = body.get(4..).unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            le32(body, 0).is_some_and(|flags| flags < 256)
                && name.contains(&b'.')
                && name.iter().all(u8::is_ascii_graphic)
        }
        // OP_REPLY: flags, cursor, start, count.
        1 => body.len() >= 20 && le32(body, 0).is_some_and(|flags| flags < 16),
        // OP_COMPRESSED: the kind compressed.
        2012 => matches!(le32(body, 0), Some(2004 | 2013 | 1)),
        _ => false,
    };
    begins_right && length == payload.len()
}

/// The header of a message, on MongoDB's port.
pub(super) fn is_plausible(payload: &[u8]) -> bool {
    header(payload).is_some()
}

/// Length and kind of the message, if they are possible.
fn header(payload: &[u8]) -> Option<(usize, u32)> {
    let (length, operation) = (le32(payload, 0)?, le32(payload, 12)?);
    let is_known = matches!(operation, 1 | 2001..=2007 | 2010..=2013);
    let fits = (HEADER..=LONGEST).contains(&length);
    (is_known && fits).then_some((usize::try_from(length).ok()?, operation))
}
