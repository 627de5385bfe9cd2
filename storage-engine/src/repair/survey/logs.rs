//! Logs: which generations nobody names any more, and which commits are damaged, missing or rolled up.

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::{Failure, GenerationId};
use object_store::path::Path;

use super::Survey;
use crate::catalog::entry::{Writer, sha256_hex};
use crate::catalog::names;
use crate::catalog::root::Root;
use crate::catalog::{CommitId, Gap, GapKind, GenerationState, Problem};
use crate::store::Store;

impl Survey {
    /// Collects the current hashes of changed commits.
    pub(super) async fn take_changed(&mut self, store: &Store) -> Result<(), Failure> {
        let changed =
            |problem: &Problem| matches!(problem, Problem::Changed { .. } | Problem::Broken { .. });
        let problems = self.logs.problems.iter().filter(|problem| changed(problem));
        for id in problems.filter_map(|problem| problem.gap()?.commit()).collect::<BTreeSet<_>>() {
            let bytes = store.get_if_present(&names::commit(id.of, id.seq)).await?;
            self.changed.insert(id, sha256_hex(&bytes.unwrap_or_default()));
        }
        Ok(())
    }

    /// Finds logs that only look shorter than their rolled-up part. The survey reads logs before the rest of the
    /// catalog, and recorders commit and roll up meanwhile.
    pub(super) async fn find_grown_logs(&mut self, store: &Store) -> Result<(), Failure> {
        let cut: Vec<CommitId> = self.cut_logs().collect();
        for CommitId { of, seq } in cut {
            if store.head(&names::commit(of, seq)).await?.is_some() {
                self.grown.insert(of);
            }
        }
        Ok(())
    }

    /// Ended generations without a readable object: it is damaged, or it is missing while the root still names the
    /// generation.
    pub(in crate::repair) fn lost_generations(&self) -> BTreeSet<GenerationId> {
        let unreadable = self.generations.iter().filter(|(_, state)| state.is_none());
        let root = self.roots.readable.as_ref();
        let ended = root.into_iter().flat_map(|root| &root.logs).filter(|log| log.ended);
        let gone =
            ended.map(|log| log.state.id()).filter(|owner| !self.generations.contains_key(owner));
        unreadable.map(|(owner, _)| *owner).chain(gone).collect()
    }

    /// Generations without a root entry, ended generation or open mark: no reader finds their logs.
    pub(in crate::repair) fn homeless(&self) -> BTreeSet<GenerationId> {
        let root = self.roots.readable.as_ref();
        let known = |owner: &GenerationId| {
            self.open.contains(owner)
                || self.generations.get(owner).is_some_and(Option::is_some)
                || root.is_some_and(|root| root.log(*owner).is_some())
        };
        self.logs.generations.keys().copied().filter(|owner| !known(owner)).collect()
    }

    /// Generations that no root names, but whose facts are in manifests.
    pub(in crate::repair) fn forgotten(&self) -> BTreeSet<GenerationId> {
        let root = self.roots.readable.as_ref();
        let is_unnamed = |owner: &GenerationId| root.is_none_or(|root| root.log(*owner).is_none());
        let unnamed = self.open.iter().copied().filter(is_unnamed);
        unnamed.chain(self.homeless()).filter(|owner| self.counted(owner) > 0).collect()
    }

    /// Number of commits of a generation that manifests count; 0 if they have none.
    pub(in crate::repair) fn counted(&self, owner: &GenerationId) -> u64 {
        self.counted.get(owner).copied().unwrap_or(0)
    }

    /// Names of the commits that earlier repairs have replaced.
    pub(in crate::repair) fn replaced(&self) -> Vec<String> {
        let replaced = self.logs.replaced.iter();
        replaced.map(|id| names::commit(id.of, id.seq).to_string()).collect()
    }

    /// Generations whose writer object is missing or changed.
    pub(in crate::repair) fn bad_writers(&self) -> BTreeSet<GenerationId> {
        let owner = |problem: &Problem| match problem {
            Problem::NoWriter { .. } | Problem::TooNew { .. } => None,
            Problem::Broken { before, .. } => names::parse_writer(&Path::from(before.as_str())),
            other => names::parse_writer(&Path::from(other.object())),
        };
        let changed = self.logs.problems.iter().filter_map(owner);
        let too_new = |owner: &GenerationId| {
            let path = names::writer(*owner).to_string();
            let is_it =
                |of: &Problem| matches!(of, Problem::TooNew { object, .. } if *object == path);
            self.logs.problems.iter().any(is_it)
        };
        let unread = self.logs.generations.iter().filter(|(_, state)| state.writer().is_none());
        let unread = unread.map(|(owner, _)| *owner).filter(|owner| !too_new(owner));
        changed.chain(unread).collect()
    }

    /// The descriptions of a generation's writer in the rolled-up catalog. If it can be verified, also the one in its
    /// damaged object.
    pub(in crate::repair) fn writers(
        &self,
        owner: &GenerationId,
        is_checked: bool,
    ) -> impl Iterator<Item = &Writer> {
        let of_root = self.roots.readable.as_ref().and_then(|root| root.log(*owner));
        let ended = self.generations.get(owner).and_then(Option::as_ref);
        let of_log = self.logs.generations.get(owner).filter(|_| is_checked);
        let checkpoint = self.logs.truncated.get(owner).and_then(|of| of.state.as_ref());
        let generations = of_root.map(|log| &log.state).into_iter().chain(ended);
        let generations = generations.chain(checkpoint).chain(of_log);
        generations.filter_map(GenerationState::writer)
    }

    /// Changed commits whose original facts are rolled up.
    pub(in crate::repair) fn needless(
        &self,
        doubtful: &BTreeMap<CommitId, Gap>,
    ) -> BTreeSet<CommitId> {
        let Some(root) = &self.roots.readable else { return BTreeSet::new() };
        let of_logs = self.logs.problems.iter().filter_map(Problem::gap);
        let damaged = of_logs.filter(|gap| gap.kind == GapKind::Damaged);
        let is_rolled_up = |id: &CommitId| id.seq < self.rolled_up(root, &id.of);
        let ids = damaged.filter_map(|gap| gap.commit()).filter(is_rolled_up);
        ids.filter(|id| !doubtful.contains_key(id) && !self.logs.replaced.contains(id)).collect()
    }

    /// Generations whose logs are shorter than their rolled-up part, and the first missing commit.
    pub(in crate::repair) fn cut_logs(&self) -> impl Iterator<Item = CommitId> + '_ {
        let root = self.roots.readable.as_ref();
        let ended = self.logs.generations.iter().filter(|(owner, _)| !self.grown.contains(owner));
        ended.filter_map(move |(owner, state)| {
            let of_root = root.map_or(0, |root| self.rolled_up(root, owner));
            let next = state.commits();
            (next < self.counted(owner).max(of_root)).then_some(CommitId { of: *owner, seq: next })
        })
    }

    /// Number of rolled-up commits of a generation, according to `root`.
    pub(in crate::repair) fn rolled_up(&self, root: &Root, owner: &GenerationId) -> u64 {
        match root.log(*owner) {
            Some(log) => log.state.chain().next(),
            None => self
                .generations
                .get(owner)
                .and_then(Option::as_ref)
                .map_or(0, GenerationState::commits),
        }
    }
}
