//! The store over a folder, over memory, and over one that loses answers.

use std::error::Error as _;
use std::sync::Mutex;

use capstan_model::FailureKind;
use object_store::memory::InMemory;

use super::unreliable::{Mishap, Unreliable};
use super::*;

mod faults;
mod s3;

fn folder(path: &std::path::Path) -> Location {
    Location::Folder(path.to_owned())
}

async fn make(path: &std::path::Path) -> Store {
    Store::open_or_create(&folder(path), "prod", &Options::default()).await.unwrap()
}

async fn refusal(path: &std::path::Path, cluster: &str) -> (FailureKind, String) {
    let failure =
        Store::open(&folder(path), cluster, &Options::default()).await.expect_err("no store");
    (failure.kind(), failure.to_string())
}

#[tokio::test]
async fn store_is_created_once_and_reopened() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("a/b");
    let made = make(&root).await;
    let again = make(&root).await;
    let opened = Store::open(&folder(&root), "prod", &Options::default()).await.unwrap();
    assert_eq!(made.format(), again.format());
    assert_eq!(made.format(), opened.format());
    assert_eq!(opened.format().cluster, "prod");
    // Opening is one GET and writes nothing.
    assert_eq!(
        opened.requests(),
        Requests { gets: 1, bytes_read: opened.requests().bytes_read, ..Requests::default() }
    );
}

#[tokio::test]
async fn range_after_the_end_of_an_object_is_damage() {
    let place = tempfile::tempdir().unwrap();
    let in_folder = make(&place.path().join("store")).await;
    let (_, in_memory) = crate::testing::in_memory(3).await;
    for store in [in_folder, in_memory] {
        for content in ["", "abc"] {
            let path = object_store::path::Path::from(format!("data/of-{}", content.len()));
            store.put_new(&path, vec![bytes::Bytes::from(content)]).await.unwrap();
            let failure = store.get_range(&path, 4..8).await.unwrap_err();
            assert_eq!(failure.kind(), FailureKind::Damaged, "{failure}");
            assert!(failure.to_string().contains(path.as_ref()), "{failure}");
        }
    }
}

#[tokio::test]
async fn reading_never_creates_a_store() {
    let place = tempfile::tempdir().unwrap();
    let absent = place.path().join("absent");
    let (kind, words) = refusal(&absent, "prod").await;
    assert_eq!(kind, FailureKind::NotFound);
    assert!(
        words.contains("no store at")
            && words.contains("capstan import and capstan record create one"),
        "{words}"
    );
    assert!(!absent.exists());

    let (kind, words) = refusal(place.path(), "prod").await;
    assert_eq!(kind, FailureKind::NotFound);
    assert!(words.contains("not a Capstan store"), "{words}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);

    let file = place.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(refusal(&file, "prod").await.1.contains("is a file"));

    let root = place.path().join("store");
    make(&root).await;
    let (kind, words) = refusal(&root, "test").await;
    assert_eq!(kind, FailureKind::NotFound);
    assert!(words.contains("no cluster 'test'") && words.contains("prod"), "{words}");

    assert_eq!(refusal(&root, "../prod").await.0, FailureKind::Usage);

    let newer = br#"{"store":"capstan","format":9}"#;
    std::fs::create_dir(root.join("next")).unwrap();
    std::fs::write(root.join("next/format"), newer).unwrap();
    assert_eq!(refusal(&root, "next").await.0, FailureKind::TooNew);
}

#[tokio::test]
async fn folder_without_permission_is_reported() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let closed = place.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read_dir(&closed).is_ok() {
        println!("skipped: this user may read everything (root)");
        return;
    }
    assert_eq!(refusal(&closed.join("store"), "prod").await.0, FailureKind::Permission);
    let failure = Store::open_or_create(&folder(&closed.join("s")), "prod", &Options::default())
        .await
        .expect_err("no rights");
    assert_eq!(failure.kind(), FailureKind::Permission);
}

#[tokio::test]
async fn store_is_not_created_over_foreign_files() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(place.path().join("prod")).unwrap();
    std::fs::write(place.path().join("prod/letter.txt"), "dear").unwrap();
    let failure = Store::open_or_create(&folder(place.path()), "prod", &Options::default())
        .await
        .expect_err("something is there");
    assert_eq!(failure.kind(), FailureKind::Usage);
    assert!(failure.to_string().contains("letter.txt"), "{failure}");
}

#[tokio::test]
async fn failure_prints_its_cause_once() {
    let store = Store::on(Arc::new(InMemory::new()), "prod").await.unwrap();
    let failure = store.get(&Path::from("data/none")).await.expect_err("not there");
    assert_eq!(failure.kind(), FailureKind::NotFound);
    let source = failure.source().expect("a cause").to_string();
    assert!(!failure.to_string().contains(&source));
}

