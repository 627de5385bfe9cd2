//! Posting lists: three encodings of a list of ordinals, and the choice of the smallest.

use roaring::RoaringBitmap;

use crate::IndexError;
use crate::bits::{BitReader, BitWriter, gamma_cost};
use crate::format::{LIST_RICE, LIST_ROARING};

/// To reach a later key of the block, a reader skips short lists bit by bit. So they must be short; longer lists go
/// to the long lists.
const SHORT_BITS: u64 = 512;

/// Below this many bits no roaring bitmap (15 bytes at least, and its length) is smaller.
const ROARING_BITS: u64 = 8 * 16;

/// Bits of a Rice parameter.
const PARAMETER_BITS: u32 = 5;

/// The largest Rice parameter.
const MAX_PARAMETER: u32 = (1 << PARAMETER_BITS) - 1;

const BEYOND: IndexError = IndexError::Damaged("an ordinal is beyond the number of flows");
const ROARING: IndexError = IndexError::Damaged("a roaring bitmap is invalid");

/// Ordinals of one term while they are collected: ascending and without doubles.
#[derive(Debug)]
pub(crate) enum Ordinals {
    One(u32),
    Few(Vec<u32>),
    Many(Box<Many>),
}

/// Many ordinals: a bitmap, and those above it that are not in it yet. Appending to a bitmap
/// one by one makes it look for its largest each time.
#[derive(Debug)]
pub(crate) struct Many {
    bitmap: RoaringBitmap,
    tail: Vec<u32>,
    last: u32,
}

/// From here on a bitmap takes less memory than a vector; also the length of its tail.
const MANY: usize = 256;

impl Ordinals {
    /// Adds one ordinal. Cheap if it is not below the last one.
    pub(crate) fn add(&mut self, ordinal: u32) {
        match self {
            Ordinals::One(one) if *one == ordinal => {}
            Ordinals::One(one) => {
                let (low, high) = ((*one).min(ordinal), (*one).max(ordinal));
                *self = Ordinals::Few(vec![low, high]);
            }
            Ordinals::Few(few) => {
                match few.last() {
                    Some(last) if ordinal <= *last => {
                        if let Err(place) = few.binary_search(&ordinal) {
                            few.insert(place, ordinal);
                        }
                    }
                    _ => few.push(ordinal),
                }
                if few.len() >= MANY {
                    let last = few.last().copied().unwrap_or_default();
                    let mut many = Many { bitmap: RoaringBitmap::new(), tail: Vec::new(), last };
                    append(&mut many.bitmap, few);
                    *self = Ordinals::Many(Box::new(many));
                }
            }
            Ordinals::Many(many) => many.add(ordinal),
        }
    }

    /// Ends the collecting.
    pub(crate) fn settle(&mut self) {
        if let Ordinals::Many(many) = self {
            many.settle();
        }
    }

    /// The largest.
    pub(crate) fn last(&self) -> u32 {
        match self {
            Ordinals::One(one) => *one,
            Ordinals::Few(few) => few.last().copied().unwrap_or_default(),
            Ordinals::Many(many) => many.last,
        }
    }

    fn first(&self) -> u32 {
        match self {
            Ordinals::One(one) => *one,
            Ordinals::Few(few) => few.first().copied().unwrap_or_default(),
            Ordinals::Many(many) => many.bitmap.min().unwrap_or_default(),
        }
    }

    fn len(&self) -> u32 {
        match self {
            Ordinals::One(_) => 1,
            Ordinals::Few(few) => few.len() as u32,
            // 2^32 of them do not occur: an ordinal is below a u32 number of flows.
            Ordinals::Many(many) => many.bitmap.len() as u32,
        }
    }

    /// Calls `each` with every gap between neighbours, less one.
    fn gaps(&self, each: impl FnMut(u32)) {
        fn between(ordinals: impl Iterator<Item = u32>, mut each: impl FnMut(u32)) {
            let mut before = None;
            for ordinal in ordinals {
                if let Some(before) = before {
                    each(ordinal - before - 1);
                }
                before = Some(ordinal);
            }
        }
        match self {
            Ordinals::One(_) => {}
            Ordinals::Few(few) => between(few.iter().copied(), each),
            Ordinals::Many(many) => between(many.bitmap.iter(), each),
        }
    }

    fn to_roaring(&self) -> RoaringBitmap {
        let mut bitmap = match self {
            Ordinals::One(one) => RoaringBitmap::from_iter([*one]),
            Ordinals::Few(few) => few.iter().copied().collect(),
            Ordinals::Many(many) => many.bitmap.clone(),
        };
        bitmap.optimize();
        bitmap
    }
}

