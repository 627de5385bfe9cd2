//! Masks: which flows a principal may see.

use capstan_index::filter::FlowFilter;

use super::flow_ids::{FlowIdCipher, KEY_BYTES};

/// A mask shows the flows that certainly match its filter. A flow of which the index does not know whether it matches
/// is hidden: its ends may be ones that the principal must not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    shown: FlowFilter,
    flow_ids: FlowIdCipher,
}

impl Mask {
    /// A mask that shows the flows which match `shown`. The key enciphers flow ids; it is secret, and the same in all
    /// servers of a store, so that each knows the ids that another one gave.
    pub fn new(shown: FlowFilter, key: [u8; KEY_BYTES]) -> Mask {
        Mask { shown, flow_ids: FlowIdCipher::new(key) }
    }

    /// The flows that it shows.
    pub fn shown(&self) -> &FlowFilter {
        &self.shown
    }

    /// The flow ids that it shows.
    pub fn flow_ids(&self) -> &FlowIdCipher {
        &self.flow_ids
    }

    /// What a principal asks for, with the ids that are stored.
    pub fn asked(&self, flows: &FlowFilter) -> FlowFilter {
        self.flow_ids.decipher_all(flows)
    }

    /// The flows that match both the mask and what a principal asks for.
    pub fn narrowed(&self, flows: &FlowFilter) -> FlowFilter {
        FlowFilter::And(vec![self.shown.clone(), self.asked(flows)])
    }
}
