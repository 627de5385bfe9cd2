//! Truncated logs of which checkpoints, manifests or parts are damaged or lost, and repaired. No segment here has
//! objects, so none is named again.

use std::sync::Mutex;

use super::*;
use crate::catalog::fact::Holds;
use crate::catalog::gap::About;
use crate::repair::{self, Action, Report, repair};

/// Repairs, and tells what was done. That segments have no layers is left out.
async fn repaired(store: &Store) -> (Report, Vec<Action>) {
    #[derive(Default)]
    struct Heard(Mutex<Vec<Action>>);
    impl repair::Watch for Heard {
        fn did(&self, action: &Action) {
            self.0.lock().unwrap().push(action.clone());
        }
    }
    let heard = Heard::default();
    let report = repair(store, &repair::Options::default(), &heard).await.unwrap();
    let mut actions = heard.0.into_inner().unwrap();
    let all = actions.len();
    actions.retain(|of| !matches!(of, Action::Incomplete { .. }));
    let beyond = report.beyond - (all - actions.len()) as u64;
    (Report { beyond, ..report }, actions)
}

fn full(path: &Path) -> Path {
    Path::from(format!("prod/{path}"))
}

async fn flip(objects: &InMemory, path: &Path) {
    let mut bytes = objects.get(&full(path)).await.unwrap().bytes().await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    objects.put(&full(path), bytes.into()).await.unwrap();
}

async fn checkpoints(store: &Store) -> Vec<Path> {
    let listed: Vec<_> = store.list(&names::checkpoints()).try_collect().await.unwrap();
    listed.into_iter().map(|object| object.path).collect()
}

/// The newest manifest of a slot.
async fn newest(store: &Store, slot: TimeSlot) -> (Path, Manifest) {
    let newest = versions::newest_manifest(store, slot, 0).await.unwrap().value;
    (names::manifest(slot, newest.version), newest)
}

#[tokio::test]
async fn lost_checkpoint_is_written_again() {
    let (objects, store) = empty().await;
    let (mut rollup, _) = made(&store).await;
    rollup.truncate(ALL).await.unwrap();
    let before = seen(&store).await;
    let logs = states(&Catalog::load(&store).await.unwrap());
    let there = checkpoints(&store).await;
    for path in &there {
        objects.delete(&full(path)).await.unwrap();
    }
    assert_eq!(seen(&store).await, before, "readers need no checkpoint");
    let (report, actions) = repaired(&store).await;
    assert_eq!((report.repaired, report.beyond), (2, 0), "{actions:?}");
    assert_eq!(checkpoints(&store).await, there);
    assert_eq!(checked(&store).await.1, []);
    assert_eq!(repaired(&store).await.0, Report::default());
    let again = Catalog::load(&store).await.unwrap();
    assert!(again.problems().is_empty(), "{:?}", again.problems());
    let sums = |states: &[(GenerationId, GenerationState)]| {
        let sum =
            |state: &GenerationState| (state.commits(), state.packets(), state.packets_lost());
        states.iter().map(|(_, state)| sum(state)).collect::<Vec<_>>()
    };
    assert_eq!(sums(&states(&again)), sums(&logs));
}

/// A checkpoint that covers more than the one that was damaged would let the next truncation remove commits that nobody
/// has compared with manifests.
#[tokio::test]
async fn repaired_checkpoint_covers_no_change() {
    for is_lost in [false, true] {
        let (objects, store) = empty().await;
        let (mut rollup, mut goes_on) = made(&store).await;
        rollup.truncate(ALL).await.unwrap();
        let mut draft = facts("changes", 7_100);
        let entry: SegmentEntry = draft.segments().next().unwrap().clone();
        draft.facts.push(Fact::Change(Change {
            segment: entry.name.clone(),
            slots: entry.slots(),
            at: Time(0),
            what: What::LayersRetired { layers: entry.layers.clone(), why: "test".to_owned() },
        }));
        goes_on.commit(draft).await.unwrap();
        for number in 0..20 {
            goes_on.commit(facts(&format!("later{number}"), 7_110 + number)).await.unwrap();
        }
        step(&mut rollup).await;
        settle(&store, &mut rollup).await;
        let path = checkpoints(&store).await.remove(0);
        match is_lost {
            true => objects.delete(&full(&path)).await.unwrap(),
            false => flip(&objects, &path).await,
        }
        repaired(&store).await;
        assert_eq!(checkpoints(&store).await[0], path);
        let mut rollup = claimed(&store).await;
        settle(&store, &mut rollup).await;
        rollup.truncate(ALL).await.unwrap();
        // The one that a reader needs, and all from the change on.
        let left = commits(&store, of(0)).await;
        assert_eq!((left[0], left.len() as u64), (33, 55 - 33), "lost: {is_lost}");
        assert_eq!(checked(&store).await.1, []);
    }
}

