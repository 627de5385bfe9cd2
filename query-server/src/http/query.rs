//! What is asked for after the `?`, and what the file is called.

use std::borrow::Cow;

use capstan_model::{Address, Failure, FailureKind, Protocol, Time, TimeRange};

use crate::export::Order;
use crate::select::Selection;

/// Most values a request can name.
const MAX_NAMED: usize = 10_000;

/// Reads a query string; distances such as `-5m` count from `now`.
///
/// # Errors
/// Of kind `Usage`, with what is wrong.
pub(super) fn parse(query: &str, now: Time) -> Result<(Selection, Order), Failure> {
    let mut selection = Selection::default();
    let mut order = Order::default();
    let (mut from, mut to) = (None, None);
    let mut named = 0;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name, true)?, decode(value, !matches!(name, "from" | "to"))?);
        let values = || value.split(',').map(str::trim).filter(|value| !value.is_empty());
        named += values().count();
        if named > MAX_NAMED {
            return Err(usage(format!("more than {MAX_NAMED} values are asked for")));
        }
        let once = |slot: &mut Option<Time>| match slot
            .replace(Time::parse(&value, now).map_err(|error| usage(error.to_string()))?)
        {
            None => Ok(()),
            Some(_) => Err(usage(format!("'{name}' is given twice"))),
        };
        match &*name {
            "from" => once(&mut from)?,
            "to" => once(&mut to)?,
            "ip" => {
                for value in values() {
                    let ip: Address = value
                        .parse()
                        .map_err(|_| usage(format!("'{value}' is not an IP address")))?;
                    selection.ips.push(ip);
                }
            }
            "port" => {
                for value in values() {
                    let port =
                        value.parse().map_err(|_| usage(format!("'{value}' is not a port")))?;
                    selection.ports.push(port);
                }
            }
            "protocol" => {
                for value in values() {
                    let protocol: Protocol =
                        value.parse().map_err(|error| usage(format!("{error}")))?;
                    selection.protocols.push(protocol);
                }
            }
            "namespace" => selection.namespaces.extend(values().map(str::to_owned)),
            "pod" => selection.pods.extend(values().map(str::to_owned)),
            "order" => {
                order = match &*value {
                    "time" => Order::Time,
                    "recorded" => Order::Recorded,
                    other => {
                        return Err(usage(format!("order '{other}' is not 'time' or 'recorded'")));
                    }
                }
            }
            other => {
                return Err(usage(format!(
                    "'{other}' is not known; known are from, to, ip, port, protocol, namespace, pod, order"
                )));
            }
        }
    }
    selection.range = TimeRange::new(from.unwrap_or(Time::MIN), to.unwrap_or(Time::MAX))
        .map_err(|error| usage(error.to_string()))?;
    Ok((selection, order))
}

fn usage(what: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, what)
}

/// Undoes percent encoding. A plus is a space, but not where an offset such as `+01:00` or
/// a distance such as `+5m` is expected, in which nobody writes spaces.
fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, Failure> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let broken = || usage(format!("'{text}' is not percent-encoded text"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2).ok_or_else(broken)?;
                rest = after;
                let [byte] =
                    hex::decode(digits).ok().and_then(|b| b.try_into().ok()).ok_or_else(broken)?;
                byte
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| broken())
}

/// A file name that says which window is inside, of plain letters, digits, dashes and dots.
pub(super) fn file_name(selection: &Selection) -> String {
    let range = selection.range;
    let plain = |time: Time| time.to_string().replace([':', '-'], "");
    let window = match (range.start == Time::MIN, range.end == Time::MAX) {
        (true, true) => "all".to_owned(),
        (false, true) => format!("from-{}", plain(range.start)),
        (true, false) => format!("until-{}", plain(range.end)),
        (false, false) => format!("{}-{}", plain(range.start), plain(range.end)),
    };
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' };
    format!("capstan-{}.pcapng", window.chars().map(allowed).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Time = Time(1_700_000_000_000_000_000);

    #[test]
    fn a_full_query_is_read() {
        let query = "from=2023-11-14T22:13:20Z&to=2023-11-14T23:13:20%2B00:00&ip=10.0.0.1,%3A%3A1\
                     &ip=10.0.0.2&port=80&port=443&protocol=tls,http&pod=shop%2Fweb&order=recorded";
        let (selection, order) = parse(query, NOW).unwrap();
        assert_eq!(selection.range.start, NOW);
        assert_eq!(selection.range.end, Time(NOW.0 + 3_600_000_000_000));
        assert_eq!((selection.ips.len(), &selection.ports[..]), (3, &[80, 443][..]));
        assert_eq!(selection.protocols, [Protocol::Tls, Protocol::Http]);
        assert_eq!(selection.pods, ["shop/web"]);
        assert_eq!(order, Order::Recorded);
        assert_eq!(file_name(&selection), "capstan-20231114T221320Z-20231114T231320Z.pcapng");
    }

    #[test]
    fn nothing_asked_is_everything() {
        let (selection, order) = parse("", NOW).unwrap();
        assert!(selection.is_everything());
        assert_eq!((order, &*file_name(&selection)), (Order::Time, "capstan-all.pcapng"));
        // A plus in a time is one, whether it is encoded or not.
        let (selection, _) = parse("from=2023-11-14T23:13:20+01:00", NOW).unwrap();
        assert_eq!(selection.range.start, NOW);
        assert_eq!(file_name(&selection), "capstan-from-20231114T221320Z.pcapng");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (query, word) in [
            ("form=1", "'form' is not known"),
            ("from=teatime", "teatime"),
            ("from=-1m&from=-2m", "twice"),
            ("from=now&to=-1h", "upside down"),
            ("ip=10.0.0", "10.0.0"),
            ("port=70000", "70000"),
            ("protocol=gopher", "gopher"),
            ("order=size", "size"),
            ("pod=%zz", "%zz"),
            ("pod=%f", "%f"),
        ] {
            let failure = parse(query, NOW).unwrap_err();
            assert_eq!(failure.kind(), FailureKind::Usage);
            assert!(failure.to_string().contains(word), "{query}: {failure}");
        }
        let many = vec!["1"; MAX_NAMED + 1].join(",");
        assert!(parse(&format!("port={many}"), NOW).is_err());
    }

    proptest! {
        #[test]
        fn no_text_crashes_it(query: String, start: i64, end: i64) {
            let _ = parse(&query, NOW);
            let range = TimeRange { start: Time(start), end: Time(end) };
            let name = file_name(&Selection::of_range(range));
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)));
        }
    }
}
