//! What retention deleted of the data that an answer is about. Pure.
//!
//! Deleted data is not damage: an answer has everything else, and says what it lacks. Empty layers, and those of segments
//! whose data other segments have, are not missing.

use std::collections::BTreeMap;

use capstan_model::words::count;
use capstan_model::{Time, TimeRange};
use capstan_storage_engine::catalog::{Segment, SegmentEntry};
use capstan_storage_engine::segment::Layer;

use super::ScopedView;

/// What every answer to a masked principal says, whether anything was deleted or not: what was deleted depends on
/// hidden flows.
pub const MAY_BE_DELETED: &str = "Retention may have deleted older data of this time range.";

/// Most layers and reasons that are told one by one.
const NAMED: usize = 8;

/// Most bytes of a reason that are told: it is text of another process.
const REASON_BYTES: usize = 200;

/// Layers that retention deleted, by name and reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    is_masked: bool,
    parts: BTreeMap<(Layer, String), Part>,
}

/// One layer of some segments, deleted for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    segments: u64,
    /// From the first packet of these segments to the last; none if none has a time.
    range: Option<TimeRange>,
    /// The first deletion and the last.
    at: (Time, Time),
}

impl ScopedView {
    /// Collects what retention deleted of the data of an answer, as far as the principal may know it.
    pub fn deleted(&self) -> Deleted {
        Deleted { is_masked: self.who().is_masked(), parts: BTreeMap::new() }
    }
}

impl Deleted {
    /// Adds the first of these layers that a segment lacks. Returns whether retention deleted it.
    pub fn add_first(&mut self, segment: &Segment, layers: &[Layer]) -> bool {
        let missing = layers.iter().find(|layer| segment.layer(**layer).is_none());
        missing.is_some_and(|layer| self.add(segment, *layer))
    }

    /// Adds a layer, if retention deleted it from a segment. Returns whether it did.
    pub fn add(&mut self, segment: &Segment, layer: Layer) -> bool {
        let Some(retired) = segment.retired(layer) else { return false };
        let is_elsewhere = segment.state.as_ref().is_some_and(|of| !of.replaced_by.is_empty());
        if self.is_masked || is_elsewhere || retired.layer.bytes == 0 {
            return true;
        }
        let (range, at) = (range(&segment.entry), retired.at);
        let new = || Part { segments: 0, range, at: (at, at) };
        let part = self.parts.entry((layer, retired.why.clone())).or_insert_with(new);
        part.segments += 1;
        part.range = TimeRange::hull(part.range, range);
        part.at = (part.at.0.min(at), part.at.1.max(at));
        true
    }

    /// Whether anything is known to be deleted. Never under a mask.
    pub fn is_known(&self) -> bool {
        !self.parts.is_empty()
    }

    /// What was deleted, in words: one line for a layer and a reason. Under a mask nothing.
    pub fn known(&self) -> Vec<String> {
        let words = |((layer, why), part): (&(Layer, String), &Part)| part.words(layer.name(), why);
        let mut lines: Vec<String> = self.parts.iter().take(NAMED).map(words).collect();
        let more = self.parts.values().skip(NAMED).map(|part| part.segments);
        match more.fold(0_u64, u64::saturating_add) {
            0 => {}
            layers => lines.push(format!(
                "retention deleted {} for other reasons",
                count(layers, "more layer")
            )),
        }
        lines
    }

    /// What may have been deleted: under a mask one fixed sentence, otherwise nothing.
    pub fn possible(&self) -> Option<&'static str> {
        self.is_masked.then_some(MAY_BE_DELETED)
    }

    /// What an answer says.
    pub fn words(&self) -> Vec<String> {
        let mut lines = self.known();
        lines.extend(self.possible().map(str::to_owned));
        lines
    }
}

impl Part {
    fn words(&self, layer: &str, why: &str) -> String {
        let segments = count(self.segments, "segment");
        let packets = match self.range {
            Some(range) => format!("with packets {range}"),
            None => "with packets without a time".to_owned(),
        };
        let (first, last) = self.at;
        let when = match first == last {
            true => format!("at {first}"),
            false => format!("from {first} to {last}"),
        };
        let why = &why[..why.floor_char_boundary(REASON_BYTES)];
        let why = why.replace(char::is_control, " ");
        format!("retention deleted the {layer} layer of {segments} {packets}, {when}: {why}")
    }
}

