//! Succession: which process may continue the work of a recorder with several consecutive generations (an import).
//!
//! Two rules ensure that two processes never commit the same packets:
//!
//! 1. A generation begins only when all earlier generations have ended, each with a last commit. Its number is the
//!    next one, created if absent ([`Recorder::succeed`](super::Recorder::succeed)): of all processes that see the
//!    same state, exactly one gets it.
//! 2. A process that continues an open generation ends it first: it creates the next commit of that log, as the last
//!    one. A process that was only paused finds its number taken and stops. So it need not be certain that the
//!    process is dead.
//!
//! No process ends a generation that shows signs of life: a live one commits every [`SIGN_EVERY`], if necessary an
//! empty commit. The silence so far is measured by the store's clock, and the further wait by its duration, so clock
//! differences are harmless.

use std::time::Duration;

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind, Generation, RecorderId};

use super::chain::Problem;
use super::entry::{CommitDraft, Finished, to_json};
use super::generation::GenerationState;
use super::state::Catalog;
use crate::catalog::names;
use crate::store::{Created, Store, is_refused};

/// Interval between signs of life of a generation that others may continue.
pub const SIGN_EVERY: Duration = Duration::from_secs(3);

/// Silence after which such a generation is considered dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(15);

/// Polling interval for a sign of life.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Beginning of the note in the last commit when a successor has ended a generation.
pub const NOTE: &str = "ended by another process that goes on with it";

/// The contents of a recorder's logs, and whether its work can be continued.
#[derive(Debug)]
pub enum Standing {
    /// All its generations have ended.
    Free {
        /// Their contents.
        catalog: Catalog,
        /// The next generation's number.
        next: Generation,
    },
    /// A generation is still alive.
    Alive(Box<GenerationState>),
}

/// Looks at the generations of a recorder and ends the dead ones: open and silent for `dead_after`. Calls `waiting`
/// with the generation that it waits for and the longest remaining wait.
///
/// # Errors
/// Errors of the store; [`FailureKind::TooNew`] if a newer version wrote some of the entries.
pub async fn look(
    store: &Store,
    recorder: RecorderId,
    dead_after: Duration,
    waiting: &impl Fn(&GenerationState, Duration),
) -> Result<Standing, Failure> {
    loop {
        let mut catalog = Catalog::load_recorder(store, recorder).await?;
        catalog.follow(store, false).await?;
        is_known(store, &catalog)?;
        let open: Vec<GenerationState> = catalog
            .generations()
            .filter(|(_, state)| !state.chain().finished())
            .map(|(_, state)| state.clone())
            .collect();
        let mut moved = false;
        for state in open {
            if says_more(store, &state, dead_after, waiting).await? {
                let mut now = Catalog::load_recorder(store, recorder).await?;
                now.follow(store, false).await?;
                match now.state(state.id()) {
                    Some(state) if !state.chain().finished() => {
                        return Ok(Standing::Alive(Box::new(state.clone())));
                    }
                    _ => moved = true,
                }
                break;
            }
            if !end(store, &mut catalog, &state, dead_after).await? {
                moved = true;
                break;
            }
        }
        if !moved {
            let highest = catalog.generations().map(|(of, _)| of.generation.0).max().unwrap_or(0);
            let next = Generation(highest.saturating_add(1));
            return Ok(Standing::Free { catalog, next });
        }
    }
}

/// Fails if a newer version wrote entries that would be missed.
fn is_known(store: &Store, catalog: &Catalog) -> Result<(), Failure> {
    let newer = catalog.problems().iter().find(|of| matches!(of, Problem::TooNew { .. }));
    newer.map_or(Ok(()), |problem| {
        let what = format!("{}: {}", store.place(), with_causes(problem));
        Err(Failure::new(FailureKind::TooNew, what))
    })
}

/// Waits until a generation has been silent for that long; true as soon as it commits.
async fn says_more(
    store: &Store,
    state: &GenerationState,
    dead_after: Duration,
    waiting: &impl Fn(&GenerationState, Duration),
) -> Result<bool, Failure> {
    let of = state.id();
    let next = names::commit(of, state.chain().next());
    let silent = if dead_after.is_zero() { dead_after } else { silent_for(store, state).await? };
    let mut left = dead_after.saturating_sub(silent);
    if left.is_zero() {
        return Ok(false);
    }
    waiting(state, left);
    loop {
        if store.head(&next).await?.is_some() {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
        let step = left.min(LOOK_EVERY);
        tokio::time::sleep(step).await;
        left = left.saturating_sub(step);
    }
}

/// Time since a generation wrote its last entry, by the store's clock; zero if unknown.
async fn silent_for(store: &Store, state: &GenerationState) -> Result<Duration, Failure> {
    let of = state.id();
    let last = match state.chain().next().checked_sub(1) {
        Some(last) => names::commit(of, last),
        None => names::writer(of),
    };
    let Some(last) = store.head(&last).await? else { return Ok(Duration::ZERO) };
    let now = match store.clock().await {
        // Where no object can be created that reads the clock, wait the full time.
        Err(failure) if is_refused(&failure) => return Ok(Duration::ZERO),
        now => now?,
    };
    let nanos = now.0.saturating_sub(last.modified.0);
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// Ends a generation, in the store and in `state`; false if it committed meanwhile.
async fn end(
    store: &Store,
    catalog: &mut Catalog,
    state: &GenerationState,
    silent: Duration,
) -> Result<bool, Failure> {
    let of = state.id();
    #[cfg(feature = "planted")]
    if store.planted(crate::store::Planted::NoFence) {
        return Ok(true);
    }
    let chain = state.chain();
    let draft = CommitDraft {
        next_ordinal: chain.next_ordinal(),
        finished: Some(Finished { complete: false, packets_total: 0 }),
        note: format!("{NOTE}, as nothing was committed for {} s", silent.as_secs()),
        ..CommitDraft::default()
    };
    let commit = chain.next_commit(draft, store.now(), store.nonce()).map_err(|error| {
        let what =
            format!("generation {} of recorder {} cannot be ended", of.generation, of.recorder);
        Failure::caused_by(FailureKind::Damaged, what, error)
    })?;
    let bytes = to_json(&commit)?;
    // A process killed right after registration has left no open mark: then no rollup would find this commit.
    store.put_new(&names::open(of), Vec::new()).await?;
    match store.create(&names::commit(of, commit.seq), bytes.clone()).await? {
        Created::Created => {
            catalog.add_commit(of, commit.seq, &bytes);
            Ok(true)
        }
        Created::Lost => Ok(false),
    }
}

#[cfg(test)]
mod tests;
