//! Splits templates from consecutive packets.
//!
//! Nearly every packet has the field offsets of the previous packet, and the template of the
//! previous one in its direction. The fast path reads values at known offsets and compares the
//! remaining bytes in place, without building a template.

use capstan_model::Headers;
use capstan_model::headers::{Field, FieldKind};

use super::{FieldSet, FieldValues, NAME, follows, innermost_end, is_computed, split};

/// Shapes that are kept. Real traffic has a dozen or two.
const SHAPES: usize = 32;

/// A field that is not there: beyond all prefixes.
const NOWHERE: u16 = u16::MAX;

/// Where the fields of a prefix lie, all of which a template leaves out.
#[derive(Debug)]
struct HeaderShape {
    fields: Vec<Field>,
    /// What the template begins with: the fields' names.
    names: Vec<u8>,
    set: FieldSet,
    /// As long as the prefix: all bits but those of fields.
    mask: Vec<u8>,
    /// Fields that follow from others.
    computed: Vec<Field>,
    /// Where the field of each kind is; of the computed ones, the last.
    offsets: [u16; u16::BITS as usize],
}

/// See the module.
#[derive(Debug, Default)]
pub struct HeaderSplitter {
    shapes: Vec<HeaderShape>,
    /// The one that fitted last.
    last: usize,
    scratch: Vec<u8>,
}

/// What [`HeaderSplitter::split`] comes to.
#[derive(Debug)]
pub struct SplitHeader<'a> {
    /// The values that columns hold.
    pub values: FieldValues,
    /// The fields that the template leaves out.
    pub set: FieldSet,
    /// The template, if it is not the one that was known.
    pub template: Option<&'a [u8]>,
}

impl HeaderSplitter {
    /// As [`split`]. `known` is a template that this packet's may be the same as.
    #[inline]
    pub fn split(
        &mut self,
        headers: &Headers,
        data: &[u8],
        wire_length: u32,
        known: Option<&[u8]>,
    ) -> SplitHeader<'_> {
        let prefix = &data[..usize::from(headers.prefix).min(data.len())];
        let shape = self.shape(headers, prefix);
        if let (Some(shape), Some(known)) = (shape, known)
            && let Some(values) = shape.values(prefix, wire_length)
            && shape.is_of(prefix, known)
        {
            return SplitHeader { values, set: shape.set, template: None };
        }
        let has_shape = shape.is_some();
        let (values, set) = split(headers, data, wire_length, &mut self.scratch);
        if !has_shape
            && self.shapes.len() < SHAPES
            && let Some(shape) = HeaderShape::of(headers, prefix.len(), set, &self.scratch)
        {
            self.shapes.push(shape);
        }
        let template = (known != Some(self.scratch.as_slice())).then_some(self.scratch.as_slice());
        SplitHeader { values, set, template }
    }

    /// The shape of a prefix, if it is known.
    #[inline]
    fn shape(&mut self, headers: &Headers, prefix: &[u8]) -> Option<&HeaderShape> {
        let fits = |shape: &HeaderShape| {
            shape.mask.len() == prefix.len() && shape.fields == headers.fields()
        };
        if !self.shapes.get(self.last).is_some_and(fits) {
            self.last = self.shapes.iter().position(fits)?;
        }
        self.shapes.get(self.last)
    }
}

impl HeaderShape {
    /// The shape of a prefix of which [`split`] made a template; none if that keeps a field.
    fn of(headers: &Headers, prefix: usize, set: FieldSet, template: &[u8]) -> Option<HeaderShape> {
        let fields = headers.fields();
        let (names, _) = template.split_at_checked(1 + NAME * fields.len())?;
        if usize::from(names[0]) != fields.len() {
            return None;
        }
        let mut mask = vec![u8::MAX; prefix];
        let mut offsets = [NOWHERE; u16::BITS as usize];
        for field in fields {
            let offset = usize::from(field.offset);
            mask.get_mut(offset..offset + field.kind.width())?.fill(0);
            offsets[field.kind as usize] = field.offset;
        }
        Some(HeaderShape {
            fields: fields.to_vec(),
            names: names.to_vec(),
            set,
            mask,
            computed: fields.iter().copied().filter(|of| is_computed(of.kind)).collect(),
            offsets,
        })
    }

