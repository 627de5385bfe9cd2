//! The answers of the server: reads and listings of the S3 API, from the files of a folder.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::ops::{Bound, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;

use capstan_tests::s3::decoded;

/// Keys of one page of a listing.
const PAGE: usize = 1_000;

/// A request without its body.
pub(super) struct Request {
    method: String,
    /// Bucket and key, decoded once.
    pub(super) path: String,
    query: BTreeMap<String, String>,
    range: Option<String>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: String,
    /// What `content-length` says.
    pub(super) length: u64,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Parses a request line and headers.
    pub(super) fn parse(head: &str) -> Request {
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (method, target) = (word().to_owned(), word());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(&value.replace('+', " ")))
        };
        let query = query.split('&').map(pair).collect();
        let mut headers = lines.filter_map(|line| line.split_once(':'));
        let range = headers.find(|(name, _)| name.eq_ignore_ascii_case("range"));
        let range = range.map(|(_, value)| value.trim().to_owned());
        Request { method, path: decoded(path), query, range }
    }

    /// The wanted range of an object of that length; none if it is not satisfiable.
    fn range(&self, length: u64) -> Option<Range<u64>> {
        let Some(range) = &self.range else { return Some(0..length) };
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        let from: u64 = from.parse().ok()?;
        let end = to.parse().map_or(length, |last: u64| last.saturating_add(1).min(length));
        (from < end).then_some(from..end)
    }
}

impl Answer {
    fn text(status: u16, text: String) -> Answer {
        Answer { status, headers: String::new(), length: text.len() as u64, body: text.into() }
    }

    fn error(status: u16, code: &str) -> Answer {
        let text = format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>");
        Answer::text(status, text)
    }
}

/// The answer to a request.
pub(super) fn to(
    request: &Request,
    bucket: &str,
    root: &Path,
    objects: &BTreeMap<String, u64>,
) -> Answer {
    let path = request.path.trim_start_matches('/');
    let Some(key) = path.strip_prefix(bucket) else { return Answer::error(404, "NoSuchBucket") };
    let key = key.trim_start_matches('/');
    match request.method.as_str() {
        "GET" if request.query.contains_key("list-type") => {
            Answer::text(200, listing(request, objects))
        }
        "GET" | "HEAD" => match objects.get(key) {
            Some(length) => read(request, &root.join(key), *length),
            None => Answer::error(404, "NoSuchKey"),
        },
        _ => Answer::error(403, "AccessDenied"),
    }
}

fn read(request: &Request, file: &Path, length: u64) -> Answer {
    let Some(range) = request.range(length) else { return Answer::error(416, "InvalidRange") };
    let wanted = range.end - range.start;
    let mut body = Vec::new();
    if request.method == "GET" {
        body.resize(usize::try_from(wanted).unwrap_or(usize::MAX), 0);
        let read = File::open(file).and_then(|file| file.read_exact_at(&mut body, range.start));
        if read.is_err() {
            return Answer::error(500, "InternalError");
        }
    }
    let mut headers =
        format!("etag: \"{length:x}\"\r\nlast-modified: Sat, 21 Nov 2026 12:00:00 GMT\r\n");
    let mut status = 200;
    if request.range.is_some() {
        status = 206;
        headers += &format!("content-range: bytes {}-{}/{length}\r\n", range.start, range.end - 1);
    }
    Answer { status, headers, length: wanted, body }
}

fn listing(request: &Request, objects: &BTreeMap<String, u64>) -> String {
    let of = |name: &str| request.query.get(name).map(String::as_str).unwrap_or_default();
    let (prefix, delimiter) = (of("prefix"), of("delimiter"));
    let after = if of("continuation-token").is_empty() {
        of("start-after")
    } else {
        of("continuation-token")
    };
    let from = (Bound::Excluded(after.to_owned()), Bound::Unbounded);
    let keys = objects.range(from).filter(|(key, _)| key.starts_with(prefix));
    let (mut text, mut last, mut names, mut more) = (String::new(), String::new(), 0, false);
    for (key, bytes) in keys {
        let rest = &key[prefix.len()..];
        let folder = rest.find(delimiter).filter(|_| !delimiter.is_empty());
        let name = folder.map_or(&**key, |end| &key[..prefix.len() + end + delimiter.len()]);
        // One that a page ended with is not on the next.
        if name == last || (folder.is_some() && after >= name) {
            continue;
        }
        if names == PAGE {
            more = true;
            break;
        }
        names += 1;
        name.clone_into(&mut last);
        // Writing to a string does not fail.
        let _ = match folder {
            Some(_) => write!(text, "<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"),
            None => write!(
                text,
                "<Contents><Key>{name}</Key><LastModified>2026-11-21T12:00:00.000Z</LastModified>\
                 <ETag>&quot;{bytes:x}&quot;</ETag><Size>{bytes}</Size></Contents>"
            ),
        };
    }
    // After a folder, all that is in it is passed over.
    let token = if last.ends_with('/') { format!("{last}\u{10ffff}") } else { last };
    let next = match more {
        true => format!("<NextContinuationToken>{token}</NextContinuationToken>"),
        false => String::new(),
    };
    format!("<ListBucketResult>{text}<IsTruncated>{more}</IsTruncated>{next}</ListBucketResult>")
}
