//! No answer looks complete that is not, for any damage to a catalog object.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_model::coverage::Listened;
use capstan_model::{Generation, GenerationId, Hour, RecorderId, TimeRange};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::GapKind;
use crate::catalog::names;
use crate::catalog::rollup::tests::{HOUR, recorder};
use crate::catalog::rollup::{Rollup, Stay};
use crate::catalog::tests::{RECORDER, draft, memory, seconds};
use crate::catalog::{CatalogView, CommitDraft, Fact, Finished, Window};
use crate::store::{Store, checked};

/// Damage to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// One bit is flipped.
    Flipped,
    /// Its second half is missing.
    Cut,
    /// It exists, and is empty.
    Emptied,
    /// It does not exist.
    Deleted,
    /// A newer version wrote it.
    Newer,
}

const HARMS: [Harm; 5] = [Harm::Flipped, Harm::Cut, Harm::Emptied, Harm::Deleted, Harm::Newer];

/// The bytes of an object after the damage.
fn harmed(name: &str, good: &[u8], harm: Harm) -> Option<Vec<u8>> {
    let newer = || -> Vec<u8> {
        if name.starts_with("log/") || name.starts_with("writers/") {
            let mut json: serde_json::Value = serde_json::from_slice(good).unwrap();
            json["format"] = 99.into();
            json.as_object_mut().unwrap().remove("crc32c");
            checked::to_bytes(&json).unwrap()
        } else {
            let mut json: serde_json::Value = checked::unpack(good, 99).unwrap();
            json["format"] = 99.into();
            checked::pack(&json).unwrap()
        }
    };
    match harm {
        Harm::Flipped => {
            let mut bytes = good.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            Some(bytes)
        }
        Harm::Cut => Some(good[..good.len() / 2].to_vec()),
        Harm::Emptied => Some(Vec::new()),
        Harm::Deleted => None,
        Harm::Newer => Some(newer()),
    }
}

/// A store with two hours, one of them busy. One recorder's log has ended, one is open, and one is unknown to a root.
/// Some commits are rolled up, some are not.
async fn busy() -> (Arc<InMemory>, Store) {
    let objects = Arc::new(InMemory::new());
    let store = Store::on(Arc::clone(&objects) as Arc<dyn ObjectStore>, "prod").await.unwrap();
    let (mut ends, mut goes_on) = (recorder(&store, 0).await, recorder(&store, 1).await);
    let mut rollup = Rollup::claim(&store, "test", Stay::Keeps).await.unwrap();
    for number in 0..520 {
        let mut draft = draft(&format!("a{number:03}"), number);
        let range = seconds(number, number + 1);
        draft.facts.push(Fact::Listened(Listened { range, interfaces: Vec::new() }));
        ends.commit(draft).await.unwrap();
    }
    let finished = Some(Finished { complete: true, packets_total: 0 });
    ends.commit(CommitDraft { finished, ..draft("end", 600) }).await.unwrap();
    goes_on.commit(draft("b0", HOUR + 5)).await.unwrap();
    rollup.roll_up_all().await.unwrap();
    goes_on.commit(draft("b1", HOUR + 6)).await.unwrap();
    rollup.roll_up_all().await.unwrap();
    for number in 2..5 {
        goes_on.commit(draft(&format!("b{number}"), HOUR + 5 + number)).await.unwrap();
    }
    let mut new = recorder(&store, 2).await;
    for number in 0..3 {
        new.commit(draft(&format!("c{number}"), HOUR + 50 + number)).await.unwrap();
    }
    (objects, store)
}

fn segments(window: &Window) -> BTreeSet<String> {
    window.segments.iter().map(|of| of.entry.name.clone()).collect()
}

