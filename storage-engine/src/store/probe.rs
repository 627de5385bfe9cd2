//! Tests the one guarantee that the catalog depends on: of many concurrent creates of one name exactly one wins.
//!
//! Some servers accept the condition and overwrite anyway; some honour it only if requests do not overlap. So several
//! writers race, many times, before a store is created ([`probe`]). A server of the second kind is detected if two
//! requests meet between its check and its write; the shorter that interval, the more races it takes.
//!
//! A server of the first kind may also appear later: a bucket moves, or a gateway is put in front of it. So a process
//! that is about to write sends one create of a name that is taken ([`check`]).

use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use futures::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, PutMode};

use super::error::StoreError;
use super::patience::Tried;
use super::{Store, names};

/// Writers that race for one name.
const WRITERS: usize = 8;

/// Races in a bucket, where requests overlap by chance.
pub(crate) const MANY: usize = 12;

/// Races in a folder, where each create is synced to disk, and the file system itself lets one win.
pub(crate) const FEW: usize = 3;

/// Maximum number of inconclusive races, with lost answers.
const VOID_MOST: usize = 24;

/// Races for names below `folder`, and removes them again if permitted.
pub(crate) async fn probe(store: &Store, folder: &Path, rounds: usize) -> Result<(), Failure> {
    let (mut held, mut void) = (0, 0);
    while held < rounds {
        let path = folder.clone().join(store.nonce());
        let outcome = race(store, &path).await;
        // A writer may lack permission to delete; then a few bytes remain.
        let _ = store.delete(&path).await;
        match outcome? {
            Verdict::Held => held += 1,
            Verdict::Void if void < VOID_MOST => void += 1,
            Verdict::Void => {
                let what = "too many lost answers to test the server; retry later";
                let what = format!("{}: {what}", store.place());
                return Err(Failure::new(FailureKind::Unavailable, what));
            }
            Verdict::Broken(found) => return Err(broken(store, &found)),
        }
    }
    Ok(())
}

/// Creates the object `format` of a store, if absent, with its existing bytes: the object does not change even if the
/// server ignores the condition, and the answer shows whether it does.
pub(crate) async fn check(store: &Store, format: Bytes) -> Result<(), Failure> {
    // The first create may succeed legitimately, if a repair removed the object just now.
    for _ in 0..2 {
        if !is_created(store, &format).await? {
            return Ok(());
        }
    }
    let found = "the server created an existing object again";
    Err(Failure::new(
        FailureKind::Usage,
        format!(
            "{} cannot be written to: {found}; its server ignores If-None-Match, so writers would \
             overwrite each other. Was a server or gateway changed? Use one that honours it (AWS \
             S3, Ceph RGW); reading still works",
            store.place()
        ),
    ))
}

/// Whether a create of the object `format` succeeds; retried while there is no answer.
async fn is_created(store: &Store, format: &Bytes) -> Result<bool, Failure> {
    let what = format!("test whether names can be created in {}", store.place());
    let mut waiting = store.waiting(store.means.patience.writing(format.len() as u64), what);
    loop {
        let (name, format) = (names::format(), format.clone());
        let put = store.objects.put_opts(&name, format.into(), PutMode::Create.into());
        let tried = match store.attempt(&mut waiting, put).await {
            Ok(_) => return Ok(true),
            Err(Tried { error: StoreError::Taken(_), .. }) => return Ok(false),
            Err(tried) => tried,
        };
        match waiting.again(tried).await {
            // The actual write will be refused too, with a better message.
            Err(StoreError::Refused(failure))
                if matches!(failure.kind(), FailureKind::Permission | FailureKind::Full) =>
            {
                return Ok(false);
            }
            outcome => outcome?,
        }
    }
}

fn broken(store: &Store, found: &str) -> Failure {
    Failure::new(
        FailureKind::Usage,
        format!(
            "{} cannot hold a store: of {WRITERS} writers that created one name at the same time \
             {found}; its server ignores If-None-Match. Use one that honours it (AWS S3, Ceph \
             RGW, a local disk)",
            store.place()
        ),
    )
}

/// The answer that one writer received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Won,
    Taken,
    /// No answer, or an ambiguous one.
    Nothing,
}

/// The conclusion of a race about the server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Exactly one create won.
    Held,
    /// Inconclusive.
    Void,
    /// The guarantee is broken, and how.
    Broken(String),
}

/// Judges the answers of all writers, and the writer whose bytes are stored.
fn judge(told: &[Told], kept: Option<usize>) -> Verdict {
    let won: Vec<usize> = (0..told.len()).filter(|writer| told[*writer] == Told::Won).collect();
    match (won.as_slice(), kept) {
        ([winner], Some(kept)) if *winner == kept => Verdict::Held,
        // The winner's answer was lost, or its request was retried on the way and reported the name as taken.
        ([], Some(_)) => Verdict::Held,
        ([], None) => Verdict::Void,
        ([_], Some(_)) => {
            Verdict::Broken("one got success, but another's object exists".to_owned())
        }
        ([_], None) => Verdict::Broken("one got success, but its object does not exist".to_owned()),
        (winners, _) => Verdict::Broken(format!("{} got success instead of one", winners.len())),
    }
}

async fn race(store: &Store, path: &Path) -> Result<Verdict, Failure> {
    let bodies: Vec<Bytes> = (0..WRITERS).map(|_| store.nonce().into()).collect();
    let creates = bodies.iter().map(|body| store.create_once(path, body.clone()));
    let mut told = Vec::with_capacity(WRITERS);
    for answer in join_all(creates).await {
        told.push(match answer {
            Ok(()) => Told::Won,
            Err(StoreError::Taken(_)) => Told::Taken,
            Err(StoreError::InDoubt(_)) => Told::Nothing,
            Err(error) => return Err(error.into()),
        });
    }
    let kept = store.get_if_present(path).await?;
    let kept = match kept {
        None => None,
        Some(kept) => match bodies.iter().position(|body| *body == kept) {
            None => return Ok(Verdict::Broken("the object is from none of them".to_owned())),
            writer => writer,
        },
    };
    Ok(judge(&told, kept))
}

#[cfg(test)]
mod tests;
