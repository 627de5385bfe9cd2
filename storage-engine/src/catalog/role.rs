//! Decides which process rolls up. Every long-running process can; one does.
//!
//! There is no leader election. A process that does not roll up looks from time to time for waiting commits. If the
//! same commits waited at the last look and no new root appeared, no process rolls up, and it takes over. Two
//! concurrent rollups are harmless, as the root's epoch fences one of them.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use capstan_model::{Failure, FailureKind};

use super::commit_id::CommitId;
use super::rollup::silent::SILENT;
use super::rollup::truncate::{Limits, Truncated};
use super::rollup::{Outcome, Rollup, Stay, roll_up_all};
use super::sweep::GRACE;
use super::view::CatalogView;
use crate::catalog::names;
use crate::store::Store;

/// Interval between steps of the process that rolls up, and between looks of a process that does not.
pub const EVERY: Duration = Duration::from_secs(30);

/// A long-running rollup creates a root within this time if there is anything to roll up.
const ALIVE: Duration = Duration::from_secs(120);

/// Number of steps between two sweeps. A sweep removes replaced versions, truncates logs, and ends logs of dead
/// recorders.
const SWEEP_EVERY: u32 = 32;

/// An observation of the state of a store's rollup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observation {
    /// The newest root.
    root: u64,
    /// Logs with commits that are not rolled up, and the position of the rollup in them.
    waiting: BTreeSet<CommitId>,
}

/// Whether no process rolls up: commits wait, waited at the last look too, and no root was created meanwhile. Pure.
pub(crate) fn is_abandoned(before: &Observation, now: &Observation) -> bool {
    let nobody_ever = now.root == 0 && !now.waiting.is_empty();
    let nothing_done = before.root == now.root && !before.waiting.is_disjoint(&now.waiting);
    nobody_ever || nothing_done
}

async fn observe(store: &Store) -> Result<Observation, Failure> {
    let view = CatalogView::load(store).await?;
    Ok(Observation { root: view.root().version, waiting: view.waiting().collect() })
}

/// Keeps a store rolled up until `stop` ends. If this process holds the role, it then rolls up once more. Failures
/// are logged and retried: without a rollup nothing is lost, but queries cost more.
pub async fn run_rollup(store: Store, holder: String, every: Duration, stop: impl Future) {
    let mut stop = pin!(stop);
    let mut role: Option<(Rollup, u32)> = None;
    let mut before = Observation::default();
    loop {
        let stopped = tokio::select! {
            biased;
            _ = &mut stop => true,
            () = tokio::time::sleep(store.jitter(every)) => false,
        };
        let outcome = match &mut role {
            Some((rollup, steps)) => roll_up(rollup, steps).await,
            None if stopped => return,
            None => match observe(&store).await {
                Ok(now) => {
                    let abandoned = is_abandoned(&before, &now);
                    before = now;
                    if abandoned { take_over(&store, &holder, &mut role).await } else { Ok(None) }
                }
                Err(failure) => Err(failure),
            },
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(by)) => {
                tracing::info!(%by, "another process took over the rollup");
                role = None;
                before = Observation::default();
            }
            Err(failure) => {
                tracing::warn!(%failure, "the catalog could not be rolled up; trying again")
            }
        }
        if stopped {
            return;
        }
    }
}

async fn take_over(
    store: &Store,
    holder: &str,
    role: &mut Option<(Rollup, u32)>,
) -> Result<Option<String>, Failure> {
    let rollup = Rollup::claim(store, holder, Stay::Keeps).await?;
    let (rollup, steps) = role.insert((rollup, 0));
    roll_up(rollup, steps).await
}

/// Rolls up everything; returns the holder's name if another process has taken over.
async fn roll_up(rollup: &mut Rollup, steps: &mut u32) -> Result<Option<String>, Failure> {
    if let Outcome::Fenced { by } = rollup.roll_up_all().await? {
        return Ok(Some(by));
    }
    *steps = steps.wrapping_add(1);
    if steps.is_multiple_of(SWEEP_EVERY) {
        clean_up(rollup, GRACE, SILENT).await?;
    }
    Ok(None)
}

/// Removes what no reader needs, and ends the logs of recorders that were silent for that long.
async fn clean_up(rollup: &mut Rollup, grace: Duration, silent: Duration) -> Result<(), Failure> {
    match remove_unneeded(rollup, grace).await {
        // What stays costs only space.
        Err(failure) if failure.kind() == FailureKind::Permission => {
            tracing::debug!(%failure, "cannot remove what no reader needs");
        }
        removed => removed?,
    }
    rollup.end_silent(silent).await.map(|_| ())
}

/// Removes replaced versions, and commits that are rolled up.
async fn remove_unneeded(rollup: &mut Rollup, grace: Duration) -> Result<(), Failure> {
    rollup.sweep(grace).await?;
    match rollup.truncate(Limits::default()).await? {
        Truncated { commits: 0, .. } => {}
        Truncated { logs, commits } => tracing::info!(logs, commits, "logs were truncated"),
    }
    Ok(())
}

