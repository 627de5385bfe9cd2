//! Invariants of manifests. Pure.

use std::collections::BTreeSet;

use super::{Contributor, Manifest};
use crate::catalog::facts::Attributed;
use crate::catalog::invariants::{Invariant, of};

/// Invariants of manifests.
pub(super) const ALL: &[Invariant<Manifest>] = &[
    of("the slot of a manifest changed", |before, now| now.slot == before.slot),
    of("manifest versions are not consecutive", |before, now| {
        now.version == before.version.saturating_add(1)
    }),
    of("a process of an older epoch wrote a manifest of a newer one", |before, now| {
        now.epoch >= before.epoch
    }),
    of("a manifest lacks a contributor of its predecessor", |before, now| {
        now.contributors.len() >= before.contributors.len()
    }),
    of("a contributor was replaced", |before, now| {
        kept_contributors(before, now)
            .all(|(then, now)| now.of() == then.of() && now.admitted == then.admitted)
    }),
    of("the commit position of a contributor decreased", |before, now| {
        kept_contributors(before, now).all(|(then, now)| now.next >= then.next)
    }),
    of("a generation contributes twice", |_, now| {
        is_distinct(now.contributors.iter().map(Contributor::of))
    }),
    of("a fact has no contributor", |_, now| {
        now.held.contributors().all(|by| (by as usize) < now.contributors.len())
    }),
    of("a commit is in a manifest twice", |_, now| {
        is_distinct(now.held.commits.iter().map(|of| (of.by, of.seq)))
    }),
    of("a fact belongs to a commit that the manifest lacks", |_, now| {
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
    of("a manifest lacks addresses of its predecessor", |before, now| {
        now.filter().zip(before.filter()).is_none_or(|(now, then)| now.includes(&then))
    }),
    of("a manifest lacks terms of segments of its predecessor", |before, now| {
        !before.has_segment_parts() || now.term_filters.includes(&before.term_filters)
    }),
    of("a manifest lacks facts of its predecessor", |before, now| facts(now) >= facts(before)),
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