#[tokio::test]
async fn damage_of_any_object_is_reported_as_gap() {
    let (objects, store) = busy().await;
    let ranges = [TimeRange::ALL, Hour(0).range().unwrap(), Hour(1).range().unwrap()];
    let before = CatalogView::load(&store).await.unwrap();
    assert_eq!((before.gaps().len(), before.notes().count()), (0, 0));
    let mut expected = Vec::new();
    for range in ranges {
        let window = before.window(range).await.unwrap();
        assert_eq!(window.gaps, []);
        expected.push((segments(&window), window.listened.len()));
    }
    assert!(expected[1].0.len() == 521 && expected[2].0.len() == 8, "{expected:?}");

    // The last commit of an open log: nothing shows that it existed.
    let of = |number| GenerationId::new(RecorderId(RECORDER.0 + number), Generation(1));
    let unseen = [names::commit(of(1), 4).to_string(), names::commit(of(2), 2).to_string()];
    let listed: Vec<_> = store.list(&Path::default()).try_collect().await.unwrap();
    let (mut hidden, mut whole) = (0, 0);
    for object in listed {
        let name = object.path.to_string();
        let is_rolled_up_log = name.starts_with(names::log_of(of(0)).as_ref());
        if name == "format" || name.starts_with("open/") || is_rolled_up_log {
            continue;
        }
        let full = Path::from(format!("prod/{name}"));
        let good = objects.get(&full).await.unwrap().bytes().await.unwrap();
        for harm in HARMS {
            if harm == Harm::Deleted && unseen.contains(&name) {
                continue;
            }
            match harmed(&name, &good, harm) {
                Some(bytes) => {
                    objects.put(&full, bytes.into()).await.unwrap();
                }
                None => objects.delete(&full).await.unwrap(),
            }
            let view = CatalogView::load(&store).await.unwrap();
            for (range, expected) in ranges.into_iter().zip(&expected) {
                let what = format!("{name} {harm:?} {range:?}");
                let window = view.window(range).await.unwrap();
                let found = (segments(&window), window.listened.len());
                if found == *expected {
                    whole += 1;
                } else {
                    hidden += 1;
                    assert!(!window.gaps.is_empty(), "{what}: {} segments", found.0.len());
                    assert!(found.0.is_subset(&expected.0), "{what}");
                }
                for gap in &window.gaps {
                    // Of consecutive missing commits the first is named.
                    assert!(
                        gap.object == name || name.starts_with("catalog/roots"),
                        "{what}: {gap}"
                    );
                    match harm {
                        Harm::Newer => assert_eq!(gap.kind, GapKind::TooNew, "{what}"),
                        Harm::Deleted => assert_eq!(gap.kind, GapKind::Missing, "{what}"),
                        _ => assert_eq!(gap.kind, GapKind::Damaged, "{what}"),
                    }
                }
            }
            // A gap of one hour leaves the other complete.
            for (range, hour) in [(ranges[1], 1), (ranges[2], 0)] {
                let other = format!("catalog/{}/", Hour(hour).path());
                if name.starts_with(&other) {
                    assert_eq!(view.window(range).await.unwrap().gaps, [], "{name} {harm:?}");
                }
            }
            // A refreshed view reports it, too.
            let next = before.refresh().await.unwrap();
            let window = next.window(TimeRange::ALL).await.unwrap();
            assert!(
                !window.gaps.is_empty() || segments(&window) == expected[0].0,
                "{name} {harm:?}"
            );
            objects.put(&full, good.clone().into()).await.unwrap();
        }
    }
    println!("{hidden} windows with hidden facts, {whole} whole ones");
    assert!(hidden > 20 && whole > 20, "{hidden} {whole}");
}

#[tokio::test]
async fn missing_roots_report_a_gap_and_all_readable_facts() {
    let (_, store) = busy().await;
    let expected = CatalogView::load(&store).await.unwrap().window(TimeRange::ALL).await.unwrap();
    let roots: Vec<_> = store.list(&names::roots()).try_collect().await.unwrap();
    let (newest, before) = (&roots[roots.len() - 1], &roots[roots.len() - 2]);
    // One lost root: the logs have its content.
    store.delete(&newest.path).await.unwrap();
    let view = CatalogView::load(&store).await.unwrap();
    let window = view.window(TimeRange::ALL).await.unwrap();
    assert_eq!((segments(&window), &window.gaps[..]), (segments(&expected), &[][..]));
    // Two lost roots: a generation may have begun and ended in them.
    store.delete(&before.path).await.unwrap();
    for root in &roots[..roots.len() - 2] {
        store.delete(&root.path).await.unwrap();
    }
    let view = CatalogView::load(&store).await.unwrap();
    let window = view.window(TimeRange::ALL).await.unwrap();
    assert_eq!(segments(&window), segments(&expected));
    let [gap] = &window.gaps[..] else { panic!("{:?}", window.gaps) };
    assert_eq!((gap.kind, gap.object.as_str()), (GapKind::Missing, "catalog/roots"));
    // A store without a rollup has no root either.
    let new = memory().await;
    let mut recorder = recorder(&new, 0).await;
    recorder.commit(draft("a", 0)).await.unwrap();
    let window = CatalogView::load(&new).await.unwrap().window(TimeRange::ALL).await.unwrap();
    assert_eq!((window.segments.len(), window.gaps.len()), (1, 0));
}
