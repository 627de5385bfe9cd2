//! Prefixes with characters that have to be encoded.

use super::*;

/// Odd prefixes, and what the path of a key looks like on the wire.
const ODD: [(&str, &str); 8] = [
    ("caps tan/a+b", "caps%20tan/a%2Bb"),
    ("100%41/x=y&z", "100%2541/x%3Dy%26z"),
    ("100A", "100A"),
    ("grün/日本", "gr%C3%BCn/%E6%97%A5%E6%9C%AC"),
    ("~team", "~team"),
    ("a#b?c", "a%23b%3Fc"),
    ("q'u\"o;t:e,s", "q%27u%22o%3Bt%3Ae%2Cs"),
    ("plain", "plain"),
];

async fn with_object(server: &Memory, prefix: &str) -> Store {
    let store = made(server, &format!("s3://b/{prefix}")).await;
    store.put_new(&Path::from("data/date=1/x"), vec![prefix.to_owned().into()]).await.unwrap();
    store
}

#[tokio::test]
async fn prefix_is_encoded_once_and_stores_stay_separate() {
    let server = Memory::with_pages(2);
    for (prefix, encoded) in ODD {
        server.asked();
        with_object(&server, prefix).await;
        let target = format!("/b/{encoded}/prod/data/date%3D1/x");
        let sent = server.asked().into_iter().any(|request| request.target == target);
        assert!(sent, "{prefix}: not {target}");
        assert!(server.objects().contains_key(&format!("/b/{prefix}/prod/data/date=1/x")));
    }
    for (prefix, _) in ODD {
        let store = hurried(&server, &format!("s3://b/{prefix}"), Access::Read);
        let store = store.open("prod").await.unwrap().expect(prefix);
        let listed: Vec<Listed> = store.list(&Path::from("data")).try_collect().await.unwrap();
        let paths: Vec<&str> = listed.iter().map(|object| object.path.as_ref()).collect();
        assert_eq!(paths, ["data/date=1/x"], "{prefix}");
        assert_eq!(store.get(&listed[0].path).await.unwrap(), prefix);
        let (folders, objects) = store.names_below(&Path::default()).await.unwrap();
        assert_eq!((folders.len(), objects.len()), (1, 1), "{prefix}");
        store.delete(&listed[0].path).await.unwrap();
    }
    let left = server.objects().keys().filter(|key| key.contains("data")).count();
    assert_eq!(left, 0, "each removed its own");
}

/// Moves what lies below one prefix to another, as an older version would have put it.
fn moved(server: &Memory, from: &str, to: &str) {
    let mut objects = server.objects();
    let keys: Vec<String> =
        objects.keys().filter(|key| key.starts_with(&format!("/b/{from}/"))).cloned().collect();
    for key in keys {
        let body = objects.remove(&key).unwrap();
        objects.insert(key.replacen(from, to, 1), body);
    }
}

#[tokio::test]
async fn store_with_a_twice_encoded_prefix_is_used_in_place() {
    for (prefix, before) in [
        ("grün/日本", "gr%C3%BCn/%E6%97%A5%E6%9C%AC"),
        ("~team", "%7Eteam"),
        ("100%41", "100%2541"),
    ] {
        let server = Memory::start();
        with_object(&server, prefix).await;
        moved(&server, prefix, before);
        let place = format!("s3://b/{prefix}");
        let read = hurried(&server, &place, Access::Read).open("prod").await.unwrap();
        let read = read.expect("it is found");
        assert_eq!(read.get(&Path::from("data/date=1/x")).await.unwrap(), prefix);
        let written =
            hurried(&server, &place, Access::Create).open_or_create("prod").await.unwrap();
        assert_eq!(written.format(), read.format());
        written.put_new(&Path::from("data/y"), vec!["y".into()]).await.unwrap();
        let keys: Vec<String> = server.objects().keys().cloned().collect();
        assert!(keys.iter().all(|key| key.starts_with(&format!("/b/{before}/"))), "{keys:?}");
        let other = hurried(&server, &place, Access::Read).open("test").await.unwrap();
        assert!(other.is_none());
        let words = hurried(&server, &place, Access::Read).no_store("test").await.to_string();
        assert!(words.contains("it has: prod"), "{words}");

        // A store is never split in two: with both there somebody has to choose.
        with_object_at(&server, prefix).await;
        let both = hurried(&server, &place, Access::Create).open_or_create("prod").await;
        let failure = both.expect_err("two of one name");
        assert_eq!(failure.kind(), FailureKind::Usage);
        assert!(failure.to_string().contains(before), "{failure}");
        // By its own key each can be read.
        let by_key = format!("s3://b/{before}");
        let older = hurried(&server, &by_key, Access::Read).open("prod").await.unwrap();
        assert_eq!(older.expect("by its key").format(), read.format());
    }
}

/// Puts a store below a prefix as if nothing else were there.
async fn with_object_at(server: &Memory, prefix: &str) {
    let other = Memory::start();
    with_object(&other, prefix).await;
    let objects = other.objects().clone();
    server.objects().extend(objects);
}

#[tokio::test]
async fn damaged_store_with_a_twice_encoded_prefix_is_repaired_in_place() {
    let server = Memory::start();
    with_object(&server, "grün").await;
    moved(&server, "grün", "gr%C3%BCn");
    server.objects().remove("/b/gr%C3%BCn/prod/format");
    let place = hurried(&server, "s3://b/grün", Access::Read);
    let (_, repaired) = place.open_damaged("prod", false).await.unwrap();
    assert!(repaired && server.objects().contains_key("/b/gr%C3%BCn/prod/format"));
}

#[test]
fn prefix_that_listings_cannot_return_is_refused() {
    for text in ["s3://b/ x", "s3://b/a\u{1}b"] {
        let failure = text.parse::<Location>().expect_err(text);
        assert_eq!(failure.kind(), FailureKind::Usage, "{failure}");
    }
}
