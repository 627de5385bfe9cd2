//! Whether a place keeps the one promise the catalog stands on: of many creates of one
//! name at the same time exactly one wins.
//!
//! Some servers take the condition and overwrite all the same; some keep it only if calls
//! do not overlap. So several writers try at once, many times over, before a store is made.
//! A server of the second kind is found out if two calls meet between its look and its write; the
//! shorter that is, the more races it takes.

use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};

use super::failure::failure;
use super::world::nonce;

/// Writers that race for one name.
const WRITERS: usize = 8;

/// Races in a bucket, where calls meet by chance.
pub(crate) const MANY: usize = 12;

/// Races in a folder, where each create is written through to the disk, and the file system itself
/// lets one win.
pub(crate) const FEW: usize = 3;

/// Races for names below `folder`, and removes them again where that is allowed.
pub(crate) async fn probe(
    objects: &dyn ObjectStore,
    folder: &Path,
    place: &str,
    rounds: usize,
) -> Result<(), Failure> {
    for _ in 0..rounds {
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
    let found = match winners.as_slice() {
        [winner] if kept == **winner => return Ok(()),
        // The one who won was sent again on the way, and answered that the name is taken.
        [] if bodies.contains(&kept) => return Ok(()),
        [_] => "one was told that it won, and another's object is there".to_owned(),
        winners => format!("{} were told that they won, where exactly one must", winners.len()),
    };
    Err(Failure::new(
        FailureKind::Usage,
        format!(
            "{place} cannot hold a store: of {WRITERS} writers that created one name at the same time \
             {found}; its server does not keep If-None-Match. Use one that does (AWS S3, Ceph RGW, a \
             local disk)"
        ),
    ))
}

#[cfg(test)]
mod tests;
