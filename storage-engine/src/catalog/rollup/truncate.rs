//! Truncates logs: removes commits that are rolled up and that no reader needs.
//!
//! A reader of a root takes all commits before the root's positions from manifests, and the others from the logs. So a
//! log can be truncated behind its position in the *oldest* root that still exists. A root exists as long as it may
//! have a reader ([`sweep`](crate::catalog::sweep)). A log that is not named as open any more can be truncated to its
//! end when every existing root counts all of its commits.
//!
//! A round has these steps:
//!
//! 1. follow logs from their checkpoints on, and collect the facts of the commits;
//! 2. read the manifests of these facts: a log with a fact that a manifest lacks stays as it is;
//! 3. store the new checkpoints;
//! 4. remove the commits before them, except the last one of each log, and checkpoints that newer ones replaced long
//!    ago: a listing may not show the newest.
//!
//! A log is truncated up to its first commit that is damaged, that changes segments, or that has facts of an unknown
//! kind. So its changes say what was retired, even when manifests are damaged. Logs of repairs stay whole: they say
//! which commits no longer count.

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::{Failure, GenerationId};
use futures::{StreamExt, TryStreamExt, stream};

use super::{AT_ONCE, Rollup};
use crate::catalog::checkpoint;
use crate::catalog::facts::Facts;
use crate::catalog::generation::GenerationState;
use crate::catalog::load::begin;
use crate::catalog::manifest::Manifest;
use crate::catalog::names;
use crate::catalog::root::{Root, Step};
use crate::catalog::versions;
use crate::catalog::{CommitId, Fact, GapKind, TimeSlot, WriterKind};
#[cfg(feature = "planted")]
use crate::store::Planted;
use crate::store::Store;

/// Maximum number of ended logs of one round. Each costs some requests.
const ENDED: usize = 256;

/// Limits of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// An open log is truncated if at least this many commits can be removed.
    pub least: u64,
    /// Maximum number of commits that are read and removed, of all logs together.
    pub most: u64,
}

impl Default for Limits {
    /// Rounds are about a quarter of an hour apart: 16,384 commits are 18 a second.
    fn default() -> Limits {
        Limits { least: 16, most: 16_384 }
    }
}

/// Counts of one round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Truncated {
    /// Logs of which commits were removed.
    pub logs: u64,
    /// Commits removed.
    pub commits: u64,
}

/// The facts of commits by slot, each with its commit and its [identity](Fact::identity).
type Expected = BTreeMap<TimeSlot, BTreeSet<(CommitId, String)>>;

/// A log that may be truncated before a commit.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    of: GenerationId,
    /// The first commit that some reader needs.
    needed: u64,
    has_ended: bool,
}

/// A log that was followed.
struct Followed {
    candidate: Candidate,
    state: GenerationState,
    /// Nothing more can be followed now: the limit of the round was not reached.
    is_end: bool,
}

impl Rollup {
    /// Truncates logs. The work of one round is bounded; the next round continues.
    ///
    /// # Errors
    /// Errors of the store; the caller may retry.
    pub async fn truncate(&mut self, limits: Limits) -> Result<Truncated, Failure> {
        let mut done = Truncated::default();
        let Some(oldest) = self.oldest().await? else { return Ok(done) };
        let (mut logs, mut expected) = (Vec::new(), Expected::new());
        let mut left = limits.most;
        for candidate in self.candidates(&oldest, limits.least) {
            if left == 0 {
                break;
            }
            let (followed, commits) = self.follow_removable(candidate, left, &mut expected).await?;
            left = left.saturating_sub(commits);
            logs.push(followed);
        }
        let lacking = lacking(&self.store, &self.root.value, expected).await?;
        let mut step = Step::default();
        for log in logs.iter().filter(|log| !lacking.contains(&log.candidate.of)) {
            let Candidate { of, needed, has_ended } = log.candidate;
            let (removed, is_all) = shorten(&self.store, &log.state, limits.most).await?;
            done.logs += u64::from(removed > 0);
            done.commits += removed;
            let is_done = is_all && log.is_end;
            if is_done && has_ended {
                step.truncated.insert(of);
                self.truncated.remove(&of);
            } else if is_done {
                self.truncated.insert(of, needed);
            }
        }
        if !step.is_empty() {
            // Whether it succeeds or not, the next round is right.
            let _is_fenced = self.advance(step).await?;
        }
        Ok(done)
    }

