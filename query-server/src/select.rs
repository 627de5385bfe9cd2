//! Selects flows: terms combined by and, or and not. The catalog answers whether a segment may have such flows;
//! an opened segment answers which they are.
//!
//! [`Selection`] is the input of a command line or an export; [`FlowFilter`] is the expression that it and SQL
//! predicates are translated into.
//!
//! A selection chooses flows, not packets: a term of a flow part stands for all its packets in that segment. For
//! addresses of tunnels that means the flow went through that tunnel at least once. Times are not terms: packets
//! are cut to the range after their flows are selected.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use capstan_index::filter::{FlowFilter, Term};
use capstan_model::{Address, Failure, FailureKind, Protocol, TimeRange};
use capstan_storage_engine::catalog::SegmentEntry;

use crate::flight::ExportRequest;

/// Selects packets.
///
/// A packet is selected if it lies in `range` and its flow has *all* of `ips`, *all* of `ports`, *all* of
/// `namespaces` and *all* of `pods`, each at either end, and *one* of `protocols`; an empty list is no
/// restriction. So one address and one port are "this host and this port", and two addresses are "between these
/// two". An address is an end of the flow or of a tunnel around it, and so is a port. A flow has one protocol,
/// so several of them mean any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The time range; [`TimeRange::ALL`] includes packets without a time.
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

    /// The filter for the selected flows.
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

    /// Whether it selects all flows of all of time.
    pub fn is_everything(&self) -> bool {
        *self == Selection::default()
    }

    /// Refuses a selection that no flow can match, because a flow has two ends.
    ///
    /// # Errors
    /// Of kind `Usage`, with the reason.
    pub fn check(&self) -> Result<(), Failure> {
        let usage = |words: String| Err(Failure::new(FailureKind::Usage, words));
        let mut namespaces: BTreeSet<&str> = self.namespaces.iter().map(String::as_str).collect();
        for pod in &self.pods {
            match pod.split_once('/') {
                Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                    namespaces.insert(namespace);
                }
                _ => return usage(format!("'{pod}' is not a pod: write namespace/name")),
            }
        }
        let pods: BTreeSet<&String> = self.pods.iter().collect();
        for (number, what) in [(namespaces.len(), "namespaces"), (pods.len(), "pods")] {
            if number > 2 {
                return usage(format!(
                    "a flow has two ends, but {number} {what} are selected and all must match: \
                     select one or two"
                ));
            }
        }
        Ok(())
    }

    /// Whether it selects by identity, which is not known for all packets.
    pub fn asks_identity(&self) -> bool {
        !self.namespaces.is_empty() || !self.pods.is_empty()
    }

    /// Remarks on the selection, for the reader of the answer, in words.
    pub fn remarks(&self) -> Vec<String> {
        let ips = self.ips.iter().collect::<BTreeSet<_>>().len();
        let ports = self.ports.iter().collect::<BTreeSet<_>>().len();
        let many = [(ips, "addresses"), (ports, "ports")].into_iter();
        let mut remarks: Vec<String> = many
            .filter(|(number, _)| *number > 2)
            .map(|(number, what)| {
                format!(
                    "{number} {what} are selected and all must match: only flows in tunnels have \
                     more than two, so no other packet is found"
                )
            })
            .collect();
        if self.asks_identity() {
            remarks.push(
                "packets without recorded pod identities are left out: whether they match is unknown"
                    .to_owned(),
            );
        }
        remarks
    }

    /// Whether a segment may have selected packets, decided without opening it. False is certain.
    pub fn may_match(&self, entry: &SegmentEntry) -> bool {
        entry.touches(&self.range) && entry.may_match(&self.filter())
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
