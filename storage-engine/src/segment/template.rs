//! Header templates: a packet's prefix without the fields that have their own column or follow from
//! other values.
//!
//! The rest is the same for nearly every packet of one direction of a flow, so the dictionary of
//! templates is small. A template lists its omitted fields, so rebuilding needs no parser: copy the
//! bytes, fill in the fields. A field is omitted only if filling reproduces its exact bytes, so a
//! rebuilt header is always bit-identical to the captured one.
//!
//! Encoding: a count, per field its kind (1 byte) and offset (2 bytes, little-endian) in ascending
//! order of offset, then the prefix with zeros in place of the fields. Stored templates also omit
//! the [ends](Endpoints) of the flow, as fields of separate kinds.

mod dictionary;
mod endpoints;
mod splitter;

use capstan_model::Headers;
use capstan_model::headers::{Field, FieldKind, MAX_FIELDS};

pub use self::dictionary::Dictionary;
use self::endpoints::EndKind;
pub use self::endpoints::{Endpoints, without_endpoints};
pub use self::splitter::{HeaderSplitter, SplitHeader};
use super::Corrupt;

/// Bytes that name a field: its kind and its offset.
const NAME: usize = 3;

/// The values of the fields that a template leaves out and columns hold.
/// A field that the template does not leave out has no value here (0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldValues {
    /// Wire length minus the end of the innermost IP packet by its own length
    /// field: padding and frame check bytes; odd values if that field is odd.
    pub trailer: i32,
    /// See [`FieldKind::IpId`].
    pub ip_id: u16,
    /// See [`FieldKind::OuterIpId`].
    pub outer_ip_id: u16,
    /// See [`FieldKind::TcpSeq`].
    pub tcp_seq: u32,
    /// See [`FieldKind::TcpAck`].
    pub tcp_ack: u32,
    /// See [`FieldKind::TcpFlags`].
    pub tcp_flags: u8,
    /// See [`FieldKind::TcpWindow`].
    pub tcp_window: u16,
    /// See [`FieldKind::Checksum`].
    pub checksum: u16,
    /// See [`FieldKind::TcpTimestamp`].
    pub tcp_timestamp: u32,
    /// See [`FieldKind::TcpEcho`].
    pub tcp_echo: u32,
    /// See [`FieldKind::OuterChecksum`].
    pub outer_checksum: u16,
}

/// Which fields a template leaves out: bit `kind as u8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldSet(pub u16);

