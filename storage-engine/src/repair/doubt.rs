//! What damaged logs leave in doubt. Pure.

use std::collections::BTreeMap;

use super::adopt::Log;
use super::survey::{Owner, Survey};
use crate::catalog::fold::seal;
use crate::catalog::root::Root;
use crate::catalog::{CommitId, Gap, GapKind, Problem};

/// Commits that cannot be read, or are not what was written, and whose facts no manifest has as they were.
pub(super) type Doubtful = BTreeMap<CommitId, Gap>;

/// Finds them: those that readers miss, and, if objects of the folded catalog cannot be read, all others.
pub(super) fn doubtful(survey: &Survey) -> Doubtful {
    let usable = |gap: &Gap| gap.kind != GapKind::TooNew;
    let empty = Root::empty();
    let root = survey.roots.readable.as_ref().unwrap_or(&empty);
    let hidden = root.hidden();
    // A root names only so many.
    let names_all = hidden.iter().all(|gap| gap.commit().is_some());
    let is_sound = names_all
        && survey.slots.values().all(|found| !found.is_damaged())
        && survey.are_all_there();
    let of_logs = survey.logs.problems.iter().filter_map(Problem::gap).filter(|gap| {
        let is_tail = |(recorder, generation, seq): CommitId| {
            seq >= survey.folded(root, &(recorder, generation))
        };
        !is_sound || gap.commit().is_some_and(is_tail)
    });
    let mut doubtful = Doubtful::new();
    for gap in hidden.into_iter().chain(of_logs).filter(usable) {
        if let Some(id) = gap.commit().filter(|id| !survey.logs.replaced.contains(id)) {
            doubtful.entry(id).or_insert(gap);
        }
    }
    doubtful
}

/// What is known of each log.
pub(super) fn logs(survey: &Survey) -> BTreeMap<Owner, Log> {
    let mut logs: BTreeMap<Owner, Log> = BTreeMap::new();
    for (owner, life) in &survey.logs.lives {
        let log = Log {
            kind: life.writer().map(|writer| writer.info.kind),
            has_hole: false,
            // Who was away when its log was ended could not say what else it had.
            finished: life.chain().finished() && !life.notes().contains(seal::NOTE),
            next_ordinal: life.chain().next_ordinal(),
        };
        logs.insert(*owner, log);
    }
    for problem in &survey.logs.problems {
        // A newer version can read what it wrote.
        if let Some(gap) = problem.gap().filter(|gap| gap.kind != GapKind::TooNew)
            && let Some((recorder, generation, _)) = gap.commit()
            && let Some(log) = logs.get_mut(&(recorder, generation))
        {
            log.has_hole = true;
        }
    }
    logs
}
