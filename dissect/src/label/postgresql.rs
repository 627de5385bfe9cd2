//! PostgreSQL's frontend/backend protocol version 3.

use capstan_model::bytes::be32;

/// The registered port.
pub(super) const PORT: u16 = 5432;

/// Numbers at the place of the protocol version of a start-up message.
const VERSION_3: u32 = 196_608;
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS_ENCRYPTION: u32 = 80_877_104;

/// What a client sends first: a start-up message with its parameters, or one of
/// the requests that come before it. The number is distinctive enough for any port.
pub(super) fn is_sure(payload: &[u8]) -> bool {
    let (Some(length), Some(version)) = (be32(payload, 0), be32(payload, 4)) else {
        return false;
    };
    let is_whole = usize::try_from(length).is_ok_and(|length| length == payload.len());
    match version {
        TLS | GSS_ENCRYPTION => length == 8 && is_whole,
        CANCEL => length == 16 && is_whole,
        // A client may request a minor version (3.2 exists).
        _ if version & 0xffff_0000 == VERSION_3 => {
            let first = payload.get(8..).unwrap_or_default();
            let is_name =
                first.iter().take(4).all(|byte| byte.is_ascii_lowercase() || *byte == b'_');
            (13..10_000).contains(&length) && payload.len() <= length as usize && is_name
        }
        _ => false,
    }
}

/// Typed messages, or the one byte that answers an encryption request, on
/// PostgreSQL's port.
pub(super) fn is_plausible(payload: &[u8]) -> bool {
    if matches!(payload, [b'S' | b'N' | b'G']) {
        return true;
    }
    let mut at = 0;
    let mut messages = 0;
    while messages < 8 {
        let (Some(kind), Some(length)) = (payload.get(at), be32(payload, at + 1)) else {
            break;
        };
        let is_known = b"123ABCDEFGHIKNPQRSTVWXZcdfnpstv".contains(kind);
        if !is_known || !(4..=1 << 30).contains(&length) {
            return false;
        }
        messages += 1;
        at = at.saturating_add(1 + length as usize);
    }
    messages > 0
}
