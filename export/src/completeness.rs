//! The completeness of a window: coverage, times with unknown coverage, known losses, gaps of the catalog, and data that
//! retention deleted.

use std::collections::BTreeMap;

use capstan_model::coverage::LossCause;
use capstan_model::words::count;
use capstan_model::{GenerationId, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{Gap, Window, WriterKind};
use capstan_view::Deleted;

/// Of long lists, the first so many are named.
const NAMED: usize = 8;

/// How complete a window is, as far as the catalog knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Completeness {
    /// Times of the window without known coverage, or between two coverages of one live recorder. Ascending and
    /// disjoint.
    ///
    /// A window without a start or end is bounded by the coverage, or by the packets of imports: an interrupted
    /// import has not committed its coverage yet. Without any coverage, an open end stays open.
    pub unknown: Vec<TimeRange>,
    /// Known losses in the window, added up.
    pub losses: Vec<Lost>,
    /// Unusable objects of the catalog. The facts they have about the window are hidden, and the other fields
    /// lack them.
    pub gaps: Vec<Gap>,
    /// What retention deleted of segments that may have selected packets.
    pub deleted: Deleted,
}

/// The losses of one recorder on one interface by one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The generation that lost them.
    pub of: GenerationId,
    /// The interface, if known.
    pub interface: Option<u32>,
    /// Why.
    pub cause: LossCause,
    /// Packets; 0 if unknown.
    pub packets: u64,
    /// Bytes; 0 if unknown.
    pub bytes: u64,
    /// From the first of these losses to the last; none if unknown.
    pub range: Option<TimeRange>,
}

impl Completeness {
    /// Evaluates what the catalog says about a window. Deleted data depends on the selection, and is left empty.
    pub fn of(said: &Window, window: TimeRange) -> Completeness {
        let mut all = Vec::new();
        let mut live: BTreeMap<RecorderId, Vec<TimeRange>> = BTreeMap::new();
        for listened in &said.listened {
            let range = listened.fact.range;
            all.push(range);
            if said.is_live(listened.by) {
                live.entry(listened.by.recorder).or_default().push(range);
            }
        }
        // Without any coverage, all times are unknown, not only those of the packets.
        let imported = imported(said).filter(|_| !all.is_empty());
        let reach: Vec<TimeRange> = all.iter().copied().chain(imported).collect();
        let mut unknown = gaps(bounded(window, &reach), all);
        for ranges in live.into_values() {
            let own = bounded(TimeRange::ALL, &ranges);
            unknown.extend(
                own.intersect(&window).into_iter().flat_map(|own| gaps(own, ranges.clone())),
            );
        }
        let gaps = said.gaps.clone();
        let deleted = Deleted::default();
        Completeness { unknown: union(unknown), losses: losses(said), gaps, deleted }
    }

    /// Whether coverage is complete, and no loss or deletion is known.
    pub fn is_complete(&self) -> bool {
        self.unknown.is_empty()
            && self.losses.is_empty()
            && self.gaps.is_empty()
            && !self.deleted.is_known()
    }

    /// Packets known to be lost.
    pub fn packets_lost(&self) -> u64 {
        self.losses.iter().map(|lost| lost.packets).fold(0, u64::saturating_add)
    }

    /// The losses by cause, in words.
    pub fn lost(&self) -> Vec<String> {
        let mut by_cause: BTreeMap<&str, Sum> = BTreeMap::new();
        for lost in &self.losses {
            by_cause.entry(cause_words(lost.cause)).or_default().add(lost);
        }
        by_cause.into_iter().map(|(cause, sum)| sum.words(cause)).collect()
    }

    /// Times with unknown coverage, in words; of many the first.
    pub fn not_known(&self) -> Option<String> {
        if self.unknown.is_empty() {
            return None;
        }
        let mut stretches: Vec<String> =
            self.unknown.iter().take(NAMED).map(TimeRange::to_string).collect();
        if let Some(more) = self.unknown.len().checked_sub(NAMED).filter(|more| *more > 0) {
            stretches.push(format!("in {}", count(more as u64, "more stretch")));
        }
        Some(format!("unknown coverage {}", stretches.join(", ")))
    }

    /// What may be missing, in words: times with unknown coverage, and data of which a masked principal is not told whether
    /// it was deleted.
    pub fn not_certain(&self) -> Vec<String> {
        self.not_known().into_iter().chain(self.deleted.possible().map(str::to_owned)).collect()
    }