#[tokio::test]
async fn ranges_listings_and_heads_use_names_within_the_cluster() {
    let place = tempfile::tempdir().unwrap();
    for store in
        [Store::on(Arc::new(InMemory::new()), "prod").await.unwrap(), make(place.path()).await]
    {
        let path = crate::catalog::names::layer(capstan_model::Hour(5), "s", "body");
        store.put_new(&path, vec!["0123456789".into()]).await.unwrap();
        let before = store.requests();
        assert_eq!(store.get_range(&path, 2..4).await.unwrap(), "23");
        assert_eq!(store.get_ranges(&path, &[8..20, 0..1]).await.unwrap(), ["89", "0"]);
        let asked = store.requests() - before;
        assert_eq!((asked.gets, asked.bytes_read), (3, 5));
        assert_eq!(store.head(&path).await.unwrap().expect("there").bytes, 10);
        assert_eq!(store.head(&Path::from("data/none")).await.unwrap(), None);
        let found: Vec<Listed> = store.list(&Path::from("data")).try_collect().await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].path, found[0].bytes), (&path, 10));
        assert!(now().0 - found[0].modified.0 < 60_000_000_000);
    }
}

#[tokio::test]
async fn data_may_be_put_again_but_not_changed() {
    let store = Store::on(Arc::new(InMemory::new()), "prod").await.unwrap();
    let path = Path::from("data/x");
    store.put_new(&path, vec!["same".into()]).await.unwrap();
    store.put_new(&path, vec!["same".into()]).await.unwrap();
    let failure = store.put_new(&path, vec!["other length".into()]).await.expect_err("taken");
    assert_eq!(failure.kind(), FailureKind::AlreadyThere);
    assert_eq!(store.get(&path).await.unwrap(), "same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_concurrent_creates_in_a_folder_wins() {
    let place = tempfile::tempdir().unwrap();
    make(place.path()).await;
    for round in 0..20 {
        let mut tasks = Vec::new();
        for _ in 0..8 {
            // Each with a store of its own, as separate processes have.
            let store = make(place.path()).await;
            let path = Path::from(format!("log/deep/{round}"));
            tasks.push(tokio::spawn(async move {
                let body = nonce();
                (store.create(&path, body.clone().into()).await.unwrap(), body)
            }));
        }
        let mut winners = Vec::new();
        for task in tasks {
            let (outcome, body) = task.await.unwrap();
            if outcome == Created::Created {
                winners.push(body);
            }
        }
        let kept = std::fs::read_to_string(place.path().join(format!("prod/log/deep/{round}")));
        assert_eq!(winners, [kept.unwrap()]);
    }
}

/// The part of the next test that runs in processes of its own.
#[tokio::test]
async fn child_of_the_race_between_processes() {
    let Ok(root) = std::env::var("CAPSTAN_TEST_RACE") else { return };
    let store = make(std::path::Path::new(&root)).await;
    for round in 0..50 {
        let mine = nonce();
        let outcome = store.create(&Path::from(format!("race/{round}")), mine.clone().into()).await;
        if outcome.unwrap() == Created::Created {
            println!("WON {round} {mine}");
        }
    }
}

#[tokio::test]
async fn one_of_many_processes_wins_each_name() {
    let place = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture"])
                .arg(
                    concat!(module_path!(), "::child_of_the_race_between_processes")
                        .split_once("::")
                        .unwrap()
                        .1,
                )
                .env("CAPSTAN_TEST_RACE", place.path())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut winners = vec![Vec::new(); 50];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let Some(at) = line.find("WON ") else { continue };
            let (round, mine) = line[at + 4..].split_once(' ').unwrap();
            winners[round.parse::<usize>().unwrap()].push(mine.to_owned());
        }
    }
    for (round, winners) in winners.iter().enumerate() {
        let kept =
            std::fs::read_to_string(place.path().join(format!("prod/race/{round}"))).unwrap();
        assert_eq!(winners.as_slice(), [kept], "round {round}");
    }
}

#[tokio::test]
async fn create_with_a_lost_answer_is_resolved_by_reading() {
    use Mishap::*;
    for (mishaps, expected) in [
        (vec![AnswerLost], Ok(Created::Created)),
        (vec![SentTwice], Ok(Created::Created)),
        (vec![RequestLost, RequestLost], Ok(Created::Created)),
        (vec![Conflict, Conflict], Ok(Created::Created)),
        (vec![AnswerLost, Conflict, RequestLost], Ok(Created::Created)),
        (vec![Beaten], Ok(Created::Lost)),
        (vec![Beaten, RequestLost], Ok(Created::Lost)),
        (vec![RequestLost; 100], Err(FailureKind::Unavailable)),
        (vec![Conflict; 100], Err(FailureKind::Unavailable)),
        (vec![Forbidden], Err(FailureKind::Permission)),
    ] {
        let objects = Arc::new(Unreliable::default());
        let place = Place::simulated(Arc::clone(&objects) as _, Arc::new(SystemEnv)).hurried();
        let store = place.open_or_create("prod").await.unwrap();
        objects.will(mishaps.clone());
        let outcome = store.create(&Path::from("log/0"), nonce().into()).await;
        assert_eq!(outcome.map_err(|failure| failure.kind()), expected, "{mishaps:?}");
    }
}