/// Nothing names the newest manifest of an hour that did not change lately. The checkpoint has more packets than the
/// manifest before it.
#[tokio::test]
async fn silently_lost_manifest_is_noticed_by_the_sums_in_checkpoints() {
    let (objects, store) = empty().await;
    let (mut rollup, _) = made(&store).await;
    rollup.truncate(ALL).await.unwrap();
    let root = names::root(rollup.root().version);
    flip(&objects, &root).await;
    repaired(&store).await;
    let slot = TimeSlot::Hour(Hour(0));
    assert_eq!(CatalogView::load(&store).await.unwrap().root().slot(slot), None);
    let (manifest, _) = newest(&store, slot).await;
    objects.delete(&full(&manifest)).await.unwrap();
    let lost = checked(&store).await.0.worst();
    assert_eq!(lost, Some(Severity::Lost));

    let (report, actions) = repaired(&store).await;
    let gave_up = |of: &Action| matches!(of, Action::Replaced(of) if of.starts_with("checkpoint/"));
    assert!(actions.iter().any(gave_up), "{actions:?}");
    assert_eq!(report.beyond, 0, "{actions:?}");
    assert_eq!(checked(&store).await.1, []);
    assert_eq!(repaired(&store).await.0, Report::default());
}

/// The manifest before a part has the facts that moved into it. Of the facts that were written with the part, those in
/// other parts are kept.
#[tokio::test]
async fn facts_of_a_damaged_part_are_taken_from_all_that_have_them() {
    for (holds, segments, losses) in [(Holds::Segments, 251, 260), (Holds::Statements, 260, 251)] {
        let (objects, store) = empty().await;
        let mut recorder = recorder(&store, 0).await;
        let mut rollup = claimed(&store).await;
        // A manifest holds 1,024 facts itself; here each commit adds three, and its hash.
        for numbers in [0..250, 250..260] {
            for number in numbers {
                recorder.commit(facts(&format!("a{number}"), number)).await.unwrap();
            }
            step(&mut rollup).await;
        }
        settle(&store, &mut rollup).await;
        assert_eq!(rollup.truncate(ALL).await.unwrap(), Truncated { logs: 1, commits: 259 });
        let slot = TimeSlot::Hour(Hour(0));
        let (_, manifest) = newest(&store, slot).await;
        let part = manifest.parts.iter().find(|part| part.holds == holds).unwrap();
        flip(&objects, &names::part(slot, &part.name)).await;

        let (report, actions) = repaired(&store).await;
        let gave_up =
            |of: &Action| matches!(of, Action::Replaced(of) if of.starts_with("catalog/date="));
        assert!(report.beyond == 0 && actions.iter().any(gave_up), "{actions:?}");
        let view = CatalogView::load(&store).await.unwrap();
        let window = view.window(TimeRange::ALL).await.unwrap();
        let found = (window.segments.len(), window.losses.len(), window.listened.len());
        assert_eq!(found, (segments, losses, losses), "{holds:?}");
        assert_eq!(window.gaps, []);
        assert_eq!(checked(&store).await.1, []);
    }
}

