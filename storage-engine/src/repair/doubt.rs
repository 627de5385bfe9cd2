//! Finds commits in doubt after log damage. Pure.

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::GenerationId;

use super::adopt::Log;
use super::survey::Survey;
use crate::catalog::names;
use crate::catalog::rollup::silent;
use crate::catalog::root::Root;
use crate::catalog::{About, CommitId, Gap, GapKind, GenerationState, Problem};

/// Unreadable or changed commits whose original facts are in no manifest.
pub(super) type Doubtful = BTreeMap<CommitId, Gap>;

/// Finds these commits: those that readers miss; of forgotten logs, those that no manifest has in their original
/// form; and all others if rolled-up objects are unreadable. `was_sound`: no rolled-up object was damaged or missing
/// before the repair.
pub(super) fn doubtful(
    survey: &Survey,
    was_sound: bool,
    forgotten: &BTreeSet<GenerationId>,
) -> Doubtful {
    let usable = |gap: &Gap| gap.kind != GapKind::TooNew;
    let empty = Root::empty();
    let root = survey.roots.readable.as_ref().unwrap_or(&empty);
    let hidden = root.hidden();
    // A root names a limited number of them.
    let others = names::log(None).to_string();
    let names_all = hidden.iter().all(|gap| gap.object != others);
    let cut = survey.cut_logs().map(|CommitId { of, seq }| {
        let object = names::commit(of, seq);
        let what = format!("{object} is missing, although its facts were rolled up");
        Gap::new(&object, GapKind::Missing, About::AnyTime, what)
    });
    let of_logs = survey.logs.problems.iter().filter_map(Problem::gap).chain(cut).filter(|gap| {
        let is_missed = |id: CommitId| {
            id.seq >= survey.rolled_up(root, &id.of)
                || forgotten.contains(&id.of) && !survey.is_rolled_up_as_written(&id)
        };
        !was_sound || !names_all || gap.commit().is_some_and(is_missed)
    });
    let mut doubtful = Doubtful::new();
    for gap in hidden.into_iter().chain(of_logs).filter(usable) {
        if let Some(id) = gap.commit().filter(|id| !survey.logs.replaced.contains(id)) {
            doubtful.entry(id).or_insert(gap);
        }
    }
    doubtful
}

/// Facts about each log. `lost`: what hides facts of truncated commits.
pub(super) fn logs(
    survey: &Survey,
    doubtful: &Doubtful,
    lost: &[Gap],
) -> BTreeMap<GenerationId, Log> {
    let mut logs: BTreeMap<GenerationId, Log> = BTreeMap::new();
    for (owner, state) in &survey.logs.generations {
        let log = Log {
            kind: survey.kinds.of(owner),
            import: survey.kinds.import(*owner),
            has_hole: !lost.is_empty() && survey.logs.truncated.contains_key(owner),
            is_cut: false,
            // A recorder that was offline when its log was ended could not commit the rest.
            finished: state.chain().finished() && !state.notes().contains(silent::NOTE),
            next_ordinal: state.chain().next_ordinal(),
        };
        logs.insert(*owner, log);
    }
    for id in doubtful.keys() {
        let commits = survey.logs.generations.get(&id.of).map_or(0, GenerationState::commits);
        if let Some(log) = logs.get_mut(&id.of) {
            log.has_hole = true;
            log.is_cut |= id.seq.saturating_add(1) >= commits;
        }
    }
    logs
}
