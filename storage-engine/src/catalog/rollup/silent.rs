//! Ends the logs of recorders that are gone for good.
//!
//! A killed recorder leaves an open log, and every reader asks it for its next commit, forever. A live recorder
//! commits at least once an hour, so after a day of silence it is considered dead. The rollup then creates that
//! next commit itself, as the last one. If the recorder does come back, it finds the number taken and begins a new
//! generation.

use std::time::Duration;

use capstan_model::{Failure, Time};
use futures::{StreamExt, TryStreamExt, stream};

use super::{AT_ONCE, Rollup};
use crate::catalog::entry::to_json;
use crate::catalog::generation::GenerationState;
use crate::catalog::names;
use crate::catalog::{CommitDraft, Finished, WriterKind};
use crate::store::{Created, Store};

/// How long a recorder must be silent before its log is ended.
pub const SILENT: Duration = Duration::from_secs(24 * 3_600);

/// Note in the last commit of such a log.
pub const NOTE: &str = "ended by a rollup, as nothing was committed for a day";

impl Rollup {
    /// Ends the logs of recorders that were silent for that long, by the store's clock; returns their number. The
    /// next step rolls up these commits. Imports are left alone: another process can resume them.
    ///
    /// # Errors
    /// Errors of the store; the caller may retry.
    pub async fn end_silent(&mut self, silent: Duration) -> Result<u64, Failure> {
        let store = &self.store;
        // The newest step wrote it, so its time is not later than now.
        let root = store.head(&names::root(self.root.value.version)).await?;
        let Some(now) = root.map(|root| root.modified) else { return Ok(0) };
        let may_be = |state: &GenerationState| {
            let is_live = state.writer().is_some_and(|of| of.info.kind == WriterKind::Live);
            // Checks the recorder's own clock first, without a request. The log then decides.
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

/// Ends a log if its last entry is old enough; returns whether it did.
async fn end(
    store: &Store,
    state: &GenerationState,
    now: Time,
    silent: Duration,
) -> Result<bool, Failure> {
    let of = state.id();
    // If the last entry of a log is lost, the recorder's own clock decides.
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
    // Lost the race: the recorder committed after all.
    Ok(store.create(&path, to_json(&commit)?).await? == Created::Created)
}

/// Creation time of the last entry of a log, by the store's clock; none if unknown.
async fn last_entry(store: &Store, state: &GenerationState) -> Result<Option<Time>, Failure> {
    let of = state.id();
    let path = match state.chain().next().checked_sub(1) {
        Some(last) => names::commit(of, last),
        None => names::writer(of),
    };
    Ok(store.head(&path).await?.map(|entry| entry.modified))
}
