//! The statements of the catalog under a mask. They are about all flows together, and a masked principal gets only
//! what does not depend on hidden ones:
//!
//! * when a live recorder captured; its commits follow the traffic, so neighbouring stretches are joined
//! * when it lost packets, and why, but not how many
//! * that a part of the store cannot be read, but not which
//!
//! What an import captured follows from its packets alone, so a masked principal does not know it.

use std::collections::BTreeMap;

use capstan_model::coverage::{Listened, Loss};
use capstan_model::{GenerationId, TimeRange};
use capstan_storage_engine::catalog::{About, Attributed, Gap, GapKind, Window, WriterKind};

use super::failure::UNREADABLE;

/// What a masked principal gets of a window. The segments stay: scans open them, and see only the flows of the mask. No
/// segment has secrets for it: decryption secrets name all TLS sessions.
pub(crate) fn visible(window: &Window) -> Window {
    let is_live = |by: &GenerationId| {
        let info = window.writers.get(by).and_then(Option::as_ref);
        info.is_some_and(|info| info.kind == WriterKind::Live)
    };
    let mut stretches: BTreeMap<(GenerationId, &[u32]), Vec<TimeRange>> = BTreeMap::new();
    for listened in window.listened.iter().filter(|listened| is_live(&listened.by)) {
        let Listened { range, interfaces } = &listened.fact;
        stretches.entry((listened.by, interfaces)).or_default().push(*range);
    }
    let mut shown = Window::default();
    shown.segments = window.segments.clone();
    shown.writers = window.writers.clone();
    for ((by, interfaces), ranges) in stretches {
        let listened = |range| Attributed {
            by,
            seq: 0,
            fact: Listened { range, interfaces: interfaces.to_vec() },
        };
        shown.listened.extend(joined(ranges).into_iter().map(listened));
    }
    for loss in window.losses.iter().filter(|loss| is_live(&loss.by)) {
        let fact = Loss { packets: 0, bytes: 0, note: String::new(), ..loss.fact.clone() };
        shown.losses.push(Attributed { by: loss.by, seq: 0, fact });
    }
    shown.losses.dedup();
    if !window.gaps.is_empty() {
        shown.gaps.push(hidden_gap());
    }
    shown
}

/// The coverage, losses and gaps of a window without its segments: of a masked principal's answer, times of segments
/// say nothing.
pub(crate) fn statements(window: &Window) -> Window {
    let mut statements = window.clone();
    statements.segments.clear();
    statements
}

/// A gap that tells a masked principal only that something cannot be read.
pub(crate) fn hidden_gap() -> Gap {
    Gap {
        object: String::new(),
        kind: GapKind::Damaged,
        about: About::AnyTime,
        what: UNREADABLE.to_owned(),
    }
}

/// Joins stretches that touch or overlap.
fn joined(mut ranges: Vec<TimeRange>) -> Vec<TimeRange> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<TimeRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use capstan_model::coverage::LossCause;
    use capstan_model::{Generation, RecorderId, Time};
    use capstan_storage_engine::catalog::WriterInfo;

    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange { start: Time(start), end: Time(end) }
    }

    fn of(recorder: u64) -> GenerationId {
        GenerationId::new(RecorderId(recorder), Generation(1))
    }

    fn window() -> Window {
        let mut window = Window::default();
        for (recorder, kind) in [(1, WriterKind::Live), (2, WriterKind::Import)] {
            let info = WriterInfo {
                kind,
                description: String::new(),
                host: String::new(),
                source: None,
                resumes: None,
                started_at: Time(0),
            };
            window.writers.insert(of(recorder), Some(info));
        }
        let listened = |recorder, seq, range, interfaces: &[u32]| Attributed {
            by: of(recorder),
            seq,
            fact: Listened { range, interfaces: interfaces.to_vec() },
        };
        window.listened = vec![
            listened(1, 0, range(0, 10), &[0]),
            listened(1, 1, range(10, 17), &[0]),
            listened(1, 2, range(30, 40), &[0]),
            listened(1, 3, range(10, 17), &[1]),
            listened(2, 0, range(3, 5), &[]),
            // Nothing is known of this writer: it may be an import.
            listened(3, 0, range(3, 5), &[]),
        ];
        let loss = |recorder, packets, note: &str| Attributed {
            by: of(recorder),
            seq: 7,
            fact: Loss {
                range: range(1, 2),
                interface: Some(0),
                cause: LossCause::KernelDrop,
                packets,
                bytes: packets * 60,
                note: note.to_owned(),
            },
        };
        window.losses = vec![loss(1, 5, "a note"), loss(1, 9, ""), loss(2, 3, "")];
        window.pruned_by_manifest = 12;
        window
    }

    #[test]
    fn coverage_is_of_live_recorders_and_does_not_show_commits() {
        let shown = visible(&window());
        let listened: Vec<_> = shown
            .listened
            .iter()
            .map(|of| (of.by, of.fact.range, of.fact.interfaces.clone()))
            .collect();
        assert_eq!(
            listened,
            [
                (of(1), range(0, 17), vec![0]),
                (of(1), range(30, 40), vec![0]),
                (of(1), range(10, 17), vec![1]),
            ]
        );
    }

    #[test]
    fn losses_have_times_and_causes_but_no_counts() {
        let shown = visible(&window());
        let [loss] = &shown.losses[..] else { panic!("{:?}", shown.losses) };
        let Loss { range: when, cause, packets, bytes, note, .. } = &loss.fact;
        assert_eq!((*when, *cause), (range(1, 2), LossCause::KernelDrop));
        assert_eq!((*packets, *bytes, note.as_str()), (0, 0, ""));
        assert_eq!(shown.pruned_by_manifest, 0);
    }

    #[test]
    fn gaps_do_not_name_objects() {
        let mut window = window();
        assert!(visible(&window).gaps.is_empty());
        let gap = |object: &str| Gap {
            object: object.to_owned(),
            kind: GapKind::Missing,
            about: About::Times(range(0, 9)),
            what: format!("{object} is missing"),
        };
        window.gaps = vec![gap("log/0123/7"), gap("log/0123/8")];
        assert_eq!(visible(&window).gaps, [hidden_gap()]);
        assert!(!hidden_gap().to_string().contains("0123"));
    }
}