#[tokio::test]
async fn data_upload_survives_lost_answers() {
    use Mishap::*;
    for mishaps in [
        vec![AnswerLost],
        vec![SentTwice],
        vec![RequestLost, RequestLost, RequestLost],
        vec![Conflict, RequestLost],
    ] {
        let objects = Arc::new(Unreliable::default());
        let store = Store::on(Arc::clone(&objects) as _, "prod").await.unwrap();
        objects.will(mishaps.clone());
        store.put_new(&Path::from("data/x"), vec!["bytes".into()]).await.unwrap();
        assert_eq!(store.get(&Path::from("data/x")).await.unwrap(), "bytes", "{mishaps:?}");
    }
}

#[tokio::test]
async fn failed_start_of_a_listing_is_retried() {
    let objects = Arc::new(Unreliable::default());
    let store = Store::on(objects.clone(), "prod").await.unwrap();
    for name in ["data/a", "data/b"] {
        store.put_new(&Path::from(name), vec!["x".into()]).await.unwrap();
    }
    objects.will(vec![Mishap::ListingCut(0), Mishap::ListingCut(0)]);
    let found: Vec<Listed> = store.list(&Path::from("data")).try_collect().await.unwrap();
    assert_eq!(found.len(), 2);
    let none: Vec<Listed> = store.list(&Path::from("none")).try_collect().await.unwrap();
    assert_eq!(none, []);
    // Nobody knows in which order names come: it cannot go on after the last.
    objects.will(vec![Mishap::ListingCut(1)]);
    let found: Vec<_> = store.list(&Path::from("data")).collect().await;
    let [Ok(_), Err(failure)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    assert!(failure.to_string().starts_with("list data of store unreliable"), "{failure}");
}

#[tokio::test]
async fn many_objects_are_deleted_with_few_requests() {
    let objects = Arc::new(Unreliable::default());
    let place = Place::simulated(Arc::clone(&objects) as _, Arc::new(SystemEnv)).hurried();
    let store = place.open_or_create("prod").await.unwrap();
    let paths: Vec<Path> = (0..2_500).map(|of| Path::from(format!("data/{of}"))).collect();
    for path in &paths {
        store.put_new(path, vec!["x".into()]).await.unwrap();
    }
    let left = async || {
        let names: Vec<Listed> = store.list(&Path::from("data")).try_collect().await.unwrap();
        names.len()
    };
    let requests = || objects.deletes.swap(0, std::sync::atomic::Ordering::Relaxed);
    requests();
    store.delete_many(&paths[..1_500]).await.unwrap();
    assert_eq!((left().await, requests()), (1_000, 2));
    // Some exist no more. The answer to the others is lost, and they are deleted by another request.
    objects.will(vec![Mishap::DeletesCut(700)]);
    store.delete_many(&paths[1_000..2_000]).await.unwrap();
    assert_eq!((left().await, requests()), (500, 2));
    objects.will(vec![Mishap::DeletesCut(100); 100]);
    let failure = store.delete_many(&paths[2_000..2_400]).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    assert!(failure.to_string().contains("delete 400 objects of store unreliable"), "{failure}");
    objects.will(Vec::new());
    store.delete_many(&[]).await.unwrap();
    store.delete_many(&paths).await.unwrap();
    assert_eq!(left().await, 0);
}

#[tokio::test]
async fn objects_of_a_folder_are_deleted_together() {
    let place = tempfile::tempdir().unwrap();
    let store = make(&place.path().join("store")).await;
    let paths = ["data/a", "data/b", "data/never"].map(Path::from);
    for path in &paths[..2] {
        store.put_new(path, vec!["x".into()]).await.unwrap();
    }
    store.delete_many(&paths).await.unwrap();
    let left: Vec<Listed> = store.list(&Path::from("data")).try_collect().await.unwrap();
    assert_eq!(left, []);
}

#[tokio::test]
async fn folder_that_is_gone_is_not_an_empty_store() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("store");
    let store = make(&root).await;
    let (there, never) = (Path::from("data/a"), Path::from("data/never"));
    store.put_new(&there, vec!["x".into()]).await.unwrap();
    assert_eq!(store.get_if_present(&never).await.unwrap(), None);
    std::fs::rename(&root, place.path().join("elsewhere")).unwrap();
    let gone = |failure: Failure| {
        let words = capstan_model::failure::with_causes(&failure);
        assert_eq!(failure.kind(), FailureKind::NotFound, "{words}");
        assert!(words.contains("store is gone"), "{words}");
        assert!(is_store_gone(&failure), "{words}");
    };
    gone(store.get_if_present(&there).await.unwrap_err());
    gone(store.get_range_if_present(&there, 0..1).await.unwrap_err());
    gone(store.head(&there).await.unwrap_err());
    gone(store.delete(&there).await.unwrap_err());
    gone(store.delete_many(&[never]).await.unwrap_err());
    gone(store.put_new(&there, vec!["x".into()]).await.unwrap_err());
    gone(store.create(&there, "x".into()).await.unwrap_err());
    gone(store.list(&Path::default()).try_collect::<Vec<_>>().await.unwrap_err());
    gone(store.names_below(&Path::default()).await.unwrap_err());
    let view = crate::catalog::CatalogView::load(&store).await;
    gone(view.unwrap_err());
    assert!(!root.exists(), "it was created again");
}
