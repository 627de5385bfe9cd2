//! The terms of a segment's flow parts.

use bytes::Bytes;
use capstan_index::filter::{Bounds, Term, TermSource};
use capstan_index::{Field, IndexError, TermIndex};
use capstan_model::FailureKind;
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
        self.terms.bounds(term).map_err(terms_failed)
    }
}
