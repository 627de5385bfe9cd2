//! The filters of a segment, made of its term dictionary.

use std::collections::BTreeSet;

use capstan_index::{Field, IndexError, MAX_VALUE, TermIndex};
use capstan_model::{Address, FlowId, Generation, Network, RecorderId};
use serde::{Deserialize, Serialize};

use super::values::{narrow_bits, network_value, parents, wide_bits};
use super::{Group, TermFilter, TermFilters};

/// Networks that a filter may have, however few addresses there are.
const FEW_NETWORKS: usize = 64;

/// The ids of the flows in a segment lie between these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowIds {
    /// The lowest.
    pub first: FlowId,
    /// The highest.
    pub last: FlowId,
}

/// What the catalog says of the terms of one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Every address, inner and outer, ascending.
    pub addresses: Vec<Address>,
    /// The other filters.
    pub filters: TermFilters,
    /// The lowest and the highest counter of its flows; none if the index has none.
    pub counters: Option<(u64, u64)>,
}

impl Summary {
    /// Reads the dictionary of a segment.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn of<B: AsRef<[u8]>>(index: &TermIndex<B>) -> Result<Summary, IndexError> {
        let mut addresses = BTreeSet::new();
        for field in [Field::Ip, Field::OuterIp] {
            for term in index.terms(field)? {
                let value: Result<[u8; 16], _> = term?.value.try_into();
                addresses.extend(value.ok().map(Address));
            }
        }
        let addresses: Vec<Address> = addresses.into_iter().collect();
        let mut filters = TermFilters::default();
        for (group, bits) in
            [(Group::WideNetwork, wide_bits as fn(Address) -> u8), (Group::Network, narrow_bits)]
        {
            let networks = addresses.iter().map(|address| Network::of(*address, bits(*address)));
            let mut networks: Vec<Network> = networks.collect();
            // Those of ascending addresses ascend.
            networks.dedup();
            // Of addresses from all over the world they say little, and would take as much room as the addresses.
            if networks.len() <= FEW_NETWORKS.max(addresses.len() / 4) {
                let filter = TermFilter::of(networks.into_iter().map(network_value));
                filter.into_iter().for_each(|filter| filters.set(group, filter));
            }
        }
        for group in Group::ALL {
            let Some(field) = group.field() else { continue };
            if field.is_identity() && !index.is_known_of_all(field)? {
                continue;
            }
            if let Some(filter) = values(index, group, field)? {
                filters.set(group, filter);
            }
        }
        Ok(Summary { addresses, filters, counters: counters(index)? })
    }

    /// The filter of its addresses; none if there are too many.
    pub fn address_filter(&self) -> Option<TermFilter> {
        TermFilter::of(&self.addresses)
    }

    /// The range of its flow ids: all carry one generation.
    pub fn flow_ids(&self, recorder: RecorderId, flow_generation: Generation) -> Option<FlowIds> {
        let (first, last) = self.counters?;
        let [first, last] =
            [first, last].map(|counter| FlowId::new(recorder, flow_generation, counter));
        Some(FlowIds { first, last })
    }
}

/// The filter of the values of a field; none if it would be too large, or a value is not whole in the dictionary.
fn values<B: AsRef<[u8]>>(
    index: &TermIndex<B>,
    group: Group,
    field: Field,
) -> Result<Option<TermFilter>, IndexError> {
    let mut values = BTreeSet::new();
    for term in index.terms(field)? {
        let value = term?.value;
        if value.len() >= MAX_VALUE || values.len() > super::MAX_VALUES {
            return Ok(None);
        }
        if group == Group::Name {
            values.extend(parents(&value));
        }
        values.insert(value);
    }
    Ok(TermFilter::of(values))
}

/// The first and the last counter of the flows.
fn counters<B: AsRef<[u8]>>(index: &TermIndex<B>) -> Result<Option<(u64, u64)>, IndexError> {
    let mut ends: Option<(u64, u64)> = None;
    for term in index.terms(Field::Flow)? {
        let counter = term?.value.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (first, last) = ends.unwrap_or((counter, counter));
        ends = Some((first.min(counter), last.max(counter)));
    }
    Ok(ends)
}
