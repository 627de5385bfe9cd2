//! Compares manifests with the checkpoints of truncated logs. Pure.
//!
//! The commits before a checkpoint are removed, so their facts cannot be compared one by one. The checkpoint has the
//! number of packets of their segments, and of their losses.

use std::collections::BTreeMap;

use capstan_model::GenerationId;
use capstan_model::coverage::Loss;
use capstan_model::words::count;
use object_store::path::Path;

use super::commit_id::CommitId;
use super::names;
use super::segment_entry::SegmentEntry;
use super::slot::TimeSlot;
use super::walk::Truncation;

/// The sums of each truncated log.
#[derive(Debug, Default)]
pub(crate) struct Sums(BTreeMap<GenerationId, Sum>);

#[derive(Debug)]
struct Sum {
    /// The number of the first commit that the checkpoint does not cover.
    seq: u64,
    /// Packets of segments, and of losses: in the checkpoint.
    expected: (u64, u64),
    /// The same in manifests.
    found: (u64, u64),
}

/// A log of which manifests lack facts.
#[derive(Debug)]
pub(crate) struct Lacking {
    /// Its checkpoint.
    pub(crate) checkpoint: Path,
    /// What is missing, as text.
    pub(crate) what: String,
}

impl Sums {
    /// The sums in checkpoints.
    pub(crate) fn of<'a>(truncated: impl Iterator<Item = &'a Truncation>) -> Sums {
        let sum = |of: &'a Truncation| {
            let state = of.state.as_ref()?;
            let expected = (state.packets(), state.packets_lost());
            Some((state.id(), Sum { seq: of.seq, expected, found: (0, 0) }))
        };
        Sums(truncated.filter_map(sum).collect())
    }

    /// Adds a segment in the manifest of a slot. One that is in several slots counts in the first.
    pub(crate) fn add_segment(&mut self, slot: TimeSlot, by: CommitId, entry: &SegmentEntry) {
        let Some(sum) = self.covered(by) else { return };
        if entry.slots().first() == Some(&slot) {
            sum.found.0 = sum.found.0.saturating_add(entry.packets);
        }
    }

    /// Adds a loss, likewise.
    pub(crate) fn add_loss(&mut self, slot: TimeSlot, by: CommitId, loss: &Loss) {
        let Some(sum) = self.covered(by) else { return };
        if TimeSlot::of_range(&loss.range).first() == Some(&slot) {
            sum.found.1 = sum.found.1.saturating_add(loss.packets);
        }
    }

    fn covered(&mut self, by: CommitId) -> Option<&mut Sum> {
        self.0.get_mut(&by.of).filter(|sum| by.seq < sum.seq)
    }

    /// The logs of which manifests lack facts.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = Lacking> + '_ {
        let lacks = |sum: &Sum| sum.found.0 < sum.expected.0 || sum.found.1 < sum.expected.1;
        self.0.iter().filter(move |(_, sum)| lacks(sum)).map(|(of, sum)| {
            let checkpoint = names::checkpoint(*of, sum.seq);
            let what = format!(
                "{checkpoint}: of its removed commits, manifests have {} of {} and {} of {} lost ones",
                sum.found.0,
                count(sum.expected.0, "packet"),
                sum.found.1,
                sum.expected.1,
            );
            Lacking { checkpoint, what }
        })
    }
}
