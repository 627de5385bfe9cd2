//! What `EXPLAIN` shows of a filter.

use std::fmt;

use capstan_index::Field;
use capstan_index::filter::{FlowFilter, Term};
use capstan_model::{Address, Protocol};

/// Values of an `or` that are shown; a list may be as long as somebody likes.
const SHOWN: usize = 8;

/// A filter in words: `ip=10.0.0.1 and (port=80 or port=443)`.
pub(super) struct FlowsInWords<'a>(pub(super) &'a FlowFilter);

impl fmt::Display for FlowsInWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FlowFilter::Term(term) => write_term(f, term),
            FlowFilter::And(all) if all.is_empty() => f.write_str("all"),
            FlowFilter::Or(any) if any.is_empty() => f.write_str("none"),
            FlowFilter::And(all) => write_list(f, all, " and "),
            FlowFilter::Or(any) => write_list(f, any, " or "),
            FlowFilter::Not(not) => write!(f, "not {}", Inner(not)),
        }
    }
}

/// A part of another one: in parentheses if it has parts itself.
struct Inner<'a>(&'a FlowFilter);

impl fmt::Display for Inner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FlowFilter::And(parts) | FlowFilter::Or(parts) if parts.len() > 1 => {
                write!(f, "({})", FlowsInWords(self.0))
            }
            other => FlowsInWords(other).fmt(f),
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, parts: &[FlowFilter], join: &str) -> fmt::Result {
    for (place, part) in parts.iter().take(SHOWN).enumerate() {
        let before = if place > 0 { join } else { "" };
        write!(f, "{before}{}", Inner(part))?;
    }
    match parts.len() {
        0..=SHOWN => Ok(()),
        more => write!(f, "{join}{} more", more - SHOWN),
    }
}

fn write_term(f: &mut fmt::Formatter<'_>, Term { field, value }: &Term) -> fmt::Result {
    write!(f, "{}=", field.name())?;
    match field {
        Field::Ip | Field::OuterIp => {
            let address = <[u8; 16]>::try_from(value.as_slice()).unwrap_or_default();
            write!(f, "{}", Address(address))
        }
        Field::Protocol => {
            let number = value.first().copied().unwrap_or_default();
            write!(f, "{}", Protocol::from_number(number))
        }
        Field::Port
        | Field::IpProtocol
        | Field::Vlan
        | Field::Vni
        | Field::EtherType
        | Field::Interface => {
            let number = value.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            write!(f, "{number}")
        }
        _ => write!(f, "{}", String::from_utf8_lossy(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_print_as_conditions() {
        let host = FlowFilter::host(Address::v4([10, 0, 0, 1]));
        let filter = FlowFilter::And(vec![
            host,
            !FlowFilter::port(80),
            Term::protocol(Protocol::Dns).into(),
        ]);
        assert_eq!(
            FlowsInWords(&filter).to_string(),
            "(ip=10.0.0.1 or outer_ip=10.0.0.1) and not port=80 and protocol=dns"
        );
        let many = FlowFilter::Or((0..20).map(FlowFilter::port).collect());
        assert!(FlowsInWords(&many).to_string().ends_with(" or 12 more"));
        assert_eq!(FlowsInWords(&FlowFilter::all()).to_string(), "all");
    }
}
