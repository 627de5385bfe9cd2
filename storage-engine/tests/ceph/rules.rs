//! What a store promises.

use std::collections::BTreeSet;

use bytes::Bytes;
use capstan_model::{FailureKind, Hour};
use capstan_storage_engine::catalog::names;
use capstan_storage_engine::catalog::{Catalog, Recorder};
use capstan_storage_engine::store::{Created, Listed, Store, nonce};
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path;

use super::{Place, RECORDER, body, draft, writer};

#[tokio::test]
async fn store_is_created_once_and_reopened() {
    let Some(place) = Place::new() else { return };
    let absent = place.open("prod").await.expect_err("not yet");
    assert_eq!(absent.kind(), FailureKind::NotFound);
    assert!(absent.to_string().contains("not a Capstan store"), "{absent}");

    let made = place.make("prod").await.unwrap();
    let again = place.make("prod").await.unwrap();
    let opened = place.open("prod").await.unwrap();
    assert_eq!(made.format(), again.format());
    assert_eq!(made.format(), opened.format());
    // Opening is one GET; what was tested when it was made is gone.
    assert_eq!((opened.requests().gets, opened.requests().puts), (1, 0));
    let (folders, objects) = opened.names_below(&Path::default()).await.unwrap();
    assert_eq!(folders, []);
    assert_eq!(objects.len(), 1, "{objects:?}");

    let other = place.open("test").await.expect_err("no such cluster");
    assert!(other.to_string().contains("it has: prod"), "{other}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_can_create_one_store_concurrently() {
    let Some(place) = Place::new() else { return };
    let makers = (0..8).map(|_| {
        let place = place.clone();
        tokio::spawn(async move { place.make("prod").await.unwrap() })
    });
    let stores: Vec<Store> = join_all(makers).await.into_iter().map(Result::unwrap).collect();
    let opened = place.open("prod").await.unwrap();
    for store in &stores {
        assert_eq!(store.format(), opened.format());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_sixteen_writers_wins_each_name() {
    let Some(place) = Place::new() else { return };
    let store = place.make("prod").await.unwrap();
    let path = |name| Path::from(format!("race/{name}"));
    let writers = (0..16).map(|_| {
        let place = place.clone();
        tokio::spawn(async move {
            // Each with connections of its own, as separate processes have.
            let store = place.open("prod").await.unwrap();
            let mut won = Vec::new();
            for name in 0..20 {
                let mine = Bytes::from(nonce());
                if store.create(&path(name), mine.clone()).await.unwrap() == Created::Created {
                    won.push((name, mine));
                }
            }
            won
        })
    });
    let mut won: Vec<_> = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
    won.sort_unstable();
    let names: Vec<_> = won.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, (0..20).collect::<Vec<_>>());
    for (name, theirs) in won {
        assert_eq!(store.get(&path(name)).await.unwrap(), theirs);
    }
}

#[tokio::test]
async fn data_is_readable_whole_and_by_range_and_not_replaced() {
    let Some(place) = Place::new() else { return };
    let store = place.make("prod").await.unwrap();
    let path = names::layer(Hour(490_000), "s", "body");
    let data = body(8 << 20);
    let parts = vec![data.slice(..1_000), data.slice(1_000..)];
    store.put_new(&path, parts.clone()).await.unwrap();
    store.put_new(&path, parts).await.unwrap();
    let changed = store.put_new(&path, vec!["x".into()]).await.expect_err("taken");
    assert_eq!(changed.kind(), FailureKind::AlreadyThere);

    assert_eq!(store.get(&path).await.unwrap(), data);
    let ranges = [0..10, 999..1_001, (8 << 20) - 5..8 << 20];
    let found = store.get_ranges(&path, &ranges).await.unwrap();
    for (range, found) in ranges.into_iter().zip(found) {
        assert_eq!(found, data[range.start as usize..range.end as usize]);
    }
    assert_eq!(store.head(&path).await.unwrap().unwrap().bytes, 8 << 20);
    assert_eq!(store.head(&Path::from("data/none")).await.unwrap(), None);
    let listed: Vec<Listed> = store.list(&Path::from("data")).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn listing_continues_after_a_thousand_names() {
    let Some(place) = Place::new() else { return };
    let store = place.make("prod").await.unwrap();
    let path = |name| Path::from(format!("many/{name:05}"));
    let all: Vec<u32> = (0..1_100).collect();
    for some in all.chunks(50) {
        let puts = some.iter().map(|name| {
            let store = &store;
            async move { store.put_new(&path(*name), vec!["x".into()]).await.unwrap() }
        });
        join_all(puts).await;
    }
    let listed: Vec<Listed> = store.list(&Path::from("many")).try_collect().await.unwrap();
    let found: Vec<Path> = listed.into_iter().map(|listed| listed.path).collect();
    assert_eq!(found, all.into_iter().map(path).collect::<Vec<_>>());
}

#[tokio::test]
async fn clusters_of_a_bucket_are_separate() {
    let Some(place) = Place::new() else { return };
    // One name begins with the other.
    let (a, b) = (place.make("prod").await.unwrap(), place.make("prod-2").await.unwrap());
    let path = names::layer(Hour(490_000), "s", "body");
    for (store, words, commits) in [(&a, "of a", 2), (&b, "of b", 3)] {
        store.put_new(&path, vec![words.into()]).await.unwrap();
        let mut recorder = Recorder::start(store, RECORDER, writer()).await.unwrap();
        for number in 0..commits {
            recorder.commit(draft(number)).await.unwrap();
        }
    }
    for (store, words, commits) in [(&a, "of a", 2), (&b, "of b", 3)] {
        assert_eq!(store.get(&path).await.unwrap(), words);
        let catalog = Catalog::load(store).await.unwrap();
        let found: Vec<_> = catalog.generations().map(|(_, state)| state.commits()).collect();
        assert_eq!(found, [commits]);
        let listed: Vec<Listed> = store.list(&Path::default()).try_collect().await.unwrap();
        // The format, a layer, a writer, the name of its log and the commits.
        assert_eq!(listed.len() as u64, 4 + commits, "{listed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_start_of_a_recorder_takes_a_new_generation() {
    let Some(place) = Place::new() else { return };
    let store = place.make("prod").await.unwrap();
    let starts = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { Recorder::start(&store, RECORDER, writer()).await.unwrap() })
    });
    let generations: BTreeSet<u64> = join_all(starts)
        .await
        .into_iter()
        .map(|started| u64::from(started.unwrap().generation().0))
        .collect();
    assert_eq!(generations, (1..=8).collect());
}
