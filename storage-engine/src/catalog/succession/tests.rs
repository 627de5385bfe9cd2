//! Several processes and one import, over memory.

use capstan_model::GenerationId;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;

use super::*;
use crate::catalog::entry::{Finished, Writer};
use crate::catalog::tests::{RECORDER, draft, import, memory};
use crate::catalog::{Recorder, WriterInfo};

/// How long a generation may be silent here.
const SILENT: Duration = Duration::from_millis(300);

fn info(resumes: Option<Generation>) -> WriterInfo {
    import("aa", resumes)
}

async fn begin(store: &Store, generation: u32) -> Option<Recorder> {
    Recorder::succeed(store, RECORDER, Generation(generation), info(None)).await.unwrap()
}

/// What a look finds: the number of the next generation, or none if one lives; and how many it waited for.
async fn found(store: &Store) -> (Option<u32>, u64) {
    let waits = AtomicU64::new(0);
    let waiting = |_: &GenerationState, _| {
        waits.fetch_add(1, Ordering::Relaxed);
    };
    let standing = look(store, RECORDER, SILENT, &waiting).await.unwrap();
    let next = match standing {
        Standing::Free { next, .. } => Some(next.0),
        Standing::Alive(_) => None,
    };
    (next, waits.into_inner())
}

fn last() -> CommitDraft {
    let finished = Some(Finished { complete: true, packets_total: 10 });
    CommitDraft { finished, ..CommitDraft::default() }
}

#[tokio::test]
async fn one_of_many_concurrent_starts_wins() {
    let store = memory().await;
    assert_eq!(found(&store).await, (Some(1), 0));
    let begun = join_all((0..8).map(|_| begin(&store, 1))).await;
    assert_eq!(begun.into_iter().flatten().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn generation_with_heartbeats_is_not_ended() {
    let store = memory().await;
    let mut recorder = begin(&store, 1).await.unwrap();
    let living = tokio::spawn({
        let store = store.clone();
        async move { found(&store).await }
    });
    tokio::time::sleep(SILENT / 3).await;
    recorder.sign().await.unwrap();
    assert_eq!(living.await.unwrap(), (None, 1));
    recorder.commit(draft("a", 0)).await.unwrap();
    recorder.commit(last()).await.unwrap();
    assert!(recorder.is_finished());
    assert_eq!(found(&store).await, (Some(2), 0), "what has ended is not waited for");
}

#[tokio::test]
async fn silent_generation_is_ended_and_refuses_further_commits() {
    for commits in [0, 1] {
        let store = memory().await;
        let mut paused = begin(&store, 1).await.unwrap();
        for _ in 0..commits {
            paused.commit(draft("a", 0)).await.unwrap();
        }
        assert_eq!(found(&store).await, (Some(2), 1));
        let mut successor = begin(&store, 2).await.unwrap();
        for _ in 0..2 {
            let failure = paused.commit(draft("b", 0)).await.expect_err("its log was ended");
            assert_eq!(failure.kind(), FailureKind::Busy);
            assert!(failure.to_string().contains("ended by another process"), "{failure}");
        }
        successor.commit(draft("c", 0)).await.unwrap();
        let catalog = Catalog::load(&store).await.unwrap();
        assert!(catalog.problems().is_empty());
        let ended = catalog.state(GenerationId::new(RECORDER, Generation(1))).unwrap();
        assert!(ended.chain().finished() && !ended.finished().unwrap().complete);
        assert_eq!(ended.commits(), commits + 1);
    }
}

#[tokio::test]
async fn one_of_many_concurrent_successors_wins() {
    let store = memory().await;
    drop(begin(&store, 1).await);
    let looks = join_all((0..8).map(|_| found(&store))).await;
    assert!(looks.iter().all(|(next, _)| *next == Some(2)), "{looks:?}");
    let begun = join_all((0..8).map(|_| begin(&store, 2))).await;
    assert_eq!(begun.into_iter().flatten().count(), 1);
}

#[tokio::test]
async fn an_ended_log_can_be_rolled_up() {
    let store = memory().await;
    // As one that was killed between its registration and the name by which its log is found.
    drop(begin(&store, 1).await);
    store.delete(&names::open(GenerationId::new(RECORDER, Generation(1)))).await.unwrap();
    assert_eq!(found(&store).await, (Some(2), 1));
    let view = crate::catalog::CatalogView::load(&store).await.unwrap();
    assert_eq!(view.waiting().count(), 1);
    crate::catalog::rollup::roll_up_all(&store, "me").await.unwrap();
    assert_eq!(crate::catalog::CatalogView::load(&store).await.unwrap().waiting().count(), 0);
}

#[tokio::test]
async fn long_silent_generation_is_resumed_at_once() {
    let store = memory().await;
    drop(begin(&store, 1).await);
    // By the store's clock, which here is this machine's.
    tokio::time::sleep(Duration::from_millis(30)).await;
    let waiting = |_: &GenerationState, _| panic!("it waits");
    let standing = look(&store, RECORDER, Duration::from_millis(20), &waiting).await.unwrap();
    assert!(matches!(standing, Standing::Free { next: Generation(2), .. }));
}

#[tokio::test]
async fn import_of_a_newer_version_is_not_resumed() {
    let store = memory().await;
    drop(begin(&store, 1).await);
    let bytes =
        store.get(&names::writer(GenerationId::new(RECORDER, Generation(1)))).await.unwrap();
    let mut writer: Writer = crate::catalog::entry::read(&bytes).unwrap();
    writer.format = crate::catalog::entry::FORMAT + 1;
    writer.generation = Generation(2);
    let bytes = to_json(&writer).unwrap();
    let _created = store
        .create(&names::writer(GenerationId::new(RECORDER, Generation(2))), bytes)
        .await
        .unwrap();
    let waiting = |_: &GenerationState, _| ();
    let failure = look(&store, RECORDER, SILENT, &waiting).await.expect_err("too new");
    assert_eq!(failure.kind(), FailureKind::TooNew);
}
