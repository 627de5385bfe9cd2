//! What a filter is evaluated over.

use roaring::RoaringBitmap;

use super::bounds::{Bounds, FlowSet};
use super::term::Term;
use super::values::Values;
use crate::{End, Field, IndexError, TermIndex};

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

/// A flow without the term of an identity (namespace, pod, …) may still match, unless [`Field::Known`] says of both of
/// its ends that this field is known.
impl<B: AsRef<[u8]>> TermSource for TermIndex<B> {
    type Flows = RoaringBitmap;
    type Error = IndexError;

    fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.flows());
        all
    }

    fn bounds(&self, term: &Term) -> Result<Bounds<RoaringBitmap>, IndexError> {
        let found = dictionary(self, term)?;
        if !term.field.is_identity() {
            return Ok(found);
        }
        Ok(found.of_identity(&self.known(term.field)?, self.all()))
    }
}

impl<B: AsRef<[u8]>> TermIndex<B> {
    /// The flows of which the identity is known at both ends, in one of its fields.
    fn known(&self, field: Field) -> Result<RoaringBitmap, IndexError> {
        let known = |end: End| self.postings(Field::Known, &[field.number(), end as u8]);
        Ok(known(End::Source)? & known(End::Destination)?)
    }

    /// Whether the identity of both ends is known of every flow, in one of its fields.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] where bytes that had to be read make no sense.
    pub fn is_known_of_all(&self, field: Field) -> Result<bool, IndexError> {
        Ok(self.known(field)?.len() == u64::from(self.flows()))
    }

    /// Whether the identity of both ends is known of each of some flows, in one of its fields.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] where bytes that had to be read make no sense.
    pub fn is_known_of(&self, field: Field, flows: &RoaringBitmap) -> Result<bool, IndexError> {
        Ok(flows.is_subset(&self.known(field)?))
    }
}

/// The flows with a term, as the dictionary has them. The work follows the number of terms in it.
fn dictionary<B: AsRef<[u8]>>(
    index: &TermIndex<B>,
    term: &Term,
) -> Result<Bounds<RoaringBitmap>, IndexError> {
    let field = term.field;
    let terms = match &term.values {
        Values::One(value) => return Ok(Bounds::known(index.postings(field, value)?)),
        Values::Several(values) => {
            let mut found = RoaringBitmap::new();
            for value in values {
                found |= index.postings(field, value)?;
            }
            return Ok(Bounds::known(found));
        }
        Values::Prefix(prefix) => index.prefix(field, prefix)?,
        Values::Suffix(_) => index.terms(field)?,
        Values::Range(low, high) => index.range(field, low, high)?,
    };
    let (mut sure, mut unsure) = (RoaringBitmap::new(), RoaringBitmap::new());
    for indexed in terms {
        let indexed = indexed?;
        match term.values.contains_indexed(&indexed.value) {
            Some(true) => sure |= indexed.postings.load()?,
            Some(false) => {}
            None => unsure |= indexed.postings.load()?,
        }
        if sure.len() == u64::from(index.flows()) {
            break;
        }
    }
    Ok(Bounds { possible: unsure | &sure, sure })
}