impl FieldSet {
    /// Whether `kind` is left out.
    #[inline]
    pub fn has(self, kind: FieldKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

impl FieldValues {
    #[inline]
    fn get(&self, kind: FieldKind) -> u32 {
        match kind {
            FieldKind::IpId => u32::from(self.ip_id),
            FieldKind::OuterIpId => u32::from(self.outer_ip_id),
            FieldKind::TcpSeq => self.tcp_seq,
            FieldKind::TcpAck => self.tcp_ack,
            FieldKind::TcpFlags => u32::from(self.tcp_flags),
            FieldKind::TcpWindow => u32::from(self.tcp_window),
            FieldKind::Checksum => u32::from(self.checksum),
            FieldKind::TcpTimestamp => self.tcp_timestamp,
            FieldKind::TcpEcho => self.tcp_echo,
            FieldKind::OuterChecksum => u32::from(self.outer_checksum),
            FieldKind::Ipv4Length
            | FieldKind::Ipv6Length
            | FieldKind::UdpLength
            | FieldKind::Ipv4Checksum => 0,
        }
    }
}

/// Cuts the fields out of a packet's prefix: the template goes into `template`
/// (cleared first), the values and the set of fields cut out are returned.
#[inline]
pub fn split(
    headers: &Headers,
    data: &[u8],
    wire_length: u32,
    template: &mut Vec<u8>,
) -> (FieldValues, FieldSet) {
    let prefix = &data[..usize::from(headers.prefix).min(data.len())];
    let mut values = FieldValues::default();
    let mut set = FieldSet::default();
    let end = match innermost_end(headers.fields(), prefix) {
        // 2^31 and more on the wire: lengths stay literal.
        Some(end) => match i32::try_from(i64::from(wire_length) - end) {
            Ok(trailer) => {
                values.trailer = trailer;
                Some(end)
            }
            Err(_) => None,
        },
        None => None,
    };

    // Room for the names of all fields, then the prefix: nearly always all are left out.
    let fields = headers.fields();
    let room = 1 + NAME * fields.len();
    template.clear();
    template.extend_from_slice(&[0; 1 + NAME * MAX_FIELDS][..room]);
    template.extend_from_slice(prefix);
    let (names, left) = template.split_at_mut(room);
    let mut count = 0;
    // A checksum is computed over its whole header, so two headers must not overlap.
    let mut summed_to = 0;
    for field in fields {
        let offset = usize::from(field.offset);
        let Some((rest, left)) = prefix.get(offset..).zip(left.get_mut(offset..)) else { continue };
        // A field that is not whole, that is there twice or does not follow stays in the template.
        macro_rules! column {
            ($value:ident, $number:ty) => {{
                let bytes = rest.first_chunk().filter(|_| !set.has(field.kind));
                let Some(bytes) = bytes else { continue };
                values.$value = <$number>::from_be_bytes(*bytes);
                left[..size_of::<$number>()].fill(0);
            }};
        }
        macro_rules! computed {
            () => {{
                if !follows(field, end, prefix) {
                    continue;
                }
                left[..2].fill(0);
            }};
        }
        match field.kind {
            FieldKind::Ipv4Length | FieldKind::Ipv6Length | FieldKind::UdpLength => computed!(),
            FieldKind::Ipv4Checksum => {
                if offset < summed_to + 10 {
                    continue;
                }
                computed!();
                summed_to = offset - 10 + usize::from(prefix[offset - 10] & 0x0f) * 4;
            }
            FieldKind::IpId => column!(ip_id, u16),
            FieldKind::OuterIpId => column!(outer_ip_id, u16),
            FieldKind::TcpSeq => column!(tcp_seq, u32),
            FieldKind::TcpAck => column!(tcp_ack, u32),
            FieldKind::TcpFlags => column!(tcp_flags, u8),
            FieldKind::TcpWindow => column!(tcp_window, u16),
            FieldKind::Checksum => column!(checksum, u16),
            FieldKind::TcpTimestamp => column!(tcp_timestamp, u32),
            FieldKind::TcpEcho => column!(tcp_echo, u32),
            FieldKind::OuterChecksum => column!(outer_checksum, u16),
        }
        set.0 |= 1 << field.kind as u8;
        let [low, high] = field.offset.to_le_bytes();
        names[1 + NAME * count..][..NAME].copy_from_slice(&[field.kind as u8, low, high]);
        count += 1;
    }
    const LENGTHS: u16 = 1 << FieldKind::Ipv4Length as u8
        | 1 << FieldKind::Ipv6Length as u8
        | 1 << FieldKind::UdpLength as u8;
    if set.0 & LENGTHS == 0 {
        values.trailer = 0;
    }
    names[0] = count as u8;
    if count < fields.len() {
        template.drain(1 + NAME * count..room);
    }
    (values, set)
}

#[inline]
fn is_length(kind: FieldKind) -> bool {
    matches!(kind, FieldKind::Ipv4Length | FieldKind::Ipv6Length | FieldKind::UdpLength)
}

fn is_computed(kind: FieldKind) -> bool {
    is_length(kind) || kind == FieldKind::Ipv4Checksum
}

/// Whether a field of a kind that is computed is what it should be, in a prefix whose innermost IP packet
/// ends at `end`.
#[inline]
fn follows(field: &Field, end: Option<i64>, prefix: &[u8]) -> bool {
    let offset = usize::from(field.offset);
    let computed = match field.kind {
        FieldKind::Ipv4Checksum => ipv4_checksum(prefix, offset),
        kind => end.and_then(|end| length_at(kind, offset, end)),
    };
    let found = prefix.get(offset..).and_then(|rest| rest.first_chunk());
    found.is_some_and(|found| computed == Some(u32::from(u16::from_be_bytes(*found))))
}

/// Where the innermost IP packet ends by its own length field, bytes from the packet's start.
fn innermost_end(fields: &[Field], prefix: &[u8]) -> Option<i64> {
    fields.iter().rev().find_map(|field| {
        let at = usize::from(field.offset);
        let length =
            || Some(i64::from(u16::from_be_bytes([*prefix.get(at)?, *prefix.get(at + 1)?])));
        match field.kind {
            FieldKind::Ipv4Length => Some(at as i64 - 2 + length()?),
            FieldKind::Ipv6Length => Some(at as i64 - 4 + 40 + length()?),
            _ => None,
        }
    })
}

/// What a length field at `offset` says if everything ends at `end`.
fn length_at(kind: FieldKind, offset: usize, end: i64) -> Option<u32> {
    let start = match kind {
        FieldKind::Ipv4Length => offset as i64 - 2,
        FieldKind::Ipv6Length => offset as i64 - 4 + 40,
        FieldKind::UdpLength => offset as i64 - 4,
        _ => return None,
    };
    u16::try_from(end - start).ok().map(u32::from)
}

/// The checksum an IPv4 header should have (RFC 791 section 3.1), given the
/// offset of its checksum field; none if the header is not whole.
fn ipv4_checksum(prefix: &[u8], offset: usize) -> Option<u32> {
    let start = offset.checked_sub(10)?;
    let length = usize::from(*prefix.get(start)? & 0x0f) * 4;
    if length < 20 {
        return None;
    }
    let header = prefix.get(start..start + length)?;
    let word = |pair: &[u8; 2]| u32::from(u16::from_be_bytes(*pair));
    let sum: u32 = header.as_chunks::<2>().0.iter().map(word).sum();
    let sum = sum - word(&[header[10], header[11]]);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    Some(!folded & 0xffff)
}

/// A field's name as it is stored: number of its kind, and offset.
#[inline]
fn numbered(name: &[u8; NAME]) -> (u8, usize) {
    let [kind, low, high] = *name;
    (kind, usize::from(u16::from_le_bytes([low, high])))
}

/// A template taken apart once, so that rebuilding many packets is quick.
#[derive(Debug, Clone)]
pub struct Template {
    fields: Vec<Field>,
    /// What of the flow's ends it leaves out, and where that stands.
    ends: Vec<(EndKind, usize)>,
    /// The prefix with zeros for the fields.
    prefix: Vec<u8>,
    set: FieldSet,
}

impl Template {
    /// Takes a template apart and checks that every field lies inside.
    pub fn parse(bytes: &[u8]) -> Result<Template, Corrupt> {
        let bad = |what: &str| Corrupt::new("template", what);
        let (count, rest) = bytes.split_first().ok_or_else(|| bad("empty"))?;
        let count = usize::from(*count);
        if count > MAX_FIELDS || rest.len() < count * NAME {
            return Err(bad("more fields than fit"));
        }
        let (names, prefix) = rest.split_at(count * NAME);
        let mut set = FieldSet::default();
        let (mut fields, mut ends) = (Vec::with_capacity(count), Vec::new());
        for name in names.as_chunks::<NAME>().0 {
            let (number, offset) = numbered(name);
            let width = if let Some(kind) = FieldKind::from_number(number) {
                set.0 |= 1 << kind as u8;
                fields.push(Field { kind, offset: offset as u16 });
                kind.width()
            } else {
                let kind = EndKind::from_number(number).ok_or_else(|| bad("unknown field"))?;
                ends.push((kind, offset));
                kind.width()
            };
            if offset + width > prefix.len() {
                return Err(bad("field outside the prefix"));
            }
        }
        Ok(Template { fields, ends, prefix: prefix.to_vec(), set })
    }

    /// Length of the prefix it stands for, bytes.
    pub fn prefix_length(&self) -> usize {
        self.prefix.len()
    }

    /// The fields it leaves out.
    pub fn set(&self) -> FieldSet {
        self.set
    }

    /// Appends the prefix with the fields filled in; `ends` are those of the packet.
    pub fn fill(
        &self,
        values: &FieldValues,
        ends: &Endpoints,
        wire_length: u32,
        into: &mut Vec<u8>,
    ) -> Result<(), Corrupt> {
        let no_value = || Corrupt::new("template", "a field cannot be computed back");
        let start = into.len();
        into.extend_from_slice(&self.prefix);
        for (kind, offset) in &self.ends {
            let mut bytes = [0; _];
            if !kind.write(ends, &mut bytes) {
                return Err(no_value());
            }
            let at = start + offset;
            into[at..at + kind.width()].copy_from_slice(&bytes[..kind.width()]);
        }
        let end = i64::from(wire_length) - i64::from(values.trailer);
        let put = |field: &Field, value: Option<u32>, into: &mut Vec<u8>| {
            let value = value.ok_or_else(no_value)?;
            let at = start + usize::from(field.offset);
            let width = field.kind.width();
            into[at..at + width].copy_from_slice(&value.to_be_bytes()[4 - width..]);
            Ok(())
        };
        for field in &self.fields {
            let value = match field.kind {
                FieldKind::Ipv4Checksum => continue,
                kind if is_length(kind) => length_at(kind, usize::from(field.offset), end),
                kind => Some(values.get(kind)),
            };
            put(field, value, into)?;
        }
        // Checksums last: they cover the fields above.
        if self.set.has(FieldKind::Ipv4Checksum) {
            for field in self.fields.iter().filter(|field| field.kind == FieldKind::Ipv4Checksum) {
                put(field, ipv4_checksum(&into[start..], usize::from(field.offset)), into)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ethernet, IPv4, TCP with an empty payload and six bytes of padding.
    pub(super) fn padded_ack() -> (Headers, Vec<u8>) {
        let mut data = vec![0; 12];
        data.extend_from_slice(&[8, 0, 0x45, 0, 0, 40, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0]);
        data.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        data.extend_from_slice(&[
            0, 80, 200, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 1, 0, 9, 9, 0, 0,
        ]);
        data.extend_from_slice(&[0; 6]);
        let sum = ipv4_checksum(&data, 24).unwrap() as u16;
        data[24..26].copy_from_slice(&sum.to_be_bytes());
        let mut headers = Headers::default();
        headers.prefix = 54;
        for (kind, offset) in [
            (FieldKind::Ipv4Length, 16),
            (FieldKind::IpId, 18),
            (FieldKind::Ipv4Checksum, 24),
            (FieldKind::TcpSeq, 38),
            (FieldKind::TcpAck, 42),
            (FieldKind::TcpFlags, 47),
            (FieldKind::TcpWindow, 48),
            (FieldKind::Checksum, 50),
        ] {
            headers.push_field(kind, offset);
        }
        (headers, data)
    }

    /// Headers that are all of `data`, with fields that do not overlap.
    pub(super) fn headers_of(data: &[u8], mut fields: Vec<(u8, usize)>) -> Headers {
        let mut headers = Headers::default();
        headers.prefix = data.len() as u16;
        fields.sort_by_key(|(_, offset)| *offset);
        let mut end = 0;
        for (kind, offset) in fields {
            let kind = FieldKind::from_number(kind).unwrap();
            if offset >= end {
                headers.push_field(kind, offset);
                end = offset + kind.width();
            }
        }
        headers
    }

    fn rebuild(headers: &Headers, data: &[u8]) -> (Vec<u8>, FieldSet) {
        let mut template = Vec::new();
        let (values, set) = split(headers, data, data.len() as u32, &mut template);
        let parsed = Template::parse(&template).unwrap();
        assert_eq!(parsed.set(), set);
        let mut back = Vec::new();
        parsed.fill(&values, &Endpoints::default(), data.len() as u32, &mut back).unwrap();
        (back, set)
    }

    #[test]
    fn all_fields_of_a_plain_packet_are_extracted_and_restored() {
        let (headers, data) = padded_ack();
        let (back, set) = rebuild(&headers, &data);
        assert_eq!(back, data[..54]);
        assert_eq!(set.0.count_ones(), 8);
    }

    #[test]
    fn two_packets_of_a_direction_share_a_template() {
        let (headers, mut data) = padded_ack();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        split(&headers, &data, 60, &mut one);
        data[18] ^= 0xff;
        data[39] ^= 0xff;
        data[47] |= 1;
        let sum = ipv4_checksum(&data, 24).unwrap() as u16;
        data[24..26].copy_from_slice(&sum.to_be_bytes());
        split(&headers, &data, 60, &mut two);
        assert_eq!(one, two);
    }

    #[test]
    fn a_wrong_checksum_stays_literal() {
        let (headers, mut data) = padded_ack();
        data[24] ^= 1;
        let (back, set) = rebuild(&headers, &data);
        assert_eq!(back, data[..54]);
        assert!(!set.has(FieldKind::Ipv4Checksum) && set.has(FieldKind::Ipv4Length));
    }

    proptest! {
        /// Whatever the bytes and wherever the fields are said to be.
        #[test]
        fn every_prefix_of_a_header_round_trips(
            data in prop::collection::vec(any::<u8>(), 0..120),
            fields in prop::collection::vec((0_u8..14, 0_usize..110), 0..30),
            length in any::<u32>(),
        ) {
            let headers = headers_of(&data, fields);
            let mut template = Vec::new();
            let (values, _) = split(&headers, &data, length, &mut template);
            let mut back = Vec::new();
            let template = Template::parse(&template).unwrap();
            template.fill(&values, &Endpoints::default(), length, &mut back).unwrap();
            prop_assert_eq!(back, data);
        }

        #[test]
        fn hostile_templates_never_panic(bytes: Vec<u8>, length: u32, trailer: i32) {
            if let Ok(template) = Template::parse(&bytes) {
                let values = FieldValues { trailer, ..FieldValues::default() };
                let _ = template.fill(&values, &Endpoints::default(), length, &mut Vec::new());
            }
        }
    }
}
