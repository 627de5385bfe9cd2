//! Which process may go on with the work of a recorder that has several generations, one after the other: an import.
//!
//! Two rules make sure that two processes never commit the same packets:
//!
//! 1. A generation begins only when all earlier generations have ended, each with a last commit that says so. Its number is the next one,
//!    created if absent ([`Recorder::succeed`](super::Recorder::succeed)): of those who see the same state exactly one gets it.
//! 2. Who goes on from a generation that has not ended ends it: it creates the next commit of that log, as the last one. A process that
//!    was only paused finds its number taken and stops. Whether it is dead need not be known for certain.
//!
//! Nobody ends a generation that shows signs of life: it commits something every [`SIGN_EVERY`], if only an empty commit. How long it has
//! been silent is measured by the store's clock up to now, and by the duration of the wait from now on, so clocks that differ do no harm.

use std::time::Duration;

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind, Generation, RecorderId};

use super::chain::Problem;
use super::entry::{CommitDraft, Finished, to_json};
use super::generation::GenerationState;
use super::state::Catalog;
use crate::store::{Created, Store, names};

/// Time between two commits of a generation that others may go on from.
pub const SIGN_EVERY: Duration = Duration::from_secs(3);

/// How long such a generation may be silent before it is taken for dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(15);

/// Time between two looks for a sign of life.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How the note of the last commit begins with which a generation was ended by its successor.
pub const NOTE: &str = "ended by another process that goes on with it";

/// What a recorder wrote so far, and whether its work can be gone on with.
#[derive(Debug)]
pub enum Standing {
    /// All its generations have ended.
    Free {
        /// What they wrote.
        catalog: Catalog,
        /// The next generation's number.
        next: Generation,
    },
    /// A generation goes on.
    Alive(Box<GenerationState>),
}

/// Looks at the generations of a recorder and ends those that are dead: that have not ended and were silent for `dead_after`. `waiting` is
/// told which generation is waited for and for how long at most.
///
/// # Errors
/// What the store says; [`FailureKind::TooNew`] if a newer version wrote some of it.
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

/// What a newer version wrote says something that would be missed.
fn is_known(store: &Store, catalog: &Catalog) -> Result<(), Failure> {
    let newer = catalog.problems().iter().find(|of| matches!(of, Problem::TooNew { .. }));
    newer.map_or(Ok(()), |problem| {
        let what = format!("{}: {}", store.place(), with_causes(problem));
        Err(Failure::new(FailureKind::TooNew, what))
    })
}

/// Waits until a generation has been silent for that long; true as soon as it says something.
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

/// How long ago a generation wrote its last entry, by the store's clock; nothing if that cannot be told.
async fn silent_for(store: &Store, state: &GenerationState) -> Result<Duration, Failure> {
    let of = state.id();
    let last = match state.chain().next().checked_sub(1) {
        Some(last) => names::commit(of, last),
        None => names::writer(of),
    };
    let Some(last) = store.head(&last).await? else { return Ok(Duration::ZERO) };
    let now = match store.clock().await {
        // Who may not make an object to look at the clock waits for all of the time.
        Err(failure) if failure.kind() == FailureKind::Permission => return Ok(Duration::ZERO),
        now => now?,
    };
    let nanos = now.0.saturating_sub(last.modified.0);
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// Ends a generation, in the store and in what is known of it; false if it said something meanwhile.
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
    // Who was killed right after it had registered is not known as open: then nobody would roll up this commit.
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
