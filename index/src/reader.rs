//! Queries on the bytes of an index.

use std::cmp::Ordering;

use capstan_model::bytes::le32;
use roaring::RoaringBitmap;

use crate::IndexError;
use crate::bits::BitReader;
use crate::field::{Field, MAX_VALUE, PREFIX_EXACT, term_value};
use crate::format::{BLOCK_TERMS, HEADER, Header, NUMBERS, TOP_ENTRY, number, read_varint};
use crate::list::{self, Listed};

const OUTSIDE: IndexError = IndexError::Damaged("an offset points outside");
const UNSORTED: IndexError = IndexError::Damaged("its terms are not in order");
const KEY_LENGTH: IndexError = IndexError::Damaged("a term is too long or too short");

/// An index over bytes that were read (`&[u8]`, `Vec<u8>`, `bytes::Bytes`).
///
/// Opening reads the header only, so it is cheap enough for every query.
#[derive(Debug, Clone)]
pub struct TermIndex<B> {
    bytes: B,
    header: Header,
}

impl<B: AsRef<[u8]>> TermIndex<B> {
    /// Takes the bytes that [`crate::TermIndexBuilder::finish`] gave.
    ///
    /// # Errors
    ///
    /// [`IndexError::NotAnIndex`], [`IndexError::TooNew`], or [`IndexError::Damaged`] if
    /// the length is another than the header says.
    pub fn open(bytes: B) -> Result<Self, IndexError> {
        let header = Header::read(bytes.as_ref())?;
        Ok(TermIndex { bytes, header })
    }

    /// Bytes of memory it takes.
    pub fn memory(&self) -> usize {
        self.bytes.as_ref().len()
    }

    /// How many flows the index is over: all ordinals are below.
    pub fn flows(&self) -> u32 {
        self.header.flows
    }

    /// How many distinct terms there are.
    pub fn len(&self) -> u32 {
        self.header.terms
    }

    /// Whether there is no term at all.
    pub fn is_empty(&self) -> bool {
        self.header.terms == 0
    }

    /// The flows that have `value` in `field`; none if there is no such term.
    ///
    /// For a value longer than [`crate::MAX_VALUE`] bytes the answer may hold flows with
    /// another value of the same cut form, which takes a collision of 128 bits of SHA-256.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] where bytes that had to be read make no sense.
    pub fn postings(&self, field: Field, value: &[u8]) -> Result<RoaringBitmap, IndexError> {
        let key = key(field, &term_value(value));
        let mut cursor = self.cursor_before(&key)?;
        while let Some((found, postings)) = cursor.next_key()? {
            match found.cmp(&key) {
                Ordering::Less => {}
                Ordering::Equal => return postings.load(),
                Ordering::Greater => break,
            }
        }
        Ok(RoaringBitmap::new())
    }

    /// All terms of a field, ascending bytewise by value.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] where bytes that had to be read make no sense; the iterator
    /// ends after its first error.
    pub fn terms(&self, field: Field) -> Result<Terms<'_>, IndexError> {
        self.prefix(field, &[])
    }

    /// The terms of a field whose value begins with `prefix`, ascending bytewise.
    ///
    /// Of a prefix longer than [`crate::PREFIX_EXACT`] bytes only as many are compared,
    /// because values longer than [`crate::MAX_VALUE`] are kept no further.
    ///
    /// # Errors
    ///
    /// As for [`TermIndex::terms`].
    pub fn prefix(&self, field: Field, prefix: &[u8]) -> Result<Terms<'_>, IndexError> {
        let prefix = key(field, &prefix[..prefix.len().min(PREFIX_EXACT)]);
        Ok(Terms {
            cursor: self.cursor_before(&prefix)?,
            from: prefix,
            last: Last::Prefix,
            ended: false,
        })
    }

    /// The terms of a field whose value is neither below `low` nor above `high`, ascending bytewise. Values of other
    /// lengths may be among them.
    ///
    /// # Errors
    ///
    /// As for [`TermIndex::terms`].
    pub fn range(&self, field: Field, low: &[u8], high: &[u8]) -> Result<Terms<'_>, IndexError> {
        let (from, last) = (key(field, &term_value(low)), key(field, &term_value(high)));
        Ok(Terms { cursor: self.cursor_before(&from)?, from, last: Last::Key(last), ended: false })
    }

    /// A cursor at the start of the one block that may hold `key`, or the first key after it.
    fn cursor_before(&self, key: &[u8]) -> Result<Cursor<'_>, IndexError> {
        let parts = Parts::of(self.bytes.as_ref(), self.header)?;
        // The last block whose first key is not above; an earlier one cannot hold the key.
        let (mut low, mut high) = (0, self.header.blocks as usize);
        while low < high {
            let middle = low + (high - low) / 2;
            if parts.first_key(middle)? <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Cursor { parts, block: low.saturating_sub(1), open: None, last: Vec::new() })
    }
}

