//! The terms of a segment's flow parts.

use bytes::Bytes;
use capstan_index::filter::{Bounds, Term, TermSource, Values};
use capstan_index::{Field, IndexError, TermIndex, flow_value};
use capstan_model::{FailureKind, FlowId};
use roaring::RoaringBitmap;

use super::Segment;
use crate::segment::Corrupt;

pub(super) fn terms_failed(error: IndexError) -> Corrupt {
    let kind = match error {
        IndexError::TooNew { .. } => FailureKind::TooNew,
        _ => FailureKind::Damaged,
    };
    Corrupt { kind, ..Corrupt::new("index", format!("terms: {error}")) }
}

impl Segment {
    /// Ordinals of the flow parts that have a term.
    pub fn postings(&self, field: Field, value: &[u8]) -> Result<RoaringBitmap, Corrupt> {
        self.terms.postings(field, value).map_err(terms_failed)
    }

    /// All flow ordinals.
    pub fn all_flows(&self) -> RoaringBitmap {
        self.terms.all()
    }

    /// The term dictionary.
    pub fn terms(&self) -> &TermIndex<Bytes> {
        &self.terms
    }
}

/// Its flow parts, by ordinal.
impl TermSource for Segment {
    type Flows = RoaringBitmap;
    type Error = Corrupt;

    fn all(&self) -> RoaringBitmap {
        self.all_flows()
    }

    fn bounds(&self, term: &Term) -> Result<Bounds<RoaringBitmap>, Corrupt> {
        let bounds = match term.field {
            Field::Flow => self.flow_bounds(&term.values),
            _ => self.terms.bounds(term),
        };
        bounds.map_err(terms_failed)
    }
}

impl Segment {
    /// The index has the counters of flows; all flows of a segment are of one recorder and generation. Segments of
    /// versions before have no counters: any of their flows may be meant.
    fn flow_bounds(&self, values: &Values) -> Result<Bounds<RoaringBitmap>, IndexError> {
        let ids = match values {
            Values::One(id) => std::slice::from_ref(id),
            Values::Several(ids) => ids,
            Values::Prefix(_) | Values::Suffix(_) | Values::Range(..) => {
                return Ok(Bounds { sure: RoaringBitmap::new(), possible: self.all_flows() });
            }
        };
        if self.terms.terms(Field::Flow)?.next().transpose()?.is_none() {
            return Ok(Bounds { sure: RoaringBitmap::new(), possible: self.all_flows() });
        }
        let mut found = RoaringBitmap::new();
        let own = |id: &FlowId| {
            id.generation().0 == self.meta.flow_generation
                && id.recorder().to_string() == self.meta.recorder
        };
        for id in ids.iter().filter_map(|id| id.as_slice().try_into().ok()).map(FlowId).filter(own)
        {
            let (counter, from) = flow_value(id);
            let counter = counter.get(from..).unwrap_or_default();
            found |= self.terms.postings(Field::Flow, counter)?;
        }
        Ok(Bounds::known(found))
    }
}
