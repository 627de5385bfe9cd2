//! Filters as text, for people.

use std::fmt;

use capstan_model::{Address, Network, Protocol};

use super::{FlowFilter, Term, Values};
use crate::Field;

/// Maximum number of values of a list, and of parts of a filter, that are shown.
const SHOWN: usize = 8;

/// As conditions: `ip=10.0.0.1 and (port=80 or port=443)`.
impl fmt::Display for FlowFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowFilter::Term(term) => term.fmt(f),
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
                write!(f, "({})", self.0)
            }
            other => other.fmt(f),
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

/// `port=80`, `port=8000-8999`, `ip=10.0.0.0/8`, `sni=*.example`, `vlan=1,2`.
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |value| Value(self.field, value);
        write!(f, "{}=", self.field.name())?;
        match &self.values {
            Values::One(value) => of(value).fmt(f),
            Values::Several(values) => {
                for (place, value) in values.iter().take(SHOWN).enumerate() {
                    let before = if place > 0 { "," } else { "" };
                    write!(f, "{before}{}", of(value))?;
                }
                match values.len() {
                    0 => f.write_str("none"),
                    1..=SHOWN => Ok(()),
                    more => write!(f, ", {} more", more - SHOWN),
                }
            }
            Values::Prefix(prefix) => write!(f, "{}*", of(prefix)),
            Values::Suffix(suffix) => write!(f, "*{}", of(suffix)),
            Values::Range(low, high) => match (self.field, address(low), address(high)) {
                (Field::Ip | Field::OuterIp, Some(first), Some(last)) => {
                    match Network::between(first, last) {
                        Some(network) => network.fmt(f),
                        None => write!(f, "{first}-{last}"),
                    }
                }
                _ => write!(f, "{}-{}", of(low), of(high)),
            },
        }
    }
}

/// A value of a field.
struct Value<'a>(Field, &'a [u8]);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value(field, value) = self;
        match field {
            Field::Ip | Field::OuterIp => address(value).unwrap_or_default().fmt(f),
            Field::Protocol => {
                Protocol::from_number(value.first().copied().unwrap_or_default()).fmt(f)
            }
            Field::Port
            | Field::IpProtocol
            | Field::Vlan
            | Field::Vni
            | Field::EtherType
            | Field::Interface => {
                let number =
                    value.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
                number.fmt(f)
            }
            Field::Flow => value.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            _ => String::from_utf8_lossy(value).fmt(f),
        }
    }
}

fn address(value: &[u8]) -> Option<Address> {
    value.try_into().ok().map(Address)
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
            filter.to_string(),
            "(ip=10.0.0.1 or outer_ip=10.0.0.1) and not port=80 and protocol=dns"
        );
        let many = FlowFilter::Or((0..20).map(FlowFilter::port).collect());
        assert!(many.to_string().ends_with(" or 12 more"));
        assert_eq!(FlowFilter::all().to_string(), "all");
    }

    #[test]
    fn sets_of_values_are_short() {
        let network = "10.0.0.0/8".parse().expect("a network");
        let v4 = |last| Address::v4([10, 0, 0, last]).0;
        let vlan = |number: u16| number.to_be_bytes().to_vec();
        for (term, text) in [
            (Term::ip_in(network), "ip=10.0.0.0/8"),
            (Term::range(Field::Ip, v4(1), v4(9)), "ip=10.0.0.1-10.0.0.9"),
            (Term::ports(8000..=8999), "port=8000-8999"),
            (Term::ports(80..=80), "port=80"),
            (Term::prefix(Field::Pod, "shop/"), "pod=shop/*"),
            (Term::suffix(Field::Sni, ".example"), "sni=*.example"),
            (Term::one_of(Field::Vlan, [vlan(7), vlan(2)]), "vlan=2,7"),
            (Term::one_of(Field::Vlan, (0..20).map(vlan)), "vlan=0,1,2,3,4,5,6,7, 12 more"),
            (Term::one_of(Field::Vlan, []), "vlan=none"),
        ] {
            assert_eq!(term.to_string(), text);
        }
    }
}
