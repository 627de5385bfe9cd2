//! Connections and objects that are encrypted.

use capstan_model::FailureKind;
use capstan_storage_engine::catalog::Recorder;
use capstan_storage_engine::store::S3Encryption;
use capstan_tests::s3_variable;
use object_store::path::Path;

use super::{Place, RECORDER, assert_log, body, draft, writer};

/// Writes and reads all kinds of objects.
async fn assert_works(place: &Place) {
    let store = place.make("prod").await.unwrap();
    let path = Path::from("data/x");
    store.put_new(&path, vec![body(1 << 20)]).await.unwrap();
    store.put_new(&path, vec![body(1 << 20)]).await.unwrap();
    let mut recorder = Recorder::start(&store, RECORDER, writer()).await.unwrap();
    recorder.commit(draft(0)).await.unwrap();

    let store = place.open("prod").await.unwrap();
    assert_eq!(store.get(&path).await.unwrap(), body(1 << 20));
    assert_eq!(
        store.get_range(&path, 70_000..70_010).await.unwrap(),
        body(1 << 20)[70_000..70_010]
    );
    assert_eq!(store.head(&path).await.unwrap().unwrap().bytes, 1 << 20);
    assert_log(&store, recorder.generation(), 1).await;
}

#[tokio::test]
async fn a_store_is_reached_by_https_with_a_private_authority() {
    let Some(place) = Place::new().and_then(Place::over_tls) else { return };
    assert_works(&place).await;
}

#[tokio::test]
async fn objects_encrypted_by_a_key_service_are_readable() {
    let Some(mut place) = Place::new().and_then(Place::over_tls) else { return };
    let Some(key) = s3_variable("CAPSTAN_TEST_S3_KMS_KEY") else { return };
    place.options.s3.encryption = Some(S3Encryption::Kms { key: Some(key), dual: false });
    assert_works(&place).await;

    // The server does look at the key.
    let no_key = Some("no-such-key".to_owned());
    place.options.s3.encryption = Some(S3Encryption::Kms { key: no_key, dual: false });
    let store = place.open("prod").await.unwrap();
    let failure = store.put_new(&Path::from("data/y"), vec!["x".into()]).await.expect_err("no key");
    assert_eq!(failure.kind(), FailureKind::Usage, "{failure}");
    assert!(failure.to_string().contains("CAPSTAN_S3_KMS_KEY"), "{failure}");
}

#[tokio::test]
async fn objects_encrypted_with_a_customer_key_need_that_key() {
    let Some(mut place) = Place::new().and_then(Place::over_tls) else { return };
    let customer = |digit: &str| Some(S3Encryption::Customer(format!("{}=", digit.repeat(43))));
    place.options.s3.encryption = customer("0");
    assert_works(&place).await;
    for other in [None, customer("4")] {
        place.options.s3.encryption = other;
        let failure = place.open("prod").await.expect_err("it cannot be read");
        assert_eq!(failure.kind(), FailureKind::Usage, "{failure}");
        assert!(failure.to_string().contains("CAPSTAN_S3_ENCRYPTION"), "{failure}");
    }
}

/// Ceph before 17 passes over this wish, so it is seen here to do no harm; that it is sent, tests
/// beside the code see.
#[tokio::test]
async fn server_encrypts_with_its_own_keys() {
    let Some(mut place) = Place::new().and_then(Place::over_tls) else { return };
    place.options.s3.encryption = Some(S3Encryption::Server);
    assert_works(&place).await;
}
