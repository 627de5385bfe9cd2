//! Collects terms and writes the index.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::IndexError;
use crate::bits::BitWriter;
use crate::field::{Field, term_value};
use crate::format::{BLOCK_TERMS, Header, NUMBERS, TOP_ENTRY, number, width, write_varint};
use crate::list::{self, Ordinals, rice_parameter};

/// Collects which flows have which terms, and writes the index of one segment.
///
/// Adding costs one hash lookup and no allocation for a term that is there already.
/// The hash is seeded at random, so that traffic cannot be shaped to collide.
#[derive(Debug, Default)]
pub struct TermIndexBuilder {
    table: HashTable<u32>,
    hasher: RandomState,
    entries: Vec<Entry>,
    /// The keys of all entries, end to end.
    keys: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    /// Where the key starts in `keys`.
    start: usize,
    /// Bytes of the key: field number and value, at most 256.
    length: u16,
    ordinals: Ordinals,
}

impl Entry {
    fn key<'a>(&self, keys: &'a [u8]) -> &'a [u8] {
        &keys[self.start..self.start + usize::from(self.length)]
    }
}

impl TermIndexBuilder {
    /// Without terms.
    pub fn new() -> Self {
        TermIndexBuilder::default()
    }

    /// Notes that flow `ordinal` has `value` in `field`. Adding the same twice is the
    /// same as once. Any order is right; ordinals that do not descend per term are quickest.
    ///
    /// A value longer than [`crate::MAX_VALUE`] bytes is cut and hashed; ask for it with the
    /// whole value.
    pub fn add(&mut self, field: Field, value: &[u8], ordinal: u32) {
        let value = term_value(value);
        let number = field.number();
        let hash = self.hasher.hash_one((number, value.as_ref()));
        let (entries, keys) = (&self.entries, &self.keys);
        let found = self.table.find(hash, |&at| {
            let key = entries[at as usize].key(keys);
            key[0] == number && key[1..] == *value
        });
        if let Some(&at) = found {
            self.entries[at as usize].ordinals.add(ordinal);
            return;
        }
        let start = self.keys.len();
        self.keys.push(number);
        self.keys.extend_from_slice(&value);
        // 2^32 terms do not fit: their keys and entries alone would be 200 GiB.
        let at = self.entries.len() as u32;
        let length = value.len() as u16 + 1;
        self.entries.push(Entry { start, length, ordinals: Ordinals::One(ordinal) });
        let (entries, keys, hasher) = (&self.entries, &self.keys, &self.hasher);
        self.table.insert_unique(hash, at, |&at| {
            let key = entries[at as usize].key(keys);
            hasher.hash_one((key[0], &key[1..]))
        });
    }

    /// How many distinct terms there are.
    pub fn terms(&self) -> usize {
        self.entries.len()
    }

    /// Writes the index of a segment with `flows` flow parts.
    ///
    /// # Errors
    ///
    /// [`IndexError::OrdinalBeyondFlows`] if an ordinal of `flows` or more was added,
    /// [`IndexError::TooLarge`] past 4 GiB.
    pub fn finish(mut self, flows: u32) -> Result<Vec<u8>, IndexError> {
        let largest = self.entries.iter().map(|entry| entry.ordinals.last()).max();
        if let Some(ordinal) = largest.filter(|ordinal| *ordinal >= flows) {
            return Err(IndexError::OrdinalBeyondFlows { ordinal, flows });
        }
        self.entries.iter_mut().for_each(|entry| entry.ordinals.settle());
        let keys = std::mem::take(&mut self.keys);
        self.entries.sort_unstable_by(|a, b| a.key(&keys).cmp(b.key(&keys)));

        let mut top = Vec::with_capacity(self.entries.len().div_ceil(BLOCK_TERMS) * TOP_ENTRY);
        let (mut first_keys, mut blocks, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        for block in self.entries.chunks(BLOCK_TERMS) {
            top.extend_from_slice(&offset(first_keys.len())?.to_le_bytes());
            top.extend_from_slice(&offset(blocks.len())?.to_le_bytes());
            first_keys.extend_from_slice(block[0].key(&keys));
            write_block(block, &keys, width(flows), &mut blocks, &mut lists)?;
        }
        let header = Header {
            flows,
            terms: offset(self.entries.len())?,
            blocks: offset(self.entries.len().div_ceil(BLOCK_TERMS))?,
            keys_length: offset(first_keys.len())?,
            blocks_length: offset(blocks.len())?,
            lists_length: offset(lists.len())?,
        };
        let mut out = Vec::with_capacity(header.length() as usize);
        header.write(&mut out);
        for part in [top, first_keys, blocks, lists] {
            out.extend_from_slice(&part);
        }
        Ok(out)
    }
}

fn write_block(
    block: &[Entry],
    keys: &[u8],
    width: u32,
    blocks: &mut Vec<u8>,
    lists: &mut Vec<u8>,
) -> Result<(), IndexError> {
    let lists_start = offset(lists.len())?;
    let mut fronts = Vec::new();
    for pair in block.windows(2) {
        write_key(pair[0].key(keys), pair[1].key(keys), &mut fronts);
    }
    if let Some(numbers) = write_numbers(block, keys).filter(|it| it.len() < fronts.len()) {
        fronts = numbers;
    }
    let mut bits = BitWriter::default();
    for entry in block {
        list::write(&entry.ordinals, width, &mut bits, lists);
    }
    // 64 keys of at most 262 bytes.
    write_varint(blocks, fronts.len() as u32);
    write_varint(blocks, lists_start);
    blocks.extend_from_slice(&fronts);
    blocks.extend_from_slice(&bits.into_bytes());
    Ok(())
}

/// Writes the keys of a block as numbers, if they are.
fn write_numbers(block: &[Entry], keys: &[u8]) -> Option<Vec<u8>> {
    let first = block.first()?.key(keys);
    let numbers = block.iter().map(|entry| {
        let key = entry.key(keys);
        let alike = key.len() == first.len() && key[0] == first[0];
        alike.then(|| number(&key[1..]))?
    });
    let numbers: Vec<u32> = numbers.collect::<Option<_>>()?;
    let gaps = || numbers.windows(2).map(|pair| pair[1] - pair[0] - 1);
    let count = numbers.len() as u64 - 1;
    let sum = gaps().map(u64::from).sum();
    let (parameter, _) = rice_parameter(count, sum, |each| gaps().for_each(each));
    let parameter = u8::try_from(parameter).ok().filter(|parameter| *parameter < NUMBERS)?;
    let mut bits = BitWriter::default();
    gaps().for_each(|gap| bits.rice(gap, parameter.into()));
    Some([vec![parameter], bits.into_bytes()].concat())
}

/// Writes a key as what it shares with the one before and what follows.
fn write_key(before: &[u8], key: &[u8], out: &mut Vec<u8>) {
    let shared = before.iter().zip(key).take_while(|(a, b)| a == b).count();
    let rest = &key[shared..];
    out.push(shared.min(15) as u8 | ((rest.len().min(15) as u8) << 4));
    for length in [shared, rest.len()] {
        if length >= 15 {
            write_varint(out, (length - 15) as u32);
        }
    }
    out.extend_from_slice(rest);
}

fn offset(length: usize) -> Result<u32, IndexError> {
    u32::try_from(length).map_err(|_| IndexError::TooLarge)
}