/// Rolls up all commits unless a long-running process does: for a process that has written and exits.
///
/// # Errors
/// Errors of the store. No data is lost then.
pub async fn roll_up_before_leaving(store: &Store, holder: &str) -> Result<(), Failure> {
    let view = CatalogView::load(store).await?;
    let mut waiting = view.waiting();
    let Some(CommitId { of, seq }) = waiting.next() else { return Ok(()) };
    if view.root().keeps {
        // The store's own clock tells the age of each root.
        let root = store.head(&names::root(view.root().version)).await?;
        let commit = store.head(&names::commit(of, seq)).await?;
        let alive = root
            .zip(commit)
            .is_some_and(|(root, commit)| commit.modified < root.modified.saturating_add(ALIVE));
        if alive {
            return Ok(());
        }
    }
    roll_up_all(store, holder).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use capstan_model::{Generation, GenerationId, RecorderId};

    use super::*;
    use crate::catalog::rollup::Stay;
    use crate::catalog::tests::{RECORDER, draft, live, memory};
    use crate::catalog::{Recorder, checkpoint, versions};
    use crate::store::unreliable::Unreliable;

    fn seen(root: u64, waiting: &[u64]) -> Observation {
        let of = GenerationId::new(RECORDER, Generation(1));
        let log = |next: &u64| CommitId { of, seq: *next };
        Observation { root, waiting: waiting.iter().map(log).collect() }
    }

    #[test]
    fn role_is_abandoned_if_commits_wait_without_progress() {
        for (before, now, abandoned) in [
            (Observation::default(), seen(0, &[]), false),
            (Observation::default(), seen(0, &[0]), true),
            (Observation::default(), seen(7, &[3]), false),
            (seen(7, &[3]), seen(7, &[3]), true),
            (seen(7, &[3]), seen(8, &[3]), false),
            (seen(7, &[3]), seen(7, &[4]), false),
            (seen(7, &[3]), seen(7, &[]), false),
        ] {
            assert_eq!(is_abandoned(&before, &now), abandoned, "{before:?} {now:?}");
        }
    }

    #[tokio::test]
    async fn staying_process_rolls_up_once_more_at_its_end() {
        let store = memory().await;
        let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();
        recorder.commit(draft("a", 0)).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let every = Duration::from_millis(5);
        let kept = tokio::spawn(run_rollup(store.clone(), "stays".to_owned(), every, stopped));
        while CatalogView::load(&store).await.unwrap().waiting().count() > 0 {
            tokio::time::sleep(every).await;
        }
        let root = versions::newest_root(&store, None).await.unwrap().value;
        assert_eq!((root.holder.as_str(), root.keeps, root.epoch), ("stays", true, 1));
        recorder.commit(draft("b", 1)).await.unwrap();
        drop(stop);
        kept.await.unwrap();
        assert_eq!(CatalogView::load(&store).await.unwrap().waiting().count(), 0);
    }

    #[tokio::test]
    async fn silent_logs_are_ended_without_delete_permission() {
        let objects = Arc::new(Unreliable::default());
        let store = Store::on(objects.clone(), "prod").await.unwrap();
        objects.deletes_forbidden.store(true, Ordering::Relaxed);
        let mut rollup = Rollup::claim(&store, "stays", Stay::Keeps).await.unwrap();
        let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();
        let pause = Duration::from_millis(20);
        for number in 0..3 {
            recorder.commit(draft(&format!("s{number}"), number)).await.unwrap();
            rollup.roll_up_all().await.unwrap();
            tokio::time::sleep(pause).await;
        }
        // A root that is newer than the log's last commit.
        let mut other = Recorder::start(&store, RecorderId(9), live()).await.unwrap();
        other.commit(draft("t", 0)).await.unwrap();
        rollup.roll_up_all().await.unwrap();
        clean_up(&mut rollup, Duration::ZERO, pause / 2).await.unwrap();
        assert!(objects.deletes.load(Ordering::Relaxed) > 0, "nothing was to be removed");
        rollup.roll_up_all().await.unwrap();
        let view = CatalogView::load(&store).await.unwrap();
        let generations = view.generations().await.unwrap().generations;
        let silent = generations.iter().find(|of| of.id().recorder == RECORDER).unwrap();
        assert!(silent.finished().is_some_and(|end| !end.complete));
        let checkpoint = checkpoint::newest(&store, silent.id()).await.unwrap();
        assert!(checkpoint.is_none(), "a log was truncated of which nothing can be removed");
    }

    #[tokio::test]
    async fn leaving_process_rolls_up_unless_another_holds_the_role() {
        let store = memory().await;
        let mut recorder = Recorder::start(&store, RECORDER, live()).await.unwrap();
        roll_up_before_leaving(&store, "import").await.unwrap();
        assert_eq!(versions::newest_root(&store, None).await.unwrap().value.version, 0);
        for number in 0..2 {
            recorder.commit(draft(&format!("s{number}"), number)).await.unwrap();
            roll_up_before_leaving(&store, "import").await.unwrap();
            assert_eq!(CatalogView::load(&store).await.unwrap().waiting().count(), 0);
        }
        Rollup::claim(&store, "stays", Stay::Keeps).await.unwrap();
        recorder.commit(draft("s3", 3)).await.unwrap();
        roll_up_before_leaving(&store, "import").await.unwrap();
        assert_eq!(CatalogView::load(&store).await.unwrap().waiting().count(), 1);
    }
}