impl Many {
    fn add(&mut self, ordinal: u32) {
        if ordinal > self.last {
            self.tail.push(ordinal);
            self.last = ordinal;
            if self.tail.len() >= MANY {
                self.settle();
            }
        } else if ordinal < self.last {
            self.settle();
            self.bitmap.insert(ordinal);
        }
    }

    /// Moves the tail into the bitmap.
    fn settle(&mut self) {
        append(&mut self.bitmap, &mut self.tail);
    }
}

/// Moves ordinals into a bitmap: quickly if they ascend above what is in it.
fn append(bitmap: &mut RoaringBitmap, ordinals: &mut Vec<u32>) {
    if bitmap.append(ordinals.iter().copied()).is_err() {
        bitmap.extend(ordinals.iter());
    }
    ordinals.clear();
}

/// Writes one list, settled before: into the block's bits, or into the long lists with its
/// length in the bits.
pub(crate) fn write(ordinals: &Ordinals, width: u32, bits: &mut BitWriter, long: &mut Vec<u8>) {
    if let Ordinals::One(one) = ordinals {
        bits.bits(1, 1);
        bits.bits(*one, width);
        return;
    }
    let (parameter, gap_bits) = parameter_of(ordinals);
    let rice_bits =
        gamma_cost(ordinals.len() - 1) + u64::from(PARAMETER_BITS) + u64::from(width) + gap_bits;
    let roaring = (rice_bits > ROARING_BITS).then(|| ordinals.to_roaring());
    let roaring_bits =
        roaring.as_ref().map_or(u64::MAX, |bitmap| 8 * (1 + bitmap.serialized_size() as u64));
    let length_bits = gamma_cost((roaring_bits.min(rice_bits) / 8) as u32);

    if rice_bits <= SHORT_BITS && rice_bits <= roaring_bits.saturating_add(length_bits) {
        bits.bits(0, 2);
        write_rice(ordinals, parameter, width, bits);
        return;
    }
    let start = long.len();
    match roaring {
        Some(bitmap) if roaring_bits <= rice_bits => {
            long.push(LIST_ROARING);
            // A vector takes every byte: there is no error to meet.
            let _ = bitmap.serialize_into(&mut *long);
        }
        _ => {
            long.push(LIST_RICE);
            let mut own = BitWriter::default();
            write_rice(ordinals, parameter, width, &mut own);
            long.extend_from_slice(&own.into_bytes());
        }
    }
    bits.bits(0b10, 2);
    // At most 4 GiB of long lists: the builder checks the sum.
    bits.gamma((long.len() - start) as u32);
}

fn write_rice(ordinals: &Ordinals, parameter: u32, width: u32, bits: &mut BitWriter) {
    bits.gamma(ordinals.len() - 1);
    bits.bits(parameter, PARAMETER_BITS);
    bits.bits(ordinals.first(), width);
    ordinals.gaps(|gap| bits.rice(gap, parameter));
}

/// The Rice parameter that makes the gaps of a list shortest, and how many bits they take then.
fn parameter_of(ordinals: &Ordinals) -> (u32, u64) {
    let count = u64::from(ordinals.len()) - 1;
    let spread = u64::from(ordinals.last() - ordinals.first()) - count;
    rice_parameter(count, spread, |each| ordinals.gaps(each))
}

/// The Rice parameter that makes some gaps shortest, and how many bits they take then. There are
/// `count` of them, `sum` together.
pub(crate) fn rice_parameter(
    count: u64,
    sum: u64,
    gaps: impl FnOnce(&mut dyn FnMut(u32)),
) -> (u32, u64) {
    // Near the logarithm of the mean; far from it only if a few gaps are huge.
    let guess = (sum / count.max(1)).max(1).ilog2();
    let lowest = guess.saturating_sub(4).min(MAX_PARAMETER - 5);
    let mut costs = [0u64; 6];
    gaps(&mut |gap| {
        for (parameter, cost) in (lowest..).zip(&mut costs) {
            *cost += u64::from(gap >> parameter) + 1 + u64::from(parameter);
        }
    });
    (lowest..).zip(costs).min_by_key(|(_, cost)| *cost).unwrap_or((lowest, costs[0]))
}

/// A list as it stands in a block: what it takes to read it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Listed<'a> {
    One(u32),
    Short(BitReader<'a>),
    /// Length in bytes within the long lists.
    Long(u32),
}

/// Takes one list off the block's bits.
pub(crate) fn next<'a>(
    bits: &mut BitReader<'a>,
    width: u32,
    flows: u32,
) -> Result<Listed<'a>, IndexError> {
    if bits.bits(1)? == 1 {
        let one = bits.bits(width)?;
        return if one < flows { Ok(Listed::One(one)) } else { Err(BEYOND) };
    }
    if bits.bits(1)? == 1 {
        return Ok(Listed::Long(bits.gamma()?));
    }
    let start = *bits;
    read_rice(bits, width, flows, |_| {})?;
    Ok(Listed::Short(start))
}

