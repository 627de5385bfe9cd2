//! What a filter is evaluated over.

use roaring::RoaringBitmap;

use super::bounds::{Bounds, FlowSet};
use super::term::Term;
use crate::{IndexError, TermIndex};

/// Flows, as far as their terms are known: an opened segment has each of them, a catalog entry knows what its segment
/// may hold, a live flow is one.
pub trait TermSource {
    /// A set of its flows.
    type Flows: FlowSet + Clone;
    /// Why it cannot answer.
    type Error;

    /// All its flows.
    fn all(&self) -> Self::Flows;

    /// The flows with a term.
    ///
    /// # Errors
    /// The source cannot be read.
    fn bounds(&self, term: &Term) -> Result<Bounds<Self::Flows>, Self::Error>;
}

/// A term of an identity (namespace, pod, service, node, process) is unknown for flows without any such term.
impl<B: AsRef<[u8]>> TermSource for TermIndex<B> {
    type Flows = RoaringBitmap;
    type Error = IndexError;

    fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.flows());
        all
    }

    fn bounds(&self, term: &Term) -> Result<Bounds<RoaringBitmap>, IndexError> {
        let found = self.postings(term.field, &term.value)?;
        if !term.field.is_identity() {
            return Ok(Bounds::known(found));
        }
        let mut identified = RoaringBitmap::new();
        for term in self.terms(term.field)? {
            identified |= term?.postings.load()?;
        }
        Ok(Bounds::of_identity(found, &identified, self.all()))
    }
}
