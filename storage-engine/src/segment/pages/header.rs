//! A minimal parser of a Parquet page header, to find the cost of decoding the page.
//!
//! The library allocates for the number of values in the header before it reads any. A forged page
//! of a few bytes that claims 2^31 values can have a right checksum.
//!
//! The header is `PageHeader` in `parquet.thrift` of Apache Parquet.

use crate::segment::thrift::{Compact, DEPTH, Kind};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parquet_footer_claims_are_parsed_and_other_fields_skipped() {
        // A dictionary page: type 2, 300 bytes, 20 compressed, header of 17 values in encoding 0.
        let dictionary = [0x15, 4, 0x15, 0xd8, 4, 0x15, 40, 0x4c, 0x15, 34, 0x15, 0, 0x12, 0, 0, 9];
        let expected = PageHeader { values: 17, bytes: 300 };
        assert_eq!(PageHeader::read(&dictionary), Some(expected));
        // A data page with statistics (a struct of a binary) in its header, which is field 5.
        let data = [0x15, 0, 0x15, 2, 0x15, 2, 0x2c, 0x15, 6, 0x4c, 0x18, 2, 7, 7, 0, 0, 0];
        assert_eq!(PageHeader::read(&data), Some(PageHeader { values: 3, bytes: 1 }));
    }

    #[test]
    fn truncated_negative_and_endless_thrift_values_are_none() {
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
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = PageHeader::read(&bytes);
        }
    }
}
