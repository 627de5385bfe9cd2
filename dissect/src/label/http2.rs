//! HTTP/2 in the clear (RFC 9113): the client's preface, and frames.

use super::http;
use capstan_model::bytes::{be24, be32};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 section 6).
mod frame {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PUSH_PROMISE: u8 = 5;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

/// The preface, an answer that upgrades, or frames that cannot be anything else.
pub(super) fn is_sure(payload: &[u8]) -> bool {
    is_preface(payload) || http::is_switch_to_http2(payload) || is_frames(payload)
}

/// The preface; if it is cut, as far as past the version.
fn is_preface(payload: &[u8]) -> bool {
    const PAST_THE_VERSION: usize = 14;
    let seen = payload.len().min(PREFACE.len());
    seen >= PAST_THE_VERSION && payload[..seen] == PREFACE[..seen]
}

/// Complete frames from the first byte on. The first frame of a server is SETTINGS. Its stream 0 and its known identifiers
/// do not occur by chance. In the middle of a connection, two valid frames in a row are required, or a single one of a
/// fixed length without further bytes.
fn is_frames(payload: &[u8]) -> bool {
    let mut at = 0;
    let mut whole = 0;
    while let Some(frame) = Frame::at(payload, at) {
        if !frame.is_valid() {
            return false;
        }
        let Some(body) = payload.get(at + 9..).and_then(|rest| rest.get(..frame.length)) else {
            // Truncated: the frames before decide.
            return whole >= 2;
        };
        if at == 0 && frame.kind == frame::SETTINGS {
            return settings_are_known(body);
        }
        whole += 1;
        at += 9 + frame.length;
        if whole == 1 && at == payload.len() {
            return frame.has_fixed_length() || frame.begins_with_known_header(body);
        }
    }
    whole >= 2
}

struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    fn at(payload: &[u8], at: usize) -> Option<Frame> {
        Some(Frame {
            length: usize::try_from(be24(payload, at)?).ok()?,
            kind: *payload.get(at + 3)?,
            flags: *payload.get(at + 4)?,
            stream: be32(payload, at + 5)?,
        })
    }

    /// Whether type, flags, stream and length can go together (RFC 9113 section 6).
    fn is_valid(&self) -> bool {
        const LARGEST_DEFAULT: usize = 16_384;
        const ACK_OR_END_STREAM: u8 = 0x01;
        const END_HEADERS: u8 = 0x04;
        const PADDED: u8 = 0x08;
        const PRIORITY: u8 = 0x20;
        let on_stream = self.stream != 0;
        let ok = match self.kind {
            frame::DATA => on_stream && self.flags & !(ACK_OR_END_STREAM | PADDED) == 0,
            frame::HEADERS => {
                let known = ACK_OR_END_STREAM | END_HEADERS | PADDED | PRIORITY;
                on_stream && self.length > 0 && self.flags & !known == 0
            }
            frame::PRIORITY => on_stream && self.length == 5 && self.flags == 0,
            frame::RST_STREAM => on_stream && self.length == 4 && self.flags == 0,
            frame::SETTINGS => {
                let is_ack = self.flags == ACK_OR_END_STREAM && self.length == 0;
                let is_list = self.flags == 0 && self.length.is_multiple_of(6);
                !on_stream && self.length <= 6 * 64 && (is_ack || is_list)
            }
            frame::PUSH_PROMISE => on_stream && self.flags & !(END_HEADERS | PADDED) == 0,
            frame::PING => !on_stream && self.length == 8 && self.flags & !ACK_OR_END_STREAM == 0,
            frame::GOAWAY => !on_stream && self.length >= 8 && self.flags == 0,
            frame::WINDOW_UPDATE => self.length == 4 && self.flags == 0,
            frame::CONTINUATION => on_stream && self.flags & !END_HEADERS == 0,
            _ => false,
        };
        ok && self.stream >> 31 == 0 && self.length <= LARGEST_DEFAULT
    }

    fn has_fixed_length(&self) -> bool {
        matches!(self.kind, frame::RST_STREAM | frame::PING | frame::WINDOW_UPDATE)
    }

    /// HEADERS whose first field is one of HPACK's static pseudo-headers (RFC
    /// 7541 appendix A: 2 to 14), as requests and answers begin.
    fn begins_with_known_header(&self, body: &[u8]) -> bool {
        const PADDED_OR_PRIORITY: u8 = 0x28;
        self.kind == frame::HEADERS
            && self.flags & PADDED_OR_PRIORITY == 0
            && body.first().is_some_and(|first| (0x82..=0x8e).contains(first))
    }
}

/// Known settings (iana.org/assignments/http2-parameters), or none at all.
fn settings_are_known(body: &[u8]) -> bool {
    body.chunks_exact(6).all(|setting| setting[0] == 0 && matches!(setting[1], 1..=6 | 8 | 9 | 16))
        || body.chunks_exact(6).next().is_some_and(|first| matches!(first[..2], [0, 1..=6]))
}
