//! The order of packets, which is also the order in which segments are opened.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use capstan_model::{Failure, GenerationId, Hour, RecorderId, Time};
use capstan_storage_engine::catalog::{Segment, Window};
use capstan_storage_engine::segment::Layer;
use capstan_view::{Deleted, ScopedView};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::Export;

/// The order of packets in an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By time, then recorder, generation and ordinal.
    #[default]
    Time,
    /// As each recorder captured them.
    Recorded,
}

/// Requests that are sent concurrently before the first packet.
pub(super) const AT_ONCE: usize = 64;

/// The position of a packet in the file. Packets without a time come first; in recorded order no packet has a
/// time here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) time: Option<Time>,
    pub(super) state: u32,
    pub(super) ordinal: u64,
}

/// A segment that is not open yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// Lower bound for the positions of its packets.
    pub(super) from: Position,
    pub(super) segment: Arc<Segment>,
}

/// The layers without which packets of a segment cannot be read; the first is of the packets alone.
const NEEDED: [Layer; 3] = [Layer::Packets, Layer::Flows, Layer::Index];

/// Segments without selected packets, but with decryption secrets that the selected ones may need.
pub(super) fn secrets(
    window: &Window,
    chosen: &VecDeque<Pending>,
    deleted: &mut Deleted,
) -> Vec<Arc<Segment>> {
    let recorders: BTreeSet<RecorderId> = chosen.iter().map(|of| of.segment.of.recorder).collect();
    let names: BTreeSet<&str> = chosen.iter().map(|of| &*of.segment.entry.name).collect();
    let of_chosen = window.secrets.iter().filter(|of| recorders.contains(&of.of.recorder));
    let others = of_chosen.filter(|of| !names.contains(&*of.entry.name));
    others.filter(|of| !deleted.add(of, Layer::Index)).cloned().collect()
}

/// The ranks of generations: they order packets of the same time, or all packets in recorded order.
pub(super) type Ranks = BTreeMap<GenerationId, u32>;

/// The ranks of all generations that have facts in a window.
///
/// # Errors
/// Any failure of the store.
pub(super) async fn ranks(
    view: &ScopedView,
    window: &Window,
    order: Order,
) -> Result<Ranks, Failure> {
    let mut generations: Vec<GenerationId> = window.writers.keys().copied().collect();
    if order == Order::Recorded {
        let recorders: BTreeSet<RecorderId> = generations.iter().map(|of| of.recorder).collect();
        let began = recorders.into_iter().map(async |recorder| {
            Ok::<_, Failure>((recorder, view.began(recorder, window).await?))
        });
        let began: BTreeMap<RecorderId, Option<Time>> =
            stream::iter(began).buffer_unordered(AT_ONCE).try_collect().await?;
        let began =
            |of: &GenerationId| began.get(&of.recorder).copied().flatten().unwrap_or(Time::MAX);
        generations.sort_unstable_by_key(|of| (began(of), *of));
    }
    Ok(generations.into_iter().zip(0..).collect())
}

/// The segments that may hold selected packets, by the position of their first packet, and what retention deleted of
/// such segments.
pub(super) fn pending(
    view: &ScopedView,
    window: &Window,
    what: &Export,
    ranks: &Ranks,
) -> (VecDeque<Pending>, Deleted) {
    let mut deleted = view.deleted();
    let filter = what.selection.filter();
    let range = what.selection.range;
    let mut pending: Vec<Pending> = window
        .segments
        .iter()
        .filter(|segment| view.may_match(&segment.entry, &filter))
        .filter(|segment| {
            if deleted.add_first(segment, &NEEDED) {
                return false;
            }
            for payload in [Layer::Head, Layer::Body] {
                deleted.add(segment, payload);
            }
            true
        })
        .map(|segment| {
            let timeless = range.is_all() && segment.hours().contains(&Hour::UNKNOWN);
            let time = match what.order {
                Order::Time if !timeless => segment.entry.first.map(|time| time.max(range.start)),
                _ => None,
            };
            let state = ranks.get(&segment.of).copied();
            let from = Position {
                time,
                state: state.unwrap_or(u32::MAX),
                ordinal: segment.entry.first_ordinal,
            };
            Pending { from, segment: Arc::clone(segment) }
        })
        .collect();
    pending.sort_by(|a, b| (a.from, &a.segment.entry.name).cmp(&(b.from, &b.segment.entry.name)));
    (pending.into(), deleted)
}
