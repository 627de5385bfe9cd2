//! A minimal parser of Thrift's compact protocol (`thrift-compact-protocol.md` of Apache Thrift), to
//! validate lengths.
//!
//! The Parquet library skips unknown fields element by element and trusts their counts. A few bytes
//! that claim lists of 2^31 booleans keep it busy for hours. An attacker who can write to a store
//! can forge the checksums, too.

/// Maximum nesting depth. Parquet's own structs go five deep.
pub(super) const DEPTH: u8 = 16;

/// Whether the bytes are consecutive structs without a list longer than the remaining bytes.
pub(super) fn are_structs(bytes: &[u8]) -> bool {
    let mut input = Compact(bytes);
    while !input.0.is_empty() {
        if input.skip(Kind::STRUCT, DEPTH).is_none() {
            return false;
        }
    }
    true
}

/// Type of a field in the compact protocol.
pub(super) struct Kind;

impl Kind {
    const STOP: u8 = 0;
    const TRUE: u8 = 1;
    const FALSE: u8 = 2;
    const BYTE: u8 = 3;
    const SHORT: u8 = 4;
    /// A 32-bit number.
    pub(super) const NUMBER: u8 = 5;
    const LONG: u8 = 6;
    const DOUBLE: u8 = 7;
    const BINARY: u8 = 8;
    const LIST: u8 = 9;
    const SET: u8 = 10;
    const MAP: u8 = 11;
    pub(super) const STRUCT: u8 = 12;
}

/// Called with each field: its number, its type, and the depth that values may still have.
pub(super) type Visit<'v, 'a> = dyn FnMut(&mut Compact<'a>, i64, u8, u8) -> Option<()> + 'v;

/// Bytes in the compact protocol that were not read yet.
pub(super) struct Compact<'a>(pub(super) &'a [u8]);

impl<'a> Compact<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A number as the protocol has it: in zigzag.
    pub(super) fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Visits the fields of a struct. `visit` must read the value of each.
    pub(super) fn fields(&mut self, depth: u8, visit: &mut Visit<'_, 'a>) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let mut field = 0_i64;
        loop {
            let head = self.byte()?;
            let kind = head & 0x0f;
            if kind == Kind::STOP {
                return Some(());
            }
            field = match head >> 4 {
                0 => self.number()?,
                step => field + i64::from(step),
            };
            visit(self, field, kind, depth)?;
        }
    }

    /// How many values follow, of which each takes a byte at least.
    fn count(&self, count: u64) -> Option<u64> {
        (count <= self.0.len() as u64).then_some(count)
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
        match kind {
            Kind::TRUE | Kind::FALSE => Some(()),
            Kind::BYTE => self.pass(1),
            Kind::SHORT | Kind::NUMBER | Kind::LONG => self.varint().map(|_| ()),
            Kind::DOUBLE => self.pass(8),
            Kind::BINARY => {
                let length = self.varint()?;
                self.pass(length)
            }
            Kind::STRUCT => {
                self.fields(depth, &mut |input, _, kind, depth| input.skip(kind, depth))
            }
            Kind::LIST | Kind::SET => {
                let depth = depth.checked_sub(1)?;
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    short => u64::from(short),
                };
                (0..self.count(count)?).try_for_each(|_| self.element(head & 0x0f, depth))
            }
            Kind::MAP => {
                let depth = depth.checked_sub(1)?;
                let count = self.varint()?;
                if count == 0 {
                    return Some(());
                }
                let kinds = self.byte()?;
                (0..self.count(count)?).try_for_each(|_| {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 0x0f, depth)
                })
            }
            _ => None,
        }
    }

    /// Passes over a value in a list: there a truth value takes a byte.
    fn element(&mut self, kind: u8, depth: u8) -> Option<()> {
        match kind {
            Kind::TRUE | Kind::FALSE => self.pass(1),
            _ => self.skip(kind, depth),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thrift_structs_of_all_types_are_skipped() {
        // 1: true, 2: a byte, 3: a number, 4: a double, 5: text, 6: a list of two truth values,
        // 7: a map of a byte to a number, 8: a struct, 9: a list of two structs; then another.
        let mut bytes = vec![0x11, 0x13, 7, 0x15, 0x80, 1, 0x17];
        bytes.extend([0; 8]);
        bytes.extend([0x18, 2, b'a', b'b', 0x19, 0x21, 1, 2, 0x1b, 1, 0x35, 9, 3]);
        bytes.extend([0x1c, 0x11, 0, 0x19, 0x2c, 0, 0x11, 0, 0, 0]);
        assert!(are_structs(&bytes));
        for cut in 1..bytes.len() - 1 {
            assert!(!are_structs(&bytes[..cut]), "{cut}");
        }
        assert!(are_structs(&[]) && are_structs(&[0, 0]));
    }

    #[test]
    fn lists_longer_than_their_bytes_are_refused() {
        // 2^31 truth values.
        assert!(!are_structs(&[0x19, 0xf1, 0x80, 0x80, 0x80, 0x80, 8, 0, 0]));
        assert!(!are_structs(&[0x1b, 0x80, 0x80, 0x80, 0x80, 8, 0x11, 0, 0]));
        assert!(!are_structs(&[0x1c; 100]), "structs in structs");
        assert!(!are_structs(&[0x19; 100]), "lists in lists");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = are_structs(&bytes);
        }
    }
}
