//! The current state of a segment: its committed entry and its later changes. Pure.
//!
//! Changes come from many logs in any order, so the result does not depend on the order. A retired layer is
//! identified by the hash of its object: a layer that is added again later is another object.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use capstan_model::{GenerationId, Hour, RecorderId, Time};
use object_store::path::Path;

use super::commit_id::CommitId;
use super::fact::{Change, What};
use super::segment_entry::{LayerEntry, SegmentEntry};
use crate::segment::Layer;

/// A committed segment and the generation that recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The generation that recorded it.
    pub of: GenerationId,
    /// The commit that names it. It is of another generation if a repair named the segment again, or if the
    /// recorder's log was ended.
    pub by: CommitId,
    /// Its entry in the commit.
    pub entry: SegmentEntry,
    /// Its resolved changes; none = no changes.
    pub state: Option<Arc<SegmentState>>,
}

/// The changes of a segment, resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentState {
    /// Layers that were added and not retired, by name.
    pub added: BTreeMap<String, LayerEntry>,
    /// Retired layers with time and reason, by name.
    pub retired: BTreeMap<String, Retired>,
    /// Segments that hold all data of this segment.
    pub replaced_by: BTreeSet<String>,
    /// Pins and their ends; none = until the pin is removed.
    pub pins: BTreeMap<String, Option<Time>>,
}

/// A retired layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// The object.
    pub layer: LayerEntry,
    /// Time, by the clock of the committing process.
    pub at: Time,
    /// The reason, as text.
    pub why: String,
}

/// Resolves the changes of one segment.
pub(crate) fn resolve<'a>(
    entry: &SegmentEntry,
    changes: impl IntoIterator<Item = &'a Change>,
) -> SegmentState {
    let mut state = SegmentState::default();
    let mut added: Vec<&LayerEntry> = Vec::new();
    let mut retired: BTreeMap<(&str, &str), Retired> = BTreeMap::new();
    let mut unpinned: BTreeSet<&str> = BTreeSet::new();
    for change in changes {
        match &change.what {
            What::LayerAdded { layer } => added.push(layer),
            What::LayersRetired { layers, why } => {
                for layer in layers {
                    let one = Retired { layer: layer.clone(), at: change.at, why: why.clone() };
                    let known = retired.entry((&layer.layer, &layer.sha256));
                    // The earliest statement wins.
                    let first = |of: &mut Retired| {
                        if (one.at, &one.why) < (of.at, &of.why) {
                            *of = one.clone();
                        }
                    };
                    known.and_modify(first).or_insert(one);
                }
            }
            What::Replaced { by } => state.replaced_by.extend(by.iter().cloned()),
            What::Pinned { pin, until } => {
                // The longest pin wins: none means forever.
                let longest = |of: &mut Option<Time>| *of = of.zip(*until).map(|(a, b)| a.max(b));
                state.pins.entry(pin.clone()).and_modify(longest).or_insert(*until);
            }
            What::Unpinned { pin } => {
                unpinned.insert(pin);
            }
        }
    }
    state.pins.retain(|pin, _| !unpinned.contains(pin.as_str()));
    // Two processes may have created one layer concurrently: the object has one name, and one of them won.
    added.sort_unstable_by_key(|layer| (&layer.layer, &layer.sha256));
    let is_retired =
        |of: &LayerEntry| retired.contains_key(&(of.layer.as_str(), of.sha256.as_str()));
    for layer in added.into_iter().filter(|layer| !is_retired(layer)) {
        if entry.layers.iter().all(|known| known.layer != layer.layer || is_retired(known)) {
            state.added.entry(layer.layer.clone()).or_insert_with(|| layer.clone());
        }
    }
    let there = |name: &str| {
        state.added.contains_key(name)
            || entry.layers.iter().any(|of| of.layer == name && !is_retired(of))
    };
    let gone = retired.values().filter(|of| !there(&of.layer.layer));
    state.retired = gone.map(|of| (of.layer.layer.clone(), of.clone())).collect();
    state
}

/// Sets the state of each segment.
pub(crate) fn apply(segments: &mut [Arc<Segment>], changes: &[Change]) {
    if changes.is_empty() {
        return;
    }
    let mut by_segment: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        by_segment.entry(&change.segment).or_default().push(change);
    }
    for segment in segments {
        if let Some(changes) = by_segment.get(segment.entry.name.as_str()) {
            let state = resolve(&segment.entry, changes.iter().copied());
            Arc::make_mut(segment).state = Some(Arc::new(state));
        }
    }
}

impl Segment {
    /// A segment from its entry in a commit.
    pub(crate) fn of(by: CommitId, entry: SegmentEntry) -> Segment {
        Segment { of: entry.owner.unwrap_or(by.of), by, entry, state: None }
    }

    /// The recorder.
    pub fn recorder(&self) -> RecorderId {
        self.of.recorder
    }

    /// The name of a layer's object.
    pub fn path(&self, layer: Layer) -> Path {
        self.entry.path(layer)
    }

    /// The name of the object of one of its layers, which this version need not know.
    pub fn path_of(&self, layer: &LayerEntry) -> Path {
        self.entry.path_of(layer)
    }

    /// The hours that list it.
    pub fn hours(&self) -> &[Hour] {
        self.entry.hours()
    }

    /// Its current layers: committed or added, and not retired.
    pub fn layers(&self) -> impl Iterator<Item = &LayerEntry> {
        let added = self.state.iter().flat_map(|state| state.added.values());
        self.entry.layers.iter().filter(|layer| !self.is_retired(layer)).chain(added)
    }

