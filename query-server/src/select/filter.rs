//! The filter expression, and its evaluation.

use capstan_index::Field;
use capstan_model::{Address, Protocol};
use capstan_storage_engine::catalog::{AddressFilter, SegmentEntry};
use capstan_storage_engine::segment::Corrupt;
use capstan_storage_engine::segment::reader::Segment;
use roaring::RoaringBitmap;

/// A value of a field, as the term index has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Term {
    /// Which field.
    pub field: Field,
    /// The value's bytes; [`Field`] says how each is written.
    pub value: Vec<u8>,
}

impl Term {
    /// A term.
    pub fn new(field: Field, value: impl Into<Vec<u8>>) -> Self {
        Term { field, value: value.into() }
    }

    /// Either end of the flow itself.
    pub fn ip(address: Address) -> Self {
        Term::new(Field::Ip, address.0)
    }

    /// Either end of a tunnel around it.
    pub fn outer_ip(address: Address) -> Self {
        Term::new(Field::OuterIp, address.0)
    }

    /// Either port, of the flow or of a tunnel around it.
    pub fn port(port: u16) -> Self {
        Term::new(Field::Port, port.to_be_bytes())
    }

    /// The application protocol label.
    pub fn protocol(protocol: Protocol) -> Self {
        Term::new(Field::Protocol, [protocol as u8])
    }

    /// The IP protocol number.
    pub fn ip_protocol(number: u8) -> Self {
        Term::new(Field::IpProtocol, [number])
    }

    /// The innermost VLAN identifier.
    pub fn vlan(identifier: u16) -> Self {
        Term::new(Field::Vlan, identifier.to_be_bytes())
    }

    /// The innermost virtual network identifier.
    pub fn vni(identifier: u32) -> Self {
        Term::new(Field::Vni, identifier.to_be_bytes())
    }

    /// The Kubernetes namespace of either end.
    pub fn namespace(name: &str) -> Self {
        Term::new(Field::Namespace, name)
    }

    /// The pod of either end, `namespace/name`.
    pub fn pod(name: &str) -> Self {
        Term::new(Field::Pod, name)
    }

    fn may_be_among(&self, addresses: &AddressFilter) -> bool {
        if !matches!(self.field, Field::Ip | Field::OuterIp) {
            return true;
        }
        // No flow has a value that is not an address.
        <[u8; 16]>::try_from(self.value.as_slice())
            .is_ok_and(|address| addresses.may_hold(Address(address)))
    }

    fn may_match(&self, entry: &SegmentEntry) -> bool {
        match self.field {
            Field::Ip | Field::OuterIp => {
                entry.address_filter.as_ref().is_none_or(|filter| self.may_be_among(filter))
            }
            // An entry without counts cannot decide.
            Field::Protocol if !entry.protocols.is_empty() => {
                self.value.first().is_some_and(|number| {
                    // A number from a newer version is written under the name it has there.
                    usize::from(*number) >= Protocol::ALL.len()
                        || entry.protocols.contains_key(Protocol::from_number(*number).name())
                })
            }
            _ => true,
        }
    }
}

/// Whether a field is about the identity of an end, which may become known after packets are recorded.
fn is_identity(field: Field) -> bool {
    matches!(field, Field::Namespace | Field::Pod | Field::Service | Field::Node | Field::Process)
}

/// Which flows: terms with and, or, not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FlowFilter {
    /// Flows with this term.
    Term(Term),
    /// Flows that all of these are true of; without any, all flows.
    And(Vec<FlowFilter>),
    /// Flows that one of these is true of; without any, no flow.
    Or(Vec<FlowFilter>),
    /// Flows that this is not true of.
    Not(Box<FlowFilter>),
}

impl From<Term> for FlowFilter {
    fn from(term: Term) -> Self {
        FlowFilter::Term(term)
    }
}

impl std::ops::Not for FlowFilter {
    type Output = FlowFilter;

    fn not(self) -> FlowFilter {
        FlowFilter::Not(Box::new(self))
    }
}

/// Whether an answer is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It is.
    Known,
    /// A selected field was never filled in for these flows: whether they match is unknown. That is not the same
    /// as no match.
    Unknown,
}

/// The flow parts of one segment, by ordinal.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matches {
    /// Matching flows.
    pub flows: RoaringBitmap,
    /// Flows for which it is unknown; disjoint from `flows`.
    pub unknown: RoaringBitmap,
}

impl Matches {
    /// Whether `flows` is the whole answer.
    pub fn certainty(&self) -> Certainty {
        if self.unknown.is_empty() { Certainty::Known } else { Certainty::Unknown }
    }
}

/// Flows that certainly match, and flows that may match, which include the first.
struct Bounds {
    sure: RoaringBitmap,
    possible: RoaringBitmap,
}

impl Bounds {
    fn known(flows: RoaringBitmap) -> Self {
        Bounds { possible: flows.clone(), sure: flows }
    }

    /// `found` are the flows with an identity term, `identified` those with any term of that field. For all
    /// other flows a match is unknown.
    fn of_who(found: RoaringBitmap, identified: &RoaringBitmap, all: RoaringBitmap) -> Self {
        Bounds { possible: &found | (all - identified), sure: found }
    }
}

impl FlowFilter {
    /// All flows.
    pub fn all() -> Self {
        FlowFilter::And(Vec::new())
    }

