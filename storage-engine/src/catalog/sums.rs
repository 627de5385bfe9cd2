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
    /// Packets of segments, and of losses: in the checkpoint, if it is readable.
    expected: Option<(u64, u64)>,
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
    pub(crate) fn of<'a>(
        truncated: impl IntoIterator<Item = (&'a GenerationId, &'a Truncation)>,
    ) -> Sums {
        let sum = |(of, truncation): (&GenerationId, &Truncation)| {
            let state = truncation.state.as_ref();
            let expected = state.map(|state| (state.packets(), state.packets_lost()));
            (*of, Sum { seq: truncation.seq, expected, found: (0, 0) })
        };
        Sums(truncated.into_iter().map(sum).collect())
    }

    /// Adds a log whose checkpoint before a commit is lost. If an earlier one is left, the sums are those up to that one:
    /// sums that are too high would be taken for lost facts.
    pub(crate) fn add_log(&mut self, of: GenerationId, seq: u64) {
        self.0.entry(of).or_insert(Sum { seq, expected: None, found: (0, 0) });
    }

    /// The sums over the covered commits of a log, as far as manifests or its checkpoint have them.
    pub(crate) fn known(&self, of: &GenerationId) -> (u64, u64) {
        let Some(sum) = self.0.get(of) else { return (0, 0) };
        let (packets, lost) = sum.expected.unwrap_or_default();
        (packets.max(sum.found.0), lost.max(sum.found.1))
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
        let lacks = |sum: &Sum, (packets, lost)| sum.found.0 < packets || sum.found.1 < lost;
        let known = self.0.iter().filter_map(|(of, sum)| Some((of, sum, sum.expected?)));
        let lacking = known.filter(move |(_, sum, expected)| lacks(sum, *expected));
        lacking.map(|(of, sum, (packets, lost))| {
            let checkpoint = names::checkpoint(*of, sum.seq);
            let what = format!(
                "{checkpoint}: of its removed commits, manifests have {} of {} and {} of {} lost ones",
                sum.found.0,
                count(packets, "packet"),
                sum.found.1,
                lost,
            );
            Lacking { checkpoint, what }
        })
    }
}
