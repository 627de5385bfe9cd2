//! Networks and servers in trouble: nothing may be lost, and nothing be there twice.

#![allow(clippy::disallowed_methods)] // Nobody simulates tests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_model::{Failure, FailureKind, Hour};
use capstan_storage_engine::catalog::names;
use capstan_storage_engine::catalog::{Catalog, Commit, CommitDraft, Recorder};
use capstan_storage_engine::store::Store;
use capstan_tests::proxy::{Absence, InTurn, Mishap, Proxy};
use capstan_tests::way_to_s3;

use super::{Place, RECORDER, assert_log, body, draft, writer};

/// A place, and a proxy in front of its server that the place's own options do not use; what
/// becomes of each PUT.
fn behind(mishaps: &[Mishap]) -> Option<(Place, Proxy, Arc<InTurn>)> {
    let (place, way) = (Place::new()?, way_to_s3()?);
    let puts = InTurn::new(mishaps, |request| request.method == "PUT");
    Some((place, Proxy::start(&way, Arc::clone(&puts)), puts))
}

/// Does something as a recorder must: again until it is done.
async fn until_it_is_there<T>(mut try_once: impl AsyncFnMut() -> Result<T, Failure>) -> T {
    for _ in 0..20 {
        match try_once().await {
            Ok(done) => return done,
            Err(failure) => assert_eq!(failure.kind(), FailureKind::Unavailable, "{failure}"),
        }
    }
    panic!("not done in 20 tries");
}

async fn commit(recorder: &mut Recorder, draft: CommitDraft) -> Commit {
    until_it_is_there(async || recorder.commit(draft.clone()).await).await
}

/// Ends a test that would go on for ever.
async fn in_time(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(180), test).await.expect("it ends");
}

/// A layer, then the commit after it.
async fn record(store: &Store, recorder: &mut Recorder, number: u64) {
    let path = names::layer(Hour(490_000), &format!("s{number}"), "body");
    until_it_is_there(async || store.put_new(&path, vec![body(100_000 + number as usize)]).await)
        .await;
    let commit = commit(recorder, draft(number)).await;
    assert_eq!(commit.seq, number);
}

async fn assert_recorded(store: &Store, recorder: &Recorder, commits: u64) {
    assert_log(store, recorder.generation(), commits).await;
    for number in 0..commits {
        let path = names::layer(Hour(490_000), &format!("s{number}"), "body");
        assert_eq!(store.get(&path).await.unwrap(), body(100_000 + number as usize));
    }
}

#[tokio::test]
async fn every_commit_exists_once_despite_lost_requests() {
    in_time(async {
        use Mishap::*;
        let mishaps = [
            None,
            AnswerLost,
            None,
            BusyAfterwards,
            RequestLost,
            AnswerLost,
            Busy,
            None,
            RequestCut,
            BusyAfterwards,
            Late,
        ];
        let Some((place, proxy, puts)) = behind(&mishaps) else { return };
        let straight = place.make("prod").await.unwrap();
        let store = place.clone().at(&proxy.endpoint()).open("prod").await.unwrap();
        let mut recorder = Recorder::start(&store, RECORDER, writer()).await.unwrap();
        for number in 0..20 {
            record(&store, &mut recorder, number).await;
        }
        assert_recorded(&straight, &recorder, 20).await;
        let met = puts.met();
        let kinds: BTreeSet<Mishap> = met.keys().copied().collect();
        assert_eq!(kinds, BTreeSet::from(mishaps), "{met:?}");
        assert!(met.values().all(|times| *times >= 2), "{met:?}");
    })
    .await;
}

#[tokio::test]
async fn temporarily_unavailable_server_loses_nothing() {
    in_time(async {
        let Some((place, proxy, _)) = behind(&[]) else { return };
        let straight = place.make("prod").await.unwrap();
        let store = place.clone().at(&proxy.endpoint()).open("prod").await.unwrap();
        let mut recorder = Recorder::start(&store, RECORDER, writer()).await.unwrap();
        for number in 0..30 {
            let started = Instant::now();
            if number == 10 {
                proxy.go_away(Absence::Refuses, Duration::from_secs(10));
            }
            record(&store, &mut recorder, number).await;
            if number == 10 {
                // It was away, and the recorder waited no longer than it takes to ask again.
                let waited = started.elapsed().as_secs();
                assert!((9..60).contains(&waited), "{waited} s");
            }
        }
        assert_recorded(&straight, &recorder, 30).await;
    })
    .await;
}

#[tokio::test]
async fn generations_behind_bad_networks_do_not_write_into_other_logs() {
    in_time(async {
        use Mishap::*;
        let mishaps = [None, AnswerLost, BusyAfterwards];
        let Some((place, proxy, _)) = behind(&mishaps) else { return };
        let straight = place.make("prod").await.unwrap();
        let store = place.clone().at(&proxy.endpoint()).open("prod").await.unwrap();
        let mut first = Recorder::start(&store, RECORDER, writer()).await.unwrap();
        let mut second = Recorder::start(&store, RECORDER, writer()).await.unwrap();
        assert_ne!(first.generation(), second.generation());
        for number in 0..5 {
            let (a, b) = futures::join!(
                commit(&mut first, draft(number)),
                commit(&mut second, draft(number))
            );
            assert_eq!((a.seq, b.seq), (number, number));
        }
        let catalog = Catalog::load(&straight).await.unwrap();
        assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
        let generations: Vec<_> = catalog.generations().map(|(_, state)| state.commits()).collect();
        assert_eq!(generations, [5, 5]);
    })
    .await;
}
