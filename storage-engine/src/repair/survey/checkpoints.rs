//! Checkpoints that are unreadable or lost, and the states that take their place.
//!
//! The root, or the stored end of a generation, has a later state of the log. Without the commits in between it is the
//! state in the checkpoint. A later checkpoint would not do: it would cover commits that nobody has compared with
//! manifests, and the next truncation would remove them. If no later state is left, the last commit that the checkpoint
//! covers says where the log continues, and manifests have the sums.

use capstan_model::{Failure, GenerationId};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::Survey;
use crate::catalog::chain::Chain;
use crate::catalog::checkpoint;
use crate::catalog::entry::{self, Commit, sha256_hex};
use crate::catalog::names;
use crate::catalog::rollup::truncate::Limits;
use crate::catalog::root::EndedLog;
use crate::catalog::walk::{Truncation, read_all};
use crate::catalog::{CommitId, GenerationState, Problem, WriterKind};
use crate::store::{Store, checked};

/// GETs in flight.
const AT_ONCE: usize = 32;

/// A checkpoint that is unreadable or lost.
#[derive(Debug)]
pub(in crate::repair) struct BadCheckpoint {
    /// The number of the first commit that it does not cover.
    pub(in crate::repair) seq: u64,
    /// Its object exists.
    pub(in crate::repair) is_there: bool,
    /// The state of the log before that commit; none if it is lost.
    pub(in crate::repair) state: Option<GenerationState>,
}

impl Survey {
    /// Finds checkpoints that are unreadable or lost. Their logs count as truncated from now on. Returns logs that may
    /// have lost one: the first missing commit, and the number of the checkpoint.
    pub(super) async fn take_checkpoints(
        &mut self,
        store: &Store,
    ) -> Result<Vec<(CommitId, u64)>, Failure> {
        for (of, seq) in self.unreadable_checkpoints() {
            let state = self.state_before(store, of, seq).await?;
            if let Some(truncation) = self.logs.truncated.get_mut(&of) {
                truncation.state.clone_from(&state);
            }
            self.bad_checkpoints.insert(of, BadCheckpoint { seq, is_there: true, state });
        }
        let mut cut = Vec::new();
        for missing in self.cut_at_their_begin() {
            let Some(seq) = end_of_checkpoint(store, missing).await? else { continue };
            let state = match self.was_truncated(missing, seq) {
                true => self.state_before(store, missing.of, seq).await?,
                false => None,
            };
            match state {
                Some(state) => self.truncated_from(missing, seq, Some(state)),
                None => cut.push((missing, seq)),
            }
        }
        Ok(cut)
    }

    /// Finds the states of checkpoints of which no later state is left, from manifests and from the last commit that
    /// they cover. A log that may have lost its checkpoint has lost it if manifests count its missing commits.
    pub(super) async fn rebuild_checkpoints(
        &mut self,
        store: &Store,
        cut: Vec<(CommitId, u64)>,
    ) -> Result<(), Failure> {
        let unknown = self.bad_checkpoints.iter().filter(|(_, bad)| bad.state.is_none());
        let unknown: Vec<_> = unknown.map(|(of, bad)| (*of, bad.seq)).collect();
        for (of, seq) in unknown {
            let state = self.rebuilt(store, of, seq).await?;
            if let Some(truncation) = self.logs.truncated.get_mut(&of) {
                truncation.state.clone_from(&state);
            }
            self.bad_checkpoints.insert(of, BadCheckpoint { seq, is_there: true, state });
        }
        for (missing, seq) in cut {
            let of = missing.of;
            let root = self.roots.readable.as_ref();
            let is_known = root.is_some_and(|root| root.log(of).is_some())
                || self.generations.get(&of).is_some_and(Option::is_some);
            // If something else is damaged, a commit that counts as lost would be replaced, and its facts in manifests
            // would be hidden.
            if (!is_known || !self.is_sound()) && self.counted(&of) > missing.seq {
                let state = match self.state_before(store, of, seq).await? {
                    Some(state) => Some(state),
                    None => self.rebuilt(store, of, seq).await?,
                };
                self.truncated_from(missing, seq, state);
            }
        }
        for (of, bad) in &self.bad_checkpoints {
            if let (Some(state), Some(log)) = (&bad.state, self.logs.generations.get_mut(of)) {
                *log = followed_from(store, state, log).await?;
            }
        }
        Ok(())
    }

    /// The state of a log before a commit, with the sums that manifests have; none if the commit before it is
    /// unreadable, and none comes after it.
    async fn rebuilt(
        &self,
        store: &Store,
        of: GenerationId,
        seq: u64,
    ) -> Result<Option<GenerationState>, Failure> {
        let log = self.logs.generations.get(&of);
        let state = match checkpoint::after_last(store, of, seq).await? {
            Some(state) => state,
            // Later commits say what it would have said.
            None if log.is_some_and(|log| log.commits() > seq) => {
                GenerationState::new(None, Chain::at(of, seq))
            }
            None => return Ok(None),
        };
        let writer = log.and_then(GenerationState::writer).cloned();
        let (packets, lost) = self.sums.known(&of);
        Ok(Some(state.registered_as(writer).with_sums(packets, lost)))
    }

    /// Whether the commits that a log lacks up to a checkpoint were removed, and not lost: there are many of them, or the
    /// root says that nothing is left to truncate.
    fn was_truncated(&self, CommitId { of, seq: begin }: CommitId, seq: u64) -> bool {
        let is_done = self.roots.readable.as_ref().is_some_and(|root| {
            let waits = |logs: &Vec<EndedLog>| logs.iter().any(|log| log.of == of);
            root.log(of).is_none() && root.untruncated.as_ref().is_some_and(|logs| !waits(logs))
        });
        is_done || seq.saturating_sub(1).saturating_sub(begin) >= Limits::default().least
    }