    /// No flow.
    pub fn nothing() -> Self {
        FlowFilter::Or(Vec::new())
    }

    /// Flows with this address at either end, or at either end of a tunnel around them.
    pub fn host(address: Address) -> Self {
        FlowFilter::Or(vec![Term::ip(address).into(), Term::outer_ip(address).into()])
    }

    /// Flows with this port at either end, or at either end of a tunnel around them.
    pub fn port(port: u16) -> Self {
        Term::port(port).into()
    }

    /// Whether it is all flows, whatever they are.
    pub fn is_all(&self) -> bool {
        match self {
            FlowFilter::Term(_) => false,
            FlowFilter::And(filters) => filters.iter().all(FlowFilter::is_all),
            FlowFilter::Or(filters) => filters.iter().any(FlowFilter::is_all),
            FlowFilter::Not(filter) => filter.is_nothing(),
        }
    }

    fn is_nothing(&self) -> bool {
        match self {
            FlowFilter::Term(_) => false,
            FlowFilter::And(filters) => filters.iter().any(FlowFilter::is_nothing),
            FlowFilter::Or(filters) => filters.iter().all(FlowFilter::is_nothing),
            FlowFilter::Not(filter) => filter.is_all(),
        }
    }

    /// Whether a segment may have matching flows, decided from the addresses and protocols in its catalog entry.
    /// False is certain. For identity terms the answer includes flows with unknown identity.
    pub fn may_match(&self, entry: &SegmentEntry) -> bool {
        self.may_be_where(&|term| term.may_match(entry))
    }

    /// Whether flows among these addresses may match. False is certain.
    pub fn may_be_among(&self, addresses: &AddressFilter) -> bool {
        self.may_be_where(&|term| term.may_be_among(addresses))
    }

    /// Whether flows may match, if `term_may` decides it for a term.
    fn may_be_where(&self, term_may: &dyn Fn(&Term) -> bool) -> bool {
        match self {
            FlowFilter::Term(term) => term_may(term),
            FlowFilter::And(filters) => filters.iter().all(|of| of.may_be_where(term_may)),
            FlowFilter::Or(filters) => filters.iter().any(|of| of.may_be_where(term_may)),
            // A flow may have other values, too.
            FlowFilter::Not(filter) => !filter.is_all(),
        }
    }

    /// The matching flow parts of a segment.
    ///
    /// An identity term (namespace, pod, service, node, process) is unknown for flows without any such term. The
    /// result of and, or and not is unknown where the other side does not decide.
    ///
    /// # Errors
    /// [`Corrupt`] where the term index is invalid.
    pub fn evaluate(&self, segment: &Segment) -> Result<Matches, Corrupt> {
        if self.is_all() {
            return Ok(Matches { flows: segment.all_flows(), unknown: RoaringBitmap::new() });
        }
        let Bounds { sure, possible } = self.bounds(segment)?;
        Ok(Matches { unknown: possible - &sure, flows: sure })
    }

    fn bounds(&self, segment: &Segment) -> Result<Bounds, Corrupt> {
        match self {
            FlowFilter::Term(term) => {
                let found = segment.postings(term.field, &term.value)?;
                if !is_identity(term.field) {
                    return Ok(Bounds::known(found));
                }
                Ok(Bounds::of_who(found, &with_any(segment, term.field)?, segment.all_flows()))
            }
            FlowFilter::And(filters) => {
                let mut filters = filters.iter();
                let Some(first) = filters.next() else {
                    return Ok(Bounds::known(segment.all_flows()));
                };
                let mut all = first.bounds(segment)?;
                for filter in filters {
                    if all.possible.is_empty() {
                        break;
                    }
                    let next = filter.bounds(segment)?;
                    all.sure &= next.sure;
                    all.possible &= next.possible;
                }
                Ok(all)
            }
            FlowFilter::Or(filters) => {
                let mut any = Bounds::known(RoaringBitmap::new());
                for filter in filters {
                    let next = filter.bounds(segment)?;
                    any.sure |= next.sure;
                    any.possible |= next.possible;
                }
                Ok(any)
            }
            FlowFilter::Not(filter) => {
                let Bounds { sure, possible } = filter.bounds(segment)?;
                let all = segment.all_flows();
                Ok(Bounds { sure: &all - possible, possible: all - sure })
            }
        }
    }
}

/// The flows that have any term of that field.
fn with_any(segment: &Segment, field: Field) -> Result<RoaringBitmap, Corrupt> {
    let failed = |error: capstan_index::IndexError| Corrupt::new("index", error.to_string());
    let mut any = RoaringBitmap::new();
    for term in segment.terms().terms(field).map_err(failed)? {
        any |= segment.postings(field, &term.map_err(failed)?.value)?;
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flow_whose_end_is_known_says_nothing_of_the_others() {
        let flows = |numbers: &[u32]| numbers.iter().copied().collect::<RoaringBitmap>();
        for (found, identified, possible) in [
            (&[1][..], &[1][..], &[0, 1, 2, 3][..]),
            (&[], &[1], &[0, 2, 3]),
            (&[1], &[0, 1, 2, 3], &[1]),
            (&[], &[], &[0, 1, 2, 3]),
        ] {
            let bounds = Bounds::of_who(flows(found), &flows(identified), flows(&[0, 1, 2, 3]));
            assert_eq!((bounds.sure, bounds.possible), (flows(found), flows(possible)));
        }
    }
}
