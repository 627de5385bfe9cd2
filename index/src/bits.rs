//! Bit strings, least significant bit first: fixed-width numbers, Elias gamma
//! codes for small counts, Rice codes for gaps.

use crate::IndexError;

/// The largest Rice parameter and the largest width of a number, bits.
pub(crate) const MAX_WIDTH: u32 = 32;

const SHORT: IndexError = IndexError::Damaged("a bit string ends in the middle of a number");
const WIDE: IndexError = IndexError::Damaged("a number does not fit 32 bits");

/// Appends bits to a byte string.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits used of the last byte; 0 and 8 alike mean that the next bit opens a new one.
    used: u32,
}

impl BitWriter {
    /// The lowest `width` bits of `value`.
    pub(crate) fn bits(&mut self, value: u32, width: u32) {
        let mut left = width;
        let mut value = u64::from(value) & ((1u64 << width) - 1);
        while left > 0 {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
                self.used = 0;
            }
            let take = left.min(8 - self.used);
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value & ((1 << take) - 1)) as u8) << self.used;
            }
            value >>= take;
            self.used += take;
            left -= take;
        }
    }

    /// `count` zero bits and a one.
    pub(crate) fn unary(&mut self, count: u32) {
        let mut left = count;
        while left > 0 {
            let take = left.min(MAX_WIDTH);
            self.bits(0, take);
            left -= take;
        }
        self.bits(1, 1);
    }

    /// Elias gamma code of a number from 1 on.
    pub(crate) fn gamma(&mut self, value: u32) {
        let width = value.max(1).ilog2();
        self.unary(width);
        self.bits(value, width);
    }

    /// Rice code with `parameter` low bits.
    pub(crate) fn rice(&mut self, value: u32, parameter: u32) {
        self.unary((u64::from(value) >> parameter) as u32);
        self.bits(value, parameter);
    }

    /// The bytes, the last one filled up with zeros.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Bits of the gamma code of `value`.
pub(crate) fn gamma_cost(value: u32) -> u64 {
    u64::from(2 * value.max(1).ilog2() + 1)
}

/// Reads what a [`BitWriter`] wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Position in bits.
    at: usize,
}

impl<'a> BitReader<'a> {
    /// From the first bit of `bytes` on.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, at: 0 }
    }

    /// At least 57 bits from the current place on, zeros past the end.
    fn window(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = match rest.first_chunk::<8>() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
        };
        word >> (self.at % 8)
    }

    fn left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.at)
    }

    /// A number of `width` bits, at most 32.
    pub(crate) fn bits(&mut self, width: u32) -> Result<u32, IndexError> {
        if width > MAX_WIDTH {
            return Err(WIDE);
        }
        if self.left() < width as usize {
            return Err(SHORT);
        }
        let value = self.window() & ((1u64 << width) - 1);
        self.at += width as usize;
        Ok(value as u32)
    }

    /// The number of zero bits before the next one, which is read too.
    pub(crate) fn unary(&mut self) -> Result<u32, IndexError> {
        let mut count = 0u32;
        loop {
            let zeros = self.window().trailing_zeros().min(56);
            if self.left() <= zeros as usize {
                return Err(SHORT);
            }
            count = count.checked_add(zeros).ok_or(WIDE)?;
            self.at += zeros as usize;
            if zeros < 56 {
                self.at += 1;
                return Ok(count);
            }
        }
    }

    /// A number from 1 on in gamma code.
    pub(crate) fn gamma(&mut self) -> Result<u32, IndexError> {
        let width = self.unary()?;
        if width >= MAX_WIDTH {
            return Err(WIDE);
        }
        Ok((1 << width) | self.bits(width)?)
    }

    /// A number in Rice code.
    pub(crate) fn rice(&mut self, parameter: u32) -> Result<u32, IndexError> {
        let high = u64::from(self.unary()?);
        let low = u64::from(self.bits(parameter)?);
        // 32 bits moved by at most 32: nothing is lost.
        u32::try_from((high << parameter) | low).map_err(|_| WIDE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(
            numbers in prop::collection::vec((any::<u32>(), 0u32..=32, 0u32..3), 0..200)
        ) {
            let mut writer = BitWriter::default();
            for &(value, width, kind) in &numbers {
                match kind {
                    0 => writer.bits(value, width),
                    1 => writer.gamma(value.max(1)),
                    // A small parameter needs a small value: the high part is unary.
                    _ => writer.rice(value >> (28 - width.min(28)), width.min(28)),
                }
            }
            let bytes = writer.into_bytes();
            let mut reader = BitReader::new(&bytes);
            for &(value, width, kind) in &numbers {
                match kind {
                    0 => {
                        let mask = ((1u64 << width) - 1) as u32;
                        prop_assert_eq!(reader.bits(width), Ok(value & mask));
                    }
                    1 => prop_assert_eq!(reader.gamma(), Ok(value.max(1))),
                    _ => prop_assert_eq!(
                        reader.rice(width.min(28)),
                        Ok(value >> (28 - width.min(28)))
                    ),
                }
            }
            prop_assert!(reader.left() < 8);
        }

        #[test]
        fn arbitrary_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for parameter in 0..=32 {
                let mut reader = BitReader::new(&bytes);
                let mut read = 0usize;
                while reader.rice(parameter).is_ok() {
                    read += 1;
                }
                prop_assert!(read <= bytes.len() * 8);
                let mut reader = BitReader::new(&bytes);
                while reader.gamma().is_ok() {}
            }
        }
    }

    #[test]
    fn long_unary_number_round_trips() {
        let mut writer = BitWriter::default();
        writer.bits(1, 3);
        writer.unary(1_000);
        let bytes = writer.into_bytes();
        let mut reader = BitReader::new(&bytes);
        assert_eq!((reader.bits(3), reader.unary()), (Ok(1), Ok(1_000)));
        assert_eq!(BitReader::new(&[0; 100]).unary(), Err(SHORT));
    }
}
