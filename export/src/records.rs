//! Assembled packets, ready to be written: one flat buffer and small keys to sort.
//!
//! A record is four little-endian 32-bit numbers (bytes on the wire, captured bytes,
//! interface, length of the options), then raw ticks (8 bytes) if the packet has them, the
//! captured bytes, the options. Two bits of the last number say whether there are ticks and
//! whether there is a time, which is in the key.

use capstan_model::Time;
use capstan_model::bytes::le32;
use capstan_model::packet::Stamp;

/// Length of a record before ticks and data, bytes.
pub(super) const HEADER: usize = 16;

const TIMED: u32 = 1 << 31;
const TICKS: u32 = 1 << 30;
/// Options longer than this (no block holds so many) are left out.
const MAX_OPTIONS: usize = (1 << 30) - 1;

/// The bytes of one chunk of an arena. Records do not spread over chunks.
const CHUNK: usize = 4 << 20;

/// A packet's sort key, by time or by recording order within its segment, and the position of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Nanoseconds since 1970; 0 if it has no time.
    pub(super) time: i64,
    /// Place in capture order.
    pub(super) ordinal: u64,
    /// Chunk, offset, and in the lowest bit whether it has a time.
    at: u64,
}

impl Key {
    /// When, if that is known.
    pub(super) fn time(&self) -> Option<Time> {
        (self.at & 1 == 1).then_some(Time(self.time))
    }

    fn place(&self) -> (usize, usize) {
        ((self.at >> 33) as usize, (self.at >> 1) as u32 as usize)
    }
}

/// A packet's record, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) interface: u32,
    /// Bytes on the wire.
    pub(super) length: u32,
    pub(super) stamp: Stamp,
    pub(super) data: &'a [u8],
    pub(super) options: &'a [u8],
}

/// The lengths in a record's header: of the whole record, and its parts.
struct Shape {
    ticks: usize,
    captured: usize,
    options: usize,
}

impl Shape {
    fn of(header: &[u8]) -> Option<Shape> {
        let bits = word(header, 3)?;
        Some(Shape {
            ticks: if bits & TICKS == 0 { 0 } else { 8 },
            captured: word(header, 1)? as usize,
            options: (bits & !(TIMED | TICKS)) as usize,
        })
    }

    fn total(&self) -> usize {
        HEADER + self.ticks + self.captured + self.options
    }
}

fn word(bytes: &[u8], number: usize) -> Option<u32> {
    le32(bytes, number * 4)
}

/// Length of the record that begins with these bytes; none if they are not even a header.
pub(super) fn record_length(header: &[u8]) -> Option<usize> {
    Shape::of(header).map(|shape| shape.total())
}

/// Reads the record that begins with these bytes.
pub(super) fn parse(bytes: &[u8], time: i64) -> Option<Record<'_>> {
    let shape = Shape::of(bytes)?;
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let (ticks, rest) = rest.split_at_checked(shape.ticks)?;
    let (data, rest) = rest.split_at_checked(shape.captured)?;
    let time = (word(header, 3)? & TIMED != 0).then_some(Time(time));
    let stamp = match (ticks.first_chunk().copied().map(u64::from_le_bytes), time) {
        (Some(ticks), time) => Stamp::Raw { ticks, time },
        (None, Some(time)) => Stamp::At(time),
        (None, None) => Stamp::None,
    };
    Some(Record {
        interface: word(header, 2)?,
        length: word(header, 0)?,
        stamp,
        data,
        options: rest.get(..shape.options)?,
    })
}

/// Whether the record has a time.
pub(super) fn is_timed(header: &[u8]) -> bool {
    word(header, 3).is_some_and(|bits| bits & TIMED != 0)
}

/// Records of one segment, and their keys.
#[derive(Debug, Default)]
pub(super) struct Arena {
    chunks: Vec<Vec<u8>>,
    keys: Vec<Key>,
    /// Expected further bytes; sets the size of a new chunk.
    expected: usize,
    bytes: usize,
}

/// The fill level of an arena, to roll back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    chunks: usize,
    last: usize,
    keys: usize,
    bytes: usize,
}

impl Arena {
    /// Announces this many packets of this many bytes (records, without options).
    pub(super) fn expect(&mut self, packets: usize, bytes: usize) {
        self.expected = bytes;
        self.keys.reserve(packets);
    }

