//! Generations that no root names any more, although manifests have the facts of their first commits.

use capstan_model::{Failure, GenerationId};
use futures::{StreamExt, TryStreamExt, stream};

use crate::catalog::GenerationState;
use crate::catalog::checkpoint;
use crate::catalog::load::begin;
use crate::catalog::names;
use crate::store::Store;

/// GETs in flight.
const AT_ONCE: usize = 32;

/// The state of a generation whose first `commits` commits are rolled up, from what is still readable. Its last
/// commit is left to the next rollup, which ends the generation as usual, unless the log is truncated to its end.
///
/// # Errors
/// Errors of the store.
pub(super) async fn as_rolled_up(
    store: &Store,
    of: GenerationId,
    commits: u64,
) -> Result<GenerationState, Failure> {
    let checkpoint = checkpoint::newest(store, of).await?;
    let (mut state, _) = begin(store, of, checkpoint).await?;
    // Faults of these commits hide nothing: manifests have their facts.
    let mut hides_nothing = Vec::new();
    let mut read = stream::iter(state.chain().next()..commits)
        .map(|seq| async move {
            let bytes = store.get_if_present(&names::commit(of, seq)).await?;
            Ok::<_, Failure>((seq, bytes))
        })
        .buffered(AT_ONCE);
    while let Some((seq, bytes)) = read.try_next().await? {
        let Some(bytes) = bytes else { continue };
        let mut next = state.clone();
        next.follow(seq, &bytes, &mut hides_nothing);
        if next.chain().finished() {
            return Ok(state);
        }
        state = next;
    }
    if state.chain().next() < commits {
        state.skip(commits.saturating_sub(1), &mut hides_nothing);
    }
    Ok(state)
}
