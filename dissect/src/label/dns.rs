//! DNS messages (RFC 1035), in datagrams and behind a length in a stream.

use capstan_model::bytes::be16;

/// Maximum number of questions and records of a plausible message.
const MOST_RECORDS: u16 = 512;

/// A message that is valid to its last byte, on any port.
pub(super) fn is_sure(payload: &[u8]) -> bool {
    Message::new(payload).is_some_and(|message| message.reads_to_the_end())
}

/// A message that is valid up to its first question, on the port of DNS.
pub(super) fn is_plausible(payload: &[u8]) -> bool {
    Message::new(payload).is_some_and(|message| message.first_question_is_plausible())
}

/// A complete message after its length, on any port.
pub(super) fn is_sure_in_stream(payload: &[u8]) -> bool {
    let Some(length) = be16(payload, 0) else {
        return false;
    };
    let message = payload.get(2..).unwrap_or_default();
    message.len() == usize::from(length) && is_sure(message)
}

/// A message after its length, on the port of DNS. A server may send the length in a TCP segment of its own.
pub(super) fn is_plausible_in_stream(payload: &[u8]) -> bool {
    let length = be16(payload, 0).map_or(0, usize::from);
    length >= 12 && payload.get(2..).is_some_and(is_plausible)
}

struct Message<'a> {
    bytes: &'a [u8],
    /// Questions, answers, authority records, additional records.
    counts: [u16; 4],
}

impl<'a> Message<'a> {
    /// The header, if its bits and counts are plausible.
    fn new(bytes: &'a [u8]) -> Option<Message<'a>> {
        let header: &[u8; 12] = bytes.first_chunk()?;
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let counts = [count(4), count(6), count(8), count(10)];
        let operation = (header[2] >> 3) & 0x0f;
        let is_response = header[2] & 0x80 != 0;
        let code = header[3] & 0x0f;
        let must_be_zero = header[3] & 0x40;
        let is_known = matches!(operation, 0 | 2 | 4 | 5) && code <= 11 && must_be_zero == 0;
        // Multicast answers and transfers have no question, nothing else has none.
        let has_content = counts[0] > 0 || (is_response && counts[1] > 0);
        let is_small = counts.iter().all(|count| *count <= MOST_RECORDS) && counts[0] <= 32;
        (is_known && has_content && is_small).then_some(Message { bytes, counts })
    }

    fn reads_to_the_end(&self) -> bool {
        self.end().is_some_and(|end| end == self.bytes.len())
    }

    /// The end of the last record, if all records are valid.
    fn end(&self) -> Option<usize> {
        let mut at = 12;
        for _ in 0..self.counts[0] {
            at = self.question(at)?;
        }
        let records = self.counts[1..].iter().map(|count| u32::from(*count)).sum();
        for _ in 0..records {
            at = self.name(at)?;
            let kind = be16(self.bytes, at)?;
            let class = be16(self.bytes, at + 2)?;
            // OPT (RFC 6891) uses the class for a size.
            if kind == 0 || (kind != 41 && !is_class(class)) {
                return None;
            }
            at += 10 + usize::from(be16(self.bytes, at + 8)?);
            if at > self.bytes.len() {
                return None;
            }
        }
        Some(at)
    }

    fn first_question_is_plausible(&self) -> bool {
        if self.counts[0] == 0 {
            return self.name(12).is_some();
        }
        // A snap length may have cut the question's end off.
        match self.name(12) {
            Some(at) => self.bytes.len() < at + 4 || self.question(12).is_some(),
            None => false,
        }
    }

    fn question(&self, at: usize) -> Option<usize> {
        let at = self.name(at)?;
        let (kind, class) = (be16(self.bytes, at)?, be16(self.bytes, at + 2)?);
        (kind != 0 && is_class(class)).then_some(at + 4)
    }

    /// Where the name at `at` ends: at a zero label, or a pointer back.
    fn name(&self, mut at: usize) -> Option<usize> {
        let start = at;
        loop {
            let length = *self.bytes.get(at)?;
            match length {
                0 => return Some(at + 1),
                1..=63 => at += 1 + usize::from(length),
                0xc0.. => {
                    let target = usize::from(be16(self.bytes, at)? & 0x3fff);
                    return (12..at).contains(&target).then_some(at + 2);
                }
                _ => return None,
            }
            if at - start > 254 {
                return None;
            }
        }
    }
}

/// Internet, Chaos, Hesiod, none, any; the top bit is multicast DNS's (RFC 6762).
fn is_class(class: u16) -> bool {
    matches!(class & 0x7fff, 1 | 3 | 4 | 254 | 255)
}