    /// Notes a lost checkpoint: the commits from a missing one on are truncated.
    fn truncated_from(&mut self, missing: CommitId, seq: u64, state: Option<GenerationState>) {
        self.logs.problems.retain(|problem| {
            let is_missing = matches!(problem, Problem::Missing { .. });
            !is_missing || problem.gap().and_then(|gap| gap.commit()) != Some(missing)
        });
        let CommitId { of, seq: begin } = missing;
        let before = self.logs.truncated.get(&of).map_or(0, |of| of.removed);
        let removed = before + seq.saturating_sub(1).saturating_sub(begin);
        self.logs.truncated.insert(of, Truncation { seq, state: state.clone(), removed });
        if state.is_some() {
            self.bad_checkpoints.insert(of, BadCheckpoint { seq, is_there: false, state });
        }
    }

    fn unreadable_checkpoints(&self) -> Vec<(GenerationId, u64)> {
        let is_newer = |path: &Path| {
            let is_it = |of: &Problem| match of {
                Problem::Checkpoint { object, is_newer, .. } => {
                    *is_newer && object.as_str() == path.as_ref()
                }
                _ => false,
            };
            self.logs.problems.iter().any(is_it)
        };
        let unreadable = self.logs.truncated.iter().filter(|(owner, of)| {
            of.state.is_none() && !is_newer(&names::checkpoint(**owner, of.seq))
        });
        unreadable.map(|(owner, of)| (*owner, of.seq)).collect()
    }

    /// The first missing commits of logs that lack commits from their begin on, or from their checkpoint on.
    fn cut_at_their_begin(&self) -> Vec<CommitId> {
        let missing = self.logs.problems.iter().filter_map(|problem| match problem {
            Problem::Missing { .. } => problem.gap()?.commit(),
            _ => None,
        });
        let is_cut = |id: &CommitId| {
            let begin = self.logs.truncated.get(&id.of).map_or(0, |of| of.seq);
            let may_be =
                matches!(self.kinds.of(&id.of), Some(WriterKind::Live | WriterKind::Import));
            id.seq == begin && may_be && !self.logs.replaced.contains(id)
        };
        missing.filter(is_cut).collect()
    }

    /// The state of a log before a commit, from a later one; none if there is none, or if a commit in between is
    /// unreadable.
    async fn state_before(
        &self,
        store: &Store,
        of: GenerationId,
        seq: u64,
    ) -> Result<Option<GenerationState>, Failure> {
        let root = self.roots.readable.as_ref();
        let of_root = root.and_then(|root| root.log(of)).map(|log| &log.state);
        let ended = self.generations.get(&of).and_then(Option::as_ref);
        let mut known = of_root.into_iter().chain(ended);
        let Some(later) = known.find(|state| state.chain().next() >= seq) else { return Ok(None) };
        let next = later.chain().next();
        if next == seq {
            return Ok(Some(later.clone()));
        }
        let mut read = stream::iter(seq.saturating_sub(1)..next)
            .map(|seq| async move {
                let bytes = store.get_if_present(&names::commit(of, seq)).await?;
                Ok::<_, Failure>((seq, bytes.unwrap_or_default()))
            })
            .buffered(AT_ONCE);
        let (mut packets, mut lost, mut previous) = (0_u64, 0_u64, None);
        while let Some((number, bytes)) = read.try_next().await? {
            let commit = entry::read::<Commit>(&bytes).ok();
            let commit = commit.filter(|of| !checked::is_changed(of.format, &bytes));
            match commit {
                Some(_) if number < seq => previous = Some(sha256_hex(&bytes)),
                None if number < seq => {}
                None => return Ok(None),
                Some(Commit { content, .. }) => {
                    let of_segments = content.segments().map(|of| of.packets);
                    packets = of_segments.fold(packets, u64::saturating_add);
                    let of_losses = content.losses().map(|of| of.packets);
                    lost = of_losses.fold(lost, u64::saturating_add);
                }
            }
        }
        Ok(Some(later.before(later.chain().before(seq, previous), packets, lost)))
    }
}

/// The same log followed from another state on: that in a checkpoint which is written again.
///
/// # Errors
/// Errors of the store.
async fn followed_from(
    store: &Store,
    state: &GenerationState,
    log: &GenerationState,
) -> Result<GenerationState, Failure> {
    let (mut state, end) = (state.clone(), log.chain().next());
    let mut known = Vec::new();
    let mut read = read_all(store, state.id(), state.chain().next()..end);
    while let Some((seq, bytes)) = read.try_next().await? {
        if let Some(bytes) = bytes {
            state.follow(seq, &bytes, &mut known);
        }
    }
    state.skip_to(end);
    Ok(state)
}

/// The number of the lost checkpoint of a log that lacks commits from one on: the last commit that it covers stays.
async fn end_of_checkpoint(store: &Store, missing: CommitId) -> Result<Option<u64>, Failure> {
    let listed = store.list(&names::log_of(missing.of));
    let numbers = listed.try_filter_map(async |object| Ok(names::parse_commit(&object.path)));
    let after = numbers.try_filter(|id| std::future::ready(id.seq > missing.seq));
    let least = |least: Option<u64>, id: CommitId| {
        std::future::ready(Ok(least.into_iter().chain([id.seq]).min()))
    };
    let first: Option<u64> = after.try_fold(None, least).await?;
    Ok(first.map(|first| first.saturating_add(1)))
}
