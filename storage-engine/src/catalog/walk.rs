//! Reads all logs, one after the other. The facts of each commit are passed on at once and not kept.

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::{Failure, GenerationId};
use futures::{StreamExt, TryStreamExt, stream};
use roaring::RoaringTreemap;

use super::chain::{Chain, Problem, is_changed, read_writer};
use super::commit_id::CommitId;
use super::entry::{Commit, sha256_hex};
use super::generation::GenerationState;
use crate::catalog::names;
use crate::store::Store;

/// GETs in flight.
const AT_ONCE: usize = 32;

/// The state of all logs, without facts that have times.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Every generation: about a kilobyte each.
    pub(crate) generations: BTreeMap<GenerationId, GenerationState>,
    /// Faults.
    pub(crate) problems: Vec<Problem>,
    /// Commits that a repair has replaced.
    pub(crate) replaced: BTreeSet<CommitId>,
}

/// A commit that was read.
#[derive(Debug)]
pub(crate) struct Met {
    /// Its generation and number.
    pub(crate) id: CommitId,
    /// SHA-256 of its bytes, hex.
    pub(crate) sha256: String,
    /// Its content.
    pub(crate) commit: Commit,
    /// Its bytes were changed: its content may be wrong.
    pub(crate) is_changed: bool,
}

/// Reads all logs, each in the order of its commits.
///
/// # Errors
/// Errors of the store, or of the callback. Faults of the logs are no errors.
pub(crate) async fn walk(
    store: &Store,
    mut met: impl FnMut(Met) -> Result<(), Failure>,
) -> Result<Walked, Failure> {
    let mut walked = Walked::default();
    // Lists logs before writers: a writer exists before its first commit, so each listed log has a listed writer.
    // Keeps one bit per commit, as a folder lists in any order.
    let mut logs: BTreeMap<GenerationId, RoaringTreemap> = BTreeMap::new();
    let mut listed = store.list(&names::log(None));
    while let Some(object) = listed.try_next().await? {
        if let Some(CommitId { of, seq }) = names::parse_commit(&object.path) {
            logs.entry(of).or_default().insert(seq);
        }
    }
    drop(listed);
    let mut listed = store.list(&names::writers(None));
    let mut writers = BTreeSet::new();
    while let Some(object) = listed.try_next().await? {
        if let Some(owner) = names::parse_writer(&object.path) {
            writers.insert(owner);
            logs.entry(owner).or_default();
        }
    }
    drop(listed);
    let owners: Vec<_> = logs.keys().copied().collect();
    let mut begun = stream::iter(owners)
        .map(|of| {
            let is_there = writers.contains(&of);
            async move {
                let path = names::writer(of);
                let bytes = match is_there {
                    true => Some(store.get(&path).await?),
                    false => None,
                };
                Ok::<_, Failure>((of, bytes))
            }
        })
        .buffered(AT_ONCE);
    while let Some((of, bytes)) = begun.try_next().await? {
        let seqs = logs.remove(&of).unwrap_or_default();
        let (writer, chain) = match bytes {
            Some(bytes) => read_writer(of, &bytes, &mut walked.problems),
            None => {
                let object = names::commit(of, seqs.min().unwrap_or(0)).to_string();
                walked.problems.push(Problem::NoWriter { object });
                (None, Chain::new(of, None))
            }
        };
        let state = GenerationState::new(writer, chain);
        let state = follow(store, state, seqs, &mut walked, &mut met).await?;
        walked.generations.insert(of, state);
    }
    Ok(walked)
}

/// Follows one log.
async fn follow(
    store: &Store,
    mut state: GenerationState,
    seqs: RoaringTreemap,
    walked: &mut Walked,
    met: &mut impl FnMut(Met) -> Result<(), Failure>,
) -> Result<GenerationState, Failure> {
    let of = state.id();
    let mut read = stream::iter(seqs)
        .map(|seq| async move {
            let bytes = store.get_if_present(&names::commit(of, seq)).await?;
            Ok::<_, Failure>((seq, bytes))
        })
        .buffered(AT_ONCE);
    while let Some((seq, bytes)) = read.try_next().await? {
        let Some(bytes) = bytes else {
            if seq >= state.chain().next() {
                state.skip(seq, &mut walked.problems);
            }
            continue;
        };
        let known = walked.problems.len();
        if let Some(commit) = state.follow(seq, &bytes, &mut walked.problems) {
            let is_changed = is_changed(&walked.problems[known..]);
            walked.replaced.extend(commit.content.replaced());
            let (id, sha256) = (CommitId { of, seq }, sha256_hex(&bytes));
            met(Met { id, sha256, commit, is_changed })?;
        }
    }
    Ok(state)
}
