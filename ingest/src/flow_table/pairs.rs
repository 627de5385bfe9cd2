//! Flows in tunnels of which one direction was seen only.
//!
//! Network identifiers and MPLS labels are given by who receives the packets, so the two directions
//! of a conversation may have other ones (of routed VXLAN, of Cilium, where the identifier is the
//! sender's, of every label-switched path). The same two ends may also talk in several networks at
//! once. A packet whose identifiers no flow has is taken for the other direction of a flow with the
//! same key that has none yet, if there is one such flow and no more (and if its TCP numbers
//! answer that flow's); else it opens a flow. Of each key only the number of such flows is kept, and
//! the exclusive or of their slots, which is the slot where it is one: so no question takes longer
//! if somebody sends packets of many networks.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::key::Key;

/// How many flows there are, and the exclusive or of their slots.
#[derive(Debug, Clone, Copy, Default)]
struct Flows {
    count: u32,
    slots: u32,
}

/// Flows with identifiers of their own that lack a direction, by key and that direction.
#[derive(Debug, Default)]
pub(super) struct Pairs(HashMap<(Key, bool), Flows, RandomState>);

impl Pairs {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A flow was opened by a packet that went `way`: it lacks the other direction.
    pub(super) fn open(&mut self, key: &Key, way: usize, slot: u32) {
        let flows = self.0.entry((*key, way == 0)).or_default();
        flows.count += 1;
        flows.slots ^= slot;
    }

    /// A flow lacks the direction `way` no longer, or is gone.
    pub(super) fn complete(&mut self, key: &Key, way: usize, slot: u32) {
        if let Some(flows) = self.0.get_mut(&(*key, way == 1)) {
            flows.count -= 1;
            flows.slots ^= slot;
            if flows.count == 0 {
                self.0.remove(&(*key, way == 1));
            }
        }
    }

    /// The only flow that lacks the direction `way`, none if none does; an error if several do.
    pub(super) fn only(&self, key: &Key, way: usize) -> Result<Option<u32>, Several> {
        match self.0.get(&(*key, way == 1)) {
            None => Ok(None),
            Some(Flows { count: 1, slots }) => Ok(Some(*slots)),
            Some(_) => Err(Several),
        }
    }
}

/// Several flows lack the direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Several;
