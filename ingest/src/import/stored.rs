//! What of an earlier import can be had: the catalog may have named its packets once and be damaged since.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind, Generation, Hour, RecorderId, TimeRange};
use capstan_storage_engine::catalog::{
    Catalog, CatalogView, Gap, GapKind, Import, Segment, Source,
};
use capstan_storage_engine::fetch::StoreFetch;
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::packets::{self, column};
use capstan_storage_engine::segment::reader::Segment as Opened;
use capstan_storage_engine::store::Store;
use roaring::RoaringTreemap;

/// Ordinals of packets, by the generation that they were captured in.
pub(super) type Ordinals = BTreeMap<Generation, RoaringTreemap>;

/// What can be had of the packets that a recorder imported.
#[derive(Debug)]
pub(super) enum Stored {
    /// All that its log says.
    AsCommitted,
    /// Its log cannot be read whole; these ordinals are in segments that can.
    InPart(Ordinals),
}

impl Stored {
    /// Looks what readers find of an import's recorder. `log` is all of its log.
    ///
    /// # Errors
    /// What the store says. Of kind `Damaged` if its packets are hidden by something that a repair makes again
    /// from the log: storing them once more would have them twice after that. Of kind `TooNew` if a newer
    /// version imported it.
    pub(super) async fn look(
        store: &Store,
        name: &str,
        recorder: RecorderId,
        log: &Catalog,
    ) -> Result<Stored, Failure> {
        if log.generations().next().is_none() {
            return Ok(Stored::AsCommitted);
        }
        let holes: Vec<Gap> = log.problems().iter().filter_map(|problem| problem.gap()).collect();
        if let Some(newer) = holes.iter().find(|gap| gap.kind == GapKind::TooNew) {
            let what = format!("whether {name} is in {} cannot be told: {newer}", store.place());
            return Err(Failure::new(FailureKind::TooNew, what));
        }
        let view = CatalogView::load(store).await?;
        let committed: Vec<_> = log.segments(TimeRange::ALL).collect();
        let mut is_whole = holes.is_empty();
        for (of, state) in log.generations() {
            // What was rolled up was there.
            let rolled_up = view.rolled_up(of).await?;
            is_whole &= state.writer().is_some() && rolled_up <= state.commits();
        }
        let ranges = if is_whole { ranges(&committed) } else { vec![TimeRange::ALL] };
        let (mut found, mut gaps) = (Vec::new(), Vec::new());
        for range in ranges {
            let window = view.window(range).await?;
            found.extend(window.segments.into_iter().filter(|of| of.of.recorder == recorder));
            gaps.extend(window.gaps);
        }
        let mut there = BTreeSet::new();
        found.retain(|of| there.insert(of.entry.name.clone()));
        if is_whole {
            let hidden = committed.iter().filter(|of| !there.contains(&of.entry.name));
            let packets = hidden.map(|of| of.entry.packets).fold(0, u64::saturating_add);
            return match packets {
                0 => Ok(Stored::AsCommitted),
                packets => Err(hides(store, name, packets, gaps.first())),
            };
        }
        // What is rolled up is made again from the log, as far as that can be read.
        let rolled_up = gaps.iter().find(|gap| gap.commit().is_none());
        if let Some(gap) = rolled_up {
            return Err(hides(store, name, 0, Some(gap)));
        }
        let mut ordinals = Ordinals::new();
        for segment in &found {
            match of_segment(store, segment).await {
                Ok(of) => *ordinals.entry(segment.of.generation).or_default() |= of,
                // It cannot be read: its packets are stored once more.
                Err(failure)
                    if matches!(failure.kind(), FailureKind::Damaged | FailureKind::NotFound) =>
                {
                    tracing::warn!(failure = %with_causes(&failure), "what was imported is damaged");
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(Stored::InPart(ordinals))
    }
}

/// The hours of segments, those that follow each other together.
fn ranges(segments: &[&std::sync::Arc<Segment>]) -> Vec<TimeRange> {
    let hours: BTreeSet<Hour> = segments.iter().flat_map(|of| of.hours()).copied().collect();
    let mut ranges: Vec<TimeRange> = Vec::new();
    for hour in hours {
        let Some(range) = hour.range() else { return vec![TimeRange::ALL] };
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

fn hides(store: &Store, name: &str, packets: u64, gap: Option<&Gap>) -> Failure {
    let (kind, why) = match gap {
        Some(gap) => (gap.failure_kind(), gap.to_string()),
        None => {
            (FailureKind::Damaged, "the rolled-up catalog does not name their segments".to_owned())
        }
    };
    let packets = match packets {
        0 => "some of its packets".to_owned(),
        packets => format!("{packets} of its packets"),
    };
    let what = format!(
        "{name} was imported into {} before, and {packets} cannot be read, or it cannot be told: {why}. Run capstan repair, \
         which makes the catalog again from the logs, and import it then",
        store.place()
    );
    Failure::new(kind, what)
}

/// The ordinals in a segment: one GET where they have no holes.
async fn of_segment(store: &Store, segment: &Segment) -> Result<RoaringTreemap, Failure> {
    let index = store.get(&segment.path(Layer::Index)).await?;
    let opened = segment.entry.open(&index)?;
    let meta = opened.meta();
    let (first, last) = (meta.first_ordinal, meta.last_ordinal);
    let mut found = RoaringTreemap::new();
    if last.checked_sub(first).is_some_and(|more| more.saturating_add(1) == meta.packets) {
        found.insert_range(first..=last);
        return Ok(found);
    }
    found.extend(ordinals(store, segment, &opened).await?);
    Ok(found)
}

/// The ordinals of a segment's packets, read from its rows.
///
/// # Errors
/// What the store says; of kind `Damaged` if its rows cannot be read.
pub(super) async fn ordinals(
    store: &Store,
    segment: &Segment,
    opened: &Opened,
) -> Result<Vec<u64>, Failure> {
    let fetch = StoreFetch::new(store, &segment.entry);
    let scan = opened.scan_all(Layer::Packets, Some(&[column::ORDINAL]))?;
    let mut all = Vec::new();
    for batch in scan.run(&fetch).await? {
        all.extend(packets::ordinals(&batch)?);
    }
    Ok(all)
}

/// Every generation of a log.
pub(super) fn all_generations(log: &Catalog) -> Option<RangeInclusive<Generation>> {
    let generations = || log.generations().map(|(of, _)| of.generation);
    Some(generations().min()?..=generations().max()?)
}

/// An import whose log cannot be read whole, as one that is gone on with: the first packet may be missing.
/// `known` is what can be told of it.
pub(super) fn in_part(
    known: Import,
    generations: &RangeInclusive<Generation>,
    packets: u64,
) -> Import {
    Import {
        first_generation: *generations.start(),
        last_generation: *generations.end(),
        complete: false,
        packets,
        next_ordinal: 0,
        ..known
    }
}

/// Packets that a whole import has, if one of its generations said that it was complete.
pub(super) fn total(log: &Catalog, generations: &RangeInclusive<Generation>) -> Option<u64> {
    let of_it = log.generations().filter(|(of, _)| generations.contains(&of.generation));
    let ends = of_it.filter_map(|(_, state)| state.finished());
    ends.filter(|end| end.complete).map(|end| end.packets_total).max()
}

/// What stands for an import of which no generation can be read.
pub(super) fn nameless(recorder: RecorderId, source: Source) -> Import {
    Import {
        source,
        recorder,
        first_generation: Generation(1),
        last_generation: Generation(1),
        complete: false,
        packets: 0,
        next_ordinal: 0,
        next_flow: 0,
        source_read: None,
        stated: 0,
        earlier: Vec::new(),
    }
}
