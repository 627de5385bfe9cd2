//! Readable packets of an earlier import: the catalog may be damaged since its commits.

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

/// Packet ordinals by generation.
pub(super) type Ordinals = BTreeMap<Generation, RoaringTreemap>;

/// The readable packets of an imported recorder.
#[derive(Debug)]
pub(super) enum Stored {
    /// Everything in its log.
    AsCommitted,
    /// Part of its log is unreadable. These ordinals are in readable segments.
    InPart(Ordinals),
}

impl Stored {
    /// Checks what readers see of an import's recorder. `log` is its whole log.
    ///
    /// # Errors
    /// Store errors. Kind `Damaged` if damage hides packets that a repair can restore from the log:
    /// storing them again would duplicate them. Kind `TooNew` if a newer version imported it.
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
            let what = format!("cannot tell whether {name} is in {}: {newer}", store.place());
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
        // A repair rebuilds rolled-up facts from the log, as far as the log is readable.
        let rolled_up = gaps.iter().find(|gap| gap.commit().is_none());
        if let Some(gap) = rolled_up {
            return Err(hides(store, name, 0, Some(gap)));
        }
        let mut ordinals = Ordinals::new();
        for segment in &found {
            match of_segment(store, segment).await {
                Ok(of) => *ordinals.entry(segment.of.generation).or_default() |= of,
                // It is unreadable: its packets are stored again.
                Err(failure)
                    if matches!(failure.kind(), FailureKind::Damaged | FailureKind::NotFound) =>
                {
                    tracing::warn!(failure = %with_causes(&failure), "a segment of the earlier \
                                                                      import is damaged");
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(Stored::InPart(ordinals))
    }
}

/// The hour ranges of segments. Adjacent hours form one range.
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
        "{name} was imported into {} before, and {packets} are unreadable or may be: {why}. Run \
         capstan repair, which rebuilds the catalog from the logs, and import again",
        store.place()
    );
    Failure::new(kind, what)
}

/// The ordinals of a segment. One GET if they are contiguous.
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
/// Store errors; kind `Damaged` if its rows cannot be read.
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

/// An import with a partly unreadable log, as a base to continue from. The first packet may be
/// missing. `known` holds what is known of it.
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

/// Packet count of a complete import, if one of its generations recorded that it was complete.
pub(super) fn total(log: &Catalog, generations: &RangeInclusive<Generation>) -> Option<u64> {
    let of_it = log.generations().filter(|(of, _)| generations.contains(&of.generation));
    let ends = of_it.filter_map(|(_, state)| state.finished());
    ends.filter(|end| end.complete).map(|end| end.packets_total).max()
}

/// Placeholder for an import without a readable generation.
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
