//! Sets of flows, and what is known of them.

use roaring::RoaringBitmap;

/// A set of flows, as a source has it: ordinals, or one bit for all flows of the source together.
pub trait FlowSet {
    /// Without flows.
    fn none() -> Self;

    /// Whether it has no flow.
    fn is_none(&self) -> bool;

    /// Keeps the flows that another set has, too.
    fn keep(&mut self, other: &Self);

    /// Adds the flows of another set.
    fn add(&mut self, other: Self);

    /// Removes the flows of another set.
    fn remove(&mut self, other: &Self);
}

impl FlowSet for RoaringBitmap {
    fn none() -> Self {
        RoaringBitmap::new()
    }

    fn is_none(&self) -> bool {
        self.is_empty()
    }

    fn keep(&mut self, other: &Self) {
        *self &= other;
    }

    fn add(&mut self, other: Self) {
        *self |= other;
    }

    fn remove(&mut self, other: &Self) {
        *self -= other;
    }
}

/// One bit for a whole source, such as a segment that is not opened. As a lower bound it says that *every* flow
/// matches; as an upper bound, that *some* flow may match.
impl FlowSet for bool {
    fn none() -> Self {
        false
    }

    fn is_none(&self) -> bool {
        !self
    }

    fn keep(&mut self, other: &Self) {
        *self &= other;
    }

    fn add(&mut self, other: Self) {
        *self |= other;
    }

    fn remove(&mut self, other: &Self) {
        *self &= !other;
    }
}

/// Flows that certainly match, and flows that may match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bounds<F> {
    /// These certainly match.
    pub sure: F,
    /// No others match. Includes `sure`.
    pub possible: F,
}

impl<F: FlowSet + Clone> Bounds<F> {
    /// It is known of every flow.
    pub fn known(flows: F) -> Self {
        Bounds { possible: flows.clone(), sure: flows }
    }
}

impl<F: FlowSet> Bounds<F> {
    /// The bounds for a field of which only `identified` flows are known: of all others a match is unknown.
    #[must_use]
    pub fn of_identity(mut self, identified: &F, mut all: F) -> Self {
        all.remove(identified);
        self.possible.add(all);
        self
    }

    pub(super) fn and(&mut self, other: &Self) {
        self.sure.keep(&other.sure);
        self.possible.keep(&other.possible);
    }

    pub(super) fn or(&mut self, other: Self) {
        self.sure.add(other.sure);
        self.possible.add(other.possible);
    }

    pub(super) fn negate(self, all: F) -> Self
    where
        F: Clone,
    {
        let (mut sure, mut possible) = (all.clone(), all);
        sure.remove(&self.possible);
        possible.remove(&self.sure);
        Bounds { sure, possible }
    }
}

/// Whether an answer is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It is.
    Known,
    /// A selected field was never filled in for these flows: whether they match is unknown. That is not the same
    /// as no match.
    Unknown,
}

/// The flow parts of one segment, by ordinal.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matches {
    /// Matching flows.
    pub flows: RoaringBitmap,
    /// Flows for which it is unknown; disjoint from `flows`.
    pub unknown: RoaringBitmap,
}

impl Matches {
    /// Whether `flows` is the whole answer.
    pub fn certainty(&self) -> Certainty {
        if self.unknown.is_empty() { Certainty::Known } else { Certainty::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_identity_of_one_flow_does_not_cover_others() {
        let flows = |numbers: &[u32]| numbers.iter().copied().collect::<RoaringBitmap>();
        for (found, identified, possible) in [
            (&[1][..], &[1][..], &[0, 1, 2, 3][..]),
            (&[], &[1], &[0, 2, 3]),
            (&[1], &[0, 1, 2, 3], &[1]),
            (&[], &[], &[0, 1, 2, 3]),
        ] {
            let bounds =
                Bounds::known(flows(found)).of_identity(&flows(identified), flows(&[0, 1, 2, 3]));
            assert_eq!((bounds.sure, bounds.possible), (flows(found), flows(possible)));
        }
    }
}
