//! A growable chunked buffer that never moves its bytes, for payload of a block.

use bytes::Bytes;

/// Length of a chunk, bytes.
const CHUNK: usize = 64 * 1024;
/// A chunk of at least so many bytes is taken over as it is, a shorter one is copied.
const WORTH_KEEPING: usize = CHUNK / 4;

/// A chunked buffer. Hundreds of flows grow at once in an open segment. A contiguous buffer per
/// flow, doubled and copied when full, would take up to twice the memory.
#[derive(Debug, Default)]
pub struct Chunks {
    chunks: Vec<Vec<u8>>,
    length: usize,
}

impl Chunks {
    /// None yet, and room for so many in one piece: `whole` of no more than that copies nothing.
    pub fn with_room(bytes: usize) -> Chunks {
        Chunks { chunks: vec![Vec::with_capacity(bytes)], length: 0 }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds bytes at the end.
    #[inline]
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            // Room that was asked for is used up first, whatever its length.
            let last = self.chunks.last_mut().map(|last| {
                let room = CHUNK.max(last.capacity()) - last.len();
                (last, room)
            });
            let Some((last, room)) = last.filter(|(_, room)| *room > 0) else {
                // Most flows are short: the first chunk grows as it must.
                let whole = if self.chunks.is_empty() { 0 } else { CHUNK };
                self.chunks.push(Vec::with_capacity(whole));
                continue;
            };
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            last.extend_from_slice(now);
            bytes = rest;
        }
    }

    /// Adds what others hold, in their order.
    pub fn append(&mut self, others: Chunks) {
        for chunk in others.chunks {
            if chunk.len() >= WORTH_KEEPING {
                self.length += chunk.len();
                self.chunks.push(chunk);
            } else {
                self.push(&chunk);
            }
        }
    }

    /// The bytes in one piece; `room` is where they are put together if they must be.
    pub fn whole<'a>(&'a self, room: &'a mut Vec<u8>) -> &'a [u8] {
        if let [only] = self.chunks.as_slice() {
            return only;
        }
        room.clear();
        room.reserve(self.length);
        self.chunks.iter().for_each(|chunk| room.extend_from_slice(chunk));
        room
    }

    /// The bytes as pieces that follow each other.
    pub fn into_parts(self) -> Vec<Bytes> {
        self.chunks.into_iter().map(Bytes::from).collect()
    }
}

impl From<Vec<u8>> for Chunks {
    fn from(bytes: Vec<u8>) -> Self {
        Chunks { length: bytes.len(), chunks: vec![bytes] }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn added_bytes_are_returned_in_order(
            steps in prop::collection::vec((0_usize..200_000, any::<bool>(), any::<u8>()), 0..12),
        ) {
            let (mut chunks, mut expected) = (Chunks::default(), Vec::new());
            for (length, apart, byte) in steps {
                let bytes: Vec<u8> = (0..length).map(|at| byte.wrapping_add(at as u8)).collect();
                expected.extend_from_slice(&bytes);
                if apart {
                    let mut others = Chunks::default();
                    others.push(&bytes);
                    chunks.append(others);
                } else {
                    chunks.push(&bytes);
                }
            }
            prop_assert_eq!(chunks.len(), expected.len());
            prop_assert_eq!(chunks.is_empty(), expected.is_empty());
            let mut room = vec![1, 2, 3];
            prop_assert_eq!(chunks.whole(&mut room), expected.as_slice());
            prop_assert_eq!(chunks.into_parts().concat(), expected);
        }
    }

    #[test]
    fn bytes_within_the_capacity_stay_in_one_chunk() {
        let mut chunks = Chunks::with_room(3 * CHUNK);
        assert!(chunks.is_empty());
        let place = chunks.chunks[0].as_ptr();
        (0..3).for_each(|_| chunks.push(&[7; CHUNK]));
        let mut room = Vec::new();
        assert_eq!(chunks.whole(&mut room), [7; 3 * CHUNK]);
        assert!(room.is_empty() && chunks.chunks[0].as_ptr() == place);
        chunks.push(&[8]);
        assert_eq!((chunks.chunks.len(), chunks.len()), (2, 3 * CHUNK + 1));
    }

    #[test]
    fn short_values_share_a_chunk_and_long_ones_are_not_copied() {
        let mut chunks = Chunks::from(vec![1; 10]);
        (0..100).for_each(|_| chunks.append(Chunks::from(vec![2; 100])));
        assert_eq!(chunks.chunks.len(), 1);
        let long = vec![3; WORTH_KEEPING];
        let place = long.as_ptr();
        chunks.append(Chunks::from(long));
        assert_eq!(chunks.chunks.len(), 2);
        assert_eq!(chunks.chunks[1].as_ptr(), place);
    }
}
