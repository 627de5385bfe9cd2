//! Invariants of roots. Pure.

use std::collections::BTreeSet;

use super::{OpenLog, Root};
use crate::catalog::invariants::{Invariant, of};

/// Invariants of roots.
pub(super) const ALL: &[Invariant<Root>] = &[
    of("root versions are not consecutive", |before, now| {
        now.version == before.version.saturating_add(1)
    }),
    of("epochs are not consecutive", |before, now| {
        (before.epoch..=before.epoch.saturating_add(1)).contains(&now.epoch)
    }),
    of("a takeover rolls up in the same step", |before, now| {
        now.epoch == before.epoch || now.logs == before.logs
    }),
    of("the boundary decreased", |before, now| {
        now.boundary >= before.boundary && now.unnamed_since >= before.unnamed_since
    }),
    of("the root lacks a manifest of its predecessor", |before, now| {
        let (now, then) = (now.hours.as_ref(), before.hours.as_ref());
        now.zip(then).is_none_or(|(now, then)| now.includes(then))
    }),
    of("a replaced commit is active again", |before, now| {
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
    of("the rolled-up position of a log decreased", |before, now| {
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
    of("the root lacks a slot of its predecessor", |before, now| {
        let named: BTreeSet<_> = now.slots.iter().map(|of| of.slot).collect();
        before.slots.iter().all(|of| of.since <= now.unnamed_since || named.contains(&of.slot))
    }),
    of("the version of a manifest decreased", |before, now| {
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
