//! The invariants of the catalog: predicates over a version and the version before it, or over one fact. They are
//! checked on every candidate before it is sent, so a fault of the code cannot reach the store. Pure.
//!
//! A new invariant is one more entry of a list.

use std::collections::BTreeSet;

use super::fact::{Change, Fact, What};
use super::facts::Attributed;
use super::manifest::{Contributor, Manifest};
use super::root::{OpenLog, Root};

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

const fn of<T>(broken: &'static str, holds: fn(&T, &T) -> bool) -> Invariant<T> {
    Invariant { broken, holds }
}

/// Invariants of roots.
pub(crate) const ROOT: &[Invariant<Root>] = &[
    of("versions of the root do not follow each other", |before, now| {
        now.version == before.version.saturating_add(1)
    }),
    of("epochs do not follow each other", |before, now| {
        (before.epoch..=before.epoch.saturating_add(1)).contains(&now.epoch)
    }),
    of("a takeover rolls up in the same step", |before, now| {
        now.epoch == before.epoch || now.logs == before.logs
    }),
    of("a boundary was taken back", |before, now| {
        now.boundary >= before.boundary && now.unnamed_since >= before.unnamed_since
    }),
    of("the manifest of an hour is not known any more", |before, now| {
        let (now, then) = (now.hours.as_ref(), before.hours.as_ref());
        now.zip(then).is_none_or(|(now, then)| now.includes(then))
    }),
    of("a commit that was replaced counts again", |before, now| {
        now.replaced.is_superset(&before.replaced)
    }),
    of("logs are not in order", |_, now| {
        now.logs.windows(2).all(|pair| pair[0].state.id() < pair[1].state.id())
    }),
    of("a log is gone that may continue", |before, now| {
        before.logs.iter().all(|then| then.ended || now.log(then.state.id()).is_some())
    }),
    of("an ended log continues, or a log was admitted twice", |before, now| {
        kept_logs(before, now)
            .all(|(then, now)| now.admitted == then.admitted && (now.ended || !then.ended))
    }),
    of("rolled-up commits were taken back", |before, now| {
        kept_logs(before, now)
            .all(|(then, now)| now.state.chain().next() >= then.state.chain().next())
    }),
    of("a log is rolled up in the step that admits it", |before, now| {
        let mut new = now.logs.iter().filter(|log| before.log(log.state.id()).is_none());
        new.all(|log| log.admitted == now.version && log.state.chain().next() == 0)
    }),
    of("a log ended whose last commit does not say so", |_, now| {
        now.logs.iter().all(|log| !log.ended || log.state.chain().finished())
    }),
    of("a slot is not named any more", |before, now| {
        let named: BTreeSet<_> = now.slots.iter().map(|of| of.slot).collect();
        before.slots.iter().all(|of| of.since <= now.unnamed_since || named.contains(&of.slot))
    }),
    of("a manifest was taken back", |before, now| {
        before.slots.iter().all(|then| now.slot(then.slot).is_none_or(|of| of >= then.version))
    }),
];

/// The logs that both versions name.
fn kept_logs<'a>(
    before: &'a Root,
    now: &'a Root,
) -> impl Iterator<Item = (&'a OpenLog, &'a OpenLog)> {
    before.logs.iter().filter_map(|then| Some((then, now.log(then.state.id())?)))
}

/// Invariants of manifests.
pub(crate) const MANIFEST: &[Invariant<Manifest>] = &[
    of("a manifest became that of another slot", |before, now| now.slot == before.slot),
    of("versions of a manifest do not follow each other", |before, now| {
        now.version == before.version.saturating_add(1)
    }),
    of("an older epoch changed a manifest of a newer one", |before, now| now.epoch >= before.epoch),
    of("a contributor is gone", |before, now| now.contributors.len() >= before.contributors.len()),
    of("a contributor became another one", |before, now| {
        kept_contributors(before, now)
            .all(|(then, now)| now.of() == then.of() && now.admitted == then.admitted)
    }),
    of("commits of a contributor were taken back", |before, now| {
        kept_contributors(before, now).all(|(then, now)| now.next >= then.next)
    }),
    of("a generation contributes twice", |_, now| {
        is_distinct(now.contributors.iter().map(Contributor::of))
    }),
    of("a fact is of nobody who contributes", |_, now| {
        now.held.contributors().all(|by| (by as usize) < now.contributors.len())
    }),
    of("a commit is in a manifest twice", |_, now| {
        is_distinct(now.held.commits.iter().map(|of| (of.by, of.seq)))
    }),
    of("a fact is of no commit that is in the manifest", |_, now| {
        let commits: BTreeSet<_> = now.held.commits.iter().map(|of| (of.by, of.seq)).collect();
        now.held.facts.iter().all(|of| commits.contains(&(of.by, of.seq)))
    }),
    of("a fact is in a manifest of a slot that it does not belong to", |_, now| {
        now.held.facts.iter().all(|of| of.fact.slots().contains(&now.slot))
    }),
    of("a commit is in a manifest that does not count it", |_, now| {
        let is_counted = |of: &Attributed<String, u32>| {
            now.owner(of.by).is_some_and(|contributor| of.seq < contributor.next)
        };
        now.held.commits.iter().all(is_counted)
    }),
    of("addresses of segments are gone", |before, now| {
        now.filter().zip(before.filter()).is_none_or(|(now, then)| now.includes(&then))
    }),
    of("facts are gone", |before, now| facts(now) >= facts(before)),
];

/// The contributors that both versions name.
fn kept_contributors<'a>(
    before: &'a Manifest,
    now: &'a Manifest,
) -> impl Iterator<Item = (&'a Contributor, &'a Contributor)> {
    before.contributors.iter().zip(&now.contributors)
}

/// Number of facts of a manifest and its parts.
fn facts(of: &Manifest) -> u64 {
    of.held.len() as u64 + of.parts.iter().map(|part| part.facts).sum::<u64>()
}

fn is_distinct<T: Ord>(of: impl Iterator<Item = T>) -> bool {
    let mut all: Vec<T> = of.collect();
    all.sort_unstable();
    all.windows(2).all(|pair| pair[0] != pair[1])
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

/// Invariants of changes of segments.
const CHANGE: &[(&str, fn(&Change) -> bool)] = &[
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
