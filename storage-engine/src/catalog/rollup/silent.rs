//! Ending the logs of recorders that are gone for good.
//!
//! A recorder that is killed leaves a log that says that it may go on, and every reader asks it for
//! its next commit, for ever. Who records commits at least every few minutes, so after a day
//! without one nobody will. The rollup then makes that commit itself, which says that it is the last.
//! Should the recorder come back after all it finds the number taken, and begins a new generation.

use std::time::Duration;

use capstan_model::{Failure, Time};
use futures::{StreamExt, TryStreamExt, stream};

use super::{AT_ONCE, Rollup};
use crate::catalog::entry::to_json;
use crate::catalog::generation::GenerationState;
use crate::catalog::{CommitDraft, Finished, WriterKind};
use crate::store::{Created, Store, names};

/// How long a recorder says nothing before its log is ended.
pub const SILENT: Duration = Duration::from_secs(24 * 3_600);

/// What the last commit of such a log notes.
pub const NOTE: &str = "ended by a rollup, as nothing was committed for a day";

impl Rollup {
    /// Ends the logs of recorders that said nothing for so long, by the store's clock; how many.
    /// The next step rolls up that. Imports are left alone: they are gone on with.
    ///
    /// # Errors
    /// What the store says; calling again is right.
    pub async fn end_silent(&mut self, silent: Duration) -> Result<u64, Failure> {
        let store = &self.store;
        // It was put by the newest step: what it is dated is not later than now.
        let root = store.head(&names::root(self.root.value.version)).await?;
        let Some(now) = root.map(|root| root.modified) else { return Ok(0) };
        let may_be = |state: &GenerationState| {
            let is_live = state.writer().is_some_and(|of| of.info.kind == WriterKind::Live);
            // By its own clock, which costs nothing to ask. Its log says the rest.
            let heard = state.last_commit().or(state.writer().map(|of| of.info.started_at));
            let old = heard.is_none_or(|heard| heard.saturating_add(silent) < store.now());
            is_live && old && !state.chain().finished()
        };
        let logs = self.root.value.logs.iter().map(|log| &log.state).filter(|state| may_be(state));
        let ended = stream::iter(logs.cloned().collect::<Vec<_>>())
            .map(|state| async move { end(store, &state, now, silent).await })
            .buffered(AT_ONCE)
            .try_fold(0, |all, ended| async move { Ok(all + u64::from(ended)) });
        ended.await
    }
}

/// Ends a log if its last entry is that old; whether it did.
async fn end(
    store: &Store,
    state: &GenerationState,
    now: Time,
    silent: Duration,
) -> Result<bool, Failure> {
    let of = state.id();
    // Of a log whose last entry is lost its own clock tells.
    let last = last_entry(store, state).await?;
    let Some(last) = last.or(state.last_commit()) else { return Ok(false) };
    if last.saturating_add(silent) >= now {
        return Ok(false);
    }
    let finished = Some(Finished { complete: false, packets_total: state.packets() });
    let chain = state.chain();
    let draft = CommitDraft {
        next_ordinal: chain.next_ordinal(),
        finished,
        note: NOTE.to_owned(),
        ..CommitDraft::default()
    };
    let Ok(commit) = chain.next_commit(draft, store.now(), store.nonce()) else { return Ok(false) };
    let path = names::commit(of, commit.seq);
    // Lost: it said something after all.
    Ok(store.create(&path, to_json(&commit)?).await? == Created::Created)
}

/// When the last entry of a log was made, by the store's clock; none if it cannot be told.
async fn last_entry(store: &Store, state: &GenerationState) -> Result<Option<Time>, Failure> {
    let of = state.id();
    let path = match state.chain().next().checked_sub(1) {
        Some(last) => names::commit(of, last),
        None => names::writer(of),
    };
    Ok(store.head(&path).await?.map(|entry| entry.modified))
}
