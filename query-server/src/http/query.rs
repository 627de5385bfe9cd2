//! Which packets an export is asked for, and what the file is called.

use capstan_export::Order;
use capstan_model::{Failure, Time};
use capstan_view::select::{By, Selection};

use super::parameters::{Known, Parameters, WINDOW, usage};

/// What an export takes.
fn known() -> Vec<Known> {
    let named = By::ALL.map(|by| Known::Several(by.name()));
    let window = WINDOW.into_iter().chain([Known::Several("ip")]);
    window.chain(named).chain([Known::One("order")]).collect()
}

/// Reads a query string; distances such as `-5m` count from `now`.
///
/// # Errors
/// Of kind `Usage`, with what is wrong.
pub(super) fn parse(query: &str, now: Time) -> Result<(Selection, Order), Failure> {
    let parameters = Parameters::read(query, &known())?;
    let order = match parameters.one("order") {
        None => Order::default(),
        Some("time") => Order::Time,
        Some("recorded") => Order::Recorded,
        Some(other) => {
            return Err(usage(format!("order '{other}' is not 'time' or 'recorded'")));
        }
    };
    let mut selection = Selection::of_range(parameters.range(now)?);
    // `ip` is another name of `host`.
    for (name, by) in By::ALL.map(|by| (by.name(), by)).into_iter().chain([("ip", By::Host)]) {
        parameters.all(name).try_for_each(|text| selection.add(by, text))?;
    }
    selection.check()?;
    Ok((selection, order))
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
    use capstan_model::{FailureKind, Ports, Protocol, TimeRange};
    use proptest::prelude::*;

    use super::*;

    const NOW: Time = Time(1_700_000_000_000_000_000);

    #[test]
    fn a_full_query_is_read() {
        let query = "from=2023-11-14T22:13:20Z&to=2023-11-14T23:13:20%2B00:00&ip=10.0.0.1\
                     &ip=%3A%3A1&port=80&port=443&protocol=tls,http&pod=shop%2Fweb&order=recorded";
        let (selection, order) = parse(query, NOW).unwrap();
        assert_eq!(selection.range.start, NOW);
        assert_eq!(selection.range.end, Time(NOW.0 + 3_600_000_000_000));
        assert_eq!(
            (selection.hosts.len(), &selection.ports[..]),
            (2, &[80, 443].map(Ports::from)[..])
        );
        assert_eq!(selection.protocols, [Protocol::Tls, Protocol::Http]);
        assert_eq!(selection.pods, ["shop/web"]);
        assert_eq!(order, Order::Recorded);
        assert_eq!(file_name(&selection), "capstan-20231114T221320Z-20231114T231320Z.pcapng");
    }

    #[test]
    fn networks_ranges_and_identities_are_read() {
        let query = "host=10.0.0.0/8&ip=10.0.0.7&port=8000-8999&namespace=shop&service=shop/web\
                     &workload=shop/deployment/web&node=node-1&name=*.example";
        let (selection, _) = parse(query, NOW).unwrap();
        assert_eq!(
            selection.words(),
            "ip 10.0.0.0/8 and 10.0.0.7, port 8000-8999, namespace shop, service shop/web, \
             workload shop/deployment/web, node node-1, name *.example"
        );
    }

    #[test]
    fn empty_selection_selects_everything() {
        let (selection, order) = parse("", NOW).unwrap();
        assert!(selection.is_everything());
        assert_eq!((order, &*file_name(&selection)), (Order::Time, "capstan-all.pcapng"));
        // A plus in a time is one, whether it is encoded or not.
        let (selection, _) = parse("from=2023-11-14T23:13:20+01:00", NOW).unwrap();
        assert_eq!(selection.range.start, NOW);
        assert_eq!(file_name(&selection), "capstan-from-20231114T221320Z.pcapng");
    }

    #[test]
    fn invalid_parameters_are_reported() {
        for (query, word) in [
            ("form=1", "unknown parameter 'form'"),
            ("from=teatime", "teatime"),
            ("from=-1m&from=-2m", "twice"),
            ("from=now&to=-1h", "upside down"),
            ("ip=10.0.0", "10.0.0"),
            ("port=70000", "70000"),
            ("protocol=gopher", "gopher"),
            ("order=size", "size"),
            ("ip=", "'ip' has no value"),
            ("pod=a/b&pod=", "'pod' has no value"),
            ("order=time&order=time", "twice"),
            ("from=teatime", "from"),
            ("to=teatime", "to"),
            ("pod=web", "namespace/name"),
            ("host=", "'host' has no value"),
            ("namespace=", "'namespace' has no value"),
            ("host=10.0.0.1/8", "write the network"),
            ("port=90-80", "lower port"),
            ("name=a*b", "one end only"),
        ] {
            let failure = parse(query, NOW).unwrap_err();
            assert_eq!(failure.kind(), FailureKind::Usage);
            assert!(failure.to_string().contains(word), "{query}: {failure}");
        }
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
