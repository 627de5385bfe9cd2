//! Reading logs.
//!
//! Reading whole logs lists `writers` and `log` (a request for each 1,000 names) and then gets
//! all entries, many at a time: asking for each log's next number until there is none would
//! cost one round trip after another. That is how the tails of logs are followed, which are short:
//! each log that may go on is asked for its next number, all logs at once.

use bytes::Bytes;
use capstan_model::{Failure, GenerationId, RecorderId};
use futures::{StreamExt, TryStreamExt, stream};

use super::chain::read_writer;
use super::entry::WriterInfo;
use super::rollup::behind_gap;
use super::state::{Catalog, CommitId};
use crate::store::{Store, names};

/// GETs in flight.
const AT_ONCE: usize = 32;

/// How far behind a commit that is not there it is looked whether its log goes on, commits.
const LOOKED_BEHIND: u64 = 2;

/// A writer and what was found after the commits that are known: by number, none where one is missing that
/// was there.
type Tail = (GenerationId, Vec<(u64, Option<Bytes>)>);

impl Catalog {
    /// Reads all of a store's catalog.
    ///
    /// # Errors
    ///
    /// What the store says. Damaged entries are no errors: see [`Catalog::problems`].
    pub async fn load(store: &Store) -> Result<Catalog, Failure> {
        Catalog::load_from(store, None).await
    }

    /// Reads what one recorder wrote, in all its generations: as many requests as it has entries,
    /// however much else there is.
    ///
    /// # Errors
    ///
    /// As [`Catalog::load`].
    pub async fn load_recorder(store: &Store, recorder: RecorderId) -> Result<Catalog, Failure> {
        Catalog::load_from(store, Some(recorder)).await
    }

    async fn load_from(store: &Store, recorder: Option<RecorderId>) -> Result<Catalog, Failure> {
        let mut catalog = Catalog::new();
        // Logs before writers: a writer is there before its first commit, so each log that is
        // listed has a writer that is listed.
        let listed: Vec<_> = store.list(&names::log(recorder)).try_collect().await?;
        catalog.add_writers(store, recorder).await?;
        let mut commits: Vec<CommitId> =
            listed.iter().filter_map(|object| names::parse_commit(&object.path)).collect();
        commits.sort_unstable();
        let mut read = stream::iter(commits)
            .map(|CommitId { of, seq }| async move {
                let path = names::commit(of, seq);
                let bytes = store.get_if_present(&path).await?;
                Ok::<_, Failure>((of, seq, bytes))
            })
            .buffered(AT_ONCE);
        while let Some((of, seq, bytes)) = read.try_next().await? {
            match bytes {
                Some(bytes) => catalog.add_commit(of, seq, &bytes),
                None => catalog.add_missing(of, seq),
            }
        }
        Ok(catalog)
    }

    /// Takes in the next commits of each log that has not said that it is finished. `gaps`: looks
    /// whether a log goes on behind a commit or two that are missing.
    ///
    /// # Errors
    ///
    /// What the store says; what was taken in until then stays, and calling again is right.
    pub(crate) async fn follow(&mut self, store: &Store, gaps: bool) -> Result<(), Failure> {
        let open: Vec<_> = self.open_logs().collect();
        let mut tails =
            stream::iter(open).map(|next| tail(store, next, gaps)).buffer_unordered(AT_ONCE);
        while let Some((of, commits)) = tails.try_next().await? {
            for (seq, bytes) in commits {
                match bytes {
                    Some(bytes) => self.add_commit(of, seq, &bytes),
                    None => self.add_missing(of, seq),
                }
            }
        }
        Ok(())
    }

    async fn add_writers(
        &mut self,
        store: &Store,
        recorder: Option<RecorderId>,
    ) -> Result<(), Failure> {
        let listed: Vec<_> = store.list(&names::writers(recorder)).try_collect().await?;
        let mut unknown: Vec<GenerationId> = listed
            .iter()
            .filter_map(|object| names::parse_writer(&object.path))
            .filter(|owner| self.state(*owner).is_none())
            .collect();
        unknown.sort_unstable();
        let mut read = stream::iter(unknown)
            .map(|of| async move {
                let bytes = store.get(&names::writer(of)).await?;
                Ok::<_, Failure>((of, bytes))
            })
            .buffered(AT_ONCE);
        while let Some((of, bytes)) = read.try_next().await? {
            self.add_writer(of, &bytes);
        }
        Ok(())
    }
}

/// What a generation says of itself; none if that is not there or cannot be read.
///
/// # Errors
/// What the store says.
pub async fn writer(store: &Store, of: GenerationId) -> Result<Option<WriterInfo>, Failure> {
    let bytes = store.get_if_present(&names::writer(of)).await?;
    let read = bytes.map(|bytes| read_writer(of, &bytes, &mut Vec::new()).0);
    Ok(read.flatten().map(|writer| writer.info))
}

/// The commits from a number on, until one is not there and none behind it either.
async fn tail(
    store: &Store,
    CommitId { of, seq: mut next }: CommitId,
    gaps: bool,
) -> Result<Tail, Failure> {
    let mut commits = Vec::new();
    loop {
        let path = names::commit(of, next);
        if let Some(bytes) = store.get_if_present(&path).await? {
            commits.push((next, Some(bytes)));
            next += 1;
            continue;
        }
        if !gaps || !goes_on(store, of, next).await? {
            break;
        }
        // It may have come meanwhile, with the one behind it.
        let Some(later) = behind_gap(store, &path).await? else { break };
        commits.push((later - 1, None));
        next = later;
    }
    Ok((of, commits))
}

/// Whether a log goes on close behind a commit that is not there.
async fn goes_on(store: &Store, of: GenerationId, missing: u64) -> Result<bool, Failure> {
    let behind = (1..=LOOKED_BEHIND).map(|more| missing.saturating_add(more));
    let looks = behind.map(|seq| async move {
        store.head(&names::commit(of, seq)).await.map(|found| found.is_some())
    });
    let found = futures::future::try_join_all(looks).await?;
    Ok(found.contains(&true))
}
