//! Tunnelled flows with packets in only one direction.
//!
//! The receiver assigns network identifiers and MPLS labels. So the two directions of a conversation
//! may have different ones, as in routed VXLAN, in Cilium (where the identifier is the sender's) and
//! in every label-switched path. The same two ends may also talk in several networks at once.
//!
//! A packet with unknown identifiers becomes the other direction of a flow with the same key, if
//! exactly one such flow lacks that direction and the TCP numbers match. Otherwise it opens a flow.
//! Each key keeps only the count of such flows and the XOR of their slots, which is the slot itself
//! if the count is one. So a lookup takes constant time, even if packets arrive from many networks.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::key::Key;

/// The number of flows, and the XOR of their slots.
#[derive(Debug, Clone, Copy, Default)]
struct Flows {
    count: u32,
    slots: u32,
}

/// Flows that lack a direction, by key and that direction.
#[derive(Debug, Default)]
pub(super) struct Pairs(HashMap<(Key, bool), Flows, RandomState>);

impl Pairs {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A packet in direction `way` opened a flow, which lacks the other direction.
    pub(super) fn open(&mut self, key: &Key, way: usize, slot: u32) {
        let flows = self.0.entry((*key, way == 0)).or_default();
        flows.count += 1;
        flows.slots ^= slot;
    }

    /// A flow no longer lacks the direction `way`, or was removed.
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
