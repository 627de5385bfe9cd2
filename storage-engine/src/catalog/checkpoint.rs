//! Checkpoints: the state of a log before one of its commits. The commits before it can be removed.
//!
//! A log is *truncated* up to its newest checkpoint: a commit with a lower number may be missing, and manifests have its
//! facts. Every missing commit from there on is lost. The last commit that a checkpoint covers stays: it shows the age
//! of the log, and its hash is in the checkpoint.

use std::collections::BTreeSet;

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind, GenerationId};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::chain::{Chain, Problem};
use super::commit_id::CommitId;
use super::entry::Writer;
use super::generation::GenerationState;
use super::versions;
use crate::catalog::names;
use crate::store::Store;

/// The format of checkpoints.
const FORMAT: u32 = 1;

/// How often a checkpoint is looked for that was removed after it was listed.
const TRIES: u32 = 3;

/// A checkpoint: `checkpoint/<recorder>/<generation>/<number>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(rename = "life")]
    state: GenerationState,
    nonce: String,
}

/// A checkpoint that was found.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    of: GenerationId,
    /// The number of the first commit that it does not cover.
    seq: u64,
    /// The state of the log before that commit.
    state: Result<GenerationState, Unreadable>,
}

/// A checkpoint without its content.
#[derive(Debug, Clone)]
struct Unreadable {
    problem: Problem,
    /// What the last commit that it covers says about the log; none if that commit is unreadable, too.
    last: Option<GenerationState>,
}

impl Checkpoint {
    /// The generation of the log.
    pub(crate) fn of(&self) -> GenerationId {
        self.of
    }

    /// The number of the first commit that it does not cover.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The state in it, if it is readable.
    pub(crate) fn state(&self) -> Option<&GenerationState> {
        self.state.as_ref().ok()
    }

    /// Begins the log here. `writer` is the registration of the generation, as far as it is readable. An unreadable
    /// checkpoint is reported, and the state lacks the sums of the commits before it, but not what the last one of them
    /// says: whether the log has ended, and which packet comes next.
    pub(crate) fn begin(
        self,
        writer: Option<Writer>,
        problems: &mut Vec<Problem>,
    ) -> GenerationState {
        match self.state {
            Ok(state) => state.registered_as(writer),
            Err(Unreadable { problem, last }) => {
                problems.push(problem);
                let nothing = || GenerationState::new(None, Chain::at(self.of, self.seq));
                last.unwrap_or_else(nothing).registered_as(writer)
            }
        }
    }
}

/// Stores the state of a log. Concurrent writers store the same state.
///
/// # Errors
/// Errors of the store.
pub(crate) async fn put(store: &Store, state: &GenerationState) -> Result<(), Failure> {
    let path = names::checkpoint(state.id(), state.chain().next());
    let stored = Stored { format: FORMAT, state: state.clone(), nonce: store.nonce() };
    versions::create(store, &path, stored).await.map(|_| ())
}

/// Reads a checkpoint; none if it does not exist.
async fn read(store: &Store, of: GenerationId, seq: u64) -> Result<Option<Checkpoint>, Failure> {
    let path = names::checkpoint(of, seq);
    let unusable = |why: String, is_newer: bool| Problem::Checkpoint {
        object: path.to_string(),
        why,
        is_newer,
    };
    let state = match versions::read::<Stored>(store, &path, FORMAT).await {
        Ok(None) => return Ok(None),
        Ok(Some(read)) => {
            let state = read.value.state;
            match (state.id(), state.chain().next()) == (of, seq) {
                true => Ok(state),
                false => Err(unusable("it contains another name".to_owned(), false)),
            }
        }
        Err(failure) if matches!(failure.kind(), FailureKind::Damaged | FailureKind::TooNew) => {
            Err(unusable(with_causes(&failure), failure.kind() == FailureKind::TooNew))
        }
        Err(failure) => return Err(failure),
    };
    let state = match state {
        Ok(state) => Ok(state),
        Err(problem) => Err(Unreadable { problem, last: after_last(store, of, seq).await? }),
    };
    Ok(Some(Checkpoint { of, seq, state }))
}

/// The state of a log after the last commit that a checkpoint covers, as far as that commit tells: it stays. None if it
/// is unreadable.
///
/// # Errors
/// Errors of the store.
pub(crate) async fn after_last(
    store: &Store,
    of: GenerationId,
    seq: u64,
) -> Result<Option<GenerationState>, Failure> {
    let Some(last) = seq.checked_sub(1) else { return Ok(None) };
    let Some(bytes) = store.get_if_present(&names::commit(of, last)).await? else {
        return Ok(None);
    };
    let mut state = GenerationState::new(None, Chain::at(of, last));
    let mut problems = Vec::new();
    state.follow(last, &bytes, &mut problems);
    Ok(problems.is_empty().then_some(state))
}

/// The numbers of the checkpoints of a log.
///
/// # Errors
/// Errors of the store.
pub(crate) async fn numbers(store: &Store, of: GenerationId) -> Result<BTreeSet<u64>, Failure> {
    let listed = store.list(&names::checkpoints_of(of));
    let named = listed.try_filter_map(async |object| Ok(names::parse_checkpoint(&object.path)));
    named.map_ok(|id| id.seq).try_collect().await
}

/// The newest checkpoint of a log; none if the log was never truncated.
///
/// # Errors
/// Errors of the store.
pub(crate) async fn newest(store: &Store, of: GenerationId) -> Result<Option<Checkpoint>, Failure> {
    for _ in 0..TRIES {
        let Some(seq) = numbers(store, of).await?.pop_last() else { return Ok(None) };
        // A newer one may have replaced it meanwhile.
        if let Some(found) = read(store, of, seq).await? {
            return Ok(Some(found));
        }
    }
    let what = format!("{} is listed but does not exist", names::checkpoints_of(of));
    Err(Failure::new(FailureKind::Unavailable, what))
}

/// The checkpoint that covers a missing commit; none if the commit is not truncated.
///
/// # Errors
/// Errors of the store.
pub(crate) async fn covering(
    store: &Store,
    CommitId { of, seq }: CommitId,
) -> Result<Option<Checkpoint>, Failure> {
    Ok(newest(store, of).await?.filter(|found| found.seq > seq))
}

/// The logs that have checkpoints.
///
/// # Errors
/// Errors of the store.
pub(crate) async fn logs(store: &Store) -> Result<BTreeSet<GenerationId>, Failure> {
    let listed = store.list(&names::checkpoints());
    let named = listed.try_filter_map(async |object| Ok(names::parse_checkpoint(&object.path)));
    named.map_ok(|id| id.of).try_collect().await
}
