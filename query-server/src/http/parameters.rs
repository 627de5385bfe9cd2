//! Parameters of a request: the query string behind the `?`.
//!
//! A script with an unset variable or a misspelt parameter must not get more than it asked for. So an empty
//! parameter is refused, an unknown one is refused, and a single-valued one may occur once.

use std::borrow::Cow;

use capstan_model::{Failure, FailureKind, Time, TimeRange};

/// Most values in a request.
pub(super) const MAX_NAMED: usize = 10_000;

/// A parameter that an endpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// One value.
    One(&'static str),
    /// Any number, each in a parameter of its own or separated by commas.
    Several(&'static str),
}

impl Known {
    fn name(self) -> &'static str {
        match self {
            Known::One(name) | Known::Several(name) => name,
        }
    }
}

/// `from` and `to`, common to all endpoints.
pub(super) const WINDOW: [Known; 2] = [Known::One("from"), Known::One("to")];

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct Parameters {
    values: Vec<(&'static str, String)>,
}

impl Parameters {
    /// Reads a query string.
    ///
    /// # Errors
    /// Of kind `Usage`, with the mistake.
    pub(super) fn read(query: &str, known: &[Known]) -> Result<Parameters, Failure> {
        let mut values: Vec<(&'static str, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, true)?;
            let known = known.iter().find(|of| of.name() == name).copied().ok_or_else(|| {
                let names: Vec<&str> = known.iter().map(|of| of.name()).collect();
                usage(format!("unknown parameter '{name}'; known are {}", names.join(", ")))
            })?;
            let value = decode(value, !matches!(&*name, "from" | "to"))?;
            let pieces: Vec<&str> = match known {
                Known::One(_) => vec![value.trim()],
                Known::Several(_) => value.split(',').map(str::trim).collect(),
            };
            if pieces.iter().any(|piece| piece.is_empty()) {
                return Err(usage(format!("'{name}' has no value: omit it or give it a value")));
            }
            let twice = values.iter().any(|(name, _)| *name == known.name());
            if twice && matches!(known, Known::One(_)) {
                return Err(usage(format!("'{name}' is given twice")));
            }
            values.extend(pieces.into_iter().map(|piece| (known.name(), piece.to_owned())));
            if values.len() > MAX_NAMED {
                return Err(usage(format!("more than {MAX_NAMED} values")));
            }
        }
        Ok(Parameters { values })
    }

    /// The value of a single-valued parameter.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.values.iter().filter(move |(of, _)| *of == name).map(|(_, value)| value.as_str())
    }

    /// The range of `from` and `to`; distances such as `-5m` count from `now`.
    pub(super) fn range(&self, now: Time) -> Result<TimeRange, Failure> {
        let time = |name, open| match self.one(name) {
            None => Ok(open),
            Some(text) => Time::parse(text, now).map_err(|error| usage(format!("{name}: {error}"))),
        };
        let (from, to) = (time("from", Time::MIN)?, time("to", Time::MAX)?);
        TimeRange::new(from, to).map_err(|error| usage(error.to_string()))
    }
}

pub(super) fn usage(what: impl Into<String>) -> Failure {
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

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Known; 3] = [Known::One("from"), Known::One("order"), Known::Several("ip")];

    #[test]
    fn values_come_one_by_one_or_with_commas() {
        let parameters = Parameters::read("ip=a,b&&order=x%20y&ip=+c+", &KNOWN).unwrap();
        assert_eq!(parameters.all("ip").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((parameters.one("order"), parameters.one("from")), (Some("x y"), None));
    }

    #[test]
    fn parameters_without_value_and_unknown_parameters_are_refused() {
        for (query, words) in [
            ("ip=", "'ip' has no value"),
            ("ip", "'ip' has no value"),
            ("ip=%20", "'ip' has no value"),
            ("ip=+", "'ip' has no value"),
            ("ip=,", "'ip' has no value"),
            ("ip=a,", "'ip' has no value"),
            ("ip=,a", "'ip' has no value"),
            ("ip=a&ip=", "'ip' has no value"),
            ("order=", "'order' has no value"),
            ("from=", "'from' has no value"),
            ("order=a&order=a", "'order' is given twice"),
            ("Ip=a", "unknown parameter 'Ip'; known are from, order, ip"),
            ("=a", "unknown parameter ''"),
            ("%69p=", "'ip' has no value"),
            ("ip=%zz", "%zz"),
            ("ip=%f", "%f"),
            ("ip=%ff", "%ff"),
        ] {
            let failure = Parameters::read(query, &KNOWN).unwrap_err();
            assert_eq!(failure.kind(), FailureKind::Usage);
            assert!(failure.to_string().contains(words), "{query}: {failure}");
        }
        let many = vec!["1"; MAX_NAMED + 1].join(",");
        assert!(Parameters::read(&format!("ip={many}"), &KNOWN).is_err());
    }
}
