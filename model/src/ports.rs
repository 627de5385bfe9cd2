//! Ranges of ports.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A port, or all ports from the first to the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    first: u16,
    last: u16,
}

/// Why a text is no port and no range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// A part is no number from 0 to 65535.
    #[error("'{0}' is not a port or a range of ports such as 8000-8999")]
    Number(String),
    /// The first port is above the last one.
    #[error("'{0}' is a range without ports: the lower port comes first")]
    Order(String),
}

impl Ports {
    /// The ports from the first to the last one; none if the first is above the last.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Ports { first, last })
    }

    /// The ports.
    pub fn range(&self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// The port, if it is one.
    pub fn one(&self) -> Option<u16> {
        (self.first == self.last).then_some(self.first)
    }
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Ports { first: port, last: port }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.one() {
            Some(port) => port.fmt(f),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// `443` or `8000-8999`.
impl FromStr for Ports {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        let port = |part: &str| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            let port = part.parse::<u16>().ok().filter(|_| digits);
            port.ok_or_else(|| PortsError::Number(text.to_owned()))
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Ports::new(port(first)?, port(last)?).ok_or_else(|| PortsError::Order(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back() {
        for text in ["0", "443", "8000-8999", "0-65535"] {
            assert_eq!(text.parse::<Ports>().expect(text).to_string(), text);
        }
        assert_eq!("80-80".parse(), Ok(Ports::from(80)));
        for (text, word) in [
            ("", "not a port"),
            ("70000", "'70000' is not a port"),
            ("+80", "not a port"),
            ("80-", "not a port"),
            ("-80", "not a port"),
            ("80-90-99", "not a port"),
            ("http", "not a port"),
            ("90-80", "lower port"),
        ] {
            let error = text.parse::<Ports>().expect_err(text);
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }
}
