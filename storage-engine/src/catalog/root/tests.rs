//! Steps between roots, and broken ones.

use capstan_model::{Generation, Hour, RecorderId};

use super::*;
use crate::catalog::Chain;

fn state(recorder: u64) -> GenerationState {
    GenerationState::new(
        None,
        Chain::new(GenerationId::new(RecorderId(recorder), Generation(1)), None),
    )
}

/// As if the next commits of a log had been followed.
fn followed(state: &GenerationState, next: u64, finished: bool) -> GenerationState {
    let mut json = serde_json::to_value(state).unwrap();
    json["chain"]["next"] = next.into();
    json["chain"]["finished"] = finished.into();
    serde_json::from_value(json).unwrap()
}

fn step(before: &Root, step: Step) -> Root {
    let next = before.advance(step, "hash".to_owned(), "nonce".to_owned());
    next.check(before).unwrap();
    next
}

fn slot(hour: i32) -> TimeSlot {
    TimeSlot::Hour(Hour(hour))
}

fn contributor(recorder: u64, admitted: u64) -> Contributor {
    let (recorder, generation) = (RecorderId(recorder), Generation(1));
    Contributor { recorder, generation, admitted, info: None, next: 10 }
}

#[test]
fn root_admits_follows_and_closes_a_log() {
    let claimed =
        Root::empty().claim("me".to_owned(), true, Listed::default(), String::new(), String::new());
    claimed.check(&Root::empty()).unwrap();
    let taken = step(&claimed, Step { generations: vec![state(7)], ..Step::default() });
    assert_eq!((taken.version, taken.epoch, taken.logs[0].admitted), (2, 1, 2));
    assert_eq!(taken.known(&contributor(7, 2)), 0);

    let generations = vec![followed(&state(7), 3, true)];
    let slots = vec![(slot(1), 1), (TimeSlot::Wide, 1)];
    let owner = GenerationId::new(RecorderId(7), Generation(1));
    let ended = [owner].into();
    let rolled_up = step(&taken, Step { generations, slots, ended, ..Step::default() });
    assert_eq!(rolled_up.known(&contributor(7, 2)), 3);
    assert_eq!((rolled_up.slot(slot(1)), rolled_up.slot(slot(2))), (Some(1), None));
    assert!(rolled_up.has_hour(Hour(1)) && !rolled_up.has_hour(Hour(2)));

    let gone = step(&rolled_up, Step { gone: [owner].into(), ..Step::default() });
    assert!(gone.logs.is_empty());
    assert_eq!(gone.untruncated, Some(vec![EndedLog { of: owner, since: gone.version }]));
    let truncated = step(&gone, Step { truncated: [owner].into(), ..Step::default() });
    assert_eq!(truncated.untruncated, Some(Vec::new()));
    assert_eq!(gone.known(&contributor(7, 2)), u64::MAX, "it was taken in before, and ended");
    assert_eq!(gone.known(&contributor(8, 5)), 0, "it is newer than this root");
}

#[test]
fn list_of_untruncated_logs_has_a_limit_and_is_made_anew_if_unknown() {
    let of = |number: u64| GenerationId::new(RecorderId(number), Generation(1));
    let unknown = Root { untruncated: None, ..Root::empty() };
    let ended = step(&unknown, Step { generations: vec![state(7)], ..Step::default() });
    assert_eq!(ended.untruncated, None, "an incomplete list is not begun");
    let listed = Listed { hours: None, ended: Some((0..5_000).map(of).collect()) };
    let claimed = ended.claim("me".to_owned(), true, listed, String::new(), String::new());
    let untruncated = claimed.untruncated.clone().unwrap();
    assert_eq!((untruncated.len(), untruncated[0].of), (UNTRUNCATED, of(904)));
    let listed = Listed { hours: None, ended: Some(Vec::new()) };
    let again = claimed.claim("me".to_owned(), true, listed, String::new(), String::new());
    assert_eq!(again.untruncated, claimed.untruncated);
}

#[test]
fn root_names_only_recently_changed_slots() {
    let mut root =
        step(&Root::empty(), Step { slots: vec![(TimeSlot::Wide, 1)], ..Step::default() });
    for hour in 0..SLOTS as i32 + 3 {
        root = step(&root, Step { slots: vec![(slot(hour), 1)], ..Step::default() });
    }
    assert_eq!((root.slot(slot(2)), root.slot(slot(3))), (None, Some(1)));
    assert_eq!(root.slot(TimeSlot::Wide), Some(1));
    assert_eq!(root.unnamed_since, 4);
    // Many in one step: none of them, and not some.
    let slots = (0..SLOTS as i32 + 1).map(|hour| (slot(1_000 + hour), 1)).collect();
    let many = step(&root, Step { slots, ..Step::default() });
    assert_eq!((many.slots.len(), many.unnamed_since), (1, many.version));
}

#[test]
fn root_check_rejects_each_violated_invariant() {
    let slots = vec![(slot(1), 2)];
    let before =
        step(&Root::empty(), Step { generations: vec![state(1), state(2)], ..Step::default() });
    let before = step(
        &before,
        Step { generations: vec![followed(&state(1), 5, true)], slots, ..Step::default() },
    );
    let good = before.advance(Step::default(), String::new(), String::new());
    good.check(&before).unwrap();
    let bad = |change: fn(&mut Root)| {
        let mut root = good.clone();
        change(&mut root);
        root.check(&before).expect_err("broken").0
    };
    assert!(bad(|root| root.version += 1).contains("root versions"));
    assert!(bad(|root| root.epoch += 2).contains("epochs"));
    assert!(
        bad(|root| {
            root.logs[0].ended = true;
            root.epoch += 1
        })
        .contains("takeover")
    );
    assert!(bad(|root| root.logs.reverse()).contains("order"));
    assert!(
        bad(|root| {
            root.logs.remove(0);
        })
        .contains("a log is gone")
    );
    assert!(bad(|root| root.logs[0].state = state(1)).contains("position of a log decreased"));
    assert!(bad(|root| root.logs[0].admitted = 0).contains("admitted twice"));
    assert!(bad(|root| root.logs[1].ended = true).contains("does not say so"));
    assert!(bad(|root| root.slots.clear()).contains("lacks a slot"));
    assert!(bad(|root| root.hours = Some(Hours::default())).contains("lacks a manifest"));
    assert!(bad(|root| root.slots[0].version = 1).contains("version of a manifest decreased"));
    let new = |root: &mut Root| {
        let state = followed(&state(3), 1, false);
        root.logs.push(OpenLog { admitted: root.version, ended: false, state });
    };
    assert!(bad(new).contains("in the step that admits it"));
    let raised = Root { boundary: 1, ..before.clone() };
    assert!(good.check(&raised).expect_err("broken").0.contains("boundary"));
}