    /// A sentence for a file's header, which is written before any packet is read.
    pub fn words(&self) -> String {
        let mut missing = self.lost();
        missing.extend(self.gaps.iter().take(NAMED).map(Gap::to_string));
        if self.gaps.len() > NAMED {
            let more = count((self.gaps.len() - NAMED) as u64, "more object");
            missing.push(format!("{more} of the catalog cannot be read"));
        }
        missing.extend(self.deleted.known());
        let unknown = self.not_certain();
        if missing.is_empty() && unknown.is_empty() {
            return "complete coverage of the window, and no known loss".to_owned();
        }
        let missing = match missing.is_empty() {
            true => "no known loss".to_owned(),
            false => format!("known to be missing: {}", missing.join("; ")),
        };
        std::iter::once(missing).chain(unknown).collect::<Vec<_>>().join("; ")
    }
}

/// Losses of one cause, added up.
#[derive(Debug, Default)]
struct Sum {
    packets: u64,
    bytes: u64,
    range: Option<TimeRange>,
}

impl Sum {
    fn add(&mut self, lost: &Lost) {
        self.packets = self.packets.saturating_add(lost.packets);
        self.bytes = self.bytes.saturating_add(lost.bytes);
        self.range = TimeRange::hull(self.range, lost.range);
    }

    fn words(&self, cause: &str) -> String {
        let number = |number: u64, what: &str| (number > 0).then(|| count(number, what));
        let counts = [number(self.packets, "packet"), number(self.bytes, "byte")];
        let counts: Vec<String> = counts.into_iter().flatten().collect();
        let counts = match counts.as_slice() {
            [] => "an unknown number of packets".to_owned(),
            counts => counts.join(", "),
        };
        let when = self.range.map_or("at an unknown time".to_owned(), |range| range.to_string());
        format!("{counts} lost {when} ({cause})")
    }
}

fn cause_words(cause: LossCause) -> &'static str {
    match cause {
        LossCause::KernelDrop => "the kernel's capture ring was full",
        LossCause::SourceDrop => "drops reported by the source",
        LossCause::SourceDamaged => "the source is damaged",
    }
}

fn losses(said: &Window) -> Vec<Lost> {
    let mut lost: Vec<Lost> = Vec::new();
    for of in &said.losses {
        let loss = &of.fact;
        let known = lost.iter_mut().find(|known| {
            known.of == of.by && (known.interface, known.cause) == (loss.interface, loss.cause)
        });
        match known {
            Some(known) => {
                known.packets = known.packets.saturating_add(loss.packets);
                known.bytes = known.bytes.saturating_add(loss.bytes);
                known.range = TimeRange::hull(known.range, loss.time());
            }
            None => lost.push(Lost {
                of: of.by,
                interface: loss.interface,
                cause: loss.cause,
                packets: loss.packets,
                bytes: loss.bytes,
                range: loss.time(),
            }),
        }
    }
    lost
}

/// Times of packets that are not known to be recorded live. A live recorder commits packets and coverage
/// together, and its newest packets may be later than its coverage.
fn imported(said: &Window) -> impl Iterator<Item = TimeRange> {
    let is_live = |of: &GenerationId| {
        let info = said.writers.get(of).and_then(Option::as_ref);
        info.is_some_and(|info| info.kind == WriterKind::Live)
    };
    said.segments.iter().filter(move |segment| !is_live(&segment.of)).filter_map(|segment| {
        let (start, last) = segment.entry.first.zip(segment.entry.last)?;
        Some(TimeRange { start, end: Time(last.0.saturating_add(1)) })
    })
}

/// The window; an open end is bounded by the ranges.
fn bounded(window: TimeRange, ranges: &[TimeRange]) -> TimeRange {
    let first = ranges.iter().map(|range| range.start).min().unwrap_or(window.start);
    let last = ranges.iter().map(|range| range.end).max().unwrap_or(window.end);
    TimeRange {
        start: if window.start == Time::MIN { first } else { window.start },
        end: if window.end == Time::MAX { last } else { window.end },
    }
}

/// The parts of the window that no range covers.
fn gaps(window: TimeRange, ranges: Vec<TimeRange>) -> Vec<TimeRange> {
    let mut gaps = Vec::new();
    let mut heard_to = window.start;
    for range in union(ranges) {
        if range.start > heard_to && heard_to < window.end {
            gaps.push(TimeRange { start: heard_to, end: range.start.min(window.end) });
        }
        heard_to = heard_to.max(range.end);
    }
    if heard_to < window.end {
        gaps.push(TimeRange { start: heard_to, end: window.end });
    }
    gaps
}

