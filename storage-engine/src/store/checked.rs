//! JSON objects that carry a checksum of themselves.
//!
//! The entries of a log check each other, but nothing checks the last one, and nothing the object
//! `format`. So each ends with a field `crc32c`: eight hex digits of CRC32C over all bytes before
//! the comma that the field follows. Whatever byte of it is changed, it is noticed.

use serde::Serialize;

/// What stands between the content and the eight digits, and after them.
const AROUND: (&[u8], &[u8]) = (br#","crc32c":""#, br#""}"#);
const DIGITS: usize = 8;

/// What an object's bytes say about themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksum {
    /// They are those that were written.
    Right,
    /// They are not.
    Wrong,
    /// They carry none.
    Absent,
}

/// JSON of a value with at least one field, and its checksum.
///
/// # Errors
/// Values that JSON cannot say.
pub(crate) fn to_bytes(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(value)?;
    debug_assert!(bytes.starts_with(b"{\"") && bytes.ends_with(b"}"));
    bytes.pop();
    let digits = format!("{:08x}", crc32c::crc32c(&bytes));
    bytes.extend([AROUND.0, digits.as_bytes(), AROUND.1].concat());
    Ok(bytes)
}

/// The first number of either format (of a store; of writers and commits) whose objects carry a
/// checksum.
const FIRST_FORMAT: u32 = 2;

/// Whether bytes that say they are of this format are not those that were written. Of objects
/// without a checksum nobody can tell.
pub(crate) fn is_changed(format: u32, bytes: &[u8]) -> bool {
    match check(bytes) {
        Checksum::Right => false,
        Checksum::Wrong => true,
        Checksum::Absent => format >= FIRST_FORMAT,
    }
}

/// Looks whether bytes are those that were written.
fn check(bytes: &[u8]) -> Checksum {
    let parts = bytes.strip_suffix(AROUND.1).and_then(|bytes| {
        let (content, digits) = bytes.split_at_checked(bytes.len().checked_sub(DIGITS)?)?;
        Some((content.strip_suffix(AROUND.0)?, digits))
    });
    match parts {
        None => Checksum::Absent,
        Some((content, digits))
            if format!("{:08x}", crc32c::crc32c(content)).as_bytes() == digits =>
        {
            Checksum::Right
        }
        Some(_) => Checksum::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_one_that_json_knows() {
        let bytes = to_bytes(&serde_json::json!({"a": 1, "b": "é"})).unwrap();
        assert_eq!(check(&bytes), Checksum::Right);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&value["a"], &value["b"]), (&1.into(), &"é".into()));
        let crc = crc32c::crc32c(r#"{"a":1,"b":"é""#.as_bytes());
        assert_eq!(value["crc32c"], format!("{crc:08x}"));
    }

    #[test]
    fn no_changed_byte_passes_for_right() {
        let good = to_bytes(&serde_json::json!({"a": "text"})).unwrap();
        for at in 0..good.len() {
            for change in 1..=255_u8 {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                assert_ne!(check(&bytes), Checksum::Right, "byte {at}");
                // What hides the field leaves the content as it was.
                let content = good.len() - AROUND.0.len() - DIGITS - AROUND.1.len();
                assert!(at >= content || check(&bytes) == Checksum::Wrong, "byte {at}");
            }
        }
        for end in 0..good.len() {
            assert_eq!(check(&good[..end]), Checksum::Absent);
        }
    }
}
