//! Reads logs.
//!
//! Reading whole logs lists `writers` and `log` (one request per 1,000 names) and then gets all entries, many at a
//! time. Asking each log for its next number until there is none would cost one round trip after another. Tails of
//! logs are short, so they are followed that way: each open log is asked for its next number, all logs at once.

use std::collections::BTreeSet;

use bytes::Bytes;
use capstan_model::failure::with_causes;
use capstan_model::{Failure, GenerationId, RecorderId};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::chain::{Chain, Problem, read_writer};
use super::checkpoint::{self, Checkpoint};
use super::commit_id::CommitId;
use super::entry::WriterInfo;
use super::generation::GenerationState;
use super::state::Catalog;
use crate::catalog::names;
use crate::store::Store;

/// The first store format whose writers mark their logs as open, which makes the logs discoverable.
pub(crate) const FIRST_FORMAT: u32 = 3;

/// GETs in flight.
const AT_ONCE: usize = 32;

/// How many commits beyond a missing one are probed to find out whether its log continues.
const LOOKED_BEHIND: u64 = 2;

/// The commits of a generation after the known ones.
struct Tail {
    of: GenerationId,
    /// By number; none for a missing commit.
    commits: Vec<(u64, Option<Bytes>)>,
    /// The log was truncated after the last of them.
    is_overtaken: bool,
}

/// What comes after a missing commit.
pub(super) enum Behind {
    /// The log continues with this commit: the ones before it are lost.
    Commit(u64),
    /// The log was truncated there.
    Checkpoint,
}

impl Catalog {
    /// Reads all logs of a store. Truncated logs begin at their checkpoints: the facts before are in manifests only.
    ///
    /// # Errors
    ///
    /// Errors of the store. Damaged entries are no errors: see [`Catalog::problems`].
    pub async fn load(store: &Store) -> Result<Catalog, Failure> {
        Catalog::load_from(store, None).await
    }

    /// Reads the logs of all generations of one recorder. The number of requests is the number of its entries,
    /// regardless of other recorders.
    ///
    /// # Errors
    ///
    /// Like [`Catalog::load`].
    pub async fn load_recorder(store: &Store, recorder: RecorderId) -> Result<Catalog, Failure> {
        Catalog::load_from(store, Some(recorder)).await
    }

    async fn load_from(store: &Store, recorder: Option<RecorderId>) -> Result<Catalog, Failure> {
        let mut catalog = Catalog::new();
        // Lists logs before writers: a writer exists before its first commit, so each listed log has a listed writer.
        let listed: Vec<_> = store.list(&names::log(recorder)).try_collect().await?;
        catalog.add_writers(store, recorder).await?;
        let mut commits: Vec<CommitId> =
            listed.iter().filter_map(|object| names::parse_commit(&object.path)).collect();
        commits.sort_unstable();
        let logs = commits.chunk_by(|a, b| a.of == b.of);
        let holed: Vec<_> = logs.filter(|log| has_holes(log)).map(|log| log[0].of).collect();
        let mut begun =
            stream::iter(holed).map(|of| checkpoint::newest(store, of)).buffered(AT_ONCE);
        while let Some(found) = begun.try_next().await? {
            found.into_iter().for_each(|checkpoint| catalog.begin_at(checkpoint));
        }
        drop(begun);
        commits.retain(|CommitId { of, seq }| {
            catalog.state(*of).is_none_or(|state| *seq >= state.chain().next())
        });
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
                None => match checkpoint::covering(store, CommitId { of, seq }).await? {
                    Some(checkpoint) => catalog.begin_at(checkpoint),
                    None => catalog.add_missing(of, seq),
                },
            }
        }
        Ok(catalog)
    }

    /// Reads the next commits of each log that is not finished. With `gaps`, also checks whether a log continues
    /// after one or two missing commits. False if a log was truncated after the known commits: then the root that
    /// says how many commits are rolled up is too old.
    ///
    /// # Errors
    ///
    /// Errors of the store; commits read until then stay, and the caller may retry.
    pub(crate) async fn follow(&mut self, store: &Store, gaps: bool) -> Result<bool, Failure> {
        let open: Vec<_> = self.open_logs().collect();
        let mut tails =
            stream::iter(open).map(|next| tail(store, next, gaps)).buffer_unordered(AT_ONCE);
        let mut is_current = true;
        while let Some(Tail { of, commits, is_overtaken }) = tails.try_next().await? {
            is_current &= !is_overtaken;
            for (seq, bytes) in commits {
                match bytes {
                    Some(bytes) => self.add_commit(of, seq, &bytes),
                    None => self.add_missing(of, seq),
                }
            }
        }
        Ok(is_current)
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

/// Whether commits are missing in the listing of a log, ascending: it is truncated, or damaged. Truncated commits are
/// removed in any order.
fn has_holes(log: &[CommitId]) -> bool {
    log.iter().zip(0..).any(|(id, place)| id.seq != place)
}

/// The description of a generation's writer; none if its object is missing or unreadable.
///
/// # Errors
/// Errors of the store.
pub async fn writer(store: &Store, of: GenerationId) -> Result<Option<WriterInfo>, Failure> {
    let bytes = store.get_if_present(&names::writer(of)).await?;
    let read = bytes.map(|bytes| read_writer(of, &bytes, &mut Vec::new()).0);
    Ok(read.flatten().map(|writer| writer.info))
}

/// The commits from a number on, until one is missing and the log does not continue after it.
async fn tail(
    store: &Store,
    CommitId { of, seq: mut next }: CommitId,
    gaps: bool,
) -> Result<Tail, Failure> {
    let mut commits = Vec::new();
    let mut is_overtaken = false;
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
        // The commit may have been created meanwhile, with the next one.
        match behind_gap(store, &path).await? {
            None => break,
            Some(Behind::Checkpoint) => {
                is_overtaken = true;
                break;
            }
            Some(Behind::Commit(later)) => {
                commits.push((later - 1, None));
                next = later;
            }
        }
    }
    Ok(Tail { of, commits, is_overtaken })
}

