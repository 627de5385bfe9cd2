//! AMQP 0-9-1 and 1.0: protocol headers and frames.

use capstan_model::bytes::{be16, be32};

/// The registered port. (5671 is AMQP inside TLS.)
pub(super) const PORTS: &[u16] = &[5672];

/// Last byte of a 0-9-1 frame.
const FRAME_END: u8 = 0xce;

/// The protocol header either side sends first.
pub(super) fn is_sure(payload: &[u8]) -> bool {
    matches!(
        payload,
        [b'A', b'M', b'Q', b'P', 0..=3, 0 | 1 | 9, 0 | 8 | 9 | 10, 0 | 1 | 9 | 10, ..]
    )
}

/// The first frame of a segment, on AMQP's port.
pub(super) fn is_plausible(payload: &[u8]) -> bool {
    is_frame_0_9_1(payload) || is_frame_1_0(payload)
}

/// Type (method, header, body, heartbeat), channel, size; if the end is there,
/// it has the mark (0-9-1 section 2.3.5).
fn is_frame_0_9_1(payload: &[u8]) -> bool {
    let (Some(kind), Some(_channel), Some(size)) =
        (payload.first(), be16(payload, 1), be32(payload, 3))
    else {
        return false;
    };
    let end = usize::try_from(size).ok().and_then(|size| size.checked_add(7));
    matches!(kind, 1 | 2 | 3 | 8)
        && size <= 1 << 20
        && match end.and_then(|end| payload.get(end)) {
            Some(mark) => *mark == FRAME_END,
            None => *kind != 8,
        }
}

/// Size, data offset, type (AMQP or SASL), channel, and a described performative
/// with a small descriptor; or an empty frame, which is a heartbeat (1.0 part 2.3).
fn is_frame_1_0(payload: &[u8]) -> bool {
    const LARGEST: u32 = 1 << 24;
    let Some(size) = be32(payload, 0) else {
        return false;
    };
    match payload.get(4..) {
        Some([2, 0 | 1, _, _]) => size == 8,
        Some([2, 0 | 1, _, _, 0x00, 0x53, 0x10..=0x18 | 0x40..=0x44, ..]) => {
            (11..=LARGEST).contains(&size)
        }
        _ => false,
    }
}
