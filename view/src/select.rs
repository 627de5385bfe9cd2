//! Selects flows: what a command line, an export request or a URL asks for, as a filter of flows.
//!
//! A [`Selection`] chooses flows, not packets: a term of a flow part stands for all its packets in that segment. For
//! addresses of tunnels that means the flow went through that tunnel at least once. Times are not terms: packets
//! are cut to the range after their flows are selected.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use capstan_index::Field;
use capstan_index::filter::{FlowFilter, Term};
use capstan_model::{Failure, FailureKind, Network, Ports, Protocol, TimeRange};
use capstan_storage_engine::catalog::SegmentEntry;

/// What a selection can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An address or a network of one end.
    Host,
    /// A port, or a range of ports, of one end.
    Port,
    /// A protocol label.
    Protocol,
    /// The Kubernetes namespace of one end.
    Namespace,
    /// The pod of one end.
    Pod,
    /// The service of one end.
    Service,
    /// The workload of one end.
    Workload,
    /// The node of one end.
    Node,
    /// The TLS server name.
    Name,
}

impl By {
    /// All of them.
    pub const ALL: [By; 9] = [
        By::Host,
        By::Port,
        By::Protocol,
        By::Namespace,
        By::Pod,
        By::Service,
        By::Workload,
        By::Node,
        By::Name,
    ];

    /// The name of the option and of the parameter.
    pub fn name(self) -> &'static str {
        match self {
            By::Host => "host",
            By::Port => "port",
            By::Protocol => "protocol",
            By::Namespace => "namespace",
            By::Pod => "pod",
            By::Service => "service",
            By::Workload => "workload",
            By::Node => "node",
            By::Name => "name",
        }
    }
}

/// Selects packets.
///
/// A packet is selected if it lies in `range` and its flow has *all* of `hosts`, *all* of `ports` and *all* of the named
/// ends, each at either end, and *one* of `protocols`; an empty list is no restriction. So one address and one port are
/// "this host and this port", and two addresses are "between these two". An address is an end of the flow or of a
/// tunnel around it, and so is a port. A flow has one protocol, so several of them mean any.
///
/// A text may begin or end with a star, which stands for any text: `shop/web-*`, `*.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The time range; [`TimeRange::ALL`] includes packets without a time.
    pub range: TimeRange,
    /// Either end, inner or outer, is in this network; for each of them.
    pub hosts: Vec<Network>,
    /// Either port, inner or outer, is one of these; for each of them.
    pub ports: Vec<Ports>,
    /// The protocol label is one of these.
    pub protocols: Vec<Protocol>,
    /// Either end is in this Kubernetes namespace; for each of them.
    pub namespaces: Vec<String>,
    /// Either end is this pod, written `namespace/name`; for each of them.
    pub pods: Vec<String>,
    /// Either end is this service, written `namespace/name`; for each of them.
    pub services: Vec<String>,
    /// Either end is of this workload, written `namespace/kind/name`; for each of them.
    pub workloads: Vec<String>,
    /// Either end is on this node; for each of them.
    pub nodes: Vec<String>,
    /// The TLS server name is this; for each of them.
    pub names: Vec<String>,
}

impl Default for Selection {
    /// Everything.
    fn default() -> Self {
        Selection {
            range: TimeRange::ALL,
            hosts: Vec::new(),
            ports: Vec::new(),
            protocols: Vec::new(),
            namespaces: Vec::new(),
            pods: Vec::new(),
            services: Vec::new(),
            workloads: Vec::new(),
            nodes: Vec::new(),
            names: Vec::new(),
        }
    }
}

impl Selection {
    /// Everything in a range.
    pub fn of_range(range: TimeRange) -> Self {
        Selection { range, ..Selection::default() }
    }

    /// Adds one value.
    ///
    /// # Errors
    /// Of kind `Usage`, with the reason: it is none, or empty.
    pub fn add(&mut self, by: By, text: &str) -> Result<(), Failure> {
        if let Some(texts) = self.texts_mut(by) {
            if text.is_empty() {
                let words = format!("'{}' has no value: leave it out, or give it one", by.name());
                return Err(Failure::new(FailureKind::Usage, words));
            }
            texts.push(text.to_owned());
            return Ok(());
        }
        match by {
            By::Host => self.hosts.push(parsed(text)?),
            By::Port => self.ports.push(parsed(text)?),
            _ => self.protocols.push(parsed(text)?),
        }
        Ok(())
    }

