//! TLS records, and the fields of a ClientHello (RFC 8446, 6066, 7301).

use capstan_model::bytes::{be16, be24};

/// Usual ports of TLS.
pub(super) const PORTS: &[u16] =
    &[443, 8443, 6443, 9443, 853, 993, 995, 465, 636, 989, 990, 5223, 5671];

/// Record types (RFC 8446 section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// Extension numbers (iana.org/assignments/tls-extensiontype-values).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Longest fragment a record may have: 2^14 plus what encryption may add
/// (TLS 1.2: 2048).
const LONGEST_RECORD: usize = (1 << 14) + 2048;

/// The unencrypted fields of a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// The host name of the server name extension, where it is UTF-8.
    pub server_name: Option<&'a str>,
    /// The ALPN protocol list: names, each after a byte with its length.
    alpn: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// The ALPN protocol names, in the client's order ("h2", "http/1.1").
    pub fn alpn(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.alpn;
        std::iter::from_fn(move || {
            let (&length, after) = rest.split_first()?;
            let (name, after) = after.split_at_checked(usize::from(length))?;
            rest = after;
            Some(name)
        })
    }
}

/// Reads the ClientHello that `payload`, the first bytes a TCP client sends,
/// begins with; none if it begins with something else.
///
/// One that is longer than the first record or the first segment is read as far as it is there; that usually includes the
/// server name.
pub fn client_hello(payload: &[u8]) -> Option<ClientHello<'_>> {
    if !is_hello(payload, CLIENT_HELLO) {
        return None;
    }
    let record = usize::from(be16(payload, 3)?);
    let record = cut(payload.get(5..)?, record);
    let hello = usize::try_from(be24(record, 1)?).ok()?;
    let mut rest = Reader { rest: cut(record.get(4..)?, hello) };
    // Version and random; then session, cipher suites and compression methods.
    rest.take(2 + 32)?;
    rest.list8()?;
    rest.list16()?;
    rest.list8()?;
    let mut found = ClientHello { server_name: None, alpn: &[] };
    let mut extensions = Reader { rest: rest.cut_list16().unwrap_or_default() };
    while let (Some(kind), Some(body)) = (extensions.be16(), extensions.cut_list16()) {
        match kind {
            SERVER_NAME => found.server_name = found.server_name.or(host_name(body)),
            ALPN => found.alpn = Reader { rest: body }.cut_list16().unwrap_or_default(),
            _ => {}
        }
    }
    Some(found)
}

/// The entry of type 0 in a server name list (RFC 6066 section 3).
fn host_name(list: &[u8]) -> Option<&str> {
    let mut names = Reader { rest: Reader { rest: list }.cut_list16()? };
    loop {
        let kind = names.take(1)?[0];
        let name = names.list16()?;
        if kind == 0 {
            return std::str::from_utf8(name).ok().filter(|name| !name.is_empty());
        }
    }
}

/// A hello of either side, an SSLv2-framed client hello, a refusal; or a record
/// that ends where the payload does or where another one starts.
pub(super) fn is_sure(payload: &[u8]) -> bool {
    is_hello(payload, CLIENT_HELLO)
        || is_hello(payload, SERVER_HELLO)
        || is_old_hello(payload)
        || record(payload).is_some_and(|length| match payload.get(length..) {
            Some(rest) => rest.is_empty() || record(rest).is_some(),
            None => false,
        })
}

/// The head of one record.
pub(super) fn is_plausible(payload: &[u8]) -> bool {
    record(payload).is_some()
}

/// The length of the record `payload` begins with, its head included.
fn record(payload: &[u8]) -> Option<usize> {
    let &[kind, 3, minor, high, low] = payload.first_chunk()? else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_one = matches!(kind, CHANGE_CIPHER_SPEC..=APPLICATION_DATA)
        && minor <= 4
        && (1..=LONGEST_RECORD).contains(&length)
        && (kind != CHANGE_CIPHER_SPEC || length == 1);
    is_one.then_some(5 + length)
}

/// A handshake record that begins with a hello of this type.
fn is_hello(payload: &[u8], hello: u8) -> bool {
    let head_and_version: Option<&[u8; 11]> = payload.first_chunk();
    let Some(&[HANDSHAKE, 3, 0..=4, high, low, kind, a, b, c, 3, 0..=4]) = head_and_version else {
        return false;
    };
    let record = u32::from(u16::from_be_bytes([high, low]));
    let length = u32::from_be_bytes([0, a, b, c]);
    // The smallest hello has 38 bytes: version, random, empty lists.
    kind == hello && (38..1 << 17).contains(&length) && record >= 4
}

/// A client hello in SSL 2.0 framing that offers SSL 3.0 or TLS (RFC 5246 appendix E.2).
fn is_old_hello(payload: &[u8]) -> bool {
    let Some(&[high, low, CLIENT_HELLO, 3, 0..=3, c, d, e, f, g, h]) = payload.first_chunk() else {
        return false;
    };
    let length = usize::from(u16::from_be_bytes([high & 0x7f, low]));
    let ciphers = usize::from(u16::from_be_bytes([c, d]));
    let session = usize::from(u16::from_be_bytes([e, f]));
    let challenge = usize::from(u16::from_be_bytes([g, h]));
    high & 0x80 != 0
        && ciphers.is_multiple_of(3)
        && (16..=32).contains(&challenge)
        && length == 9 + ciphers + session + challenge
}

/// The first `length` bytes, or what is there of them.
fn cut(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length).unwrap_or(bytes)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn be16(&mut self) -> Option<u16> {
        be16(self.take(2)?, 0)
    }

    /// A list after one byte with its length.
    fn list8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    /// A list after two bytes with its length.
    fn list16(&mut self) -> Option<&'a [u8]> {
        let length = self.be16()?;
        self.take(usize::from(length))
    }

    /// The same, where the end may be cut off.
    fn cut_list16(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.be16()?);
        self.take(length.min(self.rest.len()))
    }
}