fn key(field: Field, value: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + value.len());
    key.push(field.number());
    key.extend_from_slice(value);
    key
}

/// One term of a listing.
#[derive(Debug, Clone)]
pub struct IndexedTerm<'a> {
    /// The value; a long one in its cut form (see [`crate::MAX_VALUE`]).
    pub value: Vec<u8>,
    /// The flows that have it, not yet unpacked.
    pub postings: Postings<'a>,
}

/// A posting list where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Postings<'a> {
    header: Header,
    /// `Listed::Long` has its bytes here.
    long: &'a [u8],
    listed: Listed<'a>,
}

impl Postings<'_> {
    /// Unpacks the list.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] if its bytes make no sense.
    pub fn load(&self) -> Result<RoaringBitmap, IndexError> {
        let (width, flows) = (self.header.width(), self.header.flows);
        match self.listed {
            Listed::One(one) => Ok(RoaringBitmap::from_iter([one])),
            Listed::Short(bits) => list::short(bits, width, flows),
            Listed::Long(_) => list::long(self.long, width, flows),
        }
    }
}

/// Terms in order; see [`TermIndex::terms`], [`TermIndex::prefix`] and [`TermIndex::range`].
#[derive(Debug)]
pub struct Terms<'a> {
    cursor: Cursor<'a>,
    /// The lowest key.
    from: Vec<u8>,
    last: Last,
    ended: bool,
}

/// Where terms end.
#[derive(Debug)]
enum Last {
    /// With the keys that begin with the lowest one.
    Prefix,
    /// With this key.
    Key(Vec<u8>),
}

impl Last {
    fn includes(&self, key: &[u8], from: &[u8]) -> bool {
        match self {
            Last::Prefix => key.starts_with(from),
            Last::Key(last) => key <= last.as_slice(),
        }
    }
}

impl<'a> Iterator for Terms<'a> {
    type Item = Result<IndexedTerm<'a>, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        loop {
            match self.cursor.next_key() {
                Ok(Some((key, _))) if key < self.from.as_slice() => {}
                Ok(Some((key, postings))) if self.last.includes(key, &self.from) => {
                    return Some(Ok(IndexedTerm { value: key[1..].to_vec(), postings }));
                }
                Ok(_) => {
                    self.ended = true;
                    return None;
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The four parts after the header.
#[derive(Debug, Clone, Copy)]
struct Parts<'a> {
    header: Header,
    top: &'a [u8],
    first_keys: &'a [u8],
    blocks: &'a [u8],
    lists: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8], header: Header) -> Result<Self, IndexError> {
        // The header was checked against the length, but `bytes` is asked for anew each time.
        let cut = |bytes: &'a [u8], at: usize| bytes.split_at_checked(at).ok_or(OUTSIDE);
        let (_, rest) = cut(bytes, HEADER)?;
        let (top, rest) = cut(rest, header.blocks as usize * TOP_ENTRY)?;
        let (first_keys, rest) = cut(rest, header.keys_length as usize)?;
        let (blocks, lists) = cut(rest, header.blocks_length as usize)?;
        Ok(Parts { header, top, first_keys, blocks, lists })
    }

    /// Of block `block`, the part that entry `part` of the top says: up to where the
    /// next block's starts.
    fn slice(&self, block: usize, part: usize, of: &'a [u8]) -> Result<&'a [u8], IndexError> {
        let start = |block: usize| le32(self.top, block * TOP_ENTRY + 4 * part);
        let from = start(block).ok_or(OUTSIDE)? as usize;
        let to = start(block + 1).map_or(of.len(), |to| to as usize);
        of.get(from..to).ok_or(OUTSIDE)
    }

    fn first_key(&self, block: usize) -> Result<&'a [u8], IndexError> {
        let key = self.slice(block, 0, self.first_keys)?;
        if key.is_empty() || key.len() > 1 + MAX_VALUE { Err(KEY_LENGTH) } else { Ok(key) }
    }
}

/// A place in the dictionary, moving forward.
#[derive(Debug)]
struct Cursor<'a> {
    parts: Parts<'a>,
    /// The block `open` is, or the next one to open.
    block: usize,
    open: Option<OpenBlock<'a>>,
    /// The key read last, over blocks.
    last: Vec<u8>,
}

