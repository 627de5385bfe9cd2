//! What the catalog says of the terms in a segment or an hour: one [`TermFilter`] a field.
//!
//! A filter of flows is evaluated over them before a segment is opened: see [`KnownTerms`]. Each filter is of a [`Group`]
//! of fields. Beside the values themselves some have more, so that they can also decide conditions on many values:
//! networks of addresses, and the parent domains of names.
//!
//! A group without a filter may hold any value. A group of identities (namespaces, pods, …) has a filter only if the
//! identities of both ends of *all* flows are known; otherwise flows with unknown ends would be taken for flows that
//! do not match.

mod filter;
mod known_terms;
mod summary;
mod values;

use std::collections::BTreeMap;

use capstan_index::Field;
use serde::{Deserialize, Serialize};

pub use self::filter::{MAX_UNION, MAX_VALUES, TermFilter};
pub use self::known_terms::KnownTerms;
pub use self::summary::{FlowIds, Summary};

/// What one filter is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// The networks of 16 bits (IPv4) or 48 bits (IPv6) that addresses are in.
    WideNetwork,
    /// Those of 24 bits (IPv4) or 64 bits (IPv6).
    Network,
    /// Namespaces.
    Namespace,
    /// Pods.
    Pod,
    /// Services.
    Service,
    /// Workloads.
    Workload,
    /// Nodes.
    Node,
    /// Names of hosts, and each of their parent domains.
    Name,
}

impl Group {
    /// All of them.
    pub const ALL: [Group; 8] = [
        Group::WideNetwork,
        Group::Network,
        Group::Namespace,
        Group::Pod,
        Group::Service,
        Group::Workload,
        Group::Node,
        Group::Name,
    ];

    /// The name that is stored.
    pub fn name(self) -> &'static str {
        match self {
            Group::WideNetwork => "wide-network",
            Group::Network => "network",
            Group::Namespace => "namespace",
            Group::Pod => "pod",
            Group::Service => "service",
            Group::Workload => "workload",
            Group::Node => "node",
            Group::Name => "name",
        }
    }

    /// The field whose values it has; none for networks, which no field has.
    fn field(self) -> Option<Field> {
        match self {
            Group::WideNetwork | Group::Network => None,
            Group::Namespace => Some(Field::Namespace),
            Group::Pod => Some(Field::Pod),
            Group::Service => Some(Field::Service),
            Group::Workload => Some(Field::Workload),
            Group::Node => Some(Field::Node),
            Group::Name => Some(Field::Sni),
        }
    }

    /// The group that has the values of a field; none if no filter has them.
    fn of(field: Field) -> Option<Group> {
        Group::ALL.into_iter().find(|group| group.field() == Some(field))
    }
}

/// Filters by the name of their group. Groups of newer versions are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TermFilters(BTreeMap<String, TermFilter>);

impl TermFilters {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The filter of a group; none = any value may be there.
    pub fn get(&self, group: Group) -> Option<&TermFilter> {
        self.0.get(group.name())
    }

    /// Sets the filter of a group.
    pub fn set(&mut self, group: Group, filter: TermFilter) {
        self.0.insert(group.name().to_owned(), filter);
    }

    /// All filters, by the name of their group.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TermFilter)> {
        self.0.iter().map(|(name, filter)| (name.as_str(), filter))
    }

    /// Whether they cover others: each of these filters includes the other one of its group.
    pub fn includes(&self, others: &TermFilters) -> bool {
        self.0
            .iter()
            .all(|(name, filter)| others.0.get(name).is_some_and(|other| filter.includes(other)))
    }

    /// The union of filters, group by group. A group that one of them lacks, or whose union is too large, has none.
    pub fn union(of: &[&TermFilters]) -> TermFilters {
        let Some(first) = of.first() else { return TermFilters::default() };
        let union = first.0.keys().filter_map(|name| {
            let filters: Vec<&TermFilter> =
                of.iter().map(|of| of.0.get(name)).collect::<Option<_>>()?;
            Some((name.clone(), TermFilter::union(filters)?))
        });
        TermFilters(union.collect())
    }

    /// The groups that most of many segments have.
    ///
    /// One segment without a group must not end the filter of its hour, so that such segments are kept apart
    /// ([`TermFilters::has_all`]). But if they are more than an eighth, the group has no filter.
    pub fn common<'a>(segments: impl IntoIterator<Item = &'a TermFilters>) -> Vec<String> {
        let mut count = 0_usize;
        let mut having: BTreeMap<&str, usize> = BTreeMap::new();
        for filters in segments {
            count += 1;
            filters.0.keys().for_each(|name| *having.entry(name).or_default() += 1);
        }
        let most = |having: usize| (count - having).saturating_mul(8) <= count;
        having.into_iter().filter(|(_, of)| most(*of)).map(|(name, _)| name.to_owned()).collect()
    }

    /// Whether there is a filter for each of these groups.
    pub fn has_all(&self, groups: &[String]) -> bool {
        groups.iter().all(|name| self.0.contains_key(name))
    }

    /// Those of these groups.
    #[must_use]
    pub fn only(mut self, groups: &[String]) -> TermFilters {
        self.0.retain(|name, _| groups.contains(name));
        self
    }
}

#[cfg(test)]
mod tests;
