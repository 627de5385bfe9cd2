//! QUIC's long header (RFC 8999, 9000, 9369) and the header Google's QUIC had.

use capstan_model::bytes::be32;

/// A long header of a known version with connection ids of a valid length; or Google QUIC's public header with a version.
pub(super) fn is_sure(payload: &[u8]) -> bool {
    is_long_header(payload) || is_google_header(payload)
}

fn is_long_header(payload: &[u8]) -> bool {
    let (Some(&first), Some(version)) = (payload.first(), be32(payload, 1)) else {
        return false;
    };
    if first & 0x80 == 0 {
        return false;
    }
    // The fixed bit is not kept in version negotiation, nor by Google's versions.
    let has_fixed_bit = first & 0x40 != 0;
    let is_version = match version {
        // Versions 1 and 2, drafts, Facebook's.
        1 | 0x6b33_43cf | 0xff00_0001..=0xff00_00ff | 0xface_b000..=0xface_b0ff => has_fixed_bit,
        0 => true,
        // Reserved to exercise negotiation.
        _ if version & 0x0f0f_0f0f == 0x0a0a_0a0a => has_fixed_bit,
        _ => is_google_version(version),
    };
    is_version && connection_ids_fit(payload, version)
}

/// Both connection ids have at most 20 bytes and are there; a negotiation lists
/// versions after them.
fn connection_ids_fit(payload: &[u8], version: u32) -> bool {
    const Q046: u32 = u32::from_be_bytes(*b"Q046");
    if version == Q046 {
        // Both lengths share a byte: 8 bytes to a server, or 8 from one.
        return matches!(payload.get(5), Some(0x50 | 0x05 | 0x55));
    }
    let length_at = |at: usize| payload.get(at).map(|length| usize::from(*length));
    let Some(destination) = length_at(5) else {
        return false;
    };
    let Some(source) = length_at(6 + destination) else {
        return false;
    };
    let end = 7 + destination + source;
    let has_more = payload.len() > end;
    let is_negotiation = has_more && (payload.len() - end).is_multiple_of(4);
    destination <= 20 && source <= 20 && has_more && (version != 0 || is_negotiation)
}

/// Flags with a version and an eight-byte connection id, then the version as
/// text (Google QUIC up to Q043).
fn is_google_header(payload: &[u8]) -> bool {
    const VERSION: u8 = 0x01;
    const CONNECTION_ID: u8 = 0x08;
    let Some(&flags) = payload.first() else {
        return false;
    };
    flags & 0x80 == 0
        && flags & VERSION != 0
        && flags & CONNECTION_ID != 0
        && be32(payload, 9).is_some_and(is_google_version)
}

/// "Q" or "T" and three digits.
fn is_google_version(version: u32) -> bool {
    let [letter, digits @ ..] = version.to_be_bytes();
    matches!(letter, b'Q' | b'T') && digits.iter().all(u8::is_ascii_digit)
}