/// A segment may have packets of few hours that lie far apart, and packets without a time.
#[tokio::test]
async fn facts_of_a_lost_manifest_are_taken_from_those_of_far_hours() {
    let hours = [Hour(0), Hour(100), Hour::UNKNOWN];
    for lost in hours {
        let (objects, store) = empty().await;
        let mut recorder = recorder(&store, 0).await;
        let mut rollup = claimed(&store).await;
        let mut far = draft("far", 10);
        for fact in &mut far.facts {
            let Fact::Segment(entry) = fact else { continue };
            (entry.hour, entry.hours) = (Hour(0), hours.to_vec());
        }
        recorder.commit(far).await.unwrap();
        recorder.commit(draft("last", HOUR * 50)).await.unwrap();
        step(&mut rollup).await;
        settle(&store, &mut rollup).await;
        assert_eq!(rollup.truncate(ALL).await.unwrap().commits, 1);
        let (path, _) = newest(&store, TimeSlot::Hour(lost)).await;
        objects.delete(&full(&path)).await.unwrap();
        let (_, actions) = repaired(&store).await;
        let (_, manifest) = newest(&store, TimeSlot::Hour(lost)).await;
        let names: Vec<_> = manifest.held.segments().map(|of| of.name.as_str()).collect();
        assert_eq!(names, ["far"], "{lost:?}: {actions:?}");
    }
}

/// A repair that is killed after it has written a manifest again has told the next one what the manifest lacks.
#[tokio::test]
async fn killed_repair_does_not_forget_a_lost_manifest() {
    for kill in 0.. {
        let (objects, store) = empty().await;
        let (mut rollup, _) = made(&store).await;
        rollup.truncate(ALL).await.unwrap();
        let slot = TimeSlot::Hour(Hour(0));
        let (manifest, _) = newest(&store, slot).await;
        flip(&objects, &manifest).await;
        let left = Arc::new(AtomicU64::new(10_000));
        let killed = Killed { objects: Arc::clone(&objects), left: Arc::clone(&left) };
        let dies = Store::on(Arc::new(killed), "prod").await.unwrap();
        left.store(kill, Ordering::Relaxed);
        struct Silent;
        impl repair::Watch for Silent {}
        let died = repair(&dies, &repair::Options::default(), &Silent).await.is_err();
        if !died {
            assert!(kill > 5, "{kill}");
            break;
        }
        // Until all is done, questions about that hour are told.
        let view = CatalogView::load(&store).await.unwrap();
        let window = view.window(Hour(0).range().unwrap()).await.unwrap();
        let is_told = window.gaps.iter().any(|gap| gap.about == About::slot(slot));
        let (_, actions) = repaired(&store).await;
        let gave_up = |of: &Action| matches!(of, Action::Replaced(of) if *of == manifest.as_ref());
        let is_given_up = actions.iter().any(gave_up);
        assert!(
            is_told && is_given_up || is_replaced(&store, &manifest).await,
            "{kill}: {actions:?}"
        );
        assert_eq!(checked(&store).await.1, [], "{kill}");
    }
}

/// Whether a repair has said that nothing more can be made of an object.
async fn is_replaced(store: &Store, object: &Path) -> bool {
    CatalogView::load(store).await.unwrap().root().replaced.contains(object.as_ref())
}

/// Nothing but its log and manifests knows the state of a log: of a damaged or lost checkpoint, no later state is left.
#[tokio::test]
async fn checkpoint_without_later_states_is_written_again_from_manifests() {
    for (is_lost, ends) in [(false, false), (false, true), (true, false), (true, true)] {
        let (objects, store) = empty().await;
        let (mut rollup, _) = made(&store).await;
        rollup.truncate(ALL).await.unwrap();
        let told = |of: &GenerationState| {
            let chain = of.chain();
            let sums = (of.packets(), of.packets_lost());
            (chain.clone(), of.finished().cloned(), sums, of.last_commit())
        };
        let before = seen(&store).await;
        let of = of(u64::from(ends));
        let state = told(Catalog::load(&store).await.unwrap().state(of).unwrap());
        let number = checkpoint::numbers(&store, of).await.unwrap().pop_last().unwrap();
        let path = names::checkpoint(of, number);
        match is_lost {
            true => objects.delete(&full(&path)).await.unwrap(),
            false => flip(&objects, &path).await,
        }
        if ends {
            objects.delete(&full(&names::ended_generation(of))).await.unwrap();
        } else {
            for (_, root) in versions::listed_roots(&store).await.unwrap() {
                flip(&objects, &root.path).await;
            }
        }
        let (report, actions) = repaired(&store).await;
        assert_eq!(report.beyond, 0, "{is_lost} {ends}: {actions:?}");
        let found = checkpoint::newest(&store, of).await.unwrap().unwrap();
        assert_eq!(found.seq(), number, "{actions:?}");
        let logs = Catalog::load(&store).await.unwrap();
        assert_eq!(told(logs.state(of).unwrap()), state, "{actions:?}");
        assert_eq!(repaired(&store).await.0, Report::default(), "{is_lost} {ends}: {actions:?}");
        let facts = |seen: Vec<String>| {
            seen.into_iter().filter(|of| !of.starts_with("Generation")).collect::<Vec<_>>()
        };
        assert_eq!(facts(seen(&store).await), facts(before));
        let ended = versions::read_ended(&store, of).await.unwrap();
        assert_eq!(ended.as_ref().map(told), ends.then_some(state));
        assert_eq!(checked(&store).await.1, []);
    }
}

