//! Generations that no root names any more, although manifests have the facts of their first commits.

use capstan_model::{Failure, GenerationId};
use futures::TryStreamExt;

use super::survey::Survey;
use crate::catalog::GenerationState;
use crate::catalog::chain::Chain;
use crate::catalog::checkpoint;
use crate::catalog::load::begin;
use crate::catalog::walk::read_all;
use crate::store::Store;

/// The state of a generation whose first commits are rolled up, from what is still readable. Its last commit is left to
/// the next rollup, which ends the generation as usual, unless the log is truncated to its end.
///
/// # Errors
/// Errors of the store.
pub(super) async fn as_rolled_up(
    store: &Store,
    survey: &Survey,
    of: GenerationId,
) -> Result<GenerationState, Failure> {
    let truncation = survey.logs.truncated.get(&of);
    // A listing may not show a checkpoint that this repair has written.
    let newer = checkpoint::newest(store, of).await?;
    let newer = newer.filter(|of| truncation.is_none_or(|known| known.seq < of.seq()));
    let is_known = newer.is_none();
    let (mut state, _) = begin(store, of, newer).await?;
    if let Some(truncation) = truncation.filter(|_| is_known) {
        let nothing = || GenerationState::new(None, Chain::at(of, truncation.seq));
        let writer = state.writer().cloned();
        state = truncation.state.clone().unwrap_or_else(nothing).registered_as(writer);
    }
    rolled_up_to(store, state, survey.counted(&of)).await
}

/// The state of a generation whose first `commits` commits are rolled up, from an earlier state.
async fn rolled_up_to(
    store: &Store,
    mut state: GenerationState,
    commits: u64,
) -> Result<GenerationState, Failure> {
    // Faults of these commits hide nothing: manifests have their facts.
    let mut hides_nothing = Vec::new();
    let mut read = read_all(store, state.id(), state.chain().next()..commits);
    while let Some((seq, bytes)) = read.try_next().await? {
        let Some(bytes) = bytes else { continue };
        let mut next = state.clone();
        next.follow(seq, &bytes, &mut hides_nothing);
        if next.chain().finished() {
            // The next rollup would take missing commits before it for lost.
            state.skip_to(seq);
            return Ok(state);
        }
        state = next;
    }
    state.skip_to(commits);
    Ok(state)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use capstan_model::{Generation, RecorderId};
    use object_store::memory::InMemory;

    use super::*;
    use crate::catalog::{CommitDraft, Finished, Recorder, WriterInfo, WriterKind, names};

    /// A rollup that began with the missing commits would take them for lost, although manifests have their facts.
    #[tokio::test]
    async fn log_is_named_again_before_its_last_commit() {
        let store = Store::on(Arc::new(InMemory::new()), "prod").await.unwrap();
        let info = WriterInfo {
            kind: WriterKind::Live,
            description: String::new(),
            host: String::new(),
            source: None,
            resumes: None,
            started_at: store.now(),
        };
        let of = GenerationId::new(RecorderId(7), Generation(1));
        let mut recorder = Recorder::start(&store, of.recorder, info).await.unwrap();
        for _ in 0..3 {
            recorder.commit(CommitDraft::default()).await.unwrap();
        }
        let finished = Some(Finished { complete: true, packets_total: 0 });
        recorder.commit(CommitDraft { finished, ..CommitDraft::default() }).await.unwrap();
        for number in 0..3 {
            store.delete(&names::commit(of, number)).await.unwrap();
        }
        let (begun, _) = begin(&store, of, None).await.unwrap();
        let state = rolled_up_to(&store, begun, 4).await.unwrap();
        assert_eq!((state.chain().next(), state.chain().finished()), (3, false));
    }
}
