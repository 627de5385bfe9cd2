//! The template dictionary of an open segment: each template once, by number.

use std::hash::BuildHasher;

use arrow::array::BinaryArray;
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::FieldSet;

/// Templates in the order in which they were met, one behind the other in one buffer: a flow
/// brings two or more, so that an allocation each would be felt.
#[derive(Debug, Default)]
pub struct Dictionary {
    bytes: Vec<u8>,
    /// Where each template ends in `bytes`.
    ends: Vec<usize>,
    sets: Vec<FieldSet>,
    /// Numbers by the hash of their bytes.
    numbers: HashTable<u32>,
    hasher: RandomState,
}

impl Dictionary {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of a template; none are of that number if it is too high.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&[u8]> {
        get(&self.bytes, &self.ends, number)
    }

    /// Which fields a template leaves out.
    #[inline]
    pub fn set(&self, number: u32) -> Option<FieldSet> {
        self.sets.get(number as usize).copied()
    }

    /// The number of a template that leaves out `set`, a new one if it was not met before.
    pub fn number_of(&mut self, template: &[u8], set: FieldSet) -> u32 {
        let Dictionary { bytes, ends, sets, numbers, hasher } = self;
        let hash = hasher.hash_one(template);
        let found = numbers.find(hash, |number| get(bytes, ends, *number) == Some(template));
        if let Some(number) = found {
            return *number;
        }
        let number = ends.len() as u32;
        bytes.extend_from_slice(template);
        ends.push(bytes.len());
        sets.push(set);
        numbers.insert_unique(hash, number, |number| {
            hasher.hash_one(get(bytes, ends, *number).unwrap_or_default())
        });
        number
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.ends.capacity() * size_of::<usize>()
            + self.sets.capacity() * size_of::<FieldSet>()
            + self.numbers.allocation_size()
    }

    /// The templates by number.
    ///
    /// # Errors
    /// They are 2 GiB or more in all.
    pub fn into_array(self) -> Result<BinaryArray, ArrowError> {
        let offsets = std::iter::once(&0).chain(&self.ends).map(|end| i32::try_from(*end));
        let offsets: Vec<i32> = offsets
            .collect::<Result<_, _>>()
            .map_err(|_| ArrowError::OffsetOverflowError(self.bytes.len()))?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        Ok(BinaryArray::new(offsets, self.bytes.into(), None))
    }
}

#[inline]
fn get<'a>(bytes: &'a [u8], ends: &[usize], number: u32) -> Option<&'a [u8]> {
    let number = number as usize;
    let end = *ends.get(number)?;
    let start = number.checked_sub(1).map_or(0, |before| ends[before]);
    bytes.get(start..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn templates_are_deduplicated_with_stable_numbers(
            templates in prop::collection::vec(prop::collection::vec(0..4_u8, 0..4), 0..300),
        ) {
            let mut dictionary = Dictionary::default();
            let mut first: Vec<&[u8]> = Vec::new();
            for template in &templates {
                let place = first.iter().position(|known| known == template);
                let expected = place.unwrap_or_else(|| {
                    first.push(template);
                    first.len() - 1
                });
                // What is known keeps the set it came with.
                let set = FieldSet(if place.is_some() { u16::MAX } else { expected as u16 });
                prop_assert_eq!(dictionary.number_of(template, set), expected as u32);
            }
            prop_assert_eq!(dictionary.len(), first.len());
            prop_assert_eq!(dictionary.is_empty(), first.is_empty());
            for (number, template) in (0..).zip(&first) {
                prop_assert_eq!(dictionary.get(number), Some(*template));
                prop_assert_eq!(dictionary.set(number), Some(FieldSet(number as u16)));
            }
            let beyond = first.len() as u32;
            prop_assert_eq!((dictionary.get(beyond), dictionary.set(beyond)), (None, None));
            let array = dictionary.into_array().unwrap();
            prop_assert_eq!(array.iter().flatten().collect::<Vec<_>>(), first);
        }
    }
}