    /// Appends a packet.
    #[inline]
    pub(super) fn push(&mut self, ordinal: u64, record: &Record<'_>) {
        let options =
            if record.options.len() <= MAX_OPTIONS { record.options } else { Default::default() };
        let ticks = match record.stamp {
            Stamp::Raw { ticks, .. } => Some(ticks),
            _ => None,
        };
        let time = record.stamp.time();
        let total = HEADER + ticks.map_or(0, |_| 8) + record.data.len() + options.len();
        let room = self.chunks.last().is_some_and(|last| last.capacity() - last.len() >= total);
        if !room {
            let size = total.max(self.expected.min(CHUNK));
            self.chunks.push(Vec::with_capacity(size));
            self.bytes += size;
        }
        self.expected = self.expected.saturating_sub(total);
        let chunk_number = self.chunks.len().saturating_sub(1) as u64;
        let Some(chunk) = self.chunks.last_mut() else { return };
        let bits = options.len() as u32
            | if time.is_some() { TIMED } else { 0 }
            | if ticks.is_some() { TICKS } else { 0 };
        self.keys.push(Key {
            time: time.map_or(0, |time| time.0),
            ordinal,
            at: chunk_number << 33 | (chunk.len() as u64) << 1 | u64::from(time.is_some()),
        });
        for field in [record.length, record.data.len() as u32, record.interface, bits] {
            chunk.extend_from_slice(&field.to_le_bytes());
        }
        if let Some(ticks) = ticks {
            chunk.extend_from_slice(&ticks.to_le_bytes());
        }
        chunk.extend_from_slice(record.data);
        chunk.extend_from_slice(options);
    }

    /// The present fill level.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            chunks: self.chunks.len(),
            last: self.chunks.last().map_or(0, Vec::len),
            keys: self.keys.len(),
            bytes: self.bytes,
        }
    }

    /// Rolls back to a mark.
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.chunks.truncate(mark.chunks);
        if let Some(last) = self.chunks.last_mut() {
            last.truncate(mark.last);
        }
        self.keys.truncate(mark.keys);
        self.bytes = mark.bytes;
    }

    /// Packets.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no packet.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.keys.capacity() * size_of::<Key>()
    }

    /// Sorts the packets: by time, those without one first, then by ordinal; or only by ordinal.
    pub(super) fn sort(&mut self, by_time: bool) {
        if by_time {
            self.keys.sort_unstable_by_key(|key| (key.at & 1, key.time, key.ordinal));
        } else {
            self.keys.sort_unstable_by_key(|key| key.ordinal);
        }
    }

    /// The key at a place of the order it was sorted into.
    #[inline]
    pub(super) fn key(&self, place: usize) -> Option<&Key> {
        self.keys.get(place)
    }

    /// The bytes of a record and what follows it in its chunk.
    #[inline]
    pub(super) fn bytes(&self, key: &Key) -> &[u8] {
        let (chunk, offset) = key.place();
        self.chunks.get(chunk).and_then(|chunk| chunk.get(offset..)).unwrap_or_default()
    }

    /// The records from a place of the order on, in memory of their own.
    pub(super) fn rest(&self, place: usize) -> Arena {
        let keys = self.keys.get(place..).unwrap_or_default();
        let lengths = keys.iter().filter_map(|key| record_length(self.bytes(key)));
        let mut rest = Arena::default();
        rest.expect(keys.len(), lengths.sum());
        for key in keys {
            if let Some(record) = parse(self.bytes(key), key.time) {
                rest.push(key.ordinal, &record);
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp() -> impl Strategy<Value = Stamp> {
        prop_oneof![
            any::<i64>().prop_map(|time| Stamp::At(Time(time))),
            (any::<u64>(), any::<Option<i64>>())
                .prop_map(|(ticks, time)| Stamp::Raw { ticks, time: time.map(Time) }),
            Just(Stamp::None),
        ]
    }

    proptest! {
        #[test]
        fn records_come_back_in_order(
            packets in proptest::collection::vec(
                (stamp(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..50)),
                0..40,
            ),
            expected: u16,
            half in 0_usize..40,
        ) {
            let mut arena = Arena::default();
            arena.expect(packets.len(), usize::from(expected));
            let record = |number: usize| {
                let (stamp, interface, data) = &packets[number];
                let options: &[u8] = if number.is_multiple_of(3) { &[1, 0, 0, 0] } else { &[] };
                Record { interface: *interface, length: 9, stamp: *stamp, data, options }
            };
            for number in 0..half.min(packets.len()) {
                arena.push(number as u64, &record(number));
            }
            // What is taken back leaves no trace.
            let mark = arena.mark();
            for number in 0..packets.len() {
                arena.push(99, &record(number));
            }
            arena.back_to(mark);
            for number in half.min(packets.len())..packets.len() {
                arena.push(number as u64, &record(number));
            }
            arena.sort(true);
            let mut order: Vec<usize> = (0..packets.len()).collect();
            order.sort_by_key(|number| (packets[*number].0.time(), *number));
            let whole = |arena: &Arena| -> Vec<u64> {
                (0..arena.len()).map(|place| arena.key(place).unwrap().ordinal).collect()
            };
            prop_assert_eq!(&whole(&arena), &order.iter().map(|n| *n as u64).collect::<Vec<_>>());
            for (place, number) in order.iter().enumerate() {
                let key = arena.key(place).unwrap();
                prop_assert_eq!(key.time(), packets[*number].0.time());
                prop_assert_eq!(parse(arena.bytes(key), key.time), Some(record(*number)));
            }
            let rest = arena.rest(half);
            prop_assert_eq!(&whole(&rest)[..], &whole(&arena)[half.min(packets.len())..]);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes, 0);
            let _ = record_length(&bytes);
        }
    }
}
