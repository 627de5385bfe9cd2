//! What cannot be done, in plain words.

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::{Catalog, Recorder};
use capstan_storage_engine::store::{Created, Location, nonce};
use object_store::path::Path;

use super::{Place, RECORDER, body, draft, writer};

/// What happened, where and what to do: all in the words, the server's own below them.
fn assert_says(failure: &Failure, kind: FailureKind, parts: &[&str]) {
    let text = failure.to_string();
    assert_eq!(failure.kind(), kind, "{text}: {:?}", std::error::Error::source(failure));
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

#[tokio::test]
async fn read_only_keys_can_open_and_read_only() {
    let Some(place) = Place::new() else { return };
    let Some(reader) = place.clone().for_readers() else { return };
    let refused = reader.make("prod").await.expect_err("it cannot be made");
    assert_says(&refused, FailureKind::Permission, &["s3://", "prod", "allow it in the policy"]);

    let store = place.make("prod").await.unwrap();
    let path = Path::from("data/x");
    store.put_new(&path, vec![body(100)]).await.unwrap();
    let mut recorder = Recorder::start(&store, RECORDER, writer()).await.unwrap();
    recorder.commit(draft(0)).await.unwrap();

    let read = reader.open("prod").await.unwrap();
    assert_eq!(read.get(&path).await.unwrap(), body(100));
    assert_eq!(read.head(&Path::from("data/none")).await.unwrap(), None);
    assert_eq!(Catalog::load(&read).await.unwrap().generations().count(), 1);
    // What is there already need not be made.
    assert_eq!(reader.make("prod").await.unwrap().format(), store.format());

    let words = ["s3://", "(cluster prod)", "allow it in the policy"];
    let new = Path::from("log/new");
    let failure = read.create(&new, nonce().into()).await.expect_err("not allowed");
    assert_says(&failure, FailureKind::Permission, &[&["create log/new"], &words[..]].concat());
    let failure = read.put_new(&new, vec!["x".into()]).await.expect_err("not allowed");
    assert_says(&failure, FailureKind::Permission, &[&["write log/new"], &words[..]].concat());
    let failure = Recorder::start(&read, RECORDER, writer()).await.expect_err("not allowed");
    assert_says(&failure, FailureKind::Permission, &words);
    assert_eq!(store.create(&new, nonce().into()).await.unwrap(), Created::Created);
}

#[tokio::test]
async fn wrong_keys_are_distinguished_from_missing_permissions() {
    let Some(place) = Place::new() else { return };
    let Some(reader) = place.clone().for_readers() else { return };
    let Some(capstan_storage_engine::store::S3Credentials::Keys(keys)) =
        reader.options.s3.credentials
    else {
        panic!("a reader has keys")
    };
    let unknown = place.clone().with_keys("nobody", "secret").open("prod").await;
    assert_says(
        &unknown.expect_err("nobody knows it"),
        FailureKind::Permission,
        &["read format of store s3://", "(cluster prod)", "does not know", "AWS_ACCESS_KEY_ID"],
    );
    let wrong = place.with_keys(&keys.id, "secret").open("prod").await;
    assert_says(
        &wrong.expect_err("not its secret"),
        FailureKind::Permission,
        &["read format of store s3://", "(cluster prod)", "AWS_SECRET_ACCESS_KEY"],
    );
}

#[tokio::test]
async fn missing_bucket_is_reported_by_name() {
    let Some(mut place) = Place::new() else { return };
    place.location = "s3://no-such-bucket/x".parse::<Location>().unwrap();
    for outcome in [place.open("prod").await, place.make("prod").await] {
        assert_says(
            &outcome.expect_err("no bucket"),
            FailureKind::NotFound,
            &["s3://no-such-bucket/x", "the bucket does not exist", "create it"],
        );
    }
}

#[tokio::test]
async fn server_with_an_unknown_certificate_authority_is_not_trusted() {
    let Some(place) = Place::new() else { return };
    let Some(mut stranger) = place.over_tls() else { return };
    stranger.make("prod").await.unwrap();
    stranger.options.s3.ca_bundle = None;
    assert_says(
        &stranger.open("prod").await.expect_err("an authority nobody knows"),
        FailureKind::Usage,
        &["read format of store s3://", "not trusted", "AWS_CA_BUNDLE"],
    );
}
