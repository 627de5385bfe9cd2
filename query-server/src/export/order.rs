//! In which order packets come, and so in which order segments are begun.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use capstan_model::{Generation, Hour, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::Segment;

use super::{Export, Order};
use crate::snapshot::Snapshot;

/// Where a packet comes in the file. Without a time comes before with one; for the recorded
/// order no packet has a time here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) time: Option<Time>,
    pub(super) life: u32,
    pub(super) ordinal: u64,
}

/// A segment that was not begun yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// No packet of it comes before.
    pub(super) from: Position,
    pub(super) segment: Arc<Segment>,
}

/// Segments that no packet comes from, with decryption secrets that those which do may need.
pub(super) fn secrets(snapshot: &Snapshot, chosen: &VecDeque<Pending>) -> Vec<Arc<Segment>> {
    let recorders: BTreeSet<RecorderId> = chosen.iter().map(|of| of.segment.recorder).collect();
    let names: BTreeSet<&str> = chosen.iter().map(|of| &*of.segment.entry.name).collect();
    snapshot
        .segments(TimeRange::ALL)
        .filter(|of| of.entry.secrets && recorders.contains(&of.recorder))
        .filter(|of| !names.contains(&*of.entry.name))
        .cloned()
        .collect()
}

/// The ranks of lives: what packets of the same time are ordered by, or of the recorded order.
pub(super) type Ranks = BTreeMap<(RecorderId, Generation), u32>;

pub(super) fn ranks(snapshot: &Snapshot, order: Order) -> Ranks {
    let mut began: BTreeMap<RecorderId, Time> = BTreeMap::new();
    for life in snapshot.lives() {
        let started = life.writer.as_ref().map_or(Time::MAX, |writer| writer.info.started_at);
        let known = began.entry(life.recorder).or_insert(started);
        *known = started.min(*known);
    }
    let mut lives: Vec<(RecorderId, Generation)> =
        snapshot.lives().map(|life| (life.recorder, life.generation)).collect();
    match order {
        Order::Time => lives.sort_unstable(),
        Order::Recorded => {
            lives.sort_unstable_by_key(|life| (began.get(&life.0).copied(), life.0, life.1));
        }
    }
    lives.into_iter().zip(0..).collect()
}

/// The segments that may hold packets of a selection, by where their first packet comes.
pub(super) fn pending(snapshot: &Snapshot, what: &Export, ranks: &Ranks) -> VecDeque<Pending> {
    let filter = what.selection.filter();
    let range = what.selection.range;
    let mut pending: Vec<Pending> = snapshot
        .segments(range)
        .filter(|segment| filter.may_match(&segment.entry))
        .map(|segment| {
            let timeless = range.is_all() && segment.hours().contains(&Hour::UNKNOWN);
            let time = match what.order {
                Order::Time if !timeless => segment.entry.first.map(|time| time.max(range.start)),
                _ => None,
            };
            let life = ranks.get(&(segment.recorder, segment.generation)).copied();
            let from = Position {
                time,
                life: life.unwrap_or(u32::MAX),
                ordinal: segment.entry.first_ordinal,
            };
            Pending { from, segment: Arc::clone(segment) }
        })
        .collect();
    pending.sort_by(|a, b| (a.from, &a.segment.entry.name).cmp(&(b.from, &b.segment.entry.name)));
    pending.into()
}
