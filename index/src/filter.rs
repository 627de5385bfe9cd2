//! Which flows: terms combined by and, or and not.
//!
//! A [`FlowFilter`] is evaluated over a [`TermSource`]: an opened segment, the entry of a segment in the catalog, the
//! manifest of an hour, one live flow. The result is two [`Bounds`]: flows that certainly match, and flows that may
//! match. They differ where a source cannot decide, for example because the identity of an end was never recorded.
//!
//! Languages that people write (options of a command line, SQL predicates, display filters) are translated into this
//! expression. A restriction on what somebody may see is one more filter in an `And`, of which only the certain flows
//! count.

mod bounds;
mod display;
mod flow;
mod source;
mod term;
mod values;

use std::ops::RangeInclusive;

use capstan_model::{Address, Network};
use roaring::RoaringBitmap;

pub use self::bounds::{Bounds, Certainty, FlowSet, Matches};
pub use self::flow::{FlowTerms, TunnelEnds};
pub use self::source::TermSource;
pub use self::term::Term;
pub use self::values::Values;

/// A filter of flows: terms with and, or, not.
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

    /// Flows with an address in this network at either end, or at either end of a tunnel around them.
    pub fn network(network: Network) -> Self {
        FlowFilter::Or(vec![Term::ip_in(network).into(), Term::outer_ip_in(network).into()])
    }

    /// Flows with one of these ports at either end, or at either end of a tunnel around them.
    pub fn ports(ports: RangeInclusive<u16>) -> Self {
        Term::ports(ports).into()
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

    /// Whether a source may have matching flows. False is certain. The answer includes flows of which it is unknown
    /// whether they match.
    ///
    /// # Errors
    /// Errors of the source.
    pub fn may_match<S: TermSource>(&self, source: &S) -> Result<bool, S::Error> {
        Ok(!self.bounds(source)?.possible.is_none())
    }

    /// The matching flows of a source.
    ///
    /// # Errors
    /// Errors of the source.
    pub fn evaluate<S>(&self, source: &S) -> Result<Matches, S::Error>
    where
        S: TermSource<Flows = RoaringBitmap>,
    {
        let Bounds { sure, possible } = self.bounds(source)?;
        Ok(Matches { unknown: possible - &sure, flows: sure })
    }

    /// The flows of a source that certainly match, and those that may match.
    ///
    /// # Errors
    /// Errors of the source.
    pub fn bounds<S: TermSource>(&self, source: &S) -> Result<Bounds<S::Flows>, S::Error> {
        match self {
            FlowFilter::Term(term) => source.bounds(term),
            FlowFilter::And(filters) => {
                let mut filters = filters.iter();
                let Some(first) = filters.next() else {
                    return Ok(Bounds::known(source.all()));
                };
                let mut all = first.bounds(source)?;
                for filter in filters {
                    if all.possible.is_none() {
                        break;
                    }
                    all.and(&filter.bounds(source)?);
                }
                Ok(all)
            }
            FlowFilter::Or(filters) => {
                let mut any = Bounds::known(S::Flows::none());
                for filter in filters {
                    any.or(filter.bounds(source)?);
                }
                Ok(any)
            }
            FlowFilter::Not(filter) => Ok(filter.bounds(source)?.negate(source.all())),
        }
    }
}