/// The keys of a block that were not read yet.
#[derive(Debug)]
enum Keys<'a> {
    /// Each by what it shares with the one before.
    Fronts(&'a [u8]),
    /// Gaps between numbers, in Rice code with that parameter.
    Numbers(u32, BitReader<'a>),
}

/// A block being read.
#[derive(Debug)]
struct OpenBlock<'a> {
    /// Keys not yet read.
    left: usize,
    keys: Keys<'a>,
    bits: BitReader<'a>,
    /// The long lists from this block's next one on.
    lists: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// The next key and its list.
    fn next_key(&mut self) -> Result<Option<(&[u8], Postings<'a>)>, IndexError> {
        let first = loop {
            match &self.open {
                Some(open) if open.left > 0 => break false,
                Some(_) => {
                    self.open = None;
                    self.block += 1;
                }
                None if self.block >= self.parts.header.blocks as usize => return Ok(None),
                None => {
                    self.open = Some(OpenBlock::of(&self.parts, self.block)?);
                    break true;
                }
            }
        };
        let Some(open) = &mut self.open else { return Ok(None) };
        if first {
            let key = self.parts.first_key(self.block)?;
            if !self.last.is_empty() && self.last.as_slice() >= key {
                return Err(UNSORTED);
            }
            self.last.clear();
            self.last.extend_from_slice(key);
        } else {
            open.keys.next(&mut self.last)?;
        }
        open.left -= 1;
        let postings = open.read_list(self.parts.header)?;
        Ok(Some((&self.last, postings)))
    }
}

impl<'a> OpenBlock<'a> {
    fn of(parts: &Parts<'a>, block: usize) -> Result<Self, IndexError> {
        let mut bytes = parts.slice(block, 1, parts.blocks)?;
        let keys_length = read_varint(&mut bytes)? as usize;
        let lists_start = read_varint(&mut bytes)? as usize;
        let (keys, bits) = bytes.split_at_checked(keys_length).ok_or(OUTSIDE)?;
        let keys = match keys.split_first() {
            Some((parameter, gaps)) if *parameter < NUMBERS => {
                Keys::Numbers(u32::from(*parameter), BitReader::new(gaps))
            }
            _ => Keys::Fronts(keys),
        };
        let lists = parts.lists.get(lists_start..).ok_or(OUTSIDE)?;
        let left = (parts.header.terms as usize - block * BLOCK_TERMS).min(BLOCK_TERMS);
        Ok(OpenBlock { left, keys, bits: BitReader::new(bits), lists })
    }

    fn read_list(&mut self, header: Header) -> Result<Postings<'a>, IndexError> {
        let listed = list::next(&mut self.bits, header.width(), header.flows)?;
        let mut long: &[u8] = &[];
        if let Listed::Long(length) = listed {
            (long, self.lists) = self.lists.split_at_checked(length as usize).ok_or(OUTSIDE)?;
        }
        Ok(Postings { header, long, listed })
    }
}

impl Keys<'_> {
    /// Turns the key before into the next one.
    fn next(&mut self, key: &mut Vec<u8>) -> Result<(), IndexError> {
        match self {
            Keys::Fronts(fronts) => next_front(fronts, key),
            Keys::Numbers(parameter, gaps) => {
                let value = key.get_mut(1..).unwrap_or_default();
                let before = number(value).ok_or(KEY_LENGTH)?;
                let after = u64::from(before) + u64::from(gaps.rice(*parameter)?) + 1;
                let bytes = after.to_be_bytes();
                let (above, next) = bytes.split_at(bytes.len() - value.len());
                if above.iter().any(|byte| *byte != 0) {
                    return Err(UNSORTED);
                }
                value.copy_from_slice(next);
                Ok(())
            }
        }
    }
}

fn next_front(fronts: &mut &[u8], key: &mut Vec<u8>) -> Result<(), IndexError> {
    let (&lengths, rest) = fronts.split_first().ok_or(OUTSIDE)?;
    *fronts = rest;
    let shared = length(fronts, lengths & 15)?;
    let follows = length(fronts, lengths >> 4)?;
    let (suffix, rest) = fronts.split_at_checked(follows).ok_or(OUTSIDE)?;
    *fronts = rest;
    if shared > key.len() || shared + follows > 1 + MAX_VALUE {
        return Err(KEY_LENGTH);
    }
    // It must be above the previous key: longer, or with a higher byte.
    if key[shared..] >= *suffix {
        return Err(UNSORTED);
    }
    key.truncate(shared);
    key.extend_from_slice(suffix);
    Ok(())
}

fn length(fronts: &mut &[u8], half: u8) -> Result<usize, IndexError> {
    let more = if half == 15 { read_varint(fronts)? } else { 0 };
    Ok(usize::from(half) + more as usize)
}

#[cfg(test)]
mod tests;
