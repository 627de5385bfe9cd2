//! Filters of flows over what the catalog knows of a segment that is not opened.

use std::convert::Infallible;

use capstan_index::Field;
use capstan_index::filter::{Bounds, FlowFilter, Term, TermSource};
use capstan_model::{Address, Protocol};

use super::filter::AddressFilter;
use super::segment_entry::SegmentEntry;

/// What may be there: nothing is certain of all flows.
fn possible(possible: bool) -> Result<Bounds<bool>, Infallible> {
    Ok(Bounds { sure: false, possible })
}

/// The addresses decide terms of addresses, and no others.
impl TermSource for AddressFilter {
    type Flows = bool;
    type Error = Infallible;

    fn all(&self) -> bool {
        true
    }

    fn bounds(&self, term: &Term) -> Result<Bounds<bool>, Infallible> {
        if !matches!(term.field, Field::Ip | Field::OuterIp) {
            return possible(true);
        }
        // No flow has a value that is not an address.
        let address = <[u8; 16]>::try_from(term.value.as_slice());
        possible(address.is_ok_and(|address| self.may_hold(Address(address))))
    }
}

/// Addresses and protocols decide.
impl TermSource for SegmentEntry {
    type Flows = bool;
    type Error = Infallible;

    fn all(&self) -> bool {
        true
    }

    fn bounds(&self, term: &Term) -> Result<Bounds<bool>, Infallible> {
        match (term.field, &self.address_filter) {
            (Field::Ip | Field::OuterIp, Some(filter)) => filter.bounds(term),
            // An entry without counts cannot decide.
            (Field::Protocol, _) if !self.protocols.is_empty() => {
                possible(term.value.first().is_some_and(|number| {
                    // A number from a newer version is written under the name it has there.
                    usize::from(*number) >= Protocol::ALL.len()
                        || self.protocols.contains_key(Protocol::from_number(*number).name())
                }))
            }
            _ => possible(true),
        }
    }
}

impl SegmentEntry {
    /// Whether a segment may have matching flows, decided from its catalog entry. False is certain. The answer includes
    /// flows of which it is unknown whether they match.
    pub fn may_match(&self, flows: &FlowFilter) -> bool {
        let Ok(may) = flows.may_match(self);
        may
    }
}

impl AddressFilter {
    /// Whether flows among these addresses may match. False is certain.
    pub fn may_match(&self, flows: &FlowFilter) -> bool {
        let Ok(may) = flows.may_match(self);
        may
    }
}
