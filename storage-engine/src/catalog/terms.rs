//! Filters of flows over what the catalog knows of segments that are not opened.

use std::convert::Infallible;

use capstan_index::Field;
use capstan_index::filter::{Bounds, FlowFilter, Term, TermSource, Values};
use capstan_model::{FlowId, Protocol};

use super::manifest::Manifest;
use super::segment_entry::SegmentEntry;
use crate::term_filters::KnownTerms;

/// What may be there: nothing is certain of all flows.
fn possible(possible: bool) -> Result<Bounds<bool>, Infallible> {
    Ok(Bounds { sure: false, possible })
}

/// Whether one of the flow ids of a term may be there, if `may` decides it for one. No flow has an id of another length.
fn may_hold_flow(values: &Values, may: impl Fn(FlowId) -> bool) -> bool {
    let holds = |value: &[u8]| value.try_into().is_ok_and(|id| may(FlowId(id)));
    match values {
        Values::One(value) => holds(value),
        Values::Several(values) => values.iter().any(|value| holds(value)),
        Values::Prefix(_) | Values::Suffix(_) | Values::Range(..) => true,
    }
}

/// Its filters, its protocols and its range of flow ids decide.
impl TermSource for SegmentEntry {
    type Flows = bool;
    type Error = Infallible;

    fn all(&self) -> bool {
        true
    }

    fn bounds(&self, term: &Term) -> Result<Bounds<bool>, Infallible> {
        match (term.field, self.flow_ids) {
            // An entry without counts cannot decide.
            (Field::Protocol, _) if !self.protocols.is_empty() => {
                let may_hold = |number: u8| {
                    // A number from a newer version is written under the name it has there.
                    usize::from(number) >= Protocol::ALL.len()
                        || self.protocols.contains_key(Protocol::from_number(number).name())
                };
                possible(match term.values.one() {
                    Some(value) => value.first().is_some_and(|number| may_hold(*number)),
                    None => (0..=u8::MAX)
                        .any(|number| term.values.contains(&[number]) && may_hold(number)),
                })
            }
            (Field::Flow, Some(ids)) => {
                possible(may_hold_flow(&term.values, |id| ids.first <= id && id <= ids.last))
            }
            _ => {
                let addresses = self.address_filter.as_ref();
                KnownTerms { addresses, terms: &self.term_filters }.bounds(term)
            }
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

/// The segments in those of its parts that a query may skip. Filters decide, and the recorders of flow ids.
impl TermSource for Manifest {
    type Flows = bool;
    type Error = Infallible;

    fn all(&self) -> bool {
        true
    }

    fn bounds(&self, term: &Term) -> Result<Bounds<bool>, Infallible> {
        if term.field == Field::Flow {
            return possible(may_hold_flow(&term.values, |id| {
                self.contributors.iter().any(|of| of.recorder == id.recorder())
            }));
        }
        self.known(|known| known.bounds(term))
    }
}

impl Manifest {
    /// Whether a segment in a skippable part may have matching flows. False is certain.
    pub fn may_match(&self, flows: &FlowFilter) -> bool {
        let Ok(may) = flows.may_match(self);
        may
    }
}