/// A successor must neither end such a log once more nor record packets again.
#[tokio::test]
async fn log_with_a_damaged_checkpoint_is_known_from_its_last_covered_commit() {
    let (objects, store) = empty().await;
    let (mut rollup, _) = made(&store).await;
    rollup.truncate(ALL).await.unwrap();
    let chain = |logs: &Catalog| logs.state(of(1)).unwrap().chain().clone();
    let before = chain(&Catalog::load(&store).await.unwrap());
    assert!(before.finished(), "{before:?}");
    for path in checkpoints(&store).await {
        flip(&objects, &path).await;
    }
    assert_eq!(chain(&Catalog::load(&store).await.unwrap()), before);
}

/// Manifests have facts of the missing commits, so these must not be replaced because something else is damaged, too.
#[tokio::test]
async fn lost_checkpoint_beside_a_damaged_manifest_hides_no_commit() {
    let (objects, store) = empty().await;
    let mut recorder = recorder(&store, 0).await;
    let mut rollup = claimed(&store).await;
    for number in 0..6 {
        recorder.commit(facts(&format!("a{number}"), number)).await.unwrap();
    }
    recorder.commit(facts("other", HOUR * 50)).await.unwrap();
    step(&mut rollup).await;
    settle(&store, &mut rollup).await;
    let few = Limits { least: 2, ..ALL };
    assert_eq!(rollup.truncate(few).await.unwrap().commits, 6);
    objects.delete(&full(&checkpoints(&store).await[0])).await.unwrap();
    let (manifest, _) = newest(&store, TimeSlot::Hour(Hour(50))).await;
    flip(&objects, &manifest).await;
    let (_, actions) = repaired(&store).await;
    let window = CatalogView::load(&store).await.unwrap().window(TimeRange::ALL).await.unwrap();
    assert_eq!((window.segments.len(), window.listened.len()), (7, 7), "{actions:?}");
    assert_eq!(checkpoints(&store).await, [names::checkpoint(of(0), 7)]);
    assert_eq!(checked(&store).await.1, []);
}

/// The log of the repair that replaced a commit is rolled up, so the next root must say so again.
#[tokio::test]
async fn replaced_commit_stays_replaced_when_all_roots_are_lost() {
    let (objects, store) = empty().await;
    let mut recorder = recorder(&store, 0).await;
    let mut rollup = claimed(&store).await;
    let mut both = draft("here", 0);
    both.facts.extend(draft("there", HOUR * 50).facts);
    recorder.commit(both).await.unwrap();
    recorder.commit(draft("last", HOUR * 100)).await.unwrap();
    step(&mut rollup).await;
    flip(&objects, &names::commit(of(0), 0)).await;
    let (manifest, _) = newest(&store, TimeSlot::Hour(Hour(0))).await;
    flip(&objects, &manifest).await;
    for _ in 0..2 {
        let (_, actions) = repaired(&store).await;
        let view = CatalogView::load(&store).await.unwrap();
        let window = view.window(TimeRange::ALL).await.unwrap();
        let names: Vec<_> = window.segments.iter().map(|of| of.entry.name.as_str()).collect();
        assert_eq!((names, window.gaps), (vec!["last"], Vec::new()), "{actions:?}");
        for (_, root) in versions::listed_roots(&store).await.unwrap() {
            flip(&objects, &root.path).await;
        }
    }
}
