//! HTTP/1.0 and 1.1 (RFC 9112): request lines and status lines.

/// Usual ports of HTTP.
pub(super) const PORTS: &[u16] = &[80, 8080, 8000, 8008, 8081, 3128];

/// Methods of HTTP and WebDAV (iana.org/assignments/http-methods), each with its space.
const METHODS: [&[u8]; 24] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PATCH ",
    b"PROPFIND ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"UNLOCK ",
    b"REPORT ",
    b"SEARCH ",
    b"MERGE ",
    b"CHECKOUT ",
    b"MKACTIVITY ",
    b"SUBSCRIBE ",
    b"NOTIFY ",
    b"PURGE ",
];

/// Longest plausible method of a request line.
const LONGEST_METHOD: usize = 24;

/// Longest first line looked at; a target may fill many segments.
const LONGEST_LINE: usize = 16 * 1024;

/// A status line, or a request line that ends in a version of HTTP/1 or, if it
/// is cut off, begins as one.
pub(super) fn is_sure(payload: &[u8]) -> bool {
    if payload.starts_with(b"HTTP/1.") {
        return is_status_line(payload);
    }
    let looked_at = &payload[..payload.len().min(LONGEST_LINE)];
    match looked_at.iter().position(|byte| *byte == b'\n') {
        Some(end) => is_request_line(&looked_at[..end]),
        None => begins_request(payload),
    }
}

/// A known method with any target, the version missing or odd (HTTP/0.9, and
/// what probes send).
pub(super) fn is_plausible(payload: &[u8]) -> bool {
    METHODS.iter().any(|method| payload.starts_with(method))
}

/// "HTTP/1.1 200", as far as it is there.
fn is_status_line(payload: &[u8]) -> bool {
    match payload.get(7..) {
        Some([minor, b' ', rest @ ..]) => {
            minor.is_ascii_digit() && rest.iter().take(3).all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

fn is_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(space) = line.iter().take(LONGEST_METHOD).position(|byte| *byte == b' ') else {
        return false;
    };
    let (method, rest) = line.split_at(space);
    let ends_in_version = matches!(rest, [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit());
    !method.is_empty() && method.iter().all(|byte| is_token(*byte)) && ends_in_version
}

/// A known method and the start of a target; the rest of the line is missing.
fn begins_request(payload: &[u8]) -> bool {
    METHODS.iter().any(|method| match payload.strip_prefix(*method) {
        Some(target) if *method == b"CONNECT " => {
            target.first().is_some_and(u8::is_ascii_alphanumeric)
        }
        Some(target) => {
            let is_target = target.starts_with(b"/") || target.starts_with(b"http");
            is_target && target.iter().take(64).all(|byte| byte.is_ascii_graphic())
        }
        None => false,
    })
}

/// Characters of a method (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the answer switches to HTTP/2 in the clear (RFC 7540 section 3.2).
pub(super) fn is_switch_to_http2(payload: &[u8]) -> bool {
    const SWITCHING: &[u8] = b"HTTP/1.1 101";
    if !payload.starts_with(SWITCHING) {
        return false;
    }
    let head = &payload[..payload.len().min(2048)];
    head.split(|byte| *byte == b'\n').take_while(|line| !matches!(line, [] | [b'\r'])).any(|line| {
        let line = line.trim_ascii();
        line.len() > 8
            && line[..8].eq_ignore_ascii_case(b"upgrade:")
            && line[8..].trim_ascii().eq_ignore_ascii_case(b"h2c")
    })
}