    fn texts_mut(&mut self, by: By) -> Option<&mut Vec<String>> {
        Some(match by {
            By::Host | By::Port | By::Protocol => return None,
            By::Namespace => &mut self.namespaces,
            By::Pod => &mut self.pods,
            By::Service => &mut self.services,
            By::Workload => &mut self.workloads,
            By::Node => &mut self.nodes,
            By::Name => &mut self.names,
        })
    }

    /// The values of one kind, as [`Selection::add`] takes them.
    pub fn values(&self, by: By) -> Vec<String> {
        fn texts<T: ToString>(values: &[T]) -> Vec<String> {
            values.iter().map(T::to_string).collect()
        }
        match by {
            By::Host => texts(&self.hosts),
            By::Port => texts(&self.ports),
            By::Protocol => texts(&self.protocols),
            By::Namespace => self.namespaces.clone(),
            By::Pod => self.pods.clone(),
            By::Service => self.services.clone(),
            By::Workload => self.workloads.clone(),
            By::Node => self.nodes.clone(),
            By::Name => self.names.clone(),
        }
    }

    /// The filter for the selected flows.
    pub fn filter(&self) -> FlowFilter {
        let mut all: Vec<FlowFilter> = Vec::new();
        all.extend(self.hosts.iter().map(|network| FlowFilter::network(*network)));
        all.extend(self.ports.iter().map(|ports| FlowFilter::ports(ports.range())));
        for (field, texts) in [
            (Field::Namespace, &self.namespaces),
            (Field::Pod, &self.pods),
            (Field::Service, &self.services),
            (Field::Workload, &self.workloads),
            (Field::Node, &self.nodes),
            (Field::Sni, &self.names),
        ] {
            all.extend(texts.iter().map(|text| pattern(field, text).into()));
        }
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
        let whole = |text: &&String| !text.contains('*');
        let mut namespaces: BTreeSet<&str> =
            self.namespaces.iter().filter(whole).map(String::as_str).collect();
        for text in [
            &self.namespaces,
            &self.nodes,
            &self.names,
            &self.services,
            &self.workloads,
            &self.pods,
        ]
        .into_iter()
        .flatten()
        {
            let rest = text.strip_prefix('*').or(text.strip_suffix('*')).unwrap_or(text);
            if rest.contains('*') {
                return usage(format!("'{text}': a star stands at one end only"));
            }
        }
        for (what, form, texts) in [
            ("pod", "namespace/name", &self.pods),
            ("service", "namespace/name", &self.services),
            ("workload", "namespace/kind/name", &self.workloads),
        ] {
            if let Some(text) = texts.iter().find(|text| !may_have_form(text, form)) {
                return usage(format!("'{text}' is not a {what}: write {form}"));
            }
        }
        let with_namespace = self.pods.iter().filter(|pod| !pod.starts_with('*'));
        namespaces.extend(with_namespace.filter_map(|pod| Some(pod.split_once('/')?.0)));
        let pods: BTreeSet<&String> = self.pods.iter().filter(whole).collect();
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
        [&self.namespaces, &self.pods, &self.services, &self.workloads, &self.nodes]
            .iter()
            .any(|texts| !texts.is_empty())
    }

    /// Remarks on the selection, for the reader of the answer, in words.
    pub fn remarks(&self) -> Vec<String> {
        // Two networks may have one address in common.
        let single = self.hosts.iter().filter_map(Network::address);
        let ips = single.collect::<BTreeSet<_>>().len();
        let ports = self.ports.iter().filter_map(Ports::one).collect::<BTreeSet<_>>().len();
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
        let parts = By::ALL.map(|by| {
            let values = self.values(by);
            let (name, join) = match by {
                By::Host => ("ip", " and "),
                By::Protocol => ("protocol", " or "),
                other => (other.name(), " and "),
            };
            (!values.is_empty()).then(|| format!("{name} {}", values.join(join)))
        });
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error: T::Err| Failure::new(FailureKind::Usage, error.to_string()))
}

/// A value of a field; one that begins or ends with a star is any value with the rest of it.
fn pattern(field: Field, text: &str) -> Term {
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(suffix), _) => Term::suffix(field, suffix),
        (None, Some(prefix)) => Term::prefix(field, prefix),
        (None, None) => Term::new(field, text),
    }
}

/// Whether a text can match names of this form, whose elements are separated by slashes. A star may stand for several
/// elements.
fn may_have_form(text: &str, form: &str) -> bool {
    let (given, whole) = (text.split('/').count(), form.split('/').count());
    let has_star = text.starts_with('*') || text.ends_with('*');
    let enough = if has_star { given <= whole } else { given == whole };
    enough && text.split('/').all(|element| !element.is_empty())
}