/// Unpacks a short list.
pub(crate) fn short(
    mut bits: BitReader<'_>,
    width: u32,
    flows: u32,
) -> Result<RoaringBitmap, IndexError> {
    let (mut bitmap, mut chunk) = (RoaringBitmap::new(), Vec::new());
    read_rice(&mut bits, width, flows, |ordinal| {
        chunk.push(ordinal);
        if chunk.len() >= MANY {
            append(&mut bitmap, &mut chunk);
        }
    })?;
    append(&mut bitmap, &mut chunk);
    Ok(bitmap)
}

/// Unpacks a long list.
pub(crate) fn long(bytes: &[u8], width: u32, flows: u32) -> Result<RoaringBitmap, IndexError> {
    let (&form, rest) =
        bytes.split_first().ok_or(IndexError::Damaged("a long list has no bytes"))?;
    match form {
        LIST_RICE => short(BitReader::new(rest), width, flows),
        LIST_ROARING => {
            let mut unread = rest;
            let bitmap = RoaringBitmap::deserialize_from(&mut unread).map_err(|_| ROARING)?;
            if !unread.is_empty() {
                return Err(ROARING);
            }
            if bitmap.max().is_none_or(|max| max >= flows) {
                return Err(BEYOND);
            }
            Ok(bitmap)
        }
        _ => Err(IndexError::Damaged("a long list of an unknown form")),
    }
}

/// Reads a list in Rice code. Every ordinal after the first takes a bit at least, so
/// what a list unpacks to is bounded by its bytes.
fn read_rice(
    bits: &mut BitReader<'_>,
    width: u32,
    flows: u32,
    mut each: impl FnMut(u32),
) -> Result<(), IndexError> {
    let more = bits.gamma()?;
    let parameter = bits.bits(PARAMETER_BITS)?;
    let mut ordinal = bits.bits(width)?;
    if ordinal >= flows {
        return Err(BEYOND);
    }
    each(ordinal);
    for _ in 0..more {
        let next = u64::from(ordinal) + 1 + u64::from(bits.rice(parameter)?);
        ordinal = u32::try_from(next).ok().filter(|next| *next < flows).ok_or(BEYOND)?;
        each(ordinal);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(ordinals: &[u32], flows: u32) -> (Vec<u32>, usize) {
        let mut list = Ordinals::One(ordinals[0]);
        ordinals.iter().for_each(|ordinal| list.add(*ordinal));
        list.settle();
        let width = crate::format::width(flows);
        let (mut bits, mut longs) = (BitWriter::default(), Vec::new());
        write(&list, width, &mut bits, &mut longs);
        let bytes = bits.into_bytes();
        let bitmap = match next(&mut BitReader::new(&bytes), width, flows).expect("a list") {
            Listed::One(one) => RoaringBitmap::from_iter([one]),
            Listed::Short(bits) => short(bits, width, flows).expect("a short list"),
            Listed::Long(length) => {
                assert_eq!(length as usize, longs.len());
                long(&longs, width, flows).expect("a long list")
            }
        };
        (bitmap.iter().collect(), bytes.len() + longs.len())
    }

    #[test]
    fn every_posting_encoding_round_trips_and_is_compact() {
        let shapes: [(&str, Vec<u32>, u32, usize); 6] = [
            ("one", vec![31_999], 32_000, 2),
            ("two", vec![5, 31_999], 32_000, 6),
            ("all", (0..32_000).collect(), 32_000, 20),
            ("every second", (0..32_000).step_by(2).collect(), 32_000, 4_100),
            ("every hundredth", (0..32_000).step_by(100).collect(), 32_000, 360),
            ("ends", vec![0, u32::MAX - 1], u32::MAX, 12),
        ];
        for (name, ordinals, flows, at_most) in shapes {
            let (back, size) = round_trip(&ordinals, flows);
            assert_eq!(back, ordinals, "{name}");
            assert!(size <= at_most, "{name}: {size} bytes");
        }
    }

    #[test]
    fn order_and_doubles_do_not_matter() {
        for count in [2, 3, 200, 255, 256, 257, 258, 600, 1_000] {
            let scattered = (0..count).map(|n| (n * 7_919) % 1_009);
            let falling = (0..count).rev();
            let last_twice = (0..count).flat_map(|n| [n, n]);
            let late_low = (1..count).chain([0]);
            for mut ordinals in [
                scattered.collect::<Vec<u32>>(),
                falling.collect(),
                last_twice.collect(),
                late_low.collect(),
            ] {
                let (back, _) = round_trip(&ordinals, 1_009);
                ordinals.sort_unstable();
                ordinals.dedup();
                assert_eq!(back, ordinals);
            }
        }
    }
}