/// Ascending and disjoint, without empty ranges.
fn union(mut ranges: Vec<TimeRange>) -> Vec<TimeRange> {
    ranges.retain(|range| range.start < range.end);
    TimeRange::union(ranges)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use capstan_model::coverage::Listened;
    use capstan_model::{Generation, RecorderId};
    use capstan_storage_engine::catalog::{
        Attributed, CommitId, Segment, SegmentEntry, WriterInfo,
    };

    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange { start: Time(start), end: Time(end) }
    }

    #[test]
    fn uncovered_parts_of_the_window_are_unknown() {
        let heard = vec![range(50, 60), range(10, 20), range(15, 30), range(60, 60)];
        assert_eq!(
            gaps(range(0, 100), heard.clone()),
            [range(0, 10), range(30, 50), range(60, 100)]
        );
        assert_eq!(gaps(range(12, 28), heard.clone()), []);
        assert_eq!(gaps(range(30, 40), heard), [range(30, 40)]);
        assert_eq!(gaps(range(0, 5), Vec::new()), [range(0, 5)]);
    }

    #[test]
    fn open_window_ends_at_the_end_of_coverage() {
        let heard = [range(10, 20), range(40, 50)];
        assert_eq!(bounded(TimeRange::ALL, &heard), range(10, 50));
        assert_eq!(bounded(TimeRange { start: Time(5), end: Time::MAX }, &heard), range(5, 50));
        assert_eq!(bounded(range(1, 2), &heard), range(1, 2));
    }

    #[test]
    fn packets_of_an_import_without_coverage_are_in_unknown_time() {
        let entry = |first: i64, last: i64| -> SegmentEntry {
            serde_json::from_value(serde_json::json!({
                "name": format!("{first}"), "hour": 0, "first": first,
                "last": last, "first_ordinal": 0, "last_ordinal": 1, "packets": 2, "flow_parts": 1,
                "captured_bytes": 2, "wire_bytes": 2, "layers": [],
            }))
            .unwrap()
        };
        let of = |recorder| GenerationId::new(RecorderId(recorder), Generation(1));
        let segment = |recorder, first, last| {
            let by = CommitId { of: of(recorder), seq: 0 };
            let entry = entry(first, last);
            Arc::new(Segment { of: by.of, by, entry, state: None })
        };
        let info = |kind| WriterInfo {
            kind,
            description: String::new(),
            host: String::new(),
            source: None,
            resumes: None,
            started_at: Time(0),
        };
        let listened = Listened { range: range(10, 20), interfaces: vec![] };
        let mut window = Window::default();
        window.segments = vec![segment(1, 11, 18), segment(2, 25, 30), segment(3, 2, 40)];
        window.listened = vec![Attributed { by: of(1), seq: 0, fact: listened }];
        window.writers.insert(of(1), Some(info(WriterKind::Live)));
        window.writers.insert(of(2), Some(info(WriterKind::Import)));
        // Of the third nothing is known: it may be an import.
        let unknown = |said: &Window, asked| Completeness::of(said, asked).unknown;
        assert_eq!(unknown(&window, TimeRange::ALL), [range(2, 10), range(20, 41)]);
        window.segments.pop();
        assert_eq!(unknown(&window, TimeRange::ALL), [range(20, 31)]);
        assert_eq!(
            unknown(&window, TimeRange { start: Time(5), end: Time::MAX }),
            [range(5, 10), range(20, 31)]
        );
        // The newest packets of a recorder may be later than what it has said so far.
        window.segments = vec![segment(1, 11, 22)];
        assert_eq!(unknown(&window, TimeRange::ALL), []);
        // Without any coverage, packets do not bound what is unknown.
        window.segments = vec![segment(2, 25, 30)];
        window.listened.clear();
        assert_eq!(unknown(&window, TimeRange::ALL), [TimeRange::ALL]);
    }

    #[test]
    fn losses_and_unknown_coverage_are_reported() {
        let lost = |cause, packets| Lost {
            of: GenerationId::new(RecorderId(1), Generation(1)),
            interface: None,
            cause,
            packets,
            bytes: 0,
            range: Some(range(0, 1)),
        };
        let completeness = Completeness {
            unknown: (0..10).map(|n| range(n * 10, n * 10 + 1)).collect(),
            losses: vec![
                lost(LossCause::KernelDrop, 3),
                lost(LossCause::KernelDrop, 4),
                lost(LossCause::SourceDamaged, 0),
            ],
            gaps: Vec::new(),
            deleted: Deleted::default(),
        };
        let words = completeness.words();
        assert!(
            words.contains("7 packets lost from 1970-01-01")
                && words.contains("Z (the kernel's capture ring"),
            "{words}"
        );
        assert!(words.contains("an unknown number of packets lost from"), "{words}");
        assert!(words.contains("; unknown coverage from 1970-01-01"), "{words}");
        assert!(words.ends_with(", in 2 more stretches"), "{words}");
        let nobody = Completeness { unknown: vec![TimeRange::ALL], ..Completeness::default() };
        assert_eq!(nobody.words(), "no known loss; unknown coverage at any time");
        assert_eq!(completeness.packets_lost(), 7);
    }
}
