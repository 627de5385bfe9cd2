//! The invariants of the catalog: predicates over a version and the version before it, or over one fact. They are
//! checked on every candidate before it is sent, so a fault of the code cannot reach the store. Pure.
//!
//! A new invariant is one more entry of a list. The lists of roots and of manifests are beside these.

use super::fact::{Change, Fact, What};

/// A predicate over a version and the version before it.
pub(crate) struct Invariant<T> {
    /// What is wrong where it does not hold.
    broken: &'static str,
    holds: fn(before: &T, now: &T) -> bool,
}

/// The invariant that a candidate violates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);

/// Checks all invariants of a list.
///
/// # Errors
/// The first one that does not hold.
pub(crate) fn check<T>(all: &[Invariant<T>], before: &T, now: &T) -> Result<(), Broken> {
    match all.iter().find(|of| !(of.holds)(before, now)) {
        Some(of) => Err(Broken(of.broken)),
        None => Ok(()),
    }
}

/// An invariant, with the words for a candidate that violates it.
pub(crate) const fn of<T>(broken: &'static str, holds: fn(&T, &T) -> bool) -> Invariant<T> {
    Invariant { broken, holds }
}

/// Checks a fact that is about to be committed.
///
/// # Errors
/// The first invariant that does not hold.
pub(crate) fn check_fact(fact: &Fact) -> Result<(), Broken> {
    let Fact::Change(change) = fact else { return Ok(()) };
    match CHANGE.iter().find(|(_, holds)| !holds(change)) {
        Some((broken, _)) => Err(Broken(broken)),
        None => Ok(()),
    }
}

/// What is wrong with a change where a predicate does not hold, and the predicate.
type ChangeInvariant = (&'static str, fn(&Change) -> bool);

/// Invariants of changes of segments.
const CHANGE: &[ChangeInvariant] = &[
    ("a change names no segment", |of| !of.segment.is_empty()),
    ("a change is in no slot, so nobody would read it", |of| !of.slots.is_empty()),
    (
        "a retirement names no layer",
        |of| !matches!(&of.what, What::LayersRetired { layers, .. } if layers.is_empty()),
    ),
    (
        "a retirement has no reason",
        |of| !matches!(&of.what, What::LayersRetired { why, .. } if why.is_empty()),
    ),
    ("a layer has no name or no hash", |of| {
        let layers = match &of.what {
            What::LayerAdded { layer } => std::slice::from_ref(layer),
            What::LayersRetired { layers, .. } => layers,
            _ => &[],
        };
        layers.iter().all(|layer| !layer.layer.is_empty() && !layer.sha256.is_empty())
    }),
    (
        "a segment is replaced by itself or by nothing",
        |of| !matches!(&of.what, What::Replaced { by } if by.is_empty() || by.contains(&of.segment)),
    ),
    ("a pin has no name", |of| match &of.what {
        What::Pinned { pin, .. } | What::Unpinned { pin } => !pin.is_empty(),
        _ => true,
    }),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn broken(change: Value) -> Option<&'static str> {
        let mut all = json!({"segment": "s", "slots": ["wide"], "at": 5});
        let fields = all.as_object_mut().unwrap();
        fields.extend(change.as_object().unwrap().clone());
        check_fact(&Fact::of_json(all).unwrap()).err().map(|of| of.0)
    }

    #[test]
    fn invalid_changes_are_refused() {
        let layer = json!({"layer": "body", "bytes": 1, "sha256": "ab"});
        let sound = [
            json!({"kind": "layer-added", "layer": layer}),
            json!({"kind": "layers-retired", "layers": [layer], "why": "age"}),
            json!({"kind": "replaced", "by": ["t"]}),
            json!({"kind": "pinned", "pin": "p"}),
            json!({"kind": "unpinned", "pin": "p"}),
        ];
        for change in &sound {
            assert_eq!(broken(change.clone()), None, "{change}");
        }
        let nameless = json!({"layer": "", "bytes": 1, "sha256": "ab"});
        for (change, what) in [
            (json!({"kind": "pinned", "pin": "p", "segment": ""}), "names no segment"),
            (json!({"kind": "pinned", "pin": "p", "slots": []}), "in no slot"),
            (json!({"kind": "layers-retired", "layers": [], "why": "age"}), "names no layer"),
            (json!({"kind": "layers-retired", "layers": [layer], "why": ""}), "no reason"),
            (json!({"kind": "layer-added", "layer": nameless}), "no name or no hash"),
            (json!({"kind": "replaced", "by": []}), "by nothing"),
            (json!({"kind": "replaced", "by": ["s"]}), "by itself"),
            (json!({"kind": "unpinned", "pin": ""}), "pin has no name"),
        ] {
            let found = broken(change.clone());
            assert!(found.is_some_and(|found| found.contains(what)), "{change}: {found:?}");
        }
    }
}
