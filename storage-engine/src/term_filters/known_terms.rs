//! Filters of flows over what is known of a segment that is not opened.

use std::convert::Infallible;

use capstan_index::Field;
use capstan_index::filter::{Bounds, FlowFilter, Term, TermSource, Values};
use capstan_model::{Address, Network};

use super::values::{narrow_bits, network_value, parent, wide_bits};
use super::{Group, TermFilter, TermFilters};

/// Number of filter lookups for a range of addresses. More addresses or networks may be there.
const MAX_PROBES: u128 = 16;

/// The filters of a segment or an hour.
#[derive(Debug, Clone, Copy)]
pub struct KnownTerms<'a> {
    /// The filter of addresses; none = any may be there.
    pub addresses: Option<&'a TermFilter>,
    /// The other filters.
    pub terms: &'a TermFilters,
}

/// Nothing is certain of all flows.
impl TermSource for KnownTerms<'_> {
    type Flows = bool;
    type Error = Infallible;

    fn all(&self) -> bool {
        true
    }

    fn bounds(&self, term: &Term) -> Result<Bounds<bool>, Infallible> {
        Ok(Bounds { sure: false, possible: self.may_hold(term) })
    }
}

impl KnownTerms<'_> {
    /// Whether there may be matching flows. False is certain. The answer includes flows of which it is unknown whether
    /// they match.
    pub fn may_match(&self, flows: &FlowFilter) -> bool {
        let Ok(may) = flows.may_match(self);
        may
    }

    /// Whether a value of a term may be there. False is certain.
    pub fn may_hold(&self, Term { field, values }: &Term) -> bool {
        if matches!(field, Field::Ip | Field::OuterIp) {
            return self.may_hold_address(values);
        }
        let Some(group) = Group::of(*field) else { return true };
        let Some(filter) = self.terms.get(group) else { return true };
        match values {
            Values::One(value) => filter.may_hold(value),
            Values::Several(values) => values.iter().any(|value| filter.may_hold(value)),
            Values::Suffix(suffix) if group == Group::Name => {
                parent(suffix).is_none_or(|parent| filter.may_hold(parent))
            }
            Values::Prefix(prefix) if has_namespace(group) => self.may_hold_namespace_of(prefix),
            Values::Prefix(_) | Values::Suffix(_) | Values::Range(..) => true,
        }
    }

    /// Of `namespace/name` the namespace decides, too.
    fn may_hold_namespace_of(&self, prefix: &[u8]) -> bool {
        let end = prefix.iter().position(|byte| *byte == b'/');
        let namespace = end.and_then(|end| prefix.get(..end));
        match (namespace, self.terms.get(Group::Namespace)) {
            (Some(namespace), Some(filter)) => filter.may_hold(namespace),
            _ => true,
        }
    }

    fn may_hold_address(&self, values: &Values) -> bool {
        // No flow has a value that is not an address.
        let holds = |value: &[u8]| {
            value.len() == 16 && self.addresses.is_none_or(|filter| filter.may_hold(value))
        };
        match values {
            Values::One(value) => holds(value),
            Values::Several(values) => values.iter().any(|value| holds(value)),
            Values::Range(low, high) => {
                match (low.as_slice().try_into(), high.as_slice().try_into()) {
                    (Ok(low), Ok(high)) => self.may_hold_between(low, high),
                    _ => true,
                }
            }
            Values::Prefix(_) | Values::Suffix(_) => true,
        }
    }

    /// Asks for each address, if there are few; otherwise for each network that the range touches.
    fn may_hold_between(&self, low: [u8; 16], high: [u8; 16]) -> bool {
        let [from, to] = [low, high].map(u128::from_be_bytes);
        if from > to {
            return false;
        }
        let may = |filter: Option<&TermFilter>, bits: u8, value: fn(Network) -> Vec<u8>| {
            let step = 128 - u32::from(bits);
            let blocks = (from >> step)..=(to >> step);
            if blocks.end() - blocks.start() >= MAX_PROBES {
                return true;
            }
            filter.is_none_or(|filter| {
                blocks.into_iter().any(|block| {
                    let address = Address((block << step).to_be_bytes());
                    filter.may_hold(value(Network::of(address, bits)))
                })
            })
        };
        let (first, last) = (Address(low), Address(high));
        let (wide, narrow) = (wide_bits(first), narrow_bits(first));
        let mapped = u128::from_be_bytes(Address::v4([0; 4]).0);
        if wide_bits(last) != wide || (from < mapped && mapped <= to) {
            // IPv4 and IPv6 have networks of different lengths, and this range has addresses of both.
            return true;
        }
        let address = |network: Network| network.first().0.to_vec();
        may(self.terms.get(Group::WideNetwork), wide, network_value)
            && may(self.terms.get(Group::Network), narrow, network_value)
            && may(self.addresses, 128, address)
    }
}

/// Whether values of a group are written `namespace/name`.
fn has_namespace(group: Group) -> bool {
    matches!(group, Group::Pod | Group::Service | Group::Workload)
}
