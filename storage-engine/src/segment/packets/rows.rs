//! The rows of an open segment.

use super::PacketRow;

/// Rows in a chunk: 300 KB.
const CHUNK: usize = 4096;

/// Rows in order of arrival, in chunks that never move. A segment has some hundred thousand rows.
/// One list would be copied at each doubling and take up to twice the memory.
#[derive(Debug, Default)]
pub struct Rows {
    /// All but the last are full.
    chunks: Vec<Vec<PacketRow>>,
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        let last = self.chunks.last().map_or(0, Vec::len);
        self.chunks.len().saturating_sub(1) * CHUNK + last
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds one at the end.
    #[inline]
    pub fn push(&mut self, row: PacketRow) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(row),
            _ => {
                // Most segments of an import of old files are small: the first grows as it must.
                let whole = if self.chunks.is_empty() { 0 } else { CHUNK };
                let mut chunk = Vec::with_capacity(whole);
                chunk.push(row);
                self.chunks.push(chunk);
            }
        }
    }

    /// The row of that number.
    ///
    /// # Panics
    /// When there is none.
    #[inline]
    pub fn get(&self, number: usize) -> &PacketRow {
        &self.chunks[number / CHUNK][number % CHUNK]
    }

    /// All, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &PacketRow> + Clone {
        self.chunks.iter().flatten()
    }

    /// All, in their order, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut PacketRow> {
        self.chunks.iter_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use capstan_model::Direction;
    use capstan_model::packet::Stamp;

    use super::*;

    #[test]
    fn rows_are_returned_in_order_and_by_number() {
        let mut rows = Rows::default();
        assert!(rows.is_empty() && rows.iter().next().is_none());
        let count = 2 * CHUNK + 1;
        for number in 0..count {
            assert_eq!(rows.len(), number);
            rows.push(PacketRow::new(number as u64, Stamp::None, Direction::Forward));
        }
        assert_eq!((rows.len(), rows.is_empty()), (count, false));
        assert!(rows.iter().map(|row| row.ordinal).eq(0..count as u64));
        assert!((0..count).all(|number| rows.get(number).ordinal == number as u64));
    }
}