    /// The oldest existing root; none if it is unreadable, or if another process has taken over.
    async fn oldest(&self) -> Result<Option<Root>, Failure> {
        let store = &self.store;
        #[cfg(feature = "planted")]
        if store.planted(Planted::TruncatesAhead) {
            return Ok(Some(self.root.value.clone()));
        }
        let next = self.root.value.version.saturating_add(1);
        if store.head(&names::root(next)).await?.is_some() {
            return Ok(None);
        }
        let listed = versions::listed_roots(store).await?;
        let Some((version, _)) = listed.first() else { return Ok(None) };
        match versions::read_root(store, *version).await {
            Ok(root) => Ok(root.map(|root| root.value)),
            Err(failure) if GapKind::of(&failure).is_some() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Logs that may be truncated: open ones with the most commits to remove first, then ended ones.
    fn candidates(&self, oldest: &Root, least: u64) -> Vec<Candidate> {
        let gain = |log: &Candidate| {
            log.needed.saturating_sub(self.truncated.get(&log.of).copied().unwrap_or(0))
        };
        let open = oldest.logs.iter().map(|log| Candidate {
            of: log.state.id(),
            needed: log.state.chain().next(),
            has_ended: false,
        });
        let mut logs: Vec<Candidate> = open.filter(|log| gain(log) >= least).collect();
        logs.sort_by_key(|log| std::cmp::Reverse(gain(log)));
        let waiting = self.root.value.untruncated.iter().flatten();
        let ended = waiting.filter(|log| log.since <= oldest.version).take(ENDED);
        logs.extend(ended.map(|log| Candidate { of: log.of, needed: u64::MAX, has_ended: true }));
        logs
    }

    /// Follows a log from its checkpoint on as far as it can be truncated, and collects the facts of the commits.
    /// Returns the number of commits, too.
    async fn follow_removable(
        &self,
        candidate: Candidate,
        most: u64,
        expected: &mut Expected,
    ) -> Result<(Followed, u64), Failure> {
        let (store, of) = (&self.store, candidate.of);
        let newest = checkpoint::newest(store, of).await?;
        // Without the sums in a checkpoint there is no next one; a repair writes it again.
        let is_unusable = newest.as_ref().is_some_and(|of| of.state().is_none());
        let (mut state, problems) = begin(store, of, newest).await?;
        let kind = state.writer().map(|writer| writer.info.kind);
        let may_be = match kind {
            Some(WriterKind::Live | WriterKind::Import) => problems.is_empty() && !is_unusable,
            Some(WriterKind::Repair) | None => false,
        };
        let first = state.chain().next();
        let end = candidate.needed.min(first.saturating_add(most));
        if !may_be || state.chain().finished() || first >= end {
            return Ok((Followed { candidate, state, is_end: true }, 0));
        }
        let mut read = stream::iter(first..end)
            .map(|seq| async move {
                let bytes = store.get_if_present(&names::commit(of, seq)).await?;
                Ok::<_, Failure>((CommitId { of, seq }, bytes))
            })
            .buffered(AT_ONCE);
        while let Some((id, bytes)) = read.try_next().await? {
            let mut problems = Vec::new();
            let mut next = state.clone();
            if self.root.value.replaced.contains(names::commit(of, id.seq).as_ref()) {
                next.skip(id.seq, &mut problems);
                state = next;
                continue;
            }
            let Some(bytes) = bytes else { break };
            let commit = next.follow(id.seq, &bytes, &mut problems);
            let Some(commit) = commit.filter(|_| problems.is_empty()) else { break };
            if commit.content.facts.iter().any(Fact::is_late) {
                break;
            }
            for fact in &commit.content.facts {
                for slot in fact.slots() {
                    expected.entry(slot).or_default().insert((id, fact.identity()));
                }
            }
            state = next;
            if state.chain().finished() {
                break;
            }
        }
        let next = state.chain().next();
        let commits = next.saturating_sub(first);
        let is_end = next == candidate.needed || commits < most;
        Ok((Followed { candidate, state, is_end }, commits))
    }
}

/// The logs with facts that manifests lack, or may lack.
async fn lacking(
    store: &Store,
    root: &Root,
    expected: Expected,
) -> Result<BTreeSet<GenerationId>, Failure> {
    let mut lacking = BTreeSet::new();
    for (slot, mut expected) in expected {
        let known = root.slot(slot).unwrap_or(0);
        match take_facts(store, slot, known, &mut expected).await {
            Ok(()) => {}
            Err(failure) if GapKind::of(&failure).is_some() => {
                tracing::warn!(%slot, %failure, "logs are not truncated: run capstan repair");
            }
            Err(failure) => return Err(failure),
        }
        lacking.extend(expected.into_iter().map(|(commit, _)| commit.of));
    }
    Ok(lacking)
}

/// Removes the facts that the newest manifest of a slot has.
async fn take_facts(
    store: &Store,
    slot: TimeSlot,
    known: u64,
    expected: &mut BTreeSet<(CommitId, String)>,
) -> Result<(), Failure> {
    let manifest = versions::newest_manifest(store, slot, known).await?.value;
    // All of them or none: a manifest with an unreadable part is damaged.
    let mut parts = Vec::new();
    for part in &manifest.parts {
        parts.push(versions::read_part(store, slot, part).await?);
    }
    take(&manifest, &manifest.held, expected);
    parts.iter().for_each(|part| take(&manifest, &part.facts, expected));
    Ok(())
}

fn take(manifest: &Manifest, facts: &Facts, expected: &mut BTreeSet<(CommitId, String)>) {
    for of in &facts.facts {
        let Some(contributor) = manifest.owner(of.by) else { continue };
        let id = CommitId { of: contributor.of(), seq: of.seq };
        expected.remove(&(id, of.fact.identity()));
    }
}

/// Stores a checkpoint and removes the commits before it. Returns how many, and whether none is left.
async fn shorten(
    store: &Store,
    state: &GenerationState,
    most: u64,
) -> Result<(u64, bool), Failure> {
    let (of, seq) = (state.id(), state.chain().next());
    let mut commits = BTreeSet::new();
    let mut listed = store.list(&names::log_of(of));
    while let Some(object) = listed.try_next().await? {
        let number = names::parse_commit(&object.path).map(|CommitId { seq, .. }| seq);
        commits.extend(number.filter(|number| number.saturating_add(1) < seq));
        if commits.len() as u64 > most {
            break;
        }
    }
    drop(listed);
    let many = (commits.len() as u64).min(most);
    if many == 0 {
        return Ok((0, true));
    }
    let before = checkpoint::numbers(store, of).await?;
    if !before.contains(&seq) {
        checkpoint::put(store, state).await?;
    }
    let is_all = commits.len() as u64 == many;
    let commits = commits.into_iter().take(usize::try_from(many).unwrap_or(usize::MAX));
    // Every missing commit before the checkpoint is truncated, so they may be removed in any order.
    store.delete_many(&Vec::from_iter(commits.map(|number| names::commit(of, number)))).await?;
    // The newest listed one stays.
    let replaced = before.iter().rev().skip(1).map(|number| names::checkpoint(of, *number));
    store.delete_many(&Vec::from_iter(replaced)).await?;
    Ok((many, is_all))
}

#[cfg(test)]
mod tests;
