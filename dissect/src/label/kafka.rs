//! Apache Kafka's request and response framing (kafka.apache.org/protocol).

use capstan_model::bytes::{be16, be32};

/// The port of brokers.
pub(super) const PORT: u16 = 9092;

/// Highest plausible request type, and highest plausible version of one.
const LAST_KEY: u16 = 92;
const LAST_VERSION: u16 = 20;

/// One whole request with a readable client name.
pub(super) fn is_sure(payload: &[u8]) -> bool {
    let is_whole = be32(payload, 0).is_some_and(|length| length as usize == payload.len() - 4);
    is_whole && is_request(payload) && client_name(payload).is_some_and(|name| name.len() >= 3)
}

/// The start of a request, on Kafka's port.
pub(super) fn is_plausible(payload: &[u8]) -> bool {
    const LONGEST: u32 = 100 << 20;
    let fits = be32(payload, 0).is_some_and(|length| (8..=LONGEST).contains(&length));
    let is_nameless = be16(payload, 12) == Some(0xffff);
    fits && is_request(payload) && (is_nameless || client_name(payload).is_some())
}

/// A response. It is recognised by its length and its number only.
pub(super) fn is_plausible_answer(payload: &[u8]) -> bool {
    let is_whole = be32(payload, 0).is_some_and(|length| length as usize == payload.len() - 4);
    is_whole && payload.len() >= 8
}

fn is_request(payload: &[u8]) -> bool {
    let is_key = be16(payload, 4).is_some_and(|key| key <= LAST_KEY);
    let is_version = be16(payload, 6).is_some_and(|version| version <= LAST_VERSION);
    is_key && is_version
}

/// The client name every request of a header version above 0 holds.
fn client_name(payload: &[u8]) -> Option<&[u8]> {
    let length = usize::from(be16(payload, 12)?);
    let name = payload.get(14..)?.get(..length)?;
    (length <= 255 && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}