/// The times of the packets of a segment.
fn range(entry: &SegmentEntry) -> Option<TimeRange> {
    let (start, last) = entry.first.zip(entry.last)?;
    Some(TimeRange { start, end: Time(last.0.saturating_add(1)) })
}

#[cfg(test)]
mod tests {
    use capstan_fixtures::{Recording, all_segments, retire, store_of, traffic};
    use capstan_storage_engine::catalog::What;

    use super::*;
    use crate::StoreView;
    use crate::access::{KEY_BYTES, Mask, Principal, Rights};
    use crate::testing::{segments, whole};

    #[tokio::test]
    async fn deleted_layers_are_told_with_segments_times_and_reason() {
        let store = store_of(Recording::of(1), traffic(1, 6_000, 0, 1_000_000)).await;
        let all = all_segments(&store).await;
        assert!(all.len() > 3, "{}", all.len());
        let payload = [Layer::Body, Layer::Head];
        retire(&store, &all[..2], &payload, Time(5_000_000_000), "older than 7 d").await;
        retire(&store, &all[2..3], &payload[..1], Time(9_000_000_000), "older than 7 d").await;
        retire(&store, &all[3..4], &payload[..1], Time(1), "the store is full").await;
        let view = StoreView::load(store.clone()).await.unwrap();
        let segments = segments(&view).await;
        let mut deleted = whole(&view).deleted();
        assert!(!deleted.add(&segments[0], Layer::Packets) && !deleted.is_known());
        for segment in &segments {
            deleted.add(segment, Layer::Head);
            deleted.add_first(segment, &[Layer::Index, Layer::Body]);
        }
        let times = |from: usize, to: usize| {
            let first = all[from..=to].iter().filter_map(|of| of.entry.first).min().unwrap();
            let last = all[from..=to].iter().filter_map(|of| of.entry.last).max().unwrap();
            format!("with packets from {first} to {}", Time(last.0 + 1))
        };
        assert_eq!(
            deleted.words(),
            [
                format!(
                    "retention deleted the body layer of 3 segments {}, from \
                     1970-01-01T00:00:05Z to 1970-01-01T00:00:09Z: older than 7 d",
                    times(0, 2)
                ),
                format!(
                    "retention deleted the body layer of 1 segment {}, at \
                     1970-01-01T00:00:00.000000001Z: the store is full",
                    times(3, 3)
                ),
                format!(
                    "retention deleted the head layer of 2 segments {}, at \
                     1970-01-01T00:00:05Z: older than 7 d",
                    times(0, 1)
                ),
            ]
        );
        let host = capstan_model::Address::v4([10, 0, 0, 1]);
        let mask = Mask::new(capstan_index::filter::Term::ip(host).into(), [7; KEY_BYTES]).unwrap();
        let masked = view.scoped(&Principal::new("team", Rights::all(), Some(mask)));
        let mut of_masked = masked.deleted();
        assert_eq!(of_masked.words(), [MAY_BE_DELETED]);
        assert!(of_masked.add(&segments[0], Layer::Body));
        assert_eq!(of_masked, masked.deleted());
    }

    #[tokio::test]
    async fn data_that_other_segments_have_is_not_deleted() {
        let store = store_of(Recording::of(1), traffic(1, 500, 0, 1_000)).await;
        let all = all_segments(&store).await;
        let replaced = What::Replaced { by: vec!["another".to_owned()] };
        capstan_fixtures::change(&store, &all[..1], |_| replaced.clone(), Time(1)).await;
        retire(&store, &all[..1], &[Layer::Body], Time(2), "replaced").await;
        let view = StoreView::load(store).await.unwrap();
        let mut deleted = whole(&view).deleted();
        assert!(deleted.add(&segments(&view).await[0], Layer::Body));
        assert!(!deleted.is_known());
    }

    #[test]
    fn many_reasons_are_cut() {
        let part = Part { segments: 2, range: None, at: (Time(0), Time(0)) };
        let parts =
            (0..20).map(|n| ((Layer::Body, format!("{n:02}\n{}", "ä".repeat(500))), part.clone()));
        let lines = Deleted { is_masked: false, parts: parts.collect() }.words();
        assert_eq!(lines.len(), NAMED + 1);
        assert!(lines.iter().all(|line| line.len() < 2 * REASON_BYTES), "{lines:?}");
        assert!(lines[0].contains("2 segments with packets without a time"), "{lines:?}");
        assert!(!lines[0].contains(char::is_control), "{lines:?}");
        assert_eq!(lines[NAMED], "retention deleted 24 more layers for other reasons");
    }
}