    /// A layer, if the segment has it now.
    pub fn layer(&self, layer: Layer) -> Option<&LayerEntry> {
        self.layers().find(|entry| entry.layer == layer.name())
    }

    /// When and why a layer was retired; none if it was not.
    pub fn retired(&self, layer: Layer) -> Option<&Retired> {
        self.state.as_ref().and_then(|state| state.retired.get(layer.name()))
    }

    fn is_retired(&self, layer: &LayerEntry) -> bool {
        let of = self.state.as_ref().and_then(|state| state.retired.get(&layer.layer));
        of.is_some_and(|of| of.layer.sha256 == layer.sha256)
            // Another object with that layer name was added since.
            || self.state.as_ref().is_some_and(|state| state.added.contains_key(&layer.layer))
    }

    /// Whether a pin holds it at a time.
    pub fn is_pinned(&self, at: Time) -> bool {
        let mut pins = self.state.iter().flat_map(|state| state.pins.values());
        pins.any(|until| until.is_none_or(|until| at < until))
    }

    /// Its entry with the current layers.
    pub fn now(&self) -> Cow<'_, SegmentEntry> {
        match &self.state {
            None => Cow::Borrowed(&self.entry),
            Some(_) => {
                let layers = self.layers().cloned().collect();
                Cow::Owned(SegmentEntry { layers, ..self.entry.clone() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::tests::segment;

    fn layer(name: &str, sha256: &str) -> LayerEntry {
        LayerEntry::new(name, 1, sha256)
    }

    fn change(at: i64, what: What) -> Change {
        Change { segment: "s".to_owned(), slots: Vec::new(), at: Time(at), what }
    }

    fn added(name: &str, sha256: &str) -> Change {
        change(1, What::LayerAdded { layer: layer(name, sha256) })
    }

    fn retired(at: i64, name: &str, sha256: &str) -> Change {
        let what =
            What::LayersRetired { layers: vec![layer(name, sha256)], why: format!("at {at}") };
        change(at, what)
    }

    fn entry() -> SegmentEntry {
        let mut entry = segment("s", 0);
        entry.layers = vec![layer("index", "i"), layer("body", "b")];
        entry
    }

    #[test]
    fn layers_are_added_and_retired() {
        let of = |changes: &[Change]| resolve(&entry(), changes);
        assert_eq!(of(&[]), SegmentState::default());
        assert_eq!(of(&[added("text", "t")]).added["text"].sha256, "t");
        let gone = of(&[retired(9, "body", "b"), retired(7, "body", "b")]);
        assert_eq!((gone.retired["body"].at, &*gone.retired["body"].why), (Time(7), "at 7"));
        // Of another object of that name nothing was said.
        assert!(of(&[retired(9, "body", "x")]).retired.is_empty());
        // One that was retired and made again is another object.
        let again = of(&[retired(7, "body", "b"), added("body", "b2")]);
        assert_eq!((again.added["body"].sha256.as_str(), again.retired.len()), ("b2", 0));
        let gone = of(&[retired(7, "text", "t"), added("text", "t")]);
        assert!(gone.added.is_empty() && gone.retired.contains_key("text"));
        // What was committed is not replaced by what is added beside it.
        assert!(of(&[added("body", "other")]).added.is_empty());
    }

    #[test]
    fn pins_hold_until_removed() {
        let pin = |until: Option<i64>| {
            change(1, What::Pinned { pin: "case".to_owned(), until: until.map(Time) })
        };
        let of = |changes: &[Change]| resolve(&entry(), changes).pins;
        assert_eq!(of(&[pin(Some(5)), pin(Some(9))])["case"], Some(Time(9)));
        assert_eq!(of(&[pin(Some(5)), pin(None)])["case"], None);
        let back = change(2, What::Unpinned { pin: "case".to_owned() });
        assert!(of(&[back, pin(None)]).is_empty());
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let (name, sha256) = (prop_oneof!["body", "text"], prop_oneof!["b", "t", "u"]);
        let what = (name, sha256, 0..5, any::<bool>(), 0..4_i64).prop_map(
            |(name, sha256, kind, end, until)| {
                let pin = "p".to_owned();
                match kind {
                    0 => What::LayerAdded { layer: layer(&name, &sha256) },
                    1 => What::LayersRetired { layers: vec![layer(&name, &sha256)], why: sha256 },
                    2 => What::Replaced { by: vec![name] },
                    3 => What::Pinned { pin, until: end.then_some(Time(until)) },
                    _ => What::Unpinned { pin },
                }
            },
        );
        (0..4_i64, what).prop_map(|(at, what)| change(at, what))
    }

    proptest! {
        #[test]
        fn the_order_of_changes_does_not_matter(
            (changes, other) in prop::collection::vec(any_change(), 0..8)
                .prop_flat_map(|changes| (Just(changes.clone()), Just(changes).prop_shuffle())),
        ) {
            let state = resolve(&entry(), &changes);
            prop_assert_eq!(&state, &resolve(&entry(), &other));
            // Saying it twice changes nothing.
            let twice: Vec<Change> = changes.iter().chain(&other).cloned().collect();
            prop_assert_eq!(&state, &resolve(&entry(), &twice));
            // No layer is there and retired.
            prop_assert!(state.added.keys().all(|name| !state.retired.contains_key(name)));
        }
    }
}
