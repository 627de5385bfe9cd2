//! The statements of the catalog under a mask. They are about all flows together, and a masked principal gets only
//! what does not depend on hidden ones:
//!
//! * when a live recorder captured; its commits follow the traffic, so neighbouring stretches are joined, and cut where
//!   the window ends
//! * when it lost packets, and why, but not how many
//! * that a part of the store cannot be read, but not which
//!
//! What an import captured follows from its packets alone, so a masked principal does not know it.

use std::collections::BTreeMap;

use capstan_model::coverage::{Listened, Loss};
use capstan_model::{GenerationId, TimeRange};
use capstan_storage_engine::catalog::{About, Attributed, Gap, GapKind, Window, WriterKind};

use super::failure::UNREADABLE;

/// What a masked principal gets of the window of a range. The segments stay: scans open them, and see only the flows of the mask. No
/// segment has secrets for it: decryption secrets name all TLS sessions.
pub(crate) fn visible(window: &Window, asked: TimeRange) -> Window {
    let is_live = |by: &GenerationId| {
        let info = window.writers.get(by).and_then(Option::as_ref);
        info.is_some_and(|info| info.kind == WriterKind::Live)
    };
    // An interface that is captured with others and later alone is captured without interruption.
    let mut stretches: BTreeMap<(GenerationId, Option<u32>), Vec<TimeRange>> = BTreeMap::new();
    for listened in window.listened.iter().filter(|listened| is_live(&listened.by)) {
        let Listened { range, interfaces } = &listened.fact;
        let unnamed = interfaces.is_empty().then_some(None);
        for interface in interfaces.iter().copied().map(Some).chain(unnamed) {
            stretches.entry((listened.by, interface)).or_default().push(*range);
        }
    }
    let mut shown = Window::default();
    shown.segments = window.segments.clone();
    shown.writers = window.writers.clone();
    for ((by, interface), ranges) in stretches {
        let interfaces: Vec<u32> = interface.into_iter().collect();
        let listened = |range| {
            let fact = Listened { range, interfaces: interfaces.clone() };
            Attributed { by, seq: 0, fact }
        };
        // Both ends of a stretch at the end of the window may be those of a commit.
        let inside =
            TimeRange::union(ranges).into_iter().filter_map(|range| range.intersect(&asked));
        shown.listened.extend(inside.map(listened));
    }
    for loss in window.losses.iter().filter(|loss| is_live(&loss.by)) {
        let fact = Loss { packets: 0, bytes: 0, note: String::new(), ..loss.fact.clone() };
        shown.losses.push(Attributed { by: loss.by, seq: 0, fact });
    }
    // Several may differ in what is not shown. Their order is the one of commits.
    shown.losses.sort_by_key(|of| {
        (of.by, of.fact.range.start, of.fact.range.end, of.fact.interface, of.fact.cause.name())
    });
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
pub fn hidden_gap() -> Gap {
    Gap {
        object: String::new(),
        kind: GapKind::Damaged,
        about: About::AnyTime,
        what: UNREADABLE.to_owned(),
    }
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
        let shown = visible(&window(), TimeRange::ALL);
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

    fn listened_of(window: &Window, asked: TimeRange) -> Vec<(TimeRange, Vec<u32>)> {
        let shown = visible(window, asked).listened.into_iter();
        shown.map(|of| (of.fact.range, of.fact.interfaces)).collect()
    }

    #[test]
    fn coverage_of_an_interface_is_joined_whatever_is_captured_beside_it() {
        let mut window = window();
        let listened = |seq, range, interfaces: &[u32]| Attributed {
            by: of(1),
            seq,
            fact: Listened { range, interfaces: interfaces.to_vec() },
        };
        window.listened = vec![
            listened(0, range(0, 10), &[0]),
            listened(1, range(10, 20), &[1, 0]),
            listened(2, range(20, 30), &[1]),
            listened(3, range(40, 50), &[]),
        ];
        assert_eq!(
            listened_of(&window, TimeRange::ALL),
            [(range(40, 50), vec![]), (range(0, 20), vec![0]), (range(10, 30), vec![1]),]
        );
    }

    #[test]
    fn coverage_is_cut_where_the_window_ends() {
        let at = |start, end| listened_of(&window(), range(start, end));
        // A catalog gives whole stretches of commits, also of those that only begin or end in the window.
        assert_eq!(at(5, 12), [(range(5, 12), vec![0]), (range(10, 12), vec![1])]);
        assert_eq!(at(18, 35), [(range(30, 35), vec![0])]);
        assert_eq!(at(20, 30), []);
    }

    #[test]
    fn losses_that_differ_in_hidden_numbers_are_shown_once() {
        let mut window = window();
        let again = window.losses[0].clone();
        let mut other = again.clone();
        other.fact.cause = LossCause::SourceDrop;
        window.losses.extend([other, again]);
        let shown = visible(&window, TimeRange::ALL);
        let causes: Vec<_> = shown.losses.iter().map(|of| of.fact.cause).collect();
        assert_eq!(causes, [LossCause::KernelDrop, LossCause::SourceDrop]);
    }

    #[test]
    fn losses_have_times_and_causes_but_no_counts() {
        let shown = visible(&window(), TimeRange::ALL);
        let [loss] = &shown.losses[..] else { panic!("{:?}", shown.losses) };
        let Loss { range: when, cause, packets, bytes, note, .. } = &loss.fact;
        assert_eq!((*when, *cause), (range(1, 2), LossCause::KernelDrop));
        assert_eq!((*packets, *bytes, note.as_str()), (0, 0, ""));
        assert_eq!(shown.pruned_by_manifest, 0);
    }

    #[test]
    fn gaps_do_not_name_objects() {
        let mut window = window();
        assert!(visible(&window, TimeRange::ALL).gaps.is_empty());
        let gap = |object: &str| Gap {
            object: object.to_owned(),
            kind: GapKind::Missing,
            about: About::Times(range(0, 9)),
            what: format!("{object} is missing"),
        };
        window.gaps = vec![gap("log/0123/7"), gap("log/0123/8")];
        assert_eq!(visible(&window, TimeRange::ALL).gaps, [hidden_gap()]);
        assert!(!hidden_gap().to_string().contains("0123"));
    }
}
