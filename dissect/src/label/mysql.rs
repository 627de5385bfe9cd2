//! MySQL's and MariaDB's client/server protocol: packets with a three-byte
//! little-endian length and a sequence number.

use capstan_model::bytes::le32;

/// The registered port.
pub(super) const PORT: u16 = 3306;

/// What a server sends first: protocol version 10 (9 in ancient ones) and its
/// version as text; or at once an error, e.g. to too many clients.
pub(super) fn is_greeting(payload: &[u8]) -> bool {
    let Some(Packet { length, sequence: 0, body }) = Packet::new(payload) else {
        return false;
    };
    match body {
        [9 | 10, text @ ..] => {
            let Some(end) = text.iter().take(64).position(|byte| *byte == 0) else {
                return false;
            };
            let version = &text[..end];
            // Thread number, first part of the scramble, filler: 13 bytes more.
            version.first().is_some_and(u8::is_ascii_digit)
                && version.contains(&b'.')
                && version.iter().all(u8::is_ascii_graphic)
                && length >= end + 15
        }
        [0xff, low, high, text @ ..] => {
            let code = u16::from_le_bytes([*low, *high]);
            (1000..5000).contains(&code)
                && length == body.len()
                && text.len() >= 8
                && text.iter().all(|byte| (b' '..=b'~').contains(byte))
        }
        _ => false,
    }
}

/// A whole packet, or the start of a command, on MySQL's port.
pub(super) fn is_plausible(payload: &[u8]) -> bool {
    let Some(Packet { length, sequence, body }) = Packet::new(payload) else {
        return false;
    };
    // Commands (COM_QUIT to COM_RESET_CONNECTION) start a new sequence.
    let is_command = sequence == 0 && matches!(body, [1..=0x1f, ..]);
    let is_answer = (1..=16).contains(&sequence) && length <= body.len();
    length >= 1 && (is_command || is_answer)
}

struct Packet<'a> {
    /// Bytes of the body by the head.
    length: usize,
    sequence: u8,
    /// What is there of it, and of what comes after.
    body: &'a [u8],
}

impl<'a> Packet<'a> {
    fn new(payload: &'a [u8]) -> Option<Packet<'a>> {
        let head = le32(payload, 0)?;
        Some(Packet {
            length: usize::try_from(head & 0x00ff_ffff).ok()?,
            sequence: payload[3],
            body: &payload[4..],
        })
    }
}
