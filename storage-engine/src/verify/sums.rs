//! Compares the manifests with the checkpoints of truncated logs. Pure.
//!
//! The commits before a checkpoint are removed, so their facts cannot be compared one by one. The checkpoint has the
//! number of packets of their segments, and of their losses.

use std::collections::BTreeMap;

use capstan_model::GenerationId;
use capstan_model::words::count;

use super::finding::{Finding, Severity, What};
use super::rolled_up::RolledUp;
use crate::catalog::TimeSlot;
use crate::catalog::names;
use crate::catalog::state::KnownFact;
use crate::catalog::walk::Truncation;

/// The sums of each truncated log.
#[derive(Debug, Default)]
pub(super) struct Sums(BTreeMap<GenerationId, Sum>);

#[derive(Debug)]
struct Sum {
    /// The number of the first commit that the checkpoint does not cover.
    seq: u64,
    /// Packets of segments, and of losses: in the checkpoint.
    expected: (u64, u64),
    /// The same in manifests.
    found: (u64, u64),
}

impl Sums {
    /// The sums in checkpoints. There are none if facts are known to be lost: a repair has named the segments again.
    pub(super) fn of<'a>(
        truncated: impl Iterator<Item = &'a Truncation>,
        rolled_up: &RolledUp,
    ) -> Sums {
        if rolled_up.lacks_facts() {
            return Sums::default();
        }
        let sum = |of: &'a Truncation| {
            let state = of.state.as_ref()?;
            let expected = (state.packets(), state.packets_lost());
            Some((state.id(), Sum { seq: of.seq, expected, found: (0, 0) }))
        };
        Sums(truncated.filter_map(sum).collect())
    }

    /// Adds facts of a manifest. A fact that is in several slots counts in the first.
    pub(super) fn take(&mut self, slot: TimeSlot, facts: &[KnownFact]) {
        for fact in facts {
            let commit = fact.commit();
            let Some(sum) = self.0.get_mut(&commit.of).filter(|sum| commit.seq < sum.seq) else {
                continue;
            };
            match fact {
                KnownFact::Segment(of) if of.entry.slots().first() == Some(&slot) => {
                    sum.found.0 = sum.found.0.saturating_add(of.entry.packets);
                }
                KnownFact::Loss(of)
                    if TimeSlot::of_range(&of.fact.range).first() == Some(&slot) =>
                {
                    sum.found.1 = sum.found.1.saturating_add(of.fact.packets);
                }
                KnownFact::Segment(_)
                | KnownFact::Loss(_)
                | KnownFact::Listened(_)
                | KnownFact::Change(_) => {}
            }
        }
    }

    /// The logs of which manifests lack facts.
    pub(super) fn findings(self) -> impl Iterator<Item = Finding> {
        let lacks = |sum: &Sum| sum.found.0 < sum.expected.0 || sum.found.1 < sum.expected.1;
        self.0.into_iter().filter(move |(_, sum)| lacks(sum)).map(|(of, sum)| {
            let object = names::checkpoint(of, sum.seq).to_string();
            let problem = format!(
                "{object}: of its removed commits, manifests have {} of {} and {} of {} lost ones",
                sum.found.0,
                count(sum.expected.0, "packet"),
                sum.found.1,
                sum.expected.1,
            );
            let what = What::Catalog { problem, severity: Severity::Lost };
            Finding { object, what }
        })
    }
}
