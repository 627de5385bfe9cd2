//! So much of a Parquet page's header as tells what decoding it will take.
//!
//! The library makes room for as many values as a header claims before it has seen one. Checksums
//! that somebody made up do not stop a page of a few bytes that claims 2^31.
//!
//! A header is a struct in Thrift's compact protocol (`thrift-compact-protocol.md` of Apache
//! Thrift; `PageHeader` in `parquet.thrift` of Apache Parquet).

/// Structs in structs in a header, at most: there are two levels, statistics included.
const DEPTH: u8 = 8;

/// What a page's header claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PageHeader {
    /// Values in it: rows, or of a dictionary entries.
    pub(super) values: u64,
    /// Bytes after decompression.
    pub(super) bytes: u64,
}

impl PageHeader {
    /// Reads the header that a page begins with; none if it makes no sense.
    pub(super) fn read(page: &[u8]) -> Option<PageHeader> {
        let mut header = PageHeader::default();
        let mut input = Compact(page);
        input.fields(DEPTH, &mut |input, field, kind, depth| match (field, kind) {
            // uncompressed_page_size
            (2, Kind::NUMBER) => {
                header.bytes = u64::try_from(input.number()?).ok()?;
                Some(())
            }
            // The headers of a data page, a dictionary page, and a data page of version 2.
            (5 | 7 | 8, Kind::STRUCT) => {
                input.fields(depth, &mut |input, field, kind, depth| match (field, kind) {
                    // num_values
                    (1, Kind::NUMBER) => {
                        header.values = u64::try_from(input.number()?).ok()?;
                        Some(())
                    }
                    _ => input.skip(kind, depth),
                })
            }
            _ => input.skip(kind, depth),
        })?;
        Some(header)
    }
}

/// Type of a field in the compact protocol.
struct Kind;

impl Kind {
    const STOP: u8 = 0;
    const TRUE: u8 = 1;
    const FALSE: u8 = 2;
    const BYTE: u8 = 3;
    const SHORT: u8 = 4;
    /// A 32-bit number.
    const NUMBER: u8 = 5;
    const LONG: u8 = 6;
    const DOUBLE: u8 = 7;
    const BINARY: u8 = 8;
    const STRUCT: u8 = 12;
}

/// What is done with a field: its number, its type, and how deep structs may go on.
type Visit<'v, 'a> = dyn FnMut(&mut Compact<'a>, i64, u8, u8) -> Option<()> + 'v;

/// Bytes in the compact protocol that were not read yet.
struct Compact<'a>(&'a [u8]);

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
    fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Visits the fields of a struct. `visit` must read the value of each.
    fn fields(&mut self, depth: u8, visit: &mut Visit<'_, 'a>) -> Option<()> {
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

    /// Passes over a value. Page headers have no lists, sets or maps.
    fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
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
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn claims_are_read_and_the_rest_is_passed_over() {
        // A dictionary page: type 2, 300 bytes, 20 compressed, header of 17 values in encoding 0.
        let dictionary = [0x15, 4, 0x15, 0xd8, 4, 0x15, 40, 0x4c, 0x15, 34, 0x15, 0, 0x12, 0, 0, 9];
        let expected = PageHeader { values: 17, bytes: 300 };
        assert_eq!(PageHeader::read(&dictionary), Some(expected));
        // A data page with statistics (a struct of a binary) in its header, which is field 5.
        let data = [0x15, 0, 0x15, 2, 0x15, 2, 0x2c, 0x15, 6, 0x4c, 0x18, 2, 7, 7, 0, 0, 0];
        assert_eq!(PageHeader::read(&data), Some(PageHeader { values: 3, bytes: 1 }));
    }

    #[test]
    fn what_is_cut_off_negative_or_endless_is_nothing() {
        assert_eq!(PageHeader::read(&[]), None);
        assert_eq!(PageHeader::read(&[0x15, 4, 0x15]), None);
        assert_eq!(PageHeader::read(&[0x25, 1, 0]), None, "-1 bytes");
        assert_eq!(PageHeader::read(&[0x1c; 100_000]), None, "structs in structs");
        assert_eq!(
            PageHeader::read(&[
                0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1
            ]),
            None
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes: Vec<u8>) {
            let _ = PageHeader::read(&bytes);
        }
    }
}
