//! Redis serialization protocol (redis.io/docs/reference/protocol-spec).

/// Redis, its cluster bus's client side, Sentinel.
pub(super) const PORTS: &[u16] = &[6379, 6380, 26379];

/// A command: an array of bulk strings. No other protocol has this form.
pub(super) fn is_sure(payload: &[u8]) -> bool {
    let Some(rest) = payload.strip_prefix(b"*") else {
        return false;
    };
    let Some((count, rest)) = number(rest) else {
        return false;
    };
    let Some((length, rest)) = rest.strip_prefix(b"$").and_then(number) else {
        return false;
    };
    // The first string is the command's name, or of a reply any text.
    let ends_right = match usize::try_from(length).ok().and_then(|length| rest.get(length..)) {
        Some(after) => b"\r\n".starts_with(&after[..after.len().min(2)]),
        None => true,
    };
    count >= 1 && (1..=512 << 20).contains(&length) && ends_right
}

/// Any reply type, or a command typed in without framing.
pub(super) fn is_plausible(payload: &[u8]) -> bool {
    match payload.split_first() {
        Some((b'+' | b'-' | b'(' | b',' | b'#', rest)) => {
            let line = rest.split(|byte| *byte == b'\r').next().unwrap_or_default();
            line.len() < payload.len() - 1 && line.iter().all(|byte| (b' '..=b'~').contains(byte))
        }
        Some((b':' | b'$' | b'*' | b'%' | b'~' | b'>' | b'=' | b'!', rest)) => {
            number(rest).is_some()
        }
        Some((b'_', rest)) => rest.starts_with(b"\r\n"),
        Some((first, _)) => {
            let text = payload.strip_suffix(b"\r\n").unwrap_or_default();
            first.is_ascii_alphabetic()
                && text.iter().all(|byte| (b' '..=b'~').contains(byte))
                && !text.is_empty()
        }
        None => false,
    }
}

/// A decimal number and its line end.
fn number(bytes: &[u8]) -> Option<(i64, &[u8])> {
    const MOST_DIGITS: usize = 12;
    let end = bytes.iter().take(MOST_DIGITS).position(|byte| *byte == b'\r')?;
    let value = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((value, bytes.get(end..)?.strip_prefix(b"\r\n")?))
}
