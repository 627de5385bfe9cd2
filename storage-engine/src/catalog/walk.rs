//! Reads all logs, one after the other. The facts of each commit are passed on at once and not kept.
//!
//! A truncated log begins at its newest checkpoint. Commits before it that are not removed yet are read, too.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use capstan_model::{Failure, GenerationId};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use roaring::RoaringTreemap;

use super::chain::{Chain, Problem, is_changed, read_writer};
use super::checkpoint::{self, Checkpoint};
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
    /// Truncated logs.
    pub(crate) truncated: BTreeMap<GenerationId, Truncation>,
}

/// Where a truncated log begins.
#[derive(Debug)]
pub(crate) struct Truncation {
    /// The number of the first commit that the checkpoint does not cover.
    pub(crate) seq: u64,
    /// The state in the checkpoint, if it is readable.
    pub(crate) state: Option<GenerationState>,
    /// Number of commits before it that are removed.
    pub(crate) removed: u64,
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
    // A checkpoint exists before a commit is removed.
    let truncated = checkpoint::logs(store).await?;
    for of in &truncated {
        logs.entry(*of).or_default();
    }
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
        let mut seqs = logs.remove(&of).unwrap_or_default();
        let (writer, chain) = match bytes {
            Some(bytes) => read_writer(of, &bytes, &mut walked.problems),
            None => {
                let object = names::commit(of, seqs.min().unwrap_or(0)).to_string();
                walked.problems.push(Problem::NoWriter { object });
                (None, Chain::new(of, None))
            }
        };
        let state = GenerationState::new(writer, chain);
        let checkpoint = match truncated.contains(&of) {
            true => checkpoint::newest(store, of).await?,
            false => None,
        };
        let state = match checkpoint {
            Some(checkpoint) => {
                let covered = split_off(&mut seqs, checkpoint.seq());
                walked.begin(store, state, covered, checkpoint, &mut met).await?
            }
            None => state,
        };
        let state = follow(store, state, seqs, &mut walked, &mut met).await?;
        walked.generations.insert(of, state);
    }
    Ok(walked)
}

/// Takes out the numbers below a limit.
fn split_off(seqs: &mut RoaringTreemap, below: u64) -> RoaringTreemap {
    let mut covered = seqs.clone();
    covered.remove_range(below..);
    seqs.remove_range(..below);
    covered
}

impl Walked {
    /// Follows a commit and passes its facts on.
    fn take(
        &mut self,
        state: &mut GenerationState,
        seq: u64,
        bytes: &[u8],
        met: &mut impl FnMut(Met) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let known = self.problems.len();
        let Some(commit) = state.follow(seq, bytes, &mut self.problems) else { return Ok(()) };
        let is_changed = is_changed(&self.problems[known..]);
        self.replaced.extend(commit.content.replaced());
        let id = CommitId { of: state.id(), seq };
        met(Met { id, sha256: sha256_hex(bytes), commit, is_changed })
    }

    /// Begins a truncated log at its checkpoint. `state` is the log as far as it was followed, and `covered` are the
    /// commits between that and the checkpoint that are not removed yet.
    async fn begin(
        &mut self,
        store: &Store,
        state: GenerationState,
        covered: RoaringTreemap,
        checkpoint: Checkpoint,
        met: &mut impl FnMut(Met) -> Result<(), Failure>,
    ) -> Result<GenerationState, Failure> {
        let (of, seq) = (state.id(), checkpoint.seq());
        let (writer, followed) = (state.writer().cloned(), state.chain().next());
        let first = covered.min().unwrap_or(seq);
        let known = match first {
            0 => state,
            _ => GenerationState::new(writer.clone(), Chain::at(of, first)),
        };
        let (read, many) = read_covered(store, known, covered, self, met).await?;
        let before = self.truncated.get(&of).map_or(0, |truncation| truncation.removed);
        let removed = before + seq.saturating_sub(followed).saturating_sub(many);
        let truncation = Truncation { seq, state: checkpoint.state().cloned(), removed };
        let state = checkpoint.begin(writer, &mut self.problems);
        let hashes = read.chain().previous().zip(state.chain().previous());
        if read.chain().next() == seq && hashes.is_some_and(|(read, known)| read != known) {
            let object = names::checkpoint(of, seq).to_string();
            let before = names::commit(of, seq.saturating_sub(1)).to_string();
            self.problems.push(Problem::Broken { object, before });
        }
        self.truncated.insert(of, truncation);
        Ok(state)
    }
}

/// Follows the commits before a checkpoint that are not removed yet. Returns the state after the last one, and how many
/// there are.
async fn read_covered(
    store: &Store,
    mut state: GenerationState,
    seqs: RoaringTreemap,
    walked: &mut Walked,
    met: &mut impl FnMut(Met) -> Result<(), Failure>,
) -> Result<(GenerationState, u64), Failure> {
    let of = state.id();
    let mut many = 0;
    let mut read = read_all(store, of, seqs);
    while let Some((seq, bytes)) = read.try_next().await? {
        // A missing one is removed.
        let Some(bytes) = bytes else { continue };
        many += 1;
        if seq > state.chain().next() {
            state = GenerationState::new(None, Chain::at(of, seq));
        }
        walked.take(&mut state, seq, &bytes, met)?;
    }
    Ok((state, many))
}

/// Reads commits of a log, in order; none for one that does not exist.
pub(crate) fn read_all<'a>(
    store: &'a Store,
    of: GenerationId,
    seqs: impl IntoIterator<Item = u64, IntoIter: Send + 'a>,
) -> impl Stream<Item = Result<(u64, Option<Bytes>), Failure>> + Unpin + 'a {
    let read = stream::iter(seqs).map(move |seq| async move {
        let bytes = store.get_if_present(&names::commit(of, seq)).await?;
        Ok::<_, Failure>((seq, bytes))
    });
    Box::pin(read.buffered(AT_ONCE))
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
    let mut read = read_all(store, of, seqs);
    while let Some((seq, bytes)) = read.try_next().await? {
        let next = state.chain().next();
        if seq < next {
            continue;
        }
        // A number is missing: lost, unless the log was truncated after it was listed.
        if seq > next || bytes.is_none() {
            let missing = CommitId { of, seq: next };
            if let Some(checkpoint) = checkpoint::covering(store, missing).await? {
                let none = RoaringTreemap::new();
                state = walked.begin(store, state, none, checkpoint, met).await?;
                if seq < state.chain().next() {
                    continue;
                }
            }
        }
        // A listing may not show a commit yet that is there, and show a later one.
        for unlisted in state.chain().next()..seq {
            let path = names::commit(of, unlisted);
            if let Some(bytes) = store.get_if_present(&path).await? {
                walked.take(&mut state, unlisted, &bytes, met)?;
            }
        }
        match bytes {
            Some(bytes) => walked.take(&mut state, seq, &bytes, met)?,
            None => state.skip(seq, &mut walked.problems),
        }
    }
    Ok(state)
}