    /// The values of a prefix of this shape; none if a field does not follow from others.
    #[inline]
    fn values(&self, prefix: &[u8], wire_length: u32) -> Option<FieldValues> {
        let mut values = FieldValues::default();
        let end = innermost_end(&self.computed, prefix);
        if let Some(end) = end {
            values.trailer = i32::try_from(i64::from(wire_length) - end).ok()?;
        }
        if !self.computed.iter().all(|field| follows(field, end, prefix)) {
            return None;
        }
        macro_rules! columns {
            ($($value:ident: $number:ty = $kind:ident,)*) => {$(
                let rest = prefix.get(usize::from(self.offsets[FieldKind::$kind as usize])..);
                if let Some(bytes) = rest.and_then(|rest| rest.first_chunk()) {
                    values.$value = <$number>::from_be_bytes(*bytes);
                }
            )*};
        }
        columns! {
            ip_id: u16 = IpId,
            outer_ip_id: u16 = OuterIpId,
            tcp_seq: u32 = TcpSeq,
            tcp_ack: u32 = TcpAck,
            tcp_flags: u8 = TcpFlags,
            tcp_window: u16 = TcpWindow,
            checksum: u16 = Checksum,
            tcp_timestamp: u32 = TcpTimestamp,
            tcp_echo: u32 = TcpEcho,
            outer_checksum: u16 = OuterChecksum,
        }
        Some(values)
    }

    /// Whether a template is that of a prefix of this shape.
    #[inline]
    fn is_of(&self, prefix: &[u8], template: &[u8]) -> bool {
        let Some((names, kept)) = template.split_at_checked(self.names.len()) else { return false };
        let bytes = prefix.iter().zip(&self.mask).zip(kept);
        // Without a way out in the middle, so that many are compared at a time.
        let differ = bytes.fold(0, |differ, ((byte, mask), kept)| differ | ((byte & mask) ^ kept));
        kept.len() == prefix.len() && differ == 0 && names == self.names
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment::template::tests::{headers_of, padded_ack};

    /// Cuts one after the other, each as it is cut alone; how often nothing was put together.
    fn agree(packets: &[(Headers, Vec<u8>, u32)]) -> usize {
        let mut splitter = HeaderSplitter::default();
        let (mut known, mut same): (Option<Vec<u8>>, _) = (None, 0);
        for (headers, data, length) in packets {
            let mut expected = Vec::new();
            let (values, set) = split(headers, data, *length, &mut expected);
            let found = splitter.split(headers, data, *length, known.as_deref());
            assert_eq!((found.values, found.set), (values, set));
            same += usize::from(found.template.is_none());
            let found = found.template.or(known.as_deref()).map(<[u8]>::to_vec);
            assert_eq!(found.as_deref(), Some(expected.as_slice()));
            known = found;
        }
        same
    }

    #[test]
    fn unchanged_header_is_not_assembled_again() {
        let (headers, data) = padded_ack();
        let other = |place: usize| {
            let mut data = data.clone();
            data[place] ^= 0x10;
            (headers, data, 60)
        };
        let first = (headers, data.clone(), 60);
        // Sequence number, window, TCP checksum; the sender's address breaks the IPv4 checksum, too.
        let packets =
            [first.clone(), first.clone(), other(38), other(49), other(50), other(28), first];
        assert_eq!(agree(&packets), 4);
    }

    proptest! {
        #[test]
        fn template_of_a_packet_does_not_depend_on_earlier_packets(
            data in prop::collection::vec(any::<u8>(), 0..120),
            fields in prop::collection::vec((0_u8..14, 0_usize..110), 0..12),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            length in any::<u32>(),
        ) {
            let headers = headers_of(&data, fields);
            let (plain, ack) = padded_ack();
            let mut packets = Vec::new();
            for (headers, mut data, length) in [(headers, data, length), (plain, ack, 60)] {
                packets.push((headers, data.clone(), length));
                for (place, byte) in &changes {
                    if !data.is_empty() {
                        let place = place.index(data.len());
                        data[place] = *byte;
                    }
                    packets.push((headers, data.clone(), length));
                }
            }
            agree(&packets);
        }
    }
}
