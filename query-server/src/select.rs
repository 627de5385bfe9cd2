//! Which flows a question is about: terms put together by and, or and not, asked of the
//! catalog (may this segment have such flows?) and of an opened segment (which ones are they?).
//!
//! [`Selection`] is what people ask for on a command line or in an export; [`FlowFilter`] is
//! the expression below it, which SQL predicates are turned into, too.
//!
//! Flows are what is selected, not packets: a term of a flow part stands for all its packets
//! in that segment. For addresses of tunnels that means the flow went through that tunnel at
//! least once. Times are not terms: packets are cut to the range after their flows are selected.

mod filter;
#[cfg(test)]
mod tests;

use capstan_model::{Address, Protocol, TimeRange};
use capstan_storage_engine::catalog::SegmentEntry;

pub use filter::{Certainty, FlowFilter, Matches, Term};

use crate::flight::ExportRequest;

/// Which packets.
///
/// A packet belongs if it lies in `range` and its flow has *all* of `ips`, *all* of `ports`,
/// *all* of `namespaces` and *all* of `pods`, each at either end, and *one* of `protocols`;
/// an empty list asks for nothing in particular. So one address and one port are "this host
/// and this port", and two addresses are "between these two". An address is an end of the
/// flow or of a tunnel around it, and so is a port. A flow has one protocol, which is why
/// several of them mean any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// When; [`TimeRange::ALL`] takes packets without a time, too.
    pub range: TimeRange,
    /// Either end, inner or outer, is this one; for each of them.
    pub ips: Vec<Address>,
    /// Either port, inner or outer, is this one; for each of them.
    pub ports: Vec<u16>,
    /// The protocol label is one of these.
    pub protocols: Vec<Protocol>,
    /// Either end is in this Kubernetes namespace; for each of them.
    pub namespaces: Vec<String>,
    /// Either end is this pod, written `namespace/name`; for each of them.
    pub pods: Vec<String>,
}

impl Default for Selection {
    /// Everything.
    fn default() -> Self {
        Selection {
            range: TimeRange::ALL,
            ips: Vec::new(),
            ports: Vec::new(),
            protocols: Vec::new(),
            namespaces: Vec::new(),
            pods: Vec::new(),
        }
    }
}

impl Selection {
    /// Everything in a range.
    pub fn of_range(range: TimeRange) -> Self {
        Selection { range, ..Selection::default() }
    }

    /// The flows it asks for.
    pub fn filter(&self) -> FlowFilter {
        let mut all: Vec<FlowFilter> = Vec::new();
        all.extend(self.ips.iter().map(|ip| FlowFilter::host(*ip)));
        all.extend(self.ports.iter().map(|port| FlowFilter::port(*port)));
        all.extend(self.namespaces.iter().map(|name| Term::namespace(name).into()));
        all.extend(self.pods.iter().map(|name| Term::pod(name).into()));
        if !self.protocols.is_empty() {
            let any = self.protocols.iter().map(|protocol| Term::protocol(*protocol).into());
            all.push(FlowFilter::Or(any.collect()));
        }
        FlowFilter::And(all)
    }

    /// Whether nothing is left out: all flows of all of time.
    pub fn is_everything(&self) -> bool {
        *self == Selection::default()
    }

    /// Whether packets of a segment may belong, told without opening it. A no is certain.
    pub fn may_match(&self, entry: &SegmentEntry) -> bool {
        entry.touches(&self.range) && self.filter().may_match(entry)
    }

    /// The selection in words: `ip 10.0.0.1, port 443`; empty if all flows belong.
    pub fn words(&self) -> String {
        fn named<T: ToString>(name: &str, values: &[T], join: &str) -> Option<String> {
            let values: Vec<String> = values.iter().map(T::to_string).collect();
            (!values.is_empty()).then(|| format!("{name} {}", values.join(join)))
        }
        let parts = [
            named("ip", &self.ips, " and "),
            named("port", &self.ports, " and "),
            named("protocol", &self.protocols, " or "),
            named("namespace", &self.namespaces, " and "),
            named("pod", &self.pods, " and "),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl From<&ExportRequest> for Selection {
    fn from(request: &ExportRequest) -> Self {
        Selection {
            range: request.range,
            ips: request.ips.clone(),
            ports: request.ports.clone(),
            protocols: request.protocols.clone(),
            ..Selection::default()
        }
    }
}
