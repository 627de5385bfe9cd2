//! Numbers at any place of a slice that may end anywhere.

macro_rules! reader {
    ($($name:ident: $type:ty, $from:ident, $words:literal;)*) => {$(
        #[doc = $words]
        #[inline]
        pub fn $name(bytes: &[u8], at: usize) -> Option<$type> {
            Some(<$type>::$from(*bytes.get(at..)?.first_chunk()?))
        }
    )*};
}

reader! {
    be16: u16, from_be_bytes, "The two bytes at `at`, big-endian; none past the end.";
    be32: u32, from_be_bytes, "The four bytes at `at`, big-endian; none past the end.";
    be64: u64, from_be_bytes, "The eight bytes at `at`, big-endian; none past the end.";
    le16: u16, from_le_bytes, "The two bytes at `at`, little-endian; none past the end.";
    le32: u32, from_le_bytes, "The four bytes at `at`, little-endian; none past the end.";
    le64: u64, from_le_bytes, "The eight bytes at `at`, little-endian; none past the end.";
    ne16: u16, from_ne_bytes, "The two bytes at `at`, in this machine's order; none past the end.";
    ne32: u32, from_ne_bytes, "The four bytes at `at`, in this machine's order; none past the end.";
}

/// The three bytes at `at`, big-endian; none past the end.
#[inline]
pub fn be24(bytes: &[u8], at: usize) -> Option<u32> {
    let [a, b, c] = *bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes([0, a, b, c]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_their_order_and_never_past_the_end() {
        let bytes = [1, 2, 3, 4, 5];
        let long = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!((be64(&long, 0), be64(&long, 1)), (Some(0x0102_0304_0506_0708), None));
        assert_eq!((le64(&long, 0), le64(&bytes, 0)), (Some(0x0807_0605_0403_0201), None));
        assert_eq!((be16(&bytes, 3), be16(&bytes, 4)), (Some(0x0405), None));
        assert_eq!((be24(&bytes, 2), be24(&bytes, 3)), (Some(0x03_0405), None));
        assert_eq!((be32(&bytes, 1), be32(&bytes, 2)), (Some(0x0203_0405), None));
        assert_eq!((le16(&bytes, 0), le16(&bytes, 5)), (Some(0x0201), None));
        assert_eq!((le32(&bytes, 0), le32(&bytes, usize::MAX)), (Some(0x0403_0201), None));
        assert_eq!(ne16(&bytes, 1), Some(u16::from_ne_bytes([2, 3])));
        assert_eq!(ne32(&bytes, 1), Some(u32::from_ne_bytes([2, 3, 4, 5])));
    }
}
