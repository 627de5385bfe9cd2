//! Whether a place keeps the one promise the catalog stands on: of many creates of one
//! name at the same time exactly one wins.
//!
//! Some servers take the condition and overwrite all the same; some keep it only if calls
//! do not overlap. So several writers try at once, a few times over, before a store is made.

use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};

use super::failure::failure;
use super::nonce::nonce;

/// Writers that race for one name.
const WRITERS: usize = 8;

/// Races.
const ROUNDS: usize = 3;

/// Races for names below `folder`, and removes them again where that is allowed.
pub(crate) async fn probe(
    objects: &dyn ObjectStore,
    folder: &Path,
    place: &str,
) -> Result<(), Failure> {
    for _ in 0..ROUNDS {
        let path = folder.clone().join(nonce());
        let outcome = race(objects, &path, place).await;
        // Who may create need not be allowed to delete; what stays is a few bytes.
        let _ = objects.delete(&path).await;
        outcome?;
    }
    Ok(())
}

async fn race(objects: &dyn ObjectStore, path: &Path, place: &str) -> Result<(), Failure> {
    let bodies: Vec<Bytes> = (0..WRITERS).map(|_| nonce().into()).collect();
    let answers = join_all(
        bodies
            .iter()
            .map(|body| objects.put_opts(path, body.clone().into(), PutMode::Create.into())),
    )
    .await;
    let mut winners = Vec::new();
    for (body, answer) in bodies.iter().zip(answers) {
        match answer {
            Ok(_) => winners.push(body),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            Err(error) => return Err(failure(format!("create an object in {place}"), error)),
        }
    }
    let kept = match objects.get(path).await {
        Ok(got) => got.bytes().await,
        Err(error) => Err(error),
    }
    .map_err(|error| failure(format!("read an object just created in {place}"), error))?;
    match winners.as_slice() {
        [winner] if kept == **winner => Ok(()),
        winners => Err(Failure::new(
            FailureKind::Usage,
            format!(
                "{place} cannot hold a store: of {WRITERS} writers that created one name at the same \
                 time {} were told that they won, where exactly one must; its server does not keep \
                 If-None-Match. Use one that does (AWS S3, Ceph RGW, a local disk)",
                winners.len()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use std::fmt;

    #[tokio::test]
    async fn a_store_with_one_winner_passes_and_nothing_stays() {
        let store = InMemory::new();
        probe(&store, &Path::from("probe"), "memory").await.unwrap();
        assert!(store.list_with_delimiter(None).await.unwrap().common_prefixes.is_empty());
    }

    /// Says yes to every create, as some servers do.
    #[derive(Debug)]
    struct Overwriting(InMemory);

    impl fmt::Display for Overwriting {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("overwriting")
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Overwriting {
        async fn put_opts(
            &self,
            location: &Path,
            payload: object_store::PutPayload,
            mut options: object_store::PutOptions,
        ) -> object_store::Result<object_store::PutResult> {
            options.mode = PutMode::Overwrite;
            self.0.put_opts(location, payload, options).await
        }
        async fn put_multipart_opts(
            &self,
            location: &Path,
            options: object_store::PutMultipartOptions,
        ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
            self.0.put_multipart_opts(location, options).await
        }
        async fn get_opts(
            &self,
            location: &Path,
            options: object_store::GetOptions,
        ) -> object_store::Result<object_store::GetResult> {
            self.0.get_opts(location, options).await
        }
        fn delete_stream(
            &self,
            locations: futures::stream::BoxStream<'static, object_store::Result<Path>>,
        ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
            self.0.delete_stream(locations)
        }
        fn list(
            &self,
            prefix: Option<&Path>,
        ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>>
        {
            self.0.list(prefix)
        }
        async fn list_with_delimiter(
            &self,
            prefix: Option<&Path>,
        ) -> object_store::Result<object_store::ListResult> {
            self.0.list_with_delimiter(prefix).await
        }
        async fn copy_opts(
            &self,
            from: &Path,
            to: &Path,
            options: object_store::CopyOptions,
        ) -> object_store::Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    #[tokio::test]
    async fn a_store_that_overwrites_is_refused_with_words() {
        let store = Overwriting(InMemory::new());
        let failure = probe(&store, &Path::from("probe"), "s3://b").await.expect_err("overwrites");
        assert_eq!(failure.kind(), FailureKind::Usage);
        assert!(failure.to_string().contains("8 were told"), "{failure}");
    }
}