/// Whether a log continues right after a missing commit.
async fn goes_on(store: &Store, of: GenerationId, missing: u64) -> Result<bool, Failure> {
    let behind = (1..=LOOKED_BEHIND).map(|more| missing.saturating_add(more));
    let looks = behind.map(|seq| async move {
        store.head(&names::commit(of, seq)).await.map(|found| found.is_some())
    });
    let found = futures::future::try_join_all(looks).await?;
    Ok(found.contains(&true))
}

/// The open logs, by the marks of their writers.
pub(crate) async fn open_logs(store: &Store) -> Result<BTreeSet<GenerationId>, Failure> {
    let first = store.format().format >= FIRST_FORMAT;
    let (prefix, parse): (_, fn(&Path) -> _) = if first {
        (names::open_logs(), names::parse_open)
    } else {
        (names::writers(None), names::parse_writer)
    };
    store
        .list(&prefix)
        .try_filter_map(|object| async move { Ok(parse(&object.path)) })
        .try_collect()
        .await
}

/// A generation at its checkpoint, or before its first commit, and the faults of its writer object and of the
/// checkpoint, as text.
pub(crate) async fn begin(
    store: &Store,
    of: GenerationId,
    checkpoint: Option<Checkpoint>,
) -> Result<(GenerationState, Vec<String>), Failure> {
    let mut problems = Vec::new();
    let (writer, chain) = match store.get_if_present(&names::writer(of)).await? {
        Some(bytes) => read_writer(of, &bytes, &mut problems),
        None => {
            let object = names::commit(of, 0).to_string();
            problems.push(Problem::NoWriter { object });
            (None, Chain::new(of, None))
        }
    };
    let state = match checkpoint {
        Some(checkpoint) => checkpoint.begin(writer, &mut problems),
        None => GenerationState::new(writer, chain),
    };
    Ok((state, problems.iter().map(|problem| with_causes(problem)).collect()))
}

/// What comes after a missing commit; none if the log ends there, or the commit appeared meanwhile.
pub(super) async fn behind_gap(store: &Store, missing: &Path) -> Result<Option<Behind>, Failure> {
    let Some(commit) = names::parse_commit(missing) else { return Ok(None) };
    let CommitId { of, seq } = commit;
    let log = names::log_of(of);
    let mut after = store.list_after(&log, missing);
    let mut first: Option<u64> = None;
    while let Some(listed) = after.try_next().await? {
        // A listing may be in any order.
        let later = names::parse_commit(&listed.path).map(|of| of.seq).filter(|of| *of > seq);
        first = later.into_iter().chain(first).min();
    }
    // Commits are made in sequence: if a later one exists, this one existed or exists.
    let Some(first) = first else { return Ok(None) };
    if store.get_if_present(missing).await?.is_some() {
        return Ok(None);
    }
    Ok(Some(match checkpoint::covering(store, commit).await? {
        Some(_) => Behind::Checkpoint,
        None => Behind::Commit(first),
    }))
}
